#!/usr/bin/env bash
# Tests the server against the docs/openapi.json that it serves, with schemathesis.
#
# Needs Python 3.10 or newer with venv, and the server's binary: ECHO_BIN, or target/debug/laravel-echo-server.
# EXAMPLES is the number of requests per operation and phase. Exits with 0 when nothing was found.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
server=$(realpath "${ECHO_BIN:-$here/../../target/debug/laravel-echo-server}")
[ -x "$server" ] || { echo "no server at $server: run cargo build, or set ECHO_BIN" >&2; exit 2; }
command -v python3 >/dev/null || { echo "this check needs python3 with venv" >&2; exit 2; }

venv=$here/.venv
if ! cmp -s "$here/requirements.txt" "$venv/installed.txt"; then
    python3 -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$here/requirements.txt"
    cp "$here/requirements.txt" "$venv/installed.txt"
fi

work=$(mktemp -d)
pid=
trap '[ -z "$pid" ] || kill "$pid" 2>/dev/null || true; rm -rf "$work"' EXIT
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat >"$work/laravel-echo-server.toml" <<TOML
host = "127.0.0.1"
port = $port
clients = [{ appId = "openapi", key = "openapi-key" }]
subscribers = { http = true, redis = false }
TOML
(cd "$work" && exec "$server" start --no-lock) >"$work/log" 2>&1 &
pid=$!

# schemathesis waits until the document is available. One worker: hypothesis' code generation is not thread-safe.
(cd "$work" && "$venv/bin/schemathesis" --config-file "$here/schemathesis.toml" run "http://127.0.0.1:$port/openapi.json" \
    --wait-for-schema 20 --workers 1 --max-examples "${EXAMPLES:-25}" --seed 1 --generation-codec ascii \
    --generation-database none --request-timeout 20 --no-color) || { status=$?; sed 's/^/server: /' "$work/log" | tail -20; exit "$status"; }
kill -0 "$pid" || { echo "the server has ended:" >&2; cat "$work/log" >&2; exit 1; }
