// The program: finds the command, runs it, turns errors into one sentence and the documented exit code.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <exception>
#include <memory>
#include <new>
#include <sstream>

#include "apps/command.hpp"
#include "apps/command_line.hpp"
#include "apps/console.hpp"
#include "apps/options.hpp"
#include "apps/signals.hpp"
#include "engine/cpu.hpp"
#include "engine/env.hpp"
#include "engine/error.hpp"
#include "engine/profiler.hpp"
#include "engine/version.hpp"
#include "ops/kernels/table.hpp"

namespace nibble::apps {

namespace {

std::vector<std::unique_ptr<Command>> all_commands() {
  std::vector<std::unique_ptr<Command>> all;
  for (Command* c : {train_command(), eval_command(), export_command(), quantize_command(), predict_command(),
                     inspect_command(), report_command(), cost_command(), bench_command(), study_command(),
                     split_command(), synth_command(), doctor_command()})
    all.emplace_back(c);
  return all;
}

/// The words that an unknown option or command may have been meant to be.
std::vector<std::string> known_words(const CLI::App& app) {
  std::vector<std::string> words;
  for (const CLI::Option* o : app.get_options())
    for (const std::string& name : o->get_lnames()) words.push_back("--" + name);
  for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; }))
    words.push_back(sub->get_name());
  return words;
}

/// The words of a command after "nibble", each with a blank: "study run "; none for null.
std::string words_of(const CLI::App* command) {
  std::string words;
  for (; command != nullptr && command->get_parent() != nullptr; command = command->get_parent())
    words = command->get_name() + " " + words;
  return words;
}

/// The words that the parser did not know, those of the chosen command first.
std::vector<std::string> unknown_words(const CLI::App& app, const CLI::App* chosen) {
  std::vector<std::string> words = chosen != nullptr ? chosen->remaining() : std::vector<std::string>();
  for (const std::string& word : app.remaining(true)) words.push_back(word);
  std::erase(words, "--");  // ends the options, and is not one
  return words;
}

/// Whether the word stands after "--" in the line, and nowhere else.
bool behind_mark(const std::vector<std::string>& line, const std::string& word) {
  const auto mark = std::find(line.begin(), line.end(), "--");
  return mark != line.end() && std::find(line.begin(), mark, word) == mark;
}

/// The first word of the line that the parser did not know, with the nearest one it does.
UsageError unknown_word(const CLI::App& app, const CLI::App* chosen, const std::vector<std::string>& line) {
  const CLI::App& where = chosen != nullptr ? *chosen : app;
  const std::vector<std::string> rest = unknown_words(app, chosen);
  std::string word = rest.empty() ? "?" : rest.front();
  if (behind_mark(line, word))
    return UsageError(
        "'{0}' stands after '--' and so is an argument, which nibble {1}does not take; see nibble {1}--help", word,
        words_of(chosen));
  if (const size_t equals = word.find('='); equals != std::string::npos) word.resize(equals);
  const std::vector<std::string> known = known_words(where);
  if (word.starts_with("-") && std::find(known.begin(), known.end(), word) != known.end())
    return UsageError("the option {0} belongs after the command: nibble {1}{0}; see nibble {1}--help", word,
                      words_of(chosen));
  const std::string near = nearest_name(word, known);
  const bool has_parts = !where.get_subcommands([](const CLI::App*) { return true; }).empty();
  const char* kind = word.starts_with("-") ? "option" : has_parts ? "command" : "argument";
  return UsageError("unknown {} '{}'{}; see nibble {}--help", kind, word,
                    near.empty() ? "" : fmt::format(" (did you mean {}?)", near), words_of(chosen));
}

/// The parser's objection to a line, in a user's words. Values check themselves (command_line.cpp), switches do not.
std::string complaint(const CLI::ParseError& e, const CLI::App& where) {
  const std::string text = e.what(), could_not = "Could not convert: ";
  const std::string name = text.substr(0, text.find(':'));
  if (const size_t is = text.find(" = "); text.starts_with(could_not) && is != std::string::npos)
    return fmt::format("{} is a switch and takes no value such as '{}'",
                       text.substr(could_not.size(), is - could_not.size()), text.substr(is + 3));
  if (dynamic_cast<const CLI::ArgumentMismatch*>(&e) == nullptr) return text;
  const CLI::Option* option = where.get_option_no_throw(name);
  const size_t count = option != nullptr ? option->count() : 0;
  if (count < 2) return name + " has no value";
  return name + (count == 2 ? " is given twice" : fmt::format(" is given {} times", count)) + "; keep one";
}

/// The parser takes the word after "--out=" for its value.
void refuse_empty_values(const std::vector<std::string>& line) {
  for (const std::string& word : line) {
    if (word == "--") return;
    if (word.size() > 3 && word.starts_with("--") && word.find('=') == word.size() - 1)
      throw UsageError("{} is empty, as from a variable that is not set; give it a value or leave it out",
                       word.substr(0, word.size() - 1));
  }
}

/// NIBBLE_ISA is a setting like an option: a level that cannot run here is refused before anything is done.
void check_forced_level() {
  if (!env(EnvVar::kIsa)) return;
  try {
    kernels::active();
  } catch (const UnsupportedError& e) {
    throw UsageError("NIBBLE_ISA: {}", e.what());
  }
}

