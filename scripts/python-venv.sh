#!/usr/bin/env bash
# Puts the Python packages of tests/requirements.txt into .plinth/venv. Does nothing when exactly they are there already.
# Safe to run twice at once: the second run waits for the first. An interrupted run leaves no stamp and is done again.
# Needs pip, but not the module ensurepip, which some systems pack apart.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
venv="$root/.plinth/venv"
requirements="$root/tests/requirements.txt"
# The folder is part of the stamp because a virtual environment holds its own path and does not work from another.
want=$( { echo "$venv"; python3 --version; cat "$requirements"; } | sha256sum | cut -d' ' -f1)

mkdir -p "$root/.plinth"
exec 9>"$root/.plinth/venv.lock"
flock 9
[ "$(cat "$venv/stamp" 2>/dev/null || true)" = "$want" ] && [ -x "$venv/bin/python" ] && exit 0

echo "installing the Python packages of tests/requirements.txt (about 200 MB)"
rm -f "$venv/stamp"
python3 -m venv --clear --without-pip "$venv" || {
  echo "python3 could not make a virtual environment: install its venv module (Debian and Ubuntu: python3-venv)" >&2
  exit 1
}
python3 -m pip --python "$venv/bin/python" install --quiet --disable-pip-version-check --no-deps --only-binary=:all: --requirement "$requirements" || {
  echo "pip could not install tests/requirements.txt: it needs the network, pip 22.3 or newer and Python 3.11 or newer" >&2
  exit 1
}
echo "$want" >"$venv/stamp"
