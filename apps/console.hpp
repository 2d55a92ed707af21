// The terminal: messages and progress on stderr, results on stdout, tables for people.
#pragma once
#include <fmt/format.h>

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace nibble::apps {

enum class Verbosity { kQuiet, kInfo, kDebug };

/// Before any file is opened: standard streams that the caller closed (>&-) get /dev/null, where writing fails; the
/// next file opened would otherwise take their place, and get the messages.
void occupy_closed_streams();

/// From NIBBLE_LOG and --quiet; UsageError for another value of the variable. With debug every line on stderr begins
/// with the time (utc_now).
void set_verbosity_from_environment();
void set_quiet();
Verbosity verbosity();

/// Control characters, which file names and files from outside may hold, as \xNN; line ends stay.
std::string printable(const std::string& text);
/// The same for a name inside a line: line ends, too, which would forge a line.
std::string one_line(const std::string& name);
/// A word of a command that is printed to be pasted into a shell: as it is, or in quotes where a shell would split or
/// change it: 'my run', '=x' (zsh); with control characters $'a\nb', which bash and zsh read. Quotes do not keep a
/// program from taking a word that begins with - for an option.
std::string shell_quoted(const std::string& word);
/// Lines on stderr, unless quiet; printable.
void message(const std::string& lines);
/// One line on stderr with NIBBLE_LOG=debug: what helps to see where a run's time goes or which of its parts fails.
void debug(const std::string& sentence);
/// One line on stderr, always: printable, line ends too, and cut where it exceeds 8 KiB.
void warn(const std::string& sentence);
/// A progress line: redrawn in place on a terminal, a plain line elsewhere and with NIBBLE_LOG=debug (the caller paces
/// those).
void progress(const std::string& line);
/// Ends a redrawn line, so that the next message starts on its own.
void end_progress();
/// True when stderr is a terminal that may be redrawn (TERM is not "dumb").
bool interactive();

/// Results: lines on stdout, printable.
void print(const std::string& line);
/// One object in one line on stdout; bytes of a path that are not UTF-8, which JSON cannot hold, become U+FFFD.
void print_object(const nlohmann::ordered_json& object);

/// Columns padded to their widest cell; the first column to the left, numbers to the right. Row 0 is the header.
std::string format_table(const std::vector<std::vector<std::string>>& rows);
/// 1234567 -> "1,234,567".
std::string grouped(int64_t n);
/// 1 -> "1 thread", 1234 -> "1,234 threads".
std::string counted(int64_t n, const std::string& noun);
/// Images per second for people: three digits, all of a whole number, never an exponent: "0.52", "37.1", "1,370".
std::string rate_text(double per_second);
/// Seconds as "3 h 10 min", "2 min 5 s", "12 s".
std::string duration(double seconds);
/// Now, as "2026-11-27T14:30:05Z".
std::string utc_now();

}  // namespace nibble::apps
