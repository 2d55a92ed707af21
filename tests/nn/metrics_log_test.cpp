// The metrics log: whole lines whatever happens, and the cut on resume.
#include "nn/metrics_log.hpp"

#include <doctest/doctest.h>
#include <unistd.h>

#include <cerrno>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>

#include "engine/error.hpp"
#include "nn/atomic_file.hpp"
#include "tests/temp_dir.hpp"

namespace {

using namespace nibble;
namespace fs = std::filesystem;

std::string log_text(const fs::path& path) {
  return read_text_file(path, 1 << 24);
}

/// Opens the log holding `text`, cut to `step`; returns what is left in the file.
std::string after_cut(const std::string& text, std::optional<int64_t> step, int64_t expected_removed) {
  testing::TempDir dir;
  write_file_atomically(dir / "m", text);
  const MetricsLog log(dir / "m", {.keep_to_step = step});
  CHECK(log.lines_removed() == expected_removed);
  return log_text(dir / "m");
}

ssize_t half_then_full(int fd, const void* data, size_t bytes) {
  static bool first = true;
  if (first) {
    first = false;
    return ::write(fd, data, bytes / 2);
  }
  first = true;
  errno = ENOSPC;
  return -1;
}

}  // namespace

TEST_CASE("metrics record: numbers read back to the same value, what JSON lacks is null") {
  const double third = 1.0 / 3;
  MetricsRecord record;
  record.add("step", 5).add("big", int64_t{-9007199254740993}).add("third", third).add("tenth", 0.1f);
  record.add("nan", std::numeric_limits<double>::quiet_NaN()).add("inf", std::numeric_limits<float>::infinity());
  record.add("ok", true).add("path \"x\"\n", "a\xff\\b");
  const std::string text = record.text();
  CHECK(text.find('\n') == std::string::npos);
  const auto json = nlohmann::json::parse(text);
  CHECK(json["step"] == 5);
  CHECK(json["big"].get<int64_t>() == -9007199254740993);
  CHECK(json["third"].get<double>() == third);
  CHECK(text.find("\"tenth\":0.1,") != std::string::npos);
  CHECK(json["nan"].is_null());
  CHECK(json["inf"].is_null());
  CHECK(json["ok"] == true);
  CHECK(json["path \"x\"\n"] == "a\xef\xbf\xbd\\b");
  CHECK_THROWS_AS(record.add("step", 6), Error);
  CHECK(MetricsRecord().text() == "{}");
}

TEST_CASE("metrics log: lines are in the file as soon as they are written, and a second opening continues") {
  testing::TempDir dir;
  {
    MetricsLog log(dir / "m");
    log.write(MetricsRecord().add("step", 1).add("train/loss", 2.5));
    CHECK(log_text(dir / "m") == "{\"step\":1,\"train/loss\":2.5}\n");
  }
  MetricsLog log(dir / "m");
  CHECK(log.lines_removed() == 0);
  log.write(MetricsRecord().add("step", 2));
  log.sync();
  CHECK(log_text(dir / "m") == "{\"step\":1,\"train/loss\":2.5}\n{\"step\":2}\n");
}

TEST_CASE("metrics log: resuming removes later steps, damaged lines and the partial last line") {
  const std::string log = "{\"step\":1}\n{\"kind\":\"event\"}\n{\"step\":2}\n{\"step\":3}\n";
  CHECK(after_cut(log, 2, 1) == "{\"step\":1}\n{\"kind\":\"event\"}\n{\"step\":2}\n");
  CHECK(after_cut(log, 3, 0) == log);
  CHECK(after_cut(log, 0, 3) == "{\"kind\":\"event\"}\n");
  CHECK(after_cut(log + "{\"step\":3}", 3, 1) == log);
  CHECK(after_cut(log + "{\"st", std::nullopt, 1) == log);
  CHECK(after_cut("{\"step\":1}\n{\"step\":\n\xff\n[1]\n7\n\n{\"step\":2.5}\n", 2, 6) == "{\"step\":1}\n");
  CHECK(after_cut("", 2, 0).empty());
  CHECK(after_cut("no newline", 2, 1).empty());
  CHECK(after_cut("{\"step\":1e999}\n{\"step\":99999999999999999999}\n{\"step\":\"9\"}\n", 2, 2) ==
        "{\"step\":\"9\"}\n");
}

