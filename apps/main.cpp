// The program: finds the command, runs it, turns errors into one sentence and the documented exit code.
#include <CLI/CLI.hpp>
#include <memory>
#include <new>

#include "apps/command.hpp"
#include "apps/console.hpp"
#include "apps/options.hpp"
#include "apps/signals.hpp"
#include "engine/env.hpp"
#include "engine/error.hpp"
#include "engine/profiler.hpp"

namespace nibble::apps {

namespace {

std::vector<std::unique_ptr<Command>> all_commands() {
  std::vector<std::unique_ptr<Command>> all;
  for (Command* c :
       {train_command(), eval_command(), export_command(), predict_command(), inspect_command(), report_command(),
        cost_command(), bench_command(), study_command(), synth_command(), doctor_command()})
    all.emplace_back(c);
  return all;
}

/// The words an unknown option or command may have been meant to be.
std::vector<std::string> known_words(const CLI::App& app) {
  std::vector<std::string> words;
  for (const CLI::Option* o : app.get_options())
    for (const std::string& name : o->get_lnames()) words.push_back("--" + name);
  for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; }))
    words.push_back(sub->get_name());
  return words;
}

/// The words of a command behind "nibble", each with a blank: "study run "; none for null.
std::string words_of(const CLI::App* command) {
  std::string words;
  for (; command != nullptr && command->get_parent() != nullptr; command = command->get_parent())
    words = command->get_name() + " " + words;
  return words;
}

/// The first word the parser did not know, with the nearest one it does.
UsageError unknown_word(const CLI::App& app, const CLI::App* chosen) {
  const CLI::App& where = chosen != nullptr ? *chosen : app;
  std::vector<std::string> rest = where.remaining();
  if (rest.empty()) rest = app.remaining(true);
  std::string word = rest.empty() ? "?" : rest.front();
  if (const size_t equals = word.find('='); equals != std::string::npos) word.resize(equals);
  const std::string near = nearest_name(word, known_words(where));
  const bool has_parts = !where.get_subcommands([](const CLI::App*) { return true; }).empty();
  const char* kind = word.starts_with("-") ? "option" : has_parts ? "command" : "argument";
  return UsageError("unknown {} '{}'{}; see nibble {}--help", kind, word,
                    near.empty() ? "" : fmt::format(" (did you mean {}?)", near), words_of(chosen));
}

/// NIBBLE_PROFILE=FILE records the whole command and writes a Chrome trace, also when the command fails.
class ProfileToFile {
 public:
  ProfileToFile() : path_(env(EnvVar::kProfile)) {
    if (path_) start_profiler();
  }
  ~ProfileToFile() {
    if (!path_) return;
    stop_profiler();
    try {
      write_chrome_trace(*path_);
      message(fmt::format("profile: {}", *path_));
    } catch (const Error& e) {
      warn(fmt::format("error: {}", e.what()));
    }
  }
  ProfileToFile(const ProfileToFile&) = delete;
  ProfileToFile& operator=(const ProfileToFile&) = delete;

 private:
  std::optional<std::string> path_;
};

int run(int argc, char** argv) {
  let_large_files_fail();
  set_verbosity_from_environment();
  CLI::App app("nibble: trains and serves 4-bit and 8-bit ResNets on CPUs", "nibble");
  app.set_version_flag("--version", NIBBLE_VERSION);
  app.footer("nibble COMMAND --help explains one command, with examples.");
  const std::vector<std::unique_ptr<Command>> commands = all_commands();
  int code = 0;
  const Command* chosen = nullptr;
  for (const auto& command : commands) {
    CLI::App* sub = app.add_subcommand(command->name(), command->summary());
    sub->footer(std::string("Examples:\n") + command->examples());
    command->declare(*sub);
    sub->callback([&, c = command.get()] { chosen = c; });
  }
  const auto parsed_command = [&]() -> const CLI::App* {
    const CLI::App* deepest = nullptr;
    for (const CLI::App* a = &app; !a->get_subcommands().empty(); a = deepest) deepest = a->get_subcommands().front();
    return deepest;
  };
  try {
    app.parse(argc, argv);
  } catch (const CLI::ExtrasError&) {
    throw unknown_word(app, parsed_command());
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) return app.exit(e);  // --help, --version
    throw UsageError("{}; see nibble {}--help", e.what(), words_of(parsed_command()));
  }
  if (chosen == nullptr) {
    print(app.help());
    return static_cast<int>(ExitCode::kUsage);
  }
  const ProfileToFile profile;
  for (const auto& command : commands)
    if (command.get() == chosen) code = command->run();
  return code;
}

}  // namespace

}  // namespace nibble::apps

int main(int argc, char** argv) {
  using nibble::ExitCode;
  try {
    return nibble::apps::run(argc, argv);
  } catch (const nibble::InterruptedError& e) {
    nibble::apps::warn(e.what());  // what was asked for is no error
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
