#!/usr/bin/env bash
# Installs what the browser tests need into DIR: the peers, and beside them playwright-core and axe-core; Chromium comes
# from the distribution, and nothing is downloaded by playwright itself.
# Usage: tests/browser/setup.sh [DIR]        (default: .peers at the root of the repository)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dir=${1:-$here/../../.peers}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
exec </dev/null
. "$here/../../scripts/test.d/apt.sh"

"$here/../peers/setup.sh" "$dir"
command -v chromium >/dev/null || apt_install Chromium chromium

pins=$(cat "$here/package.json" "$here/package-lock.json" "$here/setup.sh" | sha256sum | cut -d' ' -f1)
if [ "$(cat "$dir/browser/stamp" 2>/dev/null)" = "$pins" ]; then
  exit 0
fi
mkdir -p "$dir/browser"
cp "$here/package.json" "$here/package-lock.json" "$dir/browser/"
(cd "$dir/browser" && npm ci --no-audit --no-fund --ignore-scripts --loglevel=error)
printf '%s\n' "$pins" >"$dir/browser/stamp"
