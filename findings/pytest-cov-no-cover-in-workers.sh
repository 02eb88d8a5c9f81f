#!/usr/bin/env bash
# A test marked `no_cover` is not measured by pytest-cov: its coverage is stopped while the test runs. The guess is that this
# holds under pytest-xdist, too, as pytest-cov measures there. In a worker of pytest-xdist it does not: sys.gettrace() is
# coverage's tracer within the test, so that it takes as long as a measured one. pytest-cov 7.1.0 gives each worker the options of
# the controller, starts the controller's coverage in it and then the worker's own; while the worker's own is stopped, coverage
# goes on with the first one, whose data nobody reads.
# Exits 0 while that is so. Takes pip, PyPI, and Python 3.11 to 3.13 (later ones trace by sys.monitoring).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet --disable-pip-version-check install pytest==9.2.0 pytest-cov==7.1.0 pytest-xdist==3.8.0 coverage==7.17.5
cd "$folder"
cat > test_it.py <<'PY'
import os
import sys

import pytest


@pytest.mark.no_cover
def test_it():
    with open(os.environ["NOTE"], "w") as note:
        note.write(type(sys.gettrace()).__name__)
PY
for processes in 0 1; do
  NOTE="$folder/$processes" venv/bin/python -m pytest -q --cov=. --cov-report= -n "$processes" test_it.py > /dev/null
  echo "processes beside this one: $processes; tracer within the test: $(cat "$folder/$processes")"
done
venv/bin/pip list --disable-pip-version-check 2>/dev/null | grep -E '^(coverage|pytest)'
[ "$(cat 0)" = NoneType ] && [ "$(cat 1)" = CTracer ]
