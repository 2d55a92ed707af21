// Whether this build is watched by a sanitizer, and what the one for threads has to be told.
#pragma once

// gcc says so by macros of its own, clang by features.
#if defined(__SANITIZE_ADDRESS__)
#define NIBBLE_ADDRESS_SANITIZER
#endif
#if defined(__SANITIZE_THREAD__)
#define NIBBLE_THREAD_SANITIZER
#endif
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define NIBBLE_ADDRESS_SANITIZER
#endif
#if __has_feature(thread_sanitizer)
#define NIBBLE_THREAD_SANITIZER
#endif
#endif

#ifdef NIBBLE_THREAD_SANITIZER
// Of the sanitizer's run time: what happened before a release of an address is before what follows its acquisition.
extern "C" void __tsan_acquire(void* address);
extern "C" void __tsan_release(void* address);
#endif

namespace nibble {

#ifdef NIBBLE_ADDRESS_SANITIZER
inline constexpr bool kAddressSanitizer = true;
#else
inline constexpr bool kAddressSanitizer = false;
#endif

#ifdef NIBBLE_THREAD_SANITIZER
inline constexpr bool kThreadSanitizer = true;
#else
inline constexpr bool kThreadSanitizer = false;
#endif

/// Builds so slow that long tests do less.
inline constexpr bool kSanitized = kAddressSanitizer || kThreadSanitizer;

/// What handing tasks to TBB and waiting for them orders, for the thread sanitizer, which does not see into it: what
/// was before comes before the tasks, and these before what follows. Tasks are not ordered among each other, so that
/// their races are found. Nothing in other builds.
class TaskOrder {
 public:
  TaskOrder() { release(begin_); }
  ~TaskOrder() { acquire(end_); }
  TaskOrder(const TaskOrder&) = delete;
  TaskOrder& operator=(const TaskOrder&) = delete;

  /// Lives as long as one of them.
  class Task {
   public:
    explicit Task(TaskOrder& order) : order_(order) { acquire(order_.begin_); }
    ~Task() { release(order_.end_); }
    Task(const Task&) = delete;
    Task& operator=(const Task&) = delete;

   private:
    TaskOrder& order_;
  };

 private:
  static void acquire([[maybe_unused]] char& at) {
#ifdef NIBBLE_THREAD_SANITIZER
    __tsan_acquire(&at);
#endif
  }
  static void release([[maybe_unused]] char& at) {
#ifdef NIBBLE_THREAD_SANITIZER
    __tsan_release(&at);
#endif
  }
  char begin_ = 0, end_ = 0;
};

}  // namespace nibble
