// The number of threads of a test ends with it.
#pragma once
#include "engine/parallel.hpp"

namespace nibble::testing {

/// Puts back, where it ends, however that is, the number of threads that was in force where it began.
struct ThreadsGuard {
  int before = threads();
  ThreadsGuard() = default;
  ThreadsGuard(const ThreadsGuard&) = delete;
  ThreadsGuard& operator=(const ThreadsGuard&) = delete;
  ~ThreadsGuard() { set_threads(before); }
};

}  // namespace nibble::testing
