#!/usr/bin/env bash
# Make .venv with the package and the given extras: scripts/setup.sh [EXTRAS]   (default: none)
# MLX comes from its Metal build on a Mac and from its CPU build on Linux.
set -euo pipefail
cd "$(dirname "$0")/.."
extras="${1:-}"
if [ "$(uname)" = "Linux" ]; then extras="cpu${extras:+,$extras}"; fi
python="${PYTHON:-python3}"
[ -x .venv/bin/python ] || "$python" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check --upgrade pip
.venv/bin/python -m pip install --quiet --disable-pip-version-check -e ".${extras:+[$extras]}"
