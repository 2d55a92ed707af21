#include "apps/console.hpp"

#include <fcntl.h>
#include <fmt/chrono.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string_view>

#include "engine/env.hpp"
#include "engine/error.hpp"
#include "nn/json_text.hpp"

namespace nibble::apps {

namespace {
Verbosity level = Verbosity::kInfo;
bool line_open = false;
}  // namespace

void occupy_closed_streams() {
  // Opening takes the lowest free number; read-only, so that a result that cannot be written is still an error.
  for (int file = open("/dev/null", O_RDONLY); file >= 0; file = open("/dev/null", O_RDONLY))
    if (file > STDERR_FILENO) {
      close(file);
      return;
    }
}

void set_verbosity_from_environment() {
  const auto text = env(EnvVar::kLog);
  if (!text || *text == "info") return;
  if (*text == "quiet")
    level = Verbosity::kQuiet;
  else if (*text == "debug")
    level = Verbosity::kDebug;
  else
    throw UsageError("NIBBLE_LOG is '{}'; use quiet, info or debug", *text);
}

void set_quiet() {
  level = Verbosity::kQuiet;
}

Verbosity verbosity() {
  return level;
}

bool interactive() {
  static const bool terminal = isatty(2) != 0 && env(EnvVar::kTerm).value_or("dumb") != "dumb";
  return terminal && level != Verbosity::kDebug;
}

void end_progress() {
  if (line_open) std::fputc('\n', stderr);
  line_open = false;
}

std::string printable(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const auto next = static_cast<unsigned char>(i + 1 < text.size() ? text[i + 1] : 0);
    if ((byte < 0x20 && byte != '\n') || byte == 0x7f)
      out += fmt::format("\\x{:02x}", byte);
    else if (byte == 0xc2 && next >= 0x80 && next < 0xa0)  // U+0080 to U+009F: one is another escape
      out += fmt::format("\\u{:04x}", static_cast<unsigned>(text[++i] & 0xff));
    else
      out += text[i];
  }
  return out;
}

std::string one_line(const std::string& name) {
  std::string line = printable(name);
  for (size_t at = 0; (at = line.find('\n', at)) != std::string::npos;) line.replace(at, 1, "\\n");
  return line;
}

std::string shell_quoted(const std::string& word) {
  const bool escapes = one_line(word) != word;  // control characters would not reach the terminal as they are
  const auto plain = [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte >= 0x80 || std::isalnum(byte) != 0 || std::string_view("_./,:=+-@%").find(c) != std::string_view::npos;
  };
  if (!escapes && !word.empty() && word[0] != '=' && std::all_of(word.begin(), word.end(), plain)) return word;
  std::string quoted = escapes ? "$'" : "'";
  for (const char c : word) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '\'')
      quoted += escapes ? "\\'" : "'\\''";
    else if (escapes && c == '\\')
      quoted += "\\\\";
    else if (escapes && (byte < 0x20 || byte >= 0x7f))
      quoted += fmt::format("\\x{:02x}", byte);
    else
      quoted += c;
  }
  return quoted + "'";
}

namespace {

void write_line(const std::string& text) {
  end_progress();
  std::string lines = printable(text);
  if (level == Verbosity::kDebug) {
    const std::string time = utc_now() + " ";
    lines.insert(0, time);
    for (size_t at = 0; (at = lines.find('\n', at)) != std::string::npos; at += time.size()) lines.insert(++at, time);
  }
  std::fprintf(stderr, "%s\n", lines.c_str());
}

}  // namespace

void warn(const std::string& sentence) {
  constexpr size_t kLongest = 8192;  // two paths of the longest kind that Linux takes
  write_line(one_line(sentence.size() > kLongest ? sentence.substr(0, kLongest) + "..." : sentence));
}

void debug(const std::string& sentence) {
  if (level == Verbosity::kDebug) write_line("debug  " + one_line(sentence));
}

void message(const std::string& lines) {
  if (level != Verbosity::kQuiet) write_line(lines);
}

namespace {

/// Columns of the terminal behind stderr. A line that wraps cannot be redrawn in place, so it is cut.
size_t columns() {
  winsize size = {};
  return ioctl(2, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

}  // namespace

void progress(const std::string& line) {
  if (level == Verbosity::kQuiet) return;
  if (!interactive()) {
    write_line(line);
    return;
  }
  std::fprintf(stderr, "\r\x1b[K%s", one_line(line).substr(0, columns() - 1).c_str());
  std::fflush(stderr);
  line_open = true;
}

void print(const std::string& line) {
  end_progress();
  const std::string text = printable(line);
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fputc('\n', stdout);
  if (std::fflush(stdout) != 0 || std::ferror(stdout))
    throw DiskError("the result cannot be written to standard output: the device is full or the reader has gone");
}

void print_object(const nlohmann::ordered_json& object) {
  std::string text = json_text(object);
  // The only control character that JSON may hold as it is and that must not reach a terminal: in JSON's own escape.
  for (size_t at = 0; (at = text.find('\x7f', at)) != std::string::npos;) text.replace(at, 1, "\\u007f");
  print(text);
}

std::string format_table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> width;
  for (const auto& row : rows) {
    width.resize(std::max(width.size(), row.size()));
    for (size_t c = 0; c < row.size(); ++c) width[c] = std::max(width[c], row[c].size());
  }
  std::string out;
  for (const auto& row : rows) {
    std::string line;
    for (size_t c = 0; c < row.size(); ++c)
      line += c == 0 ? fmt::format("{:<{}}", row[c], width[c]) : fmt::format("  {:>{}}", row[c], width[c]);
    line.erase(line.find_last_not_of(' ') + 1);
    out += (out.empty() ? "" : "\n") + line;
  }
  return out;
}

std::string grouped(int64_t n) {
  std::string digits = std::to_string(n);
  for (int at = static_cast<int>(digits.size()) - 3; at > (n < 0 ? 1 : 0); at -= 3)
    digits.insert(static_cast<size_t>(at), ",");
  return digits;
}

std::string counted(int64_t n, const std::string& noun) {
  return grouped(n) + " " + noun + (n == 1 ? "" : "s");
}

std::string rate_text(double per_second) {
  if (per_second >= 99.95 && per_second < 1e15) return grouped(std::llround(per_second));
  return per_second < 1e-3 ? fmt::format("{:.6f}", per_second) : fmt::format("{:.3g}", per_second);
}

std::string duration(double seconds) {
  const auto s = static_cast<int64_t>(std::max(0.0, seconds) + 0.5);
  if (s >= 3600) return fmt::format("{} h {} min", s / 3600, s % 3600 / 60);
  if (s >= 60) return fmt::format("{} min {} s", s / 60, s % 60);
  return fmt::format("{} s", s);
}

std::string utc_now() {
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr)));
}

}  // namespace nibble::apps
