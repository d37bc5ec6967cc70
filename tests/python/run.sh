#!/usr/bin/env bash
# python-socketio 4 and 5 against the server: polling, upgrade, websocket, and a restart.
#
# Needs Python 3.9 or newer with venv, and the server's binary: ECHO_BIN, or target/debug/laravel-echo-server.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
ECHO_BIN=$(realpath "${ECHO_BIN:-$here/../../target/debug/laravel-echo-server}")
export ECHO_BIN
[ -x "$ECHO_BIN" ] || { echo "no server at $ECHO_BIN: run cargo build, or set ECHO_BIN" >&2; exit 2; }
command -v python3 > /dev/null || { echo "this check needs python3 with venv" >&2; exit 2; }

for version in 4 5; do
  venv=$here/.venv-$version
  requirements=$here/requirements-$version.txt
  if ! cmp -s "$requirements" "$venv/installed.txt"; then
    python3 -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$requirements"
    cp "$requirements" "$venv/installed.txt"
  fi
  echo "python-socketio $version"
  "$venv/bin/python" "$here/clients.py" -v
done
