#!/usr/bin/env bash
# Puts ONNX Runtime's shared library where Plinth looks for it: .plinth/lib/libonnxruntime.so.
# It comes out of the `onnxruntime` package of PyPI, by the pip client, at a pinned version. Does nothing when it is there.
set -euo pipefail
version=1.24.4
root=$(cd "$(dirname "$0")/.." && pwd)
lib="$root/.plinth/lib"
stamp="$lib/onnxruntime-$version"
[ -e "$stamp" ] && exit 0

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo "fetching ONNX Runtime $version with pip"
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
  --dest "$work" "onnxruntime==$version" || {
  echo "pip could not fetch onnxruntime==$version: check the network, or put libonnxruntime.so into $lib by hand" >&2
  exit 1
}
mkdir -p "$lib"
python3 - "$work" "$lib" <<'PY'
import glob, os, sys, zipfile
work, lib = sys.argv[1:]
(wheel,) = glob.glob(os.path.join(work, "onnxruntime-*.whl"))
with zipfile.ZipFile(wheel) as archive:
    names = archive.namelist()
    (library,) = [n for n in names if n.startswith("onnxruntime/capi/libonnxruntime.so")]
    for name, target in [(library, "libonnxruntime.so"), ("onnxruntime/LICENSE", "onnxruntime-LICENSE")]:
        temporary = os.path.join(lib, target + ".new")
        with archive.open(name) as source, open(temporary, "wb") as out:
            while chunk := source.read(1 << 20):
                out.write(chunk)
        os.replace(temporary, os.path.join(lib, target))
PY
touch "$stamp"
echo "ONNX Runtime $version is in $lib"
