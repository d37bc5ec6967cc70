#!/usr/bin/env bash
# Runs every fuzz target on its seeds and on generated inputs (fixed seed). Stable Rust with cargo-fuzz is enough.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# More than one unit: cargo-fuzz's default compiles the server on one core.
build="--sanitizer none --codegen-units 16"
cargo fuzz build $build
fuzz() {
  target=$1
  case "$target" in
    # Slower: these run a whole server.
    client_packets | http_request | polling_sessions | pusher_packets) runs=2000 ;;
    *) runs=20000 ;;
  esac
  mkdir "$work/$target"
  if ! cargo fuzz run $build "$target" "$work/$target" "fuzz/seeds/$target" -- \
    -runs="$runs" -seed=1 -max_len=4096 -timeout=20 -rss_limit_mb=1024 > "$work/$target.log" 2>&1; then
    tail -n 100 "$work/$target.log"
    echo "$target: failed on the input above; see fuzz/README.md" >&2
    return 1
  fi
  echo "$target: $(grep -a '^Done ' "$work/$target.log")"
}
export -f fuzz
export work build
cargo fuzz list | xargs -P "$(nproc)" -I{} bash -euo pipefail -c 'fuzz {}'
