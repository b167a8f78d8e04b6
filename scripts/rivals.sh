#!/usr/bin/env bash
# Puts what `make bench` measures Plinth beside into .plinth/rivals: Triton and MLServer, each in an environment of its own,
# NVIDIA's perf_analyzer, Envoy and HAProxy. Pinned in bench/rivals/*.txt, scripts/perf-analyzer.sh and scripts/proxies.sh; by pip and, for one small library, by apt; nothing outside
# the checkout is changed. About 1 GB. Does nothing when it is all there. `make bench` runs without it, and says what it skips.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
rivals="$root/.plinth/rivals"
mkdir -p "$rivals"
exec 9>"$rivals/lock"
flock 9

# An environment with exactly the packages of a list; the folder is part of the stamp because an environment holds its own path.
environment() { # name
  local at="$rivals/$1" list="$root/bench/rivals/$1.txt" want
  want=$( { echo "$at"; python3 --version; cat "$list"; } | sha256sum | cut -d' ' -f1)
  [ "$(cat "$at/stamp" 2>/dev/null || true)" = "$want" ] && return 0
  echo "installing $1"
  python3 -m venv --clear --without-pip "$at" || { echo "python3 has no venv module (Debian and Ubuntu: python3-venv)" >&2; return 1; }
  python3 -m pip --python "$at/bin/python" install --quiet --disable-pip-version-check --no-deps --requirement "$list" || {
    echo "pip could not install bench/rivals/$1.txt" >&2
    return 1
  }
  echo "$want" >"$at/stamp"
}

failed=0
environment triton || failed=1
environment mlserver || failed=1
"$root/scripts/perf-analyzer.sh" || failed=1
"$root/scripts/proxies.sh" || failed=1
((failed == 0)) && echo "rivals are in $rivals"
exit $failed
