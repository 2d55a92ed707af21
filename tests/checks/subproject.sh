#!/bin/sh
# A project that has nibble as a Meson subproject gets only the library, and the rest when it asks for it. Configures
# only. Usage: subproject.sh SOURCE_ROOT MESON COMPILER...
set -eu
root=$1 meson=$2
shift 2
CXX=$*
export CXX

host=$(mktemp -d)
trap 'rm -rf "$host"' EXIT
mkdir "$host/subprojects"
ln -s "$root" "$host/subprojects/nibble"
cat >"$host/meson.build" <<'END'
project('host', 'cpp', default_options: ['cpp_std=c++20'])
executable('host', 'host.cpp', dependencies: dependency('nibble', fallback: 'nibble'))
END
echo 'int main() {}' >"$host/host.cpp"

# targets FOLDER: names of what it builds, one per line.
targets() {
  "$meson" introspect "$1" --targets | grep -o '"name": *"[^"]*"' | cut -d'"' -f4
}

# An installed nibble would do for the host, but is not what is tested here.
"$meson" setup "$host/plain" "$host" --force-fallback-for=nibble >"$host/log" || { tail -n 20 "$host/log"; exit 1; }
targets "$host/plain" >"$host/plain.txt"
grep -qx nibble "$host/plain.txt" || { echo "a subproject does not build the library"; exit 1; }
if grep -E '^(nibble_apps|test_.*|.*_bench)$' "$host/plain.txt"; then
  echo "is built in a subproject that did not ask for it"
  exit 1
fi
[ "$("$meson" introspect "$host/plain" --tests)" = "[]" ] || { echo "nibble's tests are among the host's"; exit 1; }

"$meson" setup "$host/all" "$host" --force-fallback-for=nibble -Dnibble:apps=enabled -Dnibble:tests=enabled >"$host/log" || { tail -n 20 "$host/log"; exit 1; }
targets "$host/all" >"$host/all.txt"
grep -qx nibble_apps "$host/all.txt" || { echo "a subproject cannot have the program"; exit 1; }
grep -qx test_engine "$host/all.txt" || { echo "a subproject cannot have the tests"; exit 1; }
