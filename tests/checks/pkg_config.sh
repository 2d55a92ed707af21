#!/bin/sh
# Users' programs compile, link and run against the installed library with pkg-config alone: CONSUMER.cpp, the program
# that README.md shows, which has to name the label that `nibble predict` names, and TRAIN.cpp, which has to print the
# accuracy that `nibble eval` prints for its file.
# Usage: pkg_config.sh BUILD_DIR CONSUMER.cpp README.md TRAIN.cpp MESON COMPILER...
set -eu
build=$1 consumer=$2 readme=$3 train=$4 meson=$5
shift 5

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
LD_LIBRARY_PATH=$(dirname "$PKG_CONFIG_PATH")
export PKG_CONFIG_PATH LD_LIBRARY_PATH

# compile SOURCE PROGRAM COMPILER...
compile() {
  source=$1 program=$2
  shift 2
  # shellcheck disable=SC2046  # flags are words
  "$@" -std=c++20 $(pkg-config --cflags nibble) "$source" -o "$program" $(pkg-config --static --libs nibble)
}

# A package that the build only takes headers from is not one that users need.
case $(pkg-config --print-requires --print-requires-private nibble) in
  *stb* | *xsimd* | *json*) echo "nibble.pc requires a package of which only the build needs headers"; exit 1 ;;
esac

compile "$consumer" "$stage/consumer" "$@"
"$stage/consumer" "$(pkg-config --modversion nibble)"

# The first indented block of C++ in README.md.
sed -n '/^    #include/,/^[^ ]/{s/^    //;/^[^ ].*pkg-config/!p}' "$readme" >"$stage/serve.cpp"
grep -q load_served "$stage/serve.cpp" || { echo "README.md shows no program that serves a model"; exit 1; }
compile "$stage/serve.cpp" "$stage/serve" "$@"
compile "$train" "$stage/train" "$@"

nibble=$stage$prefix/bin/nibble
if [ ! -x "$nibble" ]; then
  echo "built without the program nibble: README.md's program and the example were compiled, not run"
  exit 0
fi
cd "$stage"
"$nibble" synth --out data --train 4 --val 1 --size 32
"$nibble" train --data data --out run --arch resnet26 --width 0.1 --image-size 32 --batch-size 8 --shard 8 --steps 2 \
  --calibrate-at 1 --quiet
"$nibble" export run --out model.safetensors
for image in data/val/*/*; do
  served=$("$stage/serve" model.safetensors "$image")
  predicted=$("$nibble" predict model.safetensors "$image" --top 1)
  case $predicted in
    *":  ${served%% *} "*) ;;
    *) echo "README.md's program says '$served', predict '$predicted'"; exit 1 ;;
  esac
done
"$stage/train" data trained.safetensors 5 >trained || { cat trained; exit 1; }
evaluated=$("$nibble" eval trained.safetensors --data data)
case $evaluated in
  *"$(tail -n 1 trained)"*) ;;
  *) echo "the example says '$(tail -n 1 trained)' of its model, eval '$evaluated'"; exit 1 ;;
esac
"$stage/train" missing trained.safetensors 5 2>refused && { echo "a missing folder trains a model"; exit 1; }
grep -q '^error: .*missing' refused
head -c 900 "$image" >cut.jpg
"$stage/serve" model.safetensors cut.jpg 2>warning || { echo "a damaged image is refused"; exit 1; }
grep -q '^warning: cut.jpg: ' warning || { echo "a damaged image is labelled without a word"; exit 1; }
"$stage/serve" missing.safetensors "$image" 2>"$stage/refusal" && { echo "a missing model is served"; exit 1; }
grep -q '^error: .*missing.safetensors' "$stage/refusal"
