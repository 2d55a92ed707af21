#include "nn/metrics_log.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <nlohmann/json.hpp>
#include <span>
#include <utility>

#include "engine/error.hpp"
#include "nn/atomic_file.hpp"
#include "nn/json_text.hpp"

namespace nibble {

namespace fs = std::filesystem;

namespace {

constexpr size_t kLongestLine = size_t{1} << 20;  // ours have a few hundred bytes

/// Does the line stay when the log is cut back to `step`?
bool stays(std::string_view line, int64_t step) {
  if (line.size() > kLongestLine) return false;
  const nlohmann::json object = parse_json_or_discard(line);
  if (!object.is_object()) return false;
  const auto found = object.find("step");
  if (found == object.end() || !found->is_number()) return true;
  return found->get<double>() <= static_cast<double>(step);
}

/// The lines that stay, and how many are removed.
std::pair<std::string, int64_t> cut(std::string_view text, std::optional<int64_t> keep_to_step) {
  std::pair<std::string, int64_t> result{{}, 0};
  while (!text.empty()) {
    const size_t newline = text.find('\n');
    const bool whole = newline != std::string_view::npos;
    const size_t length = whole ? newline + 1 : text.size();
    if (whole && (!keep_to_step || stays(text.substr(0, newline), *keep_to_step)))
      result.first += text.substr(0, length);
    else
      ++result.second;
    text.remove_prefix(length);
  }
  return result;
}

}  // namespace

MetricsRecord& MetricsRecord::add(std::string_view key, std::string_view text) {
  return add_literal(key, json_text(nlohmann::json(text)));
}

std::string MetricsRecord::shortest(float value) {
  return fmt::format("{}", value);
}

std::string MetricsRecord::shortest(double value) {
  return fmt::format("{}", value);
}

MetricsRecord& MetricsRecord::add_literal(std::string_view key, std::string_view json) {
  const std::string name = json_text(nlohmann::json(key)) + ":";
  if (members_.starts_with(name) || members_.find("," + name) != std::string::npos)
    throw Error(ExitCode::kFailed, fmt::format("[metrics] the key {} was added twice to one line", name));
  members_ += fmt::format("{}{}{}", members_.empty() ? "" : ",", name, json);
  return *this;
}

std::optional<double> logged_value(const fs::path& path, int64_t step, std::string_view key) {
  if (!path_exists(path)) return std::nullopt;
  const std::string text = read_text_file(path, kLongestLog);
  const std::string quoted = json_text(nlohmann::json(key));
  std::optional<double> value;
  for (std::string_view rest = text; !rest.empty();) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    if (line.size() > kLongestLine || line.find(quoted) == std::string_view::npos) continue;
    const nlohmann::json object = parse_json_or_discard(line);
    if (!object.is_object()) continue;
    const auto at = object.find("step"), found = object.find(key);
    if (at == object.end() || found == object.end() || !at->is_number() || !found->is_number()) continue;
    if (at->get<double>() == static_cast<double>(step)) value = found->get<double>();
  }
  return value;
}

MetricsLog::MetricsLog(fs::path path, const MetricsLogArgs& args) : path_(std::move(path)) {
  if (path_exists(path_)) {
    const std::string text = read_text_file(path_, kLongestLog);
    auto [kept, removed] = cut(text, args.keep_to_step);
    if (removed > 0) write_file_atomically(path_, kept);
    lines_removed_ = removed;
  }
  fd_ = FileDescriptor(::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666));
  if (!fd_.open()) throw_disk_error("open the metrics log", path_, errno);
}

void MetricsLog::write(const MetricsRecord& record) {
  const std::string line = record.text() + "\n";
  struct stat before {};
  const bool known = ::fstat(fd_.get(), &before) == 0 && S_ISREG(before.st_mode);
  const int error_number = write_all(fd_.get(), std::as_bytes(std::span(line.data(), line.size())));
  if (error_number == 0) return;
  // Should even this fail, the partial line is removed when the log is next opened.
  [[maybe_unused]] const int ignored = known ? ::ftruncate(fd_.get(), before.st_size) : 0;
  throw_disk_error("append to the metrics log", path_, error_number);
}

void MetricsLog::sync() {
  if (disk_calls().fsync(fd_.get()) != 0) throw_disk_error("flush the metrics log", path_, errno);
}

}  // namespace nibble
