# Sourced by the set-up scripts: apt_install WHAT PACKAGE... installs what the tests need and the machine lacks.
apt_install() {
  echo "$0: $1 is missing, installing the Debian packages: ${*:2}" >&2
  local as_root
  as_root=$([ "$(id -u)" = 0 ] || echo sudo)
  $as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq >&2
  $as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL="${RUNLEVEL:-}" apt-get install -y -qq --no-install-recommends "${@:2}" >&2
}
