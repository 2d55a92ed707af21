// parallel_for: coverage, nesting, exceptions, float mode; results do not depend on the number of threads.
#include "engine/parallel.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <bit>
#include <cfenv>
#include <chrono>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "engine/error.hpp"
#include "engine/scratch.hpp"
#include "tests/threads_guard.hpp"

using namespace nibble;
using testing::ThreadsGuard;

TEST_CASE("parallel_for visits every index exactly once, for any number of threads") {
  const ThreadsGuard guard;
  for (int count : {1, 2, 3, 8}) {
    set_threads(count);
    CHECK(threads() == count);
    for (int64_t n : {0, 1, 2, 7, 1000}) {
      std::vector<std::atomic<int>> visits(static_cast<size_t>(n));
      parallel_for(n, [&](int64_t i) { ++visits[static_cast<size_t>(i)]; });
      int wrong = 0;
      for (const auto& v : visits) wrong += v.load() != 1;
      CHECK(wrong == 0);
    }
  }
  parallel_for(-3, [](int64_t) { FAIL("a negative count has no index"); });
}

TEST_CASE("parallel_for may be nested three deep") {
  const ThreadsGuard guard;
  set_threads(3);
  std::atomic<int64_t> sum{0};
  parallel_for(5, [&](int64_t i) {
    parallel_for(7, [&](int64_t j) { parallel_for(3, [&](int64_t k) { sum += 100 * i + 10 * j + k; }); });
  });
  CHECK(sum.load() == 100 * 10 * 21 + 10 * 21 * 15 + 3 * 35);
}

TEST_CASE("scratch of an outer body is not touched by inner loops that run on the same thread") {
  const ThreadsGuard guard;
  set_threads(2);
  std::atomic<int> wrong{0};
  parallel_for(16, [&](int64_t i) {
    Scratch scratch;
    int64_t* mine = scratch.get<int64_t>(1000);
    for (int k = 0; k < 1000; ++k) mine[k] = i;
    parallel_for(8, [&](int64_t j) {
      Scratch inner;
      int64_t* other = inner.get<int64_t>(1000);
      for (int k = 0; k < 1000; ++k) other[k] = -j;
    });
    for (int k = 0; k < 1000; ++k) wrong += mine[k] != i;
  });
  CHECK(wrong.load() == 0);
}

TEST_CASE("a thread that waits for an outermost loop helps with the loops inside") {
  const ThreadsGuard guard;
  set_threads(2);
  // Both bodies run at once; the first returns, the second has a loop, of which the first body waits for the second
  // one.
  const auto meet = [] {
    std::atomic<bool> second_runs{false}, met{false};
    std::atomic<int> begun{0};
    parallel_for_outermost(2, [&](int64_t i) {
      if (i == 0) {
        while (!second_runs) std::this_thread::yield();
        return;
      }
      second_runs = true;
      parallel_for(2, [&](int64_t) {
        if (begun++ != 0) return;
        const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
        while (begun < 2 && std::chrono::steady_clock::now() < end) std::this_thread::yield();
        met = begun == 2;
      });
    });
    return met.load();
  };
  for (int k = 0; k < 20; ++k) CHECK(meet());
}

TEST_CASE("parallel_for rethrows what a body throws, and works afterwards") {
  const ThreadsGuard guard;
  for (int count : {1, 3}) {
    set_threads(count);
    std::string caught;
    try {
      parallel_for(100, [](int64_t i) {
        if (i == 42) throw std::runtime_error("index 42");
      });
    } catch (const std::runtime_error& error) {
      caught = error.what();
    }
    CHECK(caught == "index 42");
    caught.clear();
    try {
      parallel_for(4, [](int64_t) {
        parallel_for(4, [](int64_t j) {
          if (j == 3) throw std::runtime_error("inner");
        });
      });
    } catch (const std::runtime_error& error) {
      caught = error.what();
    }
    CHECK(caught == "inner");
    std::atomic<int> visits{0};
    parallel_for(10, [&](int64_t) { ++visits; });
    CHECK(visits.load() == 10);
  }
}

