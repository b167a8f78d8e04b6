#!/usr/bin/env bash
# Puts Triton's measuring program, perf_analyzer, into .plinth/rivals/perf_analyzer. Does nothing when it is there. For Linux on x86-64.
# It comes out of the package tritonclient of PyPI (2.50.0 is the last one that holds it), and needs CUDA's runtime library, which comes out of
# nvidia-cuda-runtime-cu12 (under NVIDIA's own licence; no GPU is needed), and libb64: the system's, or Debian's and Ubuntu's libb64-0d.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
to="$root/.plinth/rivals/perf_analyzer"
want="2.50.0 12.9.79"
[ "$(cat "$to/stamp" 2>/dev/null || true)" = "$want" ] && exit 0
[ "$(uname -sm)" = "Linux x86_64" ] || { echo "perf_analyzer is packed for Linux on x86-64 alone" >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/requirements.txt" <<'PINS'
tritonclient==2.50.0 --hash=sha256:421fbb69ae6ab8cdb2c35b82134fcef2fe11e7af7718b1fcbc53335ab9bfe889
nvidia-cuda-runtime-cu12==12.9.79 --hash=sha256:25bba2dfb01d48a9b59ca474a1ac43c6ebf7011f1b0b8cc44f54eb6ac48a96c3
PINS
echo "fetching perf_analyzer 2.50.0 with pip (about 20 MB)"
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes \
  --platform manylinux1_x86_64 --platform manylinux2014_x86_64 --python-version 3.11 \
  --dest "$work" --requirement "$work/requirements.txt" || {
  echo "pip could not fetch perf_analyzer's packages: check the network" >&2
  exit 1
}
rm -rf "$to"
mkdir -p "$to/lib"
python3 - "$work" "$to" <<'PY'
import glob, os, shutil, sys, zipfile
work, to = sys.argv[1:]
wanted = [
    ("tritonclient-*.whl", "tritonclient-2.50.0.data/data/bin/perf_analyzer", "perf_analyzer"),
    ("nvidia_cuda_runtime_cu12-*.whl", "nvidia/cuda_runtime/lib/libcudart.so.12", "lib/libcudart.so.12"),
]
for wheel, name, target in wanted:
    (wheel,) = glob.glob(os.path.join(work, wheel))
    target = os.path.join(to, target)
    with zipfile.ZipFile(wheel) as archive, archive.open(name) as source, open(target + ".new", "wb") as out:
        shutil.copyfileobj(source, out)
    os.chmod(target + ".new", 0o755)
    os.replace(target + ".new", target)
PY
if LD_LIBRARY_PATH="$to/lib" ldd "$to/perf_analyzer" | grep -q 'libb64.*not found'; then
  (cd "$work" && apt-get download --quiet libb64-0d >/dev/null 2>&1 && dpkg-deb -x libb64-0d_*.deb unpacked) || {
    echo "perf_analyzer needs libb64.so.0d: install it (Debian and Ubuntu: apt install libb64-0d)" >&2
    exit 1
  }
  cp -L "$work"/unpacked/usr/lib/*/libb64.so.0d "$to/lib/"
fi
missing=$(LD_LIBRARY_PATH="$to/lib" ldd "$to/perf_analyzer" | grep 'not found' || true)
[ -z "$missing" ] || { printf 'perf_analyzer lacks libraries of the system:\n%s\n' "$missing" >&2; exit 1; }
echo "$want" >"$to/stamp"
echo "perf_analyzer 2.50.0 is in $to"
