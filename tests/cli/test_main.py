from __future__ import annotations

import importlib
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from branchy.cli.main import COMMANDS, cli
from branchy.errors import BranchyError, UsageError


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "branchy", *arguments], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_is_there_and_explains_itself(name):
    command = importlib.import_module(f"branchy.cli.{name}").command
    assert isinstance(command, click.Command)
    result = CliRunner().invoke(cli, [name, "--help"])
    assert result.exit_code == 0
    assert result.output.startswith("Usage:")
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"--{parameter.name} has no help"


def test_help_loads_no_command_and_nothing_heavy():
    code = (
        "import sys; from branchy.cli.main import cli; cli.main(['--help'], standalone_mode=False);"
        "heavy = {'numpy', 'tensorflow', 'pandas', 'confluent_kafka', 'pydantic', 'tqdm'} & set(sys.modules);"
        "commands = [m for m in sys.modules if m.startswith('branchy.cli.') and m != 'branchy.cli.main'];"
        "sys.exit(f'{heavy} {commands}' if heavy or commands else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(("error", "code"), [(BranchyError("it broke"), 1), (UsageError("wrong"), 2)])
def test_an_error_of_ours_is_one_line_and_its_exit_code(error, code, monkeypatch, capsys):
    from branchy.cli import main

    def fail(**kwargs: object) -> None:
        raise error

    monkeypatch.setattr(main.cli, "main", fail)
    with pytest.raises(SystemExit) as exit_:
        main.main()
    assert exit_.value.code == code
    assert capsys.readouterr().err == f"branchy: {error}\n"


def test_a_wrong_command_or_flag_is_wrong_use():
    for arguments in (["nonsense"], ["serve", "--nonsense"]):
        result = run(*arguments)
        assert result.returncode == 2
        assert "Traceback" not in result.stderr


def test_a_reader_that_goes_away_is_no_traceback():
    script = f"{sys.executable} -m branchy --help | true"
    result = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=60)
    assert "Traceback" not in result.stderr
