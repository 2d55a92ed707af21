#include "engine/parallel.hpp"

#include <sched.h>
#include <tbb/global_control.h>
#include <tbb/info.h>
#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>
#include <unistd.h>

#include <algorithm>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "engine/cgroup.hpp"
#include "engine/error.hpp"
#include "engine/profiler.hpp"
#include "engine/sanitizer.hpp"

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace nibble {

namespace {

// Never destroyed: a host's thread may still compute when the process ends.
tbb::global_control* limit = nullptr;  // none where TBB's own suffices
tbb::task_arena* arena = nullptr;
int thread_count = 0;

/// The loop itself, inside the arena; `zone` is the caller's.
void run_loop(int64_t count, FunctionRef<void(int64_t)> body, const Zone* zone) {
  // A context of its own: where another body of an outer loop has thrown, this loop still does all of its work.
  tbb::task_group_context context(tbb::task_group_context::isolated);
  TaskOrder order;
  tbb::parallel_for(
      int64_t{0}, count,
      [&](int64_t i) {
        const TaskOrder::Task ordered(order);
        set_float_mode();
        const ZoneShare share(zone);  // a thread that helps works on the caller's zone
        body(i);
      },
      tbb::simple_partitioner(), context);
}

/// Inside the arena: on this thread, or, where all of the arena's slots are taken, on one of its threads.
template <typename Loop>
void run_in_arena(const Loop& loop) {
  TaskOrder order;
  arena->execute([&] {
    const TaskOrder::Task ordered(order);
    loop();
  });
}

/// Runs a loop that needs no tasks (one body, or one thread) here; false: not run.
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
  const std::optional<double> quota = cpu_quota(own_control_groups());
  if (!quota || *quota >= affine) return std::max(1, affine);
  return std::max(1, std::min(affine, static_cast<int>(*quota + 0.5)));
}

void set_threads(int threads) {
  const int count = threads > 0 ? threads : available_cores();
  // The arena alone limits our loops. TBB's own number is the whole process's, so it is only ever raised: a host
  // program that wants one thread from us keeps all of its own.
  std::unique_ptr<tbb::global_control> new_limit;
  if (count > tbb::info::default_concurrency())
    new_limit =
        std::make_unique<tbb::global_control>(tbb::global_control::max_allowed_parallelism, static_cast<size_t>(count));
  auto new_arena = std::make_unique<tbb::task_arena>(count);
  delete std::exchange(arena, new_arena.release());
  delete std::exchange(limit, new_limit.release());
  thread_count = count;
}

int threads() {
  static std::once_flag once;  // there may be several first callers
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
  // Isolated: a thread of the arena that waits here runs only tasks of this loop, never an unrelated outer one. (A
  // host's thread beyond the arena's slots waits outside and may be given any task: correct, but it returns later.)
  run_in_arena([&] { tbb::this_task_arena::isolate([&] { run_loop(count, body, zone); }); });
}

void parallel_for_refusing(int64_t count, FunctionRef<void(int64_t)> body) {
  std::mutex mutex;
  int64_t refused = count;
  std::exception_ptr error;
  parallel_for(count, [&](int64_t i) {
    try {
      body(i);
    } catch (const Error&) {
      const std::lock_guard lock(mutex);
      if (i < refused) error = std::current_exception();
      refused = std::min(refused, i);
    }
  });
  if (error != nullptr) std::rethrow_exception(error);
}

void parallel_for_outermost(int64_t count, FunctionRef<void(int64_t)> body) {
  const FloatModeScope mode;
  if (run_alone(count, body)) return;
  const Zone* const zone = innermost_zone();
  run_in_arena([&] { run_loop(count, body, zone); });
}

}  // namespace nibble
