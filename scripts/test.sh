#!/usr/bin/env bash
# Set up .venv with everything the tests need, then check style, types and behaviour.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh dev,server,mic,eval,plot
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
# Tests of sockets, signals and processes depend on the clock: what fails gets one more try, alone.
.venv/bin/python -m pytest -q "$@" ||
    .venv/bin/python -m pytest -q --last-failed --last-failed-no-failures none "$@"
