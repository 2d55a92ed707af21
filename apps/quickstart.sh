#!/usr/bin/env bash
# From a fresh machine to a served 4-bit ResNet-50: installs packages, builds, and runs the main job on the procedural
# data set: train, evaluate by the modules of training, export, evaluate the served file by the executor, show that the
# logits are the same, predict an image.
#
#   apps/quickstart.sh [OUT]     OUT is the folder of the run (default build/quickstart of the repository), replaced
#
# The part after the build takes at most 90 seconds on two cores with AVX2 or better.
set -eu -o pipefail
case ${1:-} in "" | /*) ;; *) set -- "$PWD/$1" ;; esac  # OUT is relative to where it was called
cd "$(dirname "$0")/.."
out=${1:-build/quickstart}
build=build/release

say() { printf '\n== %s\n' "$*"; }
run() {
  printf '$%s\n' "$(printf ' %q' "$@")" >&2
  "$@"
}
# value KEY FILE: a top-level string or number of the last JSON object in FILE.
value() { tail -n 1 "$2" | python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }

say "packages"
bash apps/install_packages.sh g++ meson ninja-build pkg-config python3 libxsimd-dev libtbb-dev libstb-dev \
  libcli11-dev nlohmann-json3-dev libtomlplusplus-dev libfmt-dev libturbojpeg0-dev

say "build (release, in $build)"
if [ -f $build/build.ninja ]; then
  run meson setup --reconfigure $build >/dev/null
else
  rm -rf $build
  run meson setup $build --buildtype=release -Dtests=disabled -Dbench=disabled >/dev/null
fi
run meson compile -C $build
nibble=$build/nibble
began=$SECONDS

# Only what a quickstart made is removed: the user's own folder is left alone.
if [ -e "$out" ] && [ ! -f "$out/.made-by-quickstart" ]; then
  echo "quickstart: $out exists and is not of an earlier quickstart; name another folder" >&2
  exit 2
fi
rm -rf "$out"
mkdir -p "$out"
touch "$out/.made-by-quickstart"

say "the machine"
run $nibble doctor

say "a data set: ten classes of textured shapes, real JPEG files"
run $nibble synth --out "$out/images"

say "train a 4-bit ResNet-50 (4-bit weights and activations, first and last layer 8-bit) of width 0.25"
run $nibble train --data "$out/images" --out "$out/run" \
  --arch resnet50 --width 0.25 --precision w4a4-fl8 --image-size 32 --batch-size 64 --epochs 16 --lr 0.1 --min-crop 0.5 --seed 0

say "evaluate the checkpoint by the modules of training, export it, evaluate the served file"
run $nibble eval "$out/run/latest" --by modules --data "$out/images" --json | tee "$out/trained.json"
run $nibble export "$out/run/latest" --out "$out/model.safetensors"
run $nibble eval "$out/model.safetensors" --data "$out/images" --json | tee "$out/served.json"

trained=$(value logits_sha256 "$out/trained.json")
served=$(value logits_sha256 "$out/served.json")
say "trained = served?"
echo "trained model: logits_sha256 $trained"
echo "served file:   logits_sha256 $served"
if [ "$trained" != "$served" ]; then
  echo "quickstart: the served logits differ from the trained model's" >&2
  exit 5
fi
echo "train and served logits are identical on $(value images "$out/served.json") images"

say "predict one image"
image=$(find "$out/images/val" -type f | sort | sed -n 1p)  # reads on: head would kill sort, and with it this script
run $nibble predict "$out/model.safetensors" "$image"

say "done in $((SECONDS - began)) s after the build; try: $nibble inspect $(printf %q "$out/model.safetensors")"
