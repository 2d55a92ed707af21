#!/usr/bin/env bash
# Installs the named Debian packages that are missing, as root or with sudo; says what it does. Does nothing when all
# are there.
set -eu
missing=()
for package in "$@"; do
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)" = installed ] || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then
  echo "packages: all $# are installed"
  exit 0
fi
if ! command -v apt-get >/dev/null; then
  echo "packages: this is not a Debian system (no apt-get); install the equivalents of: ${missing[*]}" >&2
  exit 1
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || {
    echo "packages: ${missing[*]} are missing and neither root nor sudo is at hand; install them and run this again" >&2
    exit 1
  }
  as_root=(sudo)
fi
echo "packages: installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
# A fresh machine's own updates may hold the lock for some minutes, and a mirror may miss a request.
patient=(-o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
"${as_root[@]}" apt-get "${patient[@]}" update
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
  apt-get "${patient[@]}" install -y --no-install-recommends "${missing[@]}"
