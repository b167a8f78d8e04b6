#!/usr/bin/env bash
# Builds the example filters into .plinth/filters/: what tests of filters push. Adds Rust's WebAssembly target where rustup is there to add it.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$PWD/.plinth/filters
target=wasm32-unknown-unknown
if ! [ -d "$(rustc --print sysroot)/lib/rustlib/$target" ]; then
  command -v rustup >/dev/null || { echo "Rust has no target $target, and there is no rustup to add it: install rust's wasm32 package" >&2; exit 1; }
  rustup target add "$target"
fi
mkdir -p "$out"
for example in examples/filters/*/; do
  name=$(basename "$example")
  # In its own directory, so that its .cargo/config.toml counts.
  (cd "$example" && CARGO_TARGET_DIR="$out/target" cargo build --quiet --release --target "$target")
  cp "$out/target/$target/release/$name.wasm" "$out/$name.wasm.new"
  mv "$out/$name.wasm.new" "$out/$name.wasm"
done
