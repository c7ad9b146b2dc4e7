#!/usr/bin/env bash
# Every test with the lowest packages that the bounds admit, then with the newest: `make
# test-oldest`. Some of them: PYTEST_ADDOPTS='-m "not slow and not book"' make test-oldest
set -uo pipefail
cd "$(dirname "$0")/.."

command -v uv >/dev/null || { echo "It needs uv: pip install uv"; exit 1; }
# pyenv shows one interpreter at a time, unless told to show them all.
if command -v pyenv >/dev/null; then
  PYENV_VERSION=$(pyenv versions --bare | paste -sd:)
  export PYENV_VERSION
fi

run() { # PYTHON RESOLUTION
  local found at="_build/python-$1" what="Python $1 with the $2 packages"
  if ! found=$(uv python find --no-python-downloads "$1" 2>/dev/null); then
    echo "Skipped: $what, as there is no Python $1 here."
    return
  fi
  echo "Testing $what ($found) in $at"
  uv venv -q --clear --python "$found" "$at" &&
    uv pip install -q --python "$at" --resolution "$2" -e '.[book,test]' &&
    "$at/bin/python" -m pytest -n logical --maxschedchunk=1
}

status=0
run 3.10 lowest-direct || status=1
run 3.13 highest || status=1
exit "$status"
