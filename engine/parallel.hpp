// Threads: the only door to TBB. Results never depend on the number of threads, because work is cut by shape alone.
#pragma once
#include <cstdint>

#include "engine/function_ref.hpp"

namespace nibble {

/// Limits all loops of this library to `threads` (>= 1) threads from now on; 0 means one per available core. Loops that
/// a host program runs in TBB itself keep their threads; a number above TBB's own raises TBB's limit for the process.
/// Must not be called while a parallel_for runs.
void set_threads(int threads);
/// The limit. Where none was set, the first call sets it to one per core that is available to the thread that asks.
int threads();
/// Cores that the calling thread may use: its affinity mask capped by the CPU quotas of its control groups (the
/// container's, a slice's), rounded, at least 1.
int available_cores();

/// Calls body(i) once for every i in [0, count), in any order, on any thread of the pool, and returns when all are
/// done. May be nested. The first exception thrown by a body is rethrown here. Each thread runs with denormals flushed
/// to zero and round-to-nearest (MXCSR), so that float results do not depend on the caller's mode, which it gets back.
void parallel_for(int64_t count, FunctionRef<void(int64_t)> body);

/// parallel_for of bodies that may refuse their work with an Error: all are run, and of several errors that of the
/// smallest i is rethrown, whichever came first.
void parallel_for_refusing(int64_t count, FunctionRef<void(int64_t)> body);

/// parallel_for as the outermost loop of a few long bodies: a thread that finds none left helps with the loops inside
/// the others. So the caller must hold nothing that belongs to its thread (Scratch), and may not be inside another
/// loop.
void parallel_for_outermost(int64_t count, FunctionRef<void(int64_t)> body);

/// Sets this thread's MXCSR as parallel_for does; for code that runs outside it.
void set_float_mode();

/// The same for as long as it lives; then the caller has its own MXCSR again. For entry points that a host program
/// calls.
class FloatModeScope {
 public:
  FloatModeScope();
  ~FloatModeScope();
  FloatModeScope(const FloatModeScope&) = delete;
  FloatModeScope& operator=(const FloatModeScope&) = delete;

 private:
  [[maybe_unused]] unsigned before_ = 0;
};

}  // namespace nibble