/// NIBBLE_PROFILE=FILE records the whole command and writes a Chrome trace, also when the command fails; a command that
/// failed keeps its own code.
int run_profiled(Command& command) {
  const std::optional<std::string> path = env(EnvVar::kProfile);
  if (!path) return command.run();
  int code = 0;
  std::exception_ptr failure;
  refuse_to_replace(*path, kTraceBegins, "a Chrome trace");
  start_profiler();
  try {
    code = command.run();
  } catch (...) {
    failure = std::current_exception();
  }
  stop_profiler();
  try {
    write_chrome_trace(*path);
    message(fmt::format("profile: {}", one_line(*path)));
  } catch (const Error& e) {
    if (failure == nullptr && code == 0) throw;
    warn(fmt::format("error: {}", e.what()));
  }
  if (failure != nullptr) std::rethrow_exception(failure);
  return code;
}

/// "--[no-]nesterov" instead of the parser's "--nesterov,--no-nesterov{false}".
class HelpText : public CLI::Formatter {
 public:
  std::string make_option_name(const CLI::Option* option, bool is_positional) const override {
    if (is_positional || option->get_fnames().empty()) return Formatter::make_option_name(option, is_positional);
    return "--[no-]" + option->get_lnames().front();
  }
};

/// The help or version that was asked for, with the exit code of any result.
int show(const CLI::App& app, const CLI::ParseError& asked) {
  std::ostringstream text;
  app.exit(asked, text, text);
  std::string lines = text.str();
  if (lines.ends_with('\n')) lines.pop_back();
  print(lines);
  return 0;
}

int run(int argc, char** argv) {
  occupy_closed_streams();
  let_large_files_fail();
  set_verbosity_from_environment();
  CLI::App app("nibble: trains and serves 4-bit and 8-bit ResNets on CPUs", "nibble");
  app.set_version_flag("--version", build_version());
  app.formatter(std::make_shared<HelpText>());  // the commands below get this and the next one, too
  app.require_subcommand(0, 1);                 // a second command's name is a surplus word
  app.footer("nibble COMMAND --help explains one command, with examples.");
  const std::vector<std::unique_ptr<Command>> commands = all_commands();
  Command* chosen = nullptr;
  for (const auto& command : commands) {
    CLI::App* sub = app.add_subcommand(command->name(), command->summary());
    sub->footer(std::string("Examples:\n") + command->examples() + command->notes());
    command->declare(*sub);
    sub->callback([&, c = command.get()] { chosen = c; });
  }
  const auto parsed_command = [&]() -> const CLI::App* {
    const CLI::App* deepest = nullptr;
    for (const CLI::App* a = &app; !a->get_subcommands().empty(); a = deepest) deepest = a->get_subcommands().front();
    return deepest;
  };
  std::vector<const char*> words(argv, argv + argc);
  if (argc > 1 && std::string_view(argv[1]) == "help") {  // nibble help train is nibble train --help
    words.erase(words.begin() + 1);
    words.push_back("--help");
  }
  const std::vector<std::string> line(words.begin() + std::min(argc, 1), words.end());
  refuse_empty_values(line);
  try {
    app.parse(static_cast<int>(words.size()), words.data());
  } catch (const CLI::ExtrasError&) {
    throw unknown_word(app, parsed_command(), line);
  } catch (const CLI::ParseError& e) {
    const CLI::App* command = parsed_command();
    if (e.get_exit_code() == 0) {  // --help, --version
      const std::vector<std::string> unknown = unknown_words(app, command);
      if (command == nullptr && !unknown.empty() && !unknown.front().starts_with("-"))
        throw unknown_word(app, command, line);  // help of no command
      return show(app, e);
    }
    if (dynamic_cast<const CLI::RequiredError*>(&e) != nullptr && !unknown_words(app, command).empty())
      throw unknown_word(app, command, line);  // it may be what is missing, misspelt
    throw UsageError("{}; see nibble {}--help", complaint(e, command != nullptr ? *command : app), words_of(command));
  }
  if (chosen == nullptr) {
    print(app.help());
    return static_cast<int>(ExitCode::kUsage);
  }
  check_forced_level();
  if (verbosity() == Verbosity::kDebug) debug(fmt::format("nibble {}, kernels {}", build_version(), isa_explanation()));
  return run_profiled(*chosen);
}

}  // namespace

}  // namespace nibble::apps

int main(int argc, char** argv) {
  using nibble::ExitCode;
  try {
    return nibble::apps::run(argc, argv);
  } catch (const nibble::InterruptedError& e) {
    nibble::apps::warn(e.what());  // what was asked for is not an error
    return static_cast<int>(e.code());
  } catch (const nibble::Error& e) {
    nibble::apps::warn(fmt::format("error: {}", e.what()));
    return static_cast<int>(e.code());
  } catch (const std::bad_alloc&) {
    nibble::apps::warn("error: not enough memory; use a smaller --batch-size, --shard, --width or --image-size");
  } catch (const std::exception& e) {
    nibble::apps::warn(fmt::format("error: {}", e.what()));
  }
  return static_cast<int>(ExitCode::kFailed);
}
