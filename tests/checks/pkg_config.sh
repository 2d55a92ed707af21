#!/bin/sh
# A user's program compiles, links and runs against the installed library with pkg-config alone.
# Usage: pkg_config.sh BUILD_DIR CONSUMER.cpp MESON COMPILER...
set -eu
build=$1 consumer=$2 meson=$3
shift 3

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
DESTDIR=$stage "$meson" install -C "$build" --no-rebuild --quiet >"$stage/install.log" 2>&1 || {
  cat "$stage/install.log"
  exit 1
}

# The staged tree is not where the file says it will be: point its prefix there.
pc=$(find "$stage" -name nibble.pc)
prefix=$(sed -n 's/^prefix=//p' "$pc")
sed -i "s|^prefix=.*|prefix=$stage$prefix|" "$pc"
PKG_CONFIG_PATH=$(dirname "$pc")
export PKG_CONFIG_PATH

# shellcheck disable=SC2046  # flags are words
"$@" -std=c++20 $(pkg-config --cflags nibble) "$consumer" -o "$stage/consumer" $(pkg-config --static --libs nibble)
LD_LIBRARY_PATH=$(dirname "$(dirname "$pc")") "$stage/consumer"
