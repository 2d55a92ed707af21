// What a call of the executor takes from the heap: the logits, whatever the network and however many images.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <new>

#include "engine/sanitizer.hpp"
#include "nn/runtime/executor.hpp"
#include "tests/nn/small_model.hpp"
#include "tests/threads_guard.hpp"

namespace {

std::atomic<bool> counting{false};
std::atomic<int64_t> allocations{0};

}  // namespace

// The sanitizer's own operators check more than these count.
#if !defined(NIBBLE_ADDRESS_SANITIZER) && !defined(NIBBLE_THREAD_SANITIZER)
[[gnu::noinline]] void* operator new(std::size_t bytes) {
  if (counting.load(std::memory_order_relaxed)) allocations.fetch_add(1, std::memory_order_relaxed);
  if (void* p = std::malloc(bytes > 0 ? bytes : 1)) return p;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* p) noexcept {
  std::free(p);
}
[[gnu::noinline]] void operator delete(void* p, std::size_t) noexcept {
  std::free(p);
}
#endif

namespace {

using namespace nibble;
using nibble::testing::calibrated_model;
using nibble::testing::random_images;
using nibble::testing::small_options;
using nibble::testing::ThreadsGuard;

int64_t allocations_of(Executor& executor, const Tensor& images) {
  allocations = 0;
  counting = true;
  const Tensor logits = executor.run(images);
  counting = false;
  REQUIRE(logits.dim(0) == images.dim(0));
  return allocations;
}

/// The least of five calls: a second thread that comes late to the first call makes its maps in a later one.
int64_t least_of(Executor& executor, const Tensor& images) {
  int64_t least = allocations_of(executor, images);
  for (int call = 1; call < 5; ++call) least = std::min(least, allocations_of(executor, images));
  return least;
}

TEST_CASE("executor: a call allocates its logits and nothing else, once it has met as many images") {
  if (kSanitized) {
    MESSAGE("skipped: the sanitizer's operators do not count");
    return;
  }
  const ThreadsGuard guard;
  for (const char* precision : {"w4a4-fl8", "w8a8", "bf16"}) {
    for (int threads : {1, 2, -1}) {  // -1: one, and all convolutions row by row
      CAPTURE(precision);
      CAPTURE(threads);
      set_threads(std::abs(threads));
      const NetworkOptions options = small_options(precision, 0.25);
      RowPlanOptions rows;
      if (threads < 0) rows = {.large_map = 0, .strip_points = 20};
      Executor executor(make_served(calibrated_model(options)), rows);
      REQUIRE((executor.row_units() > 0) == (threads < 0));
      const Tensor many = random_images(9, options.image_size), one = random_images(1, options.image_size);
      CHECK(allocations_of(executor, many) > 20);  // its maps and lists: the counter counts
      CHECK(least_of(executor, many) == 1);
      CHECK(least_of(executor, one) == 1);
    }
  }
}

}  // namespace
