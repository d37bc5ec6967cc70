#!/bin/sh
# Installs laravel-echo-server from a release archive, after verifying its sha256.
#
#   BASE_URL=<URL of the folder with the archives> VERSION=2.0.0 sh install.sh
#
# PREFIX is the installation folder: by default /usr/local for root, ~/.local for other users.
set -eu
[ -n "${BASE_URL:-}" ] && [ -n "${VERSION:-}" ] || { sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2; }
fail() { echo "install.sh: $*" >&2; exit 1; }

case "$(uname -s) $(uname -m)" in
  "Linux x86_64" | "Linux amd64") platform=x86_64-unknown-linux-musl ;;
  "Linux aarch64" | "Linux arm64") platform=aarch64-unknown-linux-musl ;;
  "Darwin x86_64") platform=x86_64-apple-darwin ;;
  "Darwin arm64") platform=aarch64-apple-darwin ;;
  *) fail "there is no archive for $(uname -s) on $(uname -m); cargo install --path . builds it" ;;
esac
if [ "$(id -u)" = 0 ]; then default=/usr/local; else default=$HOME/.local; fi
prefix=${PREFIX:-$default}
name=laravel-echo-server-$VERSION-$platform
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

for file in "$name.tar.gz" "$name.tar.gz.sha256"; do
  if command -v curl > /dev/null; then
    curl -fsSL -o "$work/$file" "$BASE_URL/$file" || fail "cannot download $BASE_URL/$file"
  elif command -v wget > /dev/null; then
    wget -q -O "$work/$file" "$BASE_URL/$file" || fail "cannot download $BASE_URL/$file"
  else
    fail "needs curl or wget"
  fi
done
if command -v sha256sum > /dev/null; then check="sha256sum -c"; else check="shasum -a 256 -c"; fi
(cd "$work" && $check "$name.tar.gz.sha256" > /dev/null 2>&1) || fail "$name.tar.gz does not match its sha256"
tar -xzf "$work/$name.tar.gz" -C "$work"
mkdir -p "$prefix/bin" "$prefix/share/man/man1"
# By a rename, because the binary of a running server cannot be overwritten.
cp "$work/$name/laravel-echo-server" "$prefix/bin/.laravel-echo-server.new"
chmod 755 "$prefix/bin/.laravel-echo-server.new"
mv "$prefix/bin/.laravel-echo-server.new" "$prefix/bin/laravel-echo-server"
cp "$work/$name/laravel-echo-server.1" "$prefix/share/man/man1/"
"$prefix/bin/laravel-echo-server" --version
echo "installed $prefix/bin/laravel-echo-server; next: laravel-echo-server doctor, in the Laravel project's folder"
