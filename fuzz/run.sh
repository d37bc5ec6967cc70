#!/usr/bin/env bash
# Runs every fuzz target on its seeds and on generated inputs (fixed seed). Stable Rust with cargo-fuzz is enough.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cargo fuzz build --sanitizer none
for target in $(cargo fuzz list); do
  case "$target" in
    # Slower: these run a whole server.
    client_packets | http_request | polling_sessions | pusher_packets) runs=2000 ;;
    *) runs=20000 ;;
  esac
  mkdir "$work/$target"
  if ! cargo fuzz run --sanitizer none "$target" "$work/$target" "fuzz/seeds/$target" -- \
    -runs="$runs" -seed=1 -max_len=4096 -timeout=20 -rss_limit_mb=1024 > "$work/log" 2>&1; then
    tail -n 100 "$work/log"
    echo "$target: failed on the input above; see fuzz/README.md" >&2
    exit 1
  fi
  echo "$target: $(grep -a '^Done ' "$work/log")"
done
