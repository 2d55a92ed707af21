#!/usr/bin/env bash
# Installs what is needed, builds with gcc and with clang under the sanitizers, and runs every test on every kernel level
# of this machine.
#
#   tests/run.sh            everything; the last line is `N passed, N failed`
#   tests/run.sh --quick    gcc build, its tests and the format check only
#   tests/run.sh --only STAGE[,STAGE...]     any of: packages names gcc levels clang format threads (the last one only so)
#   tests/run.sh --no-install                as asked, but leave the system's packages alone
#
# Builds go to build/test-*; a second run rebuilds only what changed. NIBBLE_TEST_JOBS limits compile jobs.
set -u -o pipefail
cd "$(dirname "$0")/.." || exit 1
root=$PWD

stages="packages names gcc levels clang format"
install=yes
while [ $# -gt 0 ]; do
  case $1 in
    --quick) stages="packages gcc format" ;;
    --only)
      [ $# -ge 2 ] || { echo "tests/run.sh: --only needs a list of stages: ${stages// /,}" >&2; exit 2; }
      stages=${2//,/ }
      shift
      ;;
    --no-install) install=no ;;
    *)
      echo "tests/run.sh: unknown option $1; known are --quick, --only STAGE[,STAGE...] and --no-install" >&2
      exit 2
      ;;
  esac
  shift
done
for stage in $stages; do
  case $stage in
    packages | names | gcc | levels | clang | format | threads) ;;
    *)
      echo "tests/run.sh: unknown stage $stage; known are packages, names, gcc, levels, clang, format and threads" >&2
      exit 2
      ;;
  esac
done

# What a shell sets for the program or for compilers is not what is tested here.
unset NIBBLE_ISA NIBBLE_THREADS NIBBLE_LOG NIBBLE_PROFILE CXXFLAGS CPPFLAGS LDFLAGS

# The cores that this process may use, by its affinity and the quota of its container, and no more than one for each GiB
# of free memory: clang takes 0.5 to 0.7 of it for a source of ten files under the sanitizers.
usable_cores() {
  local cores quota period memory
  cores=$(nproc)
  if read -r quota period 2>/dev/null </sys/fs/cgroup/cpu.max && [ "$quota" != max ]; then
    quota=$(((quota + period - 1) / period))
    [ "$quota" -lt "$cores" ] && cores=$quota
  fi
  memory=$(awk '/^MemAvailable:/ { print int($2 / 1048576) }' /proc/meminfo)
  [ "${memory:-$cores}" -lt "$cores" ] && cores=$memory
  [ "$cores" -ge 1 ] && echo "$cores" || echo 1
}

jobs=${NIBBLE_TEST_JOBS:-$(usable_cores)}
out=$root/build/test-results
rm -rf "$out"
mkdir -p "$out"
started=$SECONDS

say() { printf '\n== %s\n' "$*"; }

# result STAGE SUITE PASSED FAILED SKIPPED: one line of the tally.
result() { printf '%s\t%s\t%s\t%s\t%s\n' "$@" >>"$out/tally.tsv"; }

# why LOG: for a build, what the compiler said about the first files that failed; otherwise the end.
why() {
  local said
  said=$(awk '/^FAILED: / { left = 20 } left-- > 0 && said++ < 60 { print substr($0, 1, 240) }' "$1")
  if [ -n "$said" ]; then echo "$said"; else tail -n 40 "$1"; fi
}

