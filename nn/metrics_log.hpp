// metrics.jsonl: one flat JSON object per line, appended while training, cut back to the checkpoint's step on resume.
#pragma once
#include <cmath>
#include <concepts>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>

#include "engine/files.hpp"

namespace nibble {

/// Longer logs are not read: 5 million lines of 200 bytes.
constexpr uint64_t kLongestLog = uint64_t{1} << 30;

/// One line in the making: `MetricsRecord().add("step", 5).add("train/loss", 1.25)`. Keys keep their order. Numbers
/// are written with the fewest digits that read back to the same value; infinities and NaN, which JSON lacks, as null.
class MetricsRecord {
 public:
  template <typename T>
  requires std::is_arithmetic_v<T> MetricsRecord& add(std::string_view key, T value) {
    if constexpr (std::is_same_v<T, bool>)
      return add_literal(key, value ? "true" : "false");
    else if constexpr (std::integral<T>)
      return add_literal(key, std::to_string(value));
    else
      return add_literal(key, std::isfinite(value) ? shortest(value) : "null");
  }
  /// Bytes that are not UTF-8 (paths may hold any) become U+FFFD.
  MetricsRecord& add(std::string_view key, std::string_view text);
  MetricsRecord& add(std::string_view key, const char* text) { return add(key, std::string_view(text)); }

  /// The object on one line, without a newline at the end.
  std::string text() const { return "{" + members_ + "}"; }

 private:
  static std::string shortest(float value);
  static std::string shortest(double value);
  static std::string shortest(long double value) { return shortest(static_cast<double>(value)); }
  /// Throws Error when the key is there already.
  MetricsRecord& add_literal(std::string_view key, std::string_view json);

  std::string members_;
};

struct MetricsLogArgs {
  /// On resume, the step of the checkpoint: lines whose "step" is later are removed, and so are lines that are not a
  /// JSON object. Lines without a "step" stay. Not given: the log continues where it ends.
  std::optional<int64_t> keep_to_step;
};

/// The value of `key` in the last line of the log `path` that has this "step" and a number under that key; none when
/// there is no such line or no such file. Exact: numbers are written so that they read back equal. Cost: one read of
/// the file. DiskError when it cannot be read or exceeds 1 GiB.
std::optional<double> logged_value(const std::filesystem::path& path, int64_t step, std::string_view key);

/// Appends lines; each is one write call, so that readers and a killed process see whole lines. Not for concurrent use.
class MetricsLog {
 public:
  /// Opens or creates the file. A last line without a newline (the process was killed inside a write) is removed. The
  /// cut is atomic: a process killed while cutting leaves the old file or the new. DiskError when it cannot be read,
  /// exceeds 1 GiB or cannot be written.
  explicit MetricsLog(std::filesystem::path path, const MetricsLogArgs& args = {});

  /// Appends the line. DiskError when it cannot (full disk); a part that was written is removed again, so the file
  /// still consists of whole lines and writing may continue when there is space.
  void write(const MetricsRecord& record);
  /// fsync, before a checkpoint is published: after a power cut no line up to the checkpoint's step is missing.
  void sync();
  /// Lines removed when the log was opened.
  int64_t lines_removed() const { return lines_removed_; }

 private:
  std::filesystem::path path_;
  FileDescriptor fd_;
  int64_t lines_removed_ = 0;
};

}  // namespace nibble
