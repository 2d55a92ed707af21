#include "engine/parallel.hpp"

#include <sched.h>
#include <tbb/global_control.h>
#include <tbb/info.h>
#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <memory>
#include <mutex>
#include <string>

#include "engine/profiler.hpp"

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace nibble {

namespace {

std::unique_ptr<tbb::global_control> limit;  // none where TBB's own suffices
std::unique_ptr<tbb::task_arena> arena;
int thread_count = 0;

/// CPU quota of the container in whole cores, or a large number when there is none.
int quota_cores() {
  constexpr int kNoQuota = 1 << 20;
  double quota = -1, period = 0;
  std::string first;
  if (std::ifstream v2("/sys/fs/cgroup/cpu.max"); v2 >> first >> period) {
    if (first != "max") quota = std::atof(first.c_str());
  } else {
    std::ifstream q("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), p("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
    if (!(q >> quota && p >> period)) quota = -1;
  }
  return quota > 0 && period > 0 ? std::max(1, static_cast<int>(quota / period + 0.5)) : kNoQuota;
}

/// The loop itself, inside the arena; `zone` is the caller's.
void run_loop(int64_t count, FunctionRef<void(int64_t)> body, const Zone* zone) {
  tbb::parallel_for(
      int64_t{0}, count,
      [&](int64_t i) {
        set_float_mode();
        const ZoneShare share(zone);  // a thread that helps works on the caller's zone
        body(i);
      },
      tbb::simple_partitioner());
}

/// True if it was: the loop of one thread needs no tasks.
bool run_alone(int64_t count, FunctionRef<void(int64_t)> body) {
  if (count > 1 && threads() > 1) return false;
  for (int64_t i = 0; i < count; ++i) body(i);
  return true;
}

}  // namespace

int available_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  // Fails where the kernel's mask is longer than a cpu_set_t (more than 1024 CPUs).
  const int affine =
      sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
  return std::max(1, std::min(affine, quota_cores()));
}

void set_threads(int threads) {
  thread_count = threads > 0 ? threads : available_cores();
  arena.reset();
  limit.reset();
  // The arena alone limits our loops. TBB's own number is the whole process's, so it is only ever raised: a host
  // program that wants one thread of us keeps all of its own.
  if (thread_count > tbb::info::default_concurrency())
    limit = std::make_unique<tbb::global_control>(tbb::global_control::max_allowed_parallelism,
                                                  static_cast<size_t>(thread_count));
  arena = std::make_unique<tbb::task_arena>(thread_count);
}

int threads() {
  static std::once_flag once;  // the first callers may be several
  std::call_once(once, [] {
    if (thread_count == 0) set_threads(0);
  });
  return thread_count;
}

void set_float_mode() {
#if defined(__x86_64__)
  constexpr unsigned kMasksFlushRoundNearest = 0x9fc0;  // all exceptions masked, FTZ, DAZ, nearest
  constexpr unsigned kFlags = 0x3f;                     // of exceptions that happened, which change nothing
  if ((_mm_getcsr() & ~kFlags) != kMasksFlushRoundNearest) _mm_setcsr(kMasksFlushRoundNearest);
#endif
}

FloatModeScope::FloatModeScope() {
#if defined(__x86_64__)
  before_ = _mm_getcsr();
#endif
  set_float_mode();
}

FloatModeScope::~FloatModeScope() {
#if defined(__x86_64__)
  _mm_setcsr(before_);
#endif
}

void parallel_for(int64_t count, FunctionRef<void(int64_t)> body) {
  const FloatModeScope mode;  // the caller runs bodies, too
  if (run_alone(count, body)) return;
  const Zone* const zone = innermost_zone();
  // Isolated: a thread that waits here runs only tasks of this loop, never an unrelated outer one (its scratch memory
  // and float mode are in use).
  arena->execute([&] { tbb::this_task_arena::isolate([&] { run_loop(count, body, zone); }); });
}

void parallel_for_outermost(int64_t count, FunctionRef<void(int64_t)> body) {
  const FloatModeScope mode;
  if (run_alone(count, body)) return;
  const Zone* const zone = innermost_zone();
  arena->execute([&] { run_loop(count, body, zone); });
}

}  // namespace nibble
