#include "apps/served_export.hpp"

#include <string>
#include <utility>

#include "apps/training/run_note.hpp"
#include "engine/error.hpp"
#include "engine/files.hpp"
#include "nn/runtime/verify_served.hpp"

namespace nibble::apps {

ServedExport export_served(const Checkpoint& checkpoint, const std::filesystem::path& out) {
  ServedModel served = make_served(checkpoint.model);
  served.class_names = checkpoint.class_names;
  served.notes["steps"] = std::to_string(checkpoint.steps_done);
  if (const std::string decoder = noted_decoder(checkpoint); !decoder.empty()) served.notes["decoder"] = decoder;
  require_calibrated(served);
  make_folders_above(out);
  const ServedFileSizes sizes =
      save_served(out, served, [&](const std::filesystem::path& written) { verify_served(checkpoint.model, written); });
  return {std::move(served), sizes};
}

}  // namespace nibble::apps
