"""`python -m branchy`: the same as the `branchy` command."""

from branchy.cli.main import main

if __name__ == "__main__":
    main()