# step STAGE NAME COMMAND...: one thing that passes or fails; its output is kept and shown only when it fails.
step() {
  local stage=$1 name=$2 log
  shift 2
  log=$out/$stage-${name// /-}.log
  local begin=$SECONDS
  if "$@" >"$log" 2>&1; then
    echo "ok    $stage: $name ($((SECONDS - begin)) s)"
    result "$stage" "$name" 1 0 0
  else
    echo "FAIL  $stage: $name ($((SECONDS - begin)) s); from its output:"
    why "$log"
    result "$stage" "$name" 0 1 0
    return 1
  fi
}

# setup_dir DIR MESON-OPTION...: configures, or reconfigures what an earlier run left.
setup_dir() {
  local dir=$1
  shift
  if [ -f "$dir/build.ninja" ]; then
    meson setup --reconfigure "$dir" "$root" "$@"
  else
    rm -rf "$dir"
    meson setup "$dir" "$root" "$@"
  fi
}

# build STAGE MESON-OPTION...: configures and compiles everything in build/test-STAGE.
build() {
  local stage=$1 dir=$root/build/test-$1
  shift
  step "$stage" configure setup_dir "$dir" "$@" || return 1
  step "$stage" compile meson compile -C "$dir" -j "$jobs"
}

# run_tests STAGE DIR MESON-TEST-OPTION...: runs tests, through the command `through` if there is one, and adds every
# test case to the tally.
through=()
run_tests() {
  local stage=$1 dir=$root/build/test-$2 log=$out/$1-tests.log
  shift 2
  local begin=$SECONDS listed
  listed=$(meson test -C "$dir" --no-rebuild --list "$@" 2>/dev/null | grep -c nibble)
  rm -f "$dir"/meson-logs/testlog*.json
  ${through[@]+"${through[@]}"} meson test -C "$dir" --no-rebuild --num-processes "$jobs" "$@" >"$log" 2>&1
  local code=$?
  grep -E '^ *[0-9]+/[0-9]+ ' "$log" | sed 's/ *$//'
  python3 -B "$root/tests/tally.py" add "$stage" "$out/tally.tsv" "$listed" "$dir"/meson-logs/testlog*.json
  local counted=$?
  if [ $counted -ne 0 ] || [ "$listed" -eq 0 ]; then  # meson could not even start the tests
    tail -n 60 "$log"
    result "$stage" "test run" 0 1 0
  elif [ $code -ne 0 ]; then
    echo "(all of the output: $log)"
  fi
  echo "($stage tests took $((SECONDS - begin)) s)"
}

stage_packages() {
  local needed="g++ clang libclang-rt-dev clang-format meson ninja-build pkg-config python3 libxsimd-dev libtbb-dev libstb-dev
    doctest-dev libsimde-dev libbenchmark-dev libcli11-dev nlohmann-json3-dev libtomlplusplus-dev libfmt-dev libturbojpeg0-dev"
  # shellcheck disable=SC2086  # a list of words
  step packages install bash apps/install_packages.sh $needed
}

# The library and the program file by file, as users build them; the tests ten at a time.
stage_gcc() {
  CXX=g++ build gcc --buildtype=release -Dunity_tests=true -Dwerror=true || return
  run_tests gcc gcc
}

# Each library as one source: a name that two files of it have in their anonymous namespaces shows here. In batches of a
# few files it shows only where both happen to fall into one, which the next new file changes.
stage_names() {
  CXX=clang++ step names configure setup_dir "$root/build/test-names" --buildtype=plain -Dunity=on -Dunity_size=1000 \
    -Dtests=disabled -Dbench=disabled -Dkernel_levels=scalar -Dwerror=true || return
  step names compile meson compile -C "$root/build/test-names" -j "$jobs"
}

# Unoptimised, so that inline functions leave symbols: what a release build merely happens to inline shows here. Of the
# benchmarks, which the sanitized build leaves out, only the sources: the second compiler's warnings.
stage_levels() {
  local dir=$root/build/test-levels rules levels benches
  CXX=clang++ step levels configure setup_dir "$dir" --buildtype=debug -Dbench=enabled -Dwerror=true || return
  benches=$(ninja -C "$dir" -t targets all 2>/dev/null | sed -n 's|^\(bench/[^:]*\.o\): .*|\1|p')
  # shellcheck disable=SC2086  # no object's path has blanks
  if [ -n "$benches" ]; then
    step levels benchmarks ninja -C "$dir" -j "$jobs" $benches
  else
    echo "FAIL  levels: the build lists no benchmark"
    result levels benchmarks 0 1 0
  fi
  rules=$(meson test -C "$dir" --list 2>/dev/null | grep -o 'isa_symbols/[a-z0-9]*')
  if [ -z "$rules" ]; then
    echo "FAIL  levels: the build lists no kernel level"
    result levels "kernel levels" 0 1 0
    return
  fi
  levels=${rules//symbols\//}
  # shellcheck disable=SC2086  # one word per level
  step levels compile meson compile -C "$dir" -j "$jobs" $levels || return
  # shellcheck disable=SC2086
  run_tests levels levels $rules
}

# The second compiler builds what the sanitizers watch, so that nothing is compiled a third time. -O1: unoptimised
# kernels take ten times as long, and at -O2 compiling costs more than the tests gain. The emulated kernels, which their
# guards watch in the gcc build, would take a sixth of the compile time. -g1: a report names file and line, and compiling
# is 5 % shorter. No recovery: the first report ends a test anyway, and the kernels of a level compile in 46 s instead
# of 63. Unity sources of ten files each: a JSON parser and the like are compiled once for ten files, and the stage in
# 390 s instead of 849 (the gcc build compiles the product file by file). Of the levels that this machine runs: scalar, avx2 and the
# best one, so that each way of writing kernels (no vectors, 8 lanes, 16 lanes) is watched; every further level costs
# some minutes, and the gcc stage tests them all.
stage_clang() {
  # doctor trains for its estimates: once here, and where there is no gcc build, below.
  local doctor best runnable tests
  doctor=$("$root/build/test-gcc/nibble" doctor --json 2>/dev/null)
  runnable=$(printf '%s' "$doctor" | python3 -c '
import json, sys
levels = json.load(sys.stdin)["isa_runnable"]
print(",".join(levels if len(levels) < 4 else levels[:2] + levels[-1:]))' 2>/dev/null)
  CXX=clang++ build clang --buildtype=debug -Doptimization=1 -Db_sanitize=address,undefined -Db_lundef=false \
    -Dunity=on -Dunity_size=10 "-Dcpp_args=-g1 -fno-sanitize-recover=all" ${runnable:+"-Dkernel_levels=$runnable"} -Dbench=disabled -Demulated=disabled -Dwerror=true || return
  # End to end on the best level only: the kernels of every level are tested one by one before. Ops not on scalar where
  # avx2 runs: the same drivers with another table of kernels, and as long (50 s busy) as on any level.
  [ -n "$doctor" ] || doctor=$("$root/build/test-clang/nibble" doctor --json 2>/dev/null)
  best=$(printf '%s' "$doctor" | grep -o '"isa":"[a-z0-9]*"' | cut -d'"' -f4)
  # "kernels+avx2 - nibble:ops/avx2", or "nibble:kernels+avx2 / ops/avx2" up to some version of meson (see tally.py).
  tests=$(meson test -C "$root/build/test-clang" --setup asan --list 2>/dev/null |
    sed -n -e 's/.* - nibble://p' -e 's/^nibble:.* \/ //p' | grep -v "^e2e/"; echo "e2e/${best:-scalar}")
  case ,$runnable, in *,avx2,*) tests=$(printf '%s\n' $tests | grep -vx "ops/scalar") ;; esac
  # Without a pipe: `grep -q` leaves at the word it finds, and under pipefail its writer's SIGPIPE counted as "not there".
  local listed=" ${tests//$'\n'/ } "
  for test in engine nn data apps fuzz; do
    case $listed in *" $test "*) continue ;; esac
    echo "FAIL  clang: the build lists no test $test"
    result clang "test $test" 0 1 0
  done
  # Where the kernel places mappings with 32 random bits (vm.mmap_rnd_bits; 28 here), clang 14's sanitizers may find the
  # addresses of their shadow taken and end at once (llvm-project issue 57653). Not seen on our machines.
  setarch -R true 2>/dev/null && through=(setarch -R)
  # shellcheck disable=SC2086  # one word per test
  run_tests clang clang --setup asan $tests
  through=()
}

# Races between threads, by the thread sanitizer. It does not see into TBB: what loops order it is told (TaskOrder in
# engine/sanitizer.hpp), TBB's own headers are left alone. One level without tiles: races are the drivers', not the
# kernels'. Some seven minutes, so only when asked for.
stage_threads() {
  local files=$root/tests/thread_sanitizer level
  CXX=clang++ build threads --buildtype=debug -Doptimization=1 -Db_sanitize=thread -Db_lundef=false -Dunity=on \
    -Dunity_size=10 "-Dcpp_args=-g1 -fsanitize-ignorelist=$files/uninstrumented.txt" -Dkernel_levels=scalar,avx2 \
    -Dapps=disabled -Dbench=disabled -Demulated=disabled -Dwerror=true || return
  level=scalar
  grep -qw avx2 /proc/cpuinfo && level=avx2
  setarch -R true 2>/dev/null && through=(setarch -R)
  run_tests threads threads --setup tsan engine data "ops/$level" nn
  through=()
}

stage_format() {
  local files major
  # The layout is that of clang-format 14; others differ in places.
  major=$(clang-format --version 2>/dev/null | grep -o 'version [0-9]*')
  if [ "$major" != "version 14" ]; then
    echo "skipped: the layout is clang-format 14's, this is ${major:-none}"
    result format clang-format 0 0 1
    return
  fi
  files=$(find engine ops nn data apps tests bench -name '*.[ch]pp' | sort)
  # shellcheck disable=SC2086  # no path of ours has blanks
  step format clang-format clang-format --dry-run --Werror $files
}

[ "$install" = no ] && stages=$(printf '%s\n' $stages | grep -vx packages | tr '\n' ' ')
for stage in $stages; do
  say "$stage"
  "stage_$stage"
done

say "summary ($((SECONDS - started)) s)"
python3 -B "$root/tests/tally.py" sum "$out/tally.tsv"
