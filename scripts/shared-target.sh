#!/usr/bin/env bash
# Lets several checkouts share one target directory (PLINTH_TARGET_DIR) without running each other's code.
#
# Cargo names what it builds by the package's path within its workspace, so two checkouts write to the same place, and judges
# by the time of the last change, so the second one's older file passes for built. Whoever builds first says so:
#
#   claim     another checkout built here last: make this one's sources new, so that they are built
#   release   forget the workspace's packages (not the dependencies), so that whoever comes next builds its own
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
target=${PLINTH_TARGET_DIR:-}
[ -n "$target" ] || exit 0
mkdir -p "$target"
owner="$target/.plinth-checkout"

case ${1:-} in
claim)
  if [ "$(cat "$owner" 2>/dev/null)" != "$root" ]; then
    find "$root/crates" "$root/bin" "$root/xtask" "$root/bench" "$root/tests" -name '*.rs' -exec touch {} +
    printf '%s\n' "$root" >"$owner"
  fi
  ;;
release)
  rm -f "$owner"
  find "$target" -mindepth 3 -maxdepth 4 -type d -path '*/.fingerprint/*' \( -name 'plinth-*' -o -name 'xtask-*' \) -prune -exec rm -rf {} +
  ;;
*)
  echo "usage: shared-target.sh claim|release" >&2
  exit 2
  ;;
esac
