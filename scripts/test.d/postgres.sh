#!/usr/bin/env bash
# Runs a command beside a PostgreSQL server of its own: scripts/test.d/postgres.sh COMMAND [ARGUMENT...]
# The command finds it by VESTIBULE_TEST_POSTGRES, a URL of a superuser; when that is set already, it is used as it is.
# The server is installed by apt when it is missing, keeps its data in a directory for temporary files, listens on a
# socket there and nowhere else, and is gone when the command ends.
set -euo pipefail

if [ -n "${VESTIBULE_TEST_POSTGRES:-}" ]; then exec "$@"; fi

binaries() { find /usr/lib/postgresql /usr/pgsql-* /usr/local /opt/homebrew -path '*/bin/initdb' 2>/dev/null | sort -V | tail -1 | xargs -r dirname; }
bin=$(command -v initdb >/dev/null && dirname "$(readlink -f "$(command -v initdb)")" || binaries)
if [ -z "$bin" ]; then
  sudo=$([ "$(id -u)" = 0 ] || echo sudo)
  # Without a cluster of its own: the package would start one.
  $sudo mkdir -p /etc/postgresql-common/createcluster.d
  echo 'create_main_cluster = false' | $sudo tee /etc/postgresql-common/createcluster.d/vestibule-tests.conf >/dev/null
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get update -q >&2
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends postgresql >&2
  bin=$(binaries)
fi
[ -n "$bin" ] || { echo "PostgreSQL is not installed and apt did not install it" >&2; exit 1; }

# PostgreSQL does not run as root.
directory=$(mktemp -d "${TMPDIR:-/tmp}/vestibule-pg.XXXXXX")
if [ "$(id -u)" = 0 ]; then
  chown postgres "$directory"
  as() { (cd / && exec setpriv --reuid=postgres --regid=postgres --init-groups -- "$@"); }
else
  as() { "$@"; }
fi
chmod 0755 "$directory"

stop() {
  as "$bin/pg_ctl" stop -D "$directory/data" -m immediate -s >/dev/null 2>&1 || true
  rm -rf "$directory"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

as "$bin/initdb" -D "$directory/data" -U postgres -A trust -E UTF8 --locale=C.UTF-8 --no-sync >"$directory/initdb.log" 2>&1 || { cat "$directory/initdb.log" >&2; exit 1; }
options="-k $directory -c listen_addresses= -c max_connections=300 -c synchronous_commit=on -c fsync=on"
as "$bin/pg_ctl" start -D "$directory/data" -w -s -l "$directory/data/server.log" -o "$options" >&2 || { cat "$directory/data/server.log" >&2; exit 1; }

VESTIBULE_TEST_POSTGRES="postgres://postgres@localhost/postgres?host=$directory" "$@"
