#!/usr/bin/env bash
# Puts what `make bench` measures Plinth beside into .plinth/rivals: Triton and MLServer, each in an environment of its own,
# and NVIDIA's perf_analyzer. Pinned in bench/rivals/*.txt and below; by pip and, for one small library, by apt; nothing outside
# the checkout is changed. About 1 GB. Does nothing when it is all there. `make bench` runs without it, and says what it skips.
set -euo pipefail
tritonclient=2.50.0 # the last with perf_analyzer inside
cudart=12.9.79      # perf_analyzer is linked against it, and does not use it without a GPU
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

perf_analyzer() {
  local at="$rivals/perf_analyzer" want="$tritonclient $cudart" work
  [ "$(cat "$at/stamp" 2>/dev/null || true)" = "$want" ] && return 0
  echo "fetching perf_analyzer"
  work=$(mktemp -d)
  rm -rf "$at"
  mkdir -p "$at/lib"
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --dest "$work" \
    "tritonclient==$tritonclient" "nvidia-cuda-runtime-cu12==$cudart" || { echo "pip could not fetch perf_analyzer" >&2; return 1; }
  python3 - "$work" "$at" <<'PY'
import glob, os, sys, zipfile
work, at = sys.argv[1:]
wanted = [("tritonclient-*.whl", "data/bin/perf_analyzer", "perf_analyzer", 0o755),
          ("nvidia_cuda_runtime*.whl", "/libcudart.so.12", "lib/libcudart.so.12", 0o644)]
for pattern, end, target, mode in wanted:
    (wheel,) = glob.glob(os.path.join(work, pattern))
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith(end)]
        path = os.path.join(at, target)
        with open(path, "wb") as out:
            out.write(archive.read(name))
        os.chmod(path, mode)
PY
  if ! ldconfig -p | grep -q 'libb64\.so\.0d'; then # Debian's own variant of a small library
    (cd "$work" && apt-get download libb64-0d >/dev/null 2>&1) || { echo "apt could not fetch libb64-0d, which perf_analyzer needs" >&2; return 1; }
    dpkg-deb -x "$work"/libb64-0d_*.deb "$work/deb"
    find "$work/deb" -name 'libb64.so.0d*' -exec cp -P {} "$at/lib/" \;
  fi
  rm -rf "$work"
  echo "$want" >"$at/stamp"
}

failed=0
environment triton || failed=1
environment mlserver || failed=1
perf_analyzer || failed=1
((failed == 0)) && echo "rivals are in $rivals"
exit $failed