TEST_CASE("a loop inside of a body does all of its work although another body has thrown") {
  const ThreadsGuard guard;
  set_threads(2);
  for (int k = 0; k < 20; ++k) {
    std::atomic<bool> inside{false}, thrown{false};
    std::atomic<int> visits{0};
    bool returned = false;
    CHECK_THROWS_AS(parallel_for(2,
                                 [&](int64_t i) {
                                   if (i == 0) {
                                     while (!inside) std::this_thread::yield();
                                     thrown = true;
                                     throw std::runtime_error("the other");
                                   }
                                   parallel_for(64, [&](int64_t) {
                                     inside = true;
                                     while (!thrown) std::this_thread::yield();
                                     std::this_thread::sleep_for(std::chrono::microseconds(50));
                                     ++visits;
                                   });
                                   returned = true;
                                 }),
                    std::runtime_error);
    CHECK(returned);
    CHECK(visits == 64);
  }
}

TEST_CASE("available cores are at least one, and 0 threads means all of them") {
  const ThreadsGuard guard;
  CHECK(available_cores() >= 1);
  set_threads(0);
  CHECK(threads() == available_cores());
}

TEST_CASE("of several bodies that refuse, the first by number is named, and all are run") {
  const ThreadsGuard guard;
  for (int count : {1, 3, 8}) {
    set_threads(count);
    for (int round = 0; round < 20; ++round) {
      std::atomic<int> run{0};
      std::string named;
      try {
        parallel_for_refusing(64, [&](int64_t i) {
          ++run;
          if (i % 8 == 5) {
            if (i < 16) std::this_thread::yield();  // the first ones are late
            throw UsageError("body {}", i);
          }
        });
      } catch (const UsageError& e) {
        named = e.what();
      }
      CHECK(run.load() == 64);
      CHECK(named == "body 5");
    }
    CHECK_THROWS_AS(parallel_for_refusing(4, [](int64_t) { throw std::runtime_error("no refusal"); }),
                    std::runtime_error);
  }
}

#if defined(__x86_64__)
TEST_CASE("every body runs with denormals flushed to zero") {
  const ThreadsGuard guard;
  for (int count : {1, 3}) {
    set_threads(count);
    std::atomic<int> wrong{0};
    parallel_for(64, [&](int64_t) {
      volatile float smallest = std::bit_cast<float>(0x00800000u), half = 0.5f;
      volatile float product = smallest * half;                // result would be denormal
      volatile float sum = std::bit_cast<float>(0x00400000u);  // operand is denormal
      sum = sum + std::bit_cast<float>(0x00400000u);
      wrong += std::bit_cast<uint32_t>(static_cast<float>(product)) != 0 ||
               std::bit_cast<uint32_t>(static_cast<float>(sum)) != 0;
    });
    CHECK(wrong.load() == 0);
  }
}

TEST_CASE("every body rounds to nearest and keeps no denormal; the caller gets its own mode back") {
  const ThreadsGuard guard;
  // By what it computes: fegetround asks the x87 unit.
  const auto rounds_up = [] {
    volatile float one = 1, tiny = 0x1p-60f;
    return one + tiny > 1.0f;
  };
  const auto keeps_denormals = [] {
    volatile float smallest = std::bit_cast<float>(0x00800000u), half = 0.5f;
    return smallest * half > 0;
  };
  std::fenv_t before;
  std::fegetenv(&before);
  std::atomic<int> wrong{0};
  bool kept = true, kept_throwing = false;
  std::fesetenv(FE_DFL_ENV);
  std::fesetround(FE_UPWARD);
  for (int count : {1, 3}) {
    set_threads(count);
    const auto body = [&](int64_t) { wrong += rounds_up() || keeps_denormals(); };
    for (int64_t n : {0, 1, 64}) {
      parallel_for(n, body);
      kept = kept && rounds_up() && keeps_denormals();
      parallel_for_outermost(n, body);
      kept = kept && rounds_up() && keeps_denormals();
    }
  }
  try {
    parallel_for(1, [](int64_t) { throw std::runtime_error("body"); });
  } catch (const std::runtime_error&) {
    kept_throwing = rounds_up() && keeps_denormals();
  }
  std::fesetenv(&before);
  CHECK(wrong.load() == 0);
  CHECK(kept);
  CHECK(kept_throwing);
}
#endif
