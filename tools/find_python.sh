#!/bin/sh
# Prints a Python that branchy runs on (3.11 to 3.13): the one given, or the first that fits.
fits() { "$1" -c 'import sys; raise SystemExit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; }

for candidate in ${1:-python3 python3.13 python3.12 python3.11 python}; do
  if fits "$candidate"; then
    command -v "$candidate"
    exit 0
  fi
done
found=$("${1:-python3}" --version 2>/dev/null || echo "none that runs")
echo "branchy needs Python 3.11, 3.12 or 3.13; ${1:-python3} is: $found. Install one, or name it: make PYTHON=/path/to/python3.13 ..." >&2
exit 1
