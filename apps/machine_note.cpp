#include "apps/machine_note.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "apps/console.hpp"
#include "engine/cpu.hpp"
#include "engine/error.hpp"
#include "engine/parallel.hpp"
#include "engine/version.hpp"
#include "nn/atomic_file.hpp"
#include "nn/json_text.hpp"

namespace nibble::apps {

namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kMostKept = kLongestNote / 2;  // bytes of older sessions, each of about 700
constexpr int kDeepest = 64;                    // levels: copying and printing a value recurse

std::string text_of(const std::filesystem::path& path) {
  try {
    return read_text_file(path, kLongestNote);
  } catch (const Error&) {
    return "";
  }
}

bool is_flat_object(const Json& entry) {
  return entry.is_object() &&
         std::none_of(entry.begin(), entry.end(), [](const Json& value) { return value.is_structured(); });
}

Json sessions_of(const std::filesystem::path& path) {
  bool too_deep = false;
  const auto shallow = [&](int depth, Json::parse_event_t, const Json&) {
    too_deep = too_deep || depth > kDeepest;
    return !too_deep;
  };
  const Json old = Json::parse(text_of(path), shallow, /*allow_exceptions=*/false);
  Json sessions = Json::array();
  if (too_deep || !old.is_object() || !old.contains("sessions") || !old["sessions"].is_array()) return sessions;
  for (const Json& entry : old["sessions"])
    if (is_flat_object(entry)) sessions.push_back(entry);
  size_t bytes = 0, kept = 0;
  const auto stored = [](const Json& session) {  // two levels down
    const std::string text = json_text(session, 2);
    return text.size() + 4 * static_cast<size_t>(1 + std::count(text.begin(), text.end(), '\n')) + 2;
  };
  while (kept < sessions.size() && (bytes += stored(sessions[sessions.size() - 1 - kept])) <= kMostKept) ++kept;
  sessions.erase(sessions.begin(), sessions.end() - static_cast<std::ptrdiff_t>(kept));
  return sessions;
}

/// Bytes are the same only with one build, one kernel level and the same images (README).
std::string difference(const Json& before, const Json& now) {
  const auto text = [](const Json& session, const char* key) {
    const auto found = session.find(key);
    return found != session.end() && found->is_string() ? found->get<std::string>() : "";
  };
  const auto differs = [&](const char* key) {
    const std::string old = text(before, key);
    return !old.empty() && old != text(now, key);
  };
  std::vector<std::string> changes;
  for (const auto& [key, what] : {std::pair{"isa", "kernels of"}, std::pair{"nibble", "build"}})
    if (differs(key)) changes.push_back(fmt::format("{} {} (before: {})", what, text(now, key), text(before, key)));
  // Without their hashes, which mean nothing to a reader. Repaired files and other validation images are among them.
  if (differs("image_sizes")) changes.push_back("other image files in train or val (their sizes or number)");
  return fmt::format("{}", fmt::join(changes, ", "));
}

void store(const std::filesystem::path& path, const Json& sessions) {
  write_file_atomically(path, json_text(Json{{"sessions", sessions}}, 2) + "\n");
}

}  // namespace

MachineNote::MachineNote(const MachineNoteArgs& args) : path_(args.path) {
  Json session;
  session["nibble"] = build_version();
  session["started"] = utc_now();
  session["cpu"] = cpu_features().brand;
  session["isa"] = std::string(name_of(active_isa()));
  session["isa_why"] = isa_explanation();
  session["cores_available"] = available_cores();
  session["threads"] = threads();
  session["data"] = args.data;
  session["decoder"] = args.decoder;
  session["image_sizes"] = args.image_sizes;
  if (!args.weights.empty()) {
    session["weights"] = args.weights;
    session["weights_sha256"] = args.weights_sha256;
  }
  session["run"] = std::filesystem::absolute(args.path).parent_path().string();
  session["first_step"] = args.first_step;
  Json sessions = sessions_of(path_);
  if (!sessions.empty()) changed_ = difference(sessions.back(), session);
  sessions.push_back(std::move(session));
  store(path_, sessions);
}

void MachineNote::finish(const End& end) {
  Json sessions = sessions_of(path_);
  if (sessions.empty()) return;  // the file was removed meanwhile
  Json& session = sessions.back();
  session["last_step"] = end.last_step;
  session["seconds"] = std::chrono::duration<double>(std::chrono::steady_clock::now() - began_).count();
  session["images_per_second"] = end.images_per_second;
  store(path_, sessions);
}

}  // namespace nibble::apps
