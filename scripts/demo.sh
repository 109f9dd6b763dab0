#!/bin/sh
# Prunes a network for handwritten digits, in a virtual environment that it
# creates if necessary. Arguments go to the recipe: sh scripts/demo.sh --help
set -eu
cd "$(dirname "$0")/.."

VENV=${VENV:-.venv}
[ -x "$VENV/bin/python" ] || python3 -m venv "$VENV"
"$VENV/bin/python" -m pip install --quiet --editable ".[cpu,recipes]"

exec "$VENV/bin/python" recipes/digits.py "$@"
