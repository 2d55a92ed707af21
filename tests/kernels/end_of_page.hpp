// Memory of operands that ends where a protected page begins.
#pragma once
#include <sys/mman.h>

#include <cstddef>
#include <map>
#include <new>
#include <vector>

namespace nibble::testing {

/// Memory followed by a protected page; what was given back is given out again, because mapping and protecting
/// pages took two thirds of the time of all element-wise tests. For one thread.
class EndOfPagePool {
 public:
  static constexpr size_t kPage = 4096;
  /// The end of `bytes` readable ones, a multiple of a page.
  static std::byte* take(size_t bytes) {
    std::vector<std::byte*>& idle = pool()[bytes];
    if (!idle.empty()) {
      std::byte* const end = idle.back();
      idle.pop_back();
      return end;
    }
    void* const mapped = mmap(nullptr, bytes + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) throw std::bad_alloc();
    std::byte* const end = static_cast<std::byte*>(mapped) + bytes;
    if (mprotect(end, kPage, PROT_NONE) != 0) throw std::bad_alloc();
    return end;
  }
  static void give_back(std::byte* end, size_t bytes) { pool()[bytes].push_back(end); }

 private:
  static std::map<size_t, std::vector<std::byte*>>& pool() {
    static std::map<size_t, std::vector<std::byte*>> idle;
    return idle;
  }
};

/// Elements that end where a protected page begins, so that reading past them ends the test. With `lines` they begin
/// with a line of the cache, so that a kernel may stream, and end up to 63 bytes earlier.
template <typename T>
struct EndOfPage {
  using value_type = T;
  bool lines = false;
  explicit EndOfPage(bool whole_lines = false) : lines(whole_lines) {}
  template <typename U>
  EndOfPage(const EndOfPage<U>& other) : lines(other.lines) {}
  bool operator==(const EndOfPage&) const = default;

  T* allocate(size_t n) const { return reinterpret_cast<T*>(EndOfPagePool::take(mapped(n)) - taken(n)); }
  void deallocate(T* p, size_t n) const {
    EndOfPagePool::give_back(reinterpret_cast<std::byte*>(p) + taken(n), mapped(n));
  }

 private:
  static size_t rounded_up(size_t bytes, size_t to) { return (bytes + to - 1) / to * to; }
  size_t taken(size_t n) const { return rounded_up(n * sizeof(T), lines ? 64 : 1); }
  size_t mapped(size_t n) const { return rounded_up(taken(n), EndOfPagePool::kPage); }
};

}  // namespace nibble::testing