TEST_CASE("metrics log: a logged value is found by its step and key, exactly, past lines that are not objects") {
  testing::TempDir dir;
  CHECK_FALSE(logged_value(dir / "m", 1, "a"));
  const double third = 1.0 / 3;
  write_file_atomically(dir / "m", "{\"step\":1,\"a\":7}\n[\"a\"]\n\"a\"\n{\"a\":\n{\"a\":9}\n" +
                                       MetricsRecord().add("step", 2).add("a", third).text() +
                                       "\n{\"step\":3,\"a\":null}\n{\"step\":4,\"b\":\"a\"}\n");
  CHECK(logged_value(dir / "m", 1, "a") == 7);
  CHECK(logged_value(dir / "m", 2, "a") == third);
  CHECK_FALSE(logged_value(dir / "m", 3, "a"));
  CHECK_FALSE(logged_value(dir / "m", 4, "a"));
  CHECK_FALSE(logged_value(dir / "m", 5, "a"));
}

TEST_CASE("metrics log: one that cannot be looked at is a DiskError, not a log without the value") {
  testing::TempDir dir;
  fs::create_symlink("m", dir / "m");
  CHECK_THROWS_AS(logged_value(dir / "m", 1, "a"), DiskError);
  CHECK_THROWS_AS(MetricsLog(dir / "m"), DiskError);
}

TEST_CASE("metrics log: cutting at every byte of a file keeps exactly the whole lines") {
  const std::string log = "{\"step\":1}\n{\"step\":2}\n{\"step\":3}\n";
  for (size_t length = 0; length <= log.size(); ++length) {
    const size_t whole = log.rfind('\n', length == 0 ? std::string::npos : length - 1);
    const std::string expected = length == 0 || whole == std::string::npos ? "" : log.substr(0, whole + 1);
    const int64_t removed = expected.size() == length ? 0 : 1;
    CHECK(after_cut(log.substr(0, length), std::nullopt, removed) == expected);
  }
}

TEST_CASE("metrics log: hostile lines, deep or long, are removed and do no harm") {
  CHECK(after_cut(std::string(900'000, '[') + "\n{\"step\":1}\n", 1, 1) == "{\"step\":1}\n");
  CHECK(after_cut("{\"a\":\"" + std::string(2'000'000, 'x') + "\"}\n{\"step\":1}\n", 1, 1) == "{\"step\":1}\n");
}

TEST_CASE("metrics log: a full disk is a DiskError, leaves whole lines, and writing may continue") {
  testing::TempDir dir;
  MetricsLog log(dir / "m");
  log.write(MetricsRecord().add("step", 1));
  const DiskCalls saved = disk_calls();
  disk_calls().write = half_then_full;
  CHECK_THROWS_AS(log.write(MetricsRecord().add("step", 2)), DiskError);
  disk_calls() = saved;
  CHECK(log_text(dir / "m") == "{\"step\":1}\n");
  log.write(MetricsRecord().add("step", 2));
  CHECK(log_text(dir / "m") == "{\"step\":1}\n{\"step\":2}\n");
}

TEST_CASE("metrics log: a failing cut leaves the older file") {
  testing::TempDir dir;
  write_file_atomically(dir / "m", "{\"step\":1}\n{\"step\":2}\n");
  const DiskCalls saved = disk_calls();
  disk_calls().fsync = [](int) {
    errno = EIO;
    return -1;
  };
  CHECK_THROWS_AS(MetricsLog(dir / "m", {.keep_to_step = 1}), DiskError);
  disk_calls() = saved;
  CHECK(log_text(dir / "m") == "{\"step\":1}\n{\"step\":2}\n");
}

TEST_CASE("metrics log: a path that cannot be opened is a DiskError") {
  testing::TempDir dir;
  CHECK_THROWS_AS(MetricsLog(dir / "missing" / "m"), DiskError);
  CHECK_THROWS_AS(MetricsLog(dir.path()), DiskError);
}
