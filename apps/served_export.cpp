#include "apps/served_export.hpp"

#include <string>
#include <utility>

#include "apps/training/run_note.hpp"
#include "engine/error.hpp"
#include "nn/runtime/verify_served.hpp"

namespace nibble::apps {

namespace {

/// Empty where nobody noted it (a checkpoint of another program).
std::string decoder_of(const Checkpoint& checkpoint) {
  try {
    return parse_run_note(checkpoint.run, "").decoder;
  } catch (const ModelError&) {
    return "";
  }
}

}  // namespace

ServedExport export_served(const Checkpoint& checkpoint, const std::filesystem::path& out) {
  ServedModel served = make_served(checkpoint.model);
  served.class_names = checkpoint.class_names;
  served.notes["steps"] = std::to_string(checkpoint.steps_done);
  if (const std::string decoder = decoder_of(checkpoint); !decoder.empty()) served.notes["decoder"] = decoder;
  const ServedFileSizes sizes =
      save_served(out, served, [&](const std::filesystem::path& written) { verify_served(checkpoint.model, written); });
  return {std::move(served), sizes};
}

}  // namespace nibble::apps
