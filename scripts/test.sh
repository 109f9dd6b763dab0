#!/bin/sh
# Runs every check in a virtual environment, which it creates if necessary: the
# linters, the build of the documentation, and the tests in two processes.
# Arguments go to pytest: sh scripts/test.sh tests/schedules_test.py
set -eu
cd "$(dirname "$0")/.."

VENV=${VENV:-.venv}
[ -x "$VENV/bin/python" ] || python3 -m venv "$VENV"
"$VENV/bin/python" -m pip install --quiet --editable ".[cpu,recipes,test,dev]"

"$VENV/bin/ruff" check .
"$VENV/bin/ruff" format --check .
"$VENV/bin/lint-imports"
# Side by side, as each of them keeps one core busy.
"$VENV/bin/mypy" &
types=$!
# The variable hides a notice about a successor of MkDocs.
NO_MKDOCS_2_WARNING=1 "$VENV/bin/mkdocs" build --strict --quiet
wait "$types"
"$VENV/bin/python" -m pytest -n 2 --dist loadscope --no-loadscope-reorder "$@"
