#include "apps/machine_note.hpp"

#include <fstream>
#include <nlohmann/json.hpp>

#include "apps/console.hpp"
#include "engine/cpu.hpp"
#include "engine/parallel.hpp"
#include "nn/atomic_file.hpp"

namespace nibble::apps {

namespace {

using Json = nlohmann::ordered_json;

Json sessions_of(const std::filesystem::path& path) {
  std::ifstream in(path);
  const Json old = Json::parse(in, nullptr, false);
  if (old.is_object() && old.contains("sessions") && old["sessions"].is_array()) return old["sessions"];
  return Json::array();
}

void store(const std::filesystem::path& path, const Json& sessions) {
  // Paths may hold any bytes.
  write_file_atomically(path, Json{{"sessions", sessions}}.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

}  // namespace

MachineNote::MachineNote(const MachineNoteArgs& args) : path_(args.path) {
  Json session;
  session["nibble"] = NIBBLE_VERSION;
  session["started"] = utc_now();
  session["cpu"] = cpu_features().brand;
  session["isa"] = std::string(name_of(active_isa()));
  session["isa_why"] = isa_explanation();
  session["cores_available"] = available_cores();
  session["threads"] = threads();
  session["data"] = args.data;
  session["decoder"] = args.decoder;
  session["run"] = std::filesystem::absolute(args.path).parent_path().string();
  session["first_step"] = args.first_step;
  Json sessions = sessions_of(path_);
  sessions.push_back(std::move(session));
  store(path_, sessions);
}

void MachineNote::finish(const End& end) {
  Json sessions = sessions_of(path_);
  if (sessions.empty()) return;  // somebody removed the file meanwhile
  Json& session = sessions.back();
  session["last_step"] = end.last_step;
  session["seconds"] = std::chrono::duration<double>(std::chrono::steady_clock::now() - began_).count();
  session["images_per_second"] = end.images_per_second;
  store(path_, sessions);
}

}  // namespace nibble::apps
