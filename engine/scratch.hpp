// Scratch: per-thread bump memory for kernels' panels, given back when the scope ends; grows once, then never
// allocates.
#pragma once
#include <cstddef>

namespace nibble {

/// Stack-like: scopes of one thread must end in reverse order. Safe under nested parallel_for.
class Scratch {
 public:
  Scratch();
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  /// Uninitialised, 64-byte aligned, valid until this scope ends, with 64 readable bytes after it.
  template <typename T>
  T* get(size_t count) {
    return static_cast<T*>(allocate(count * sizeof(T)));
  }

 private:
  void* allocate(size_t bytes);
  size_t chunk_;
  size_t used_;
};

}  // namespace nibble
