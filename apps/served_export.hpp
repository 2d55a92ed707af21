// The served file of a checkpoint, as `nibble export` and a study's points write it: packed, noted, checked.
#pragma once
#include <filesystem>

#include "nn/checkpoint.hpp"
#include "nn/runtime/served_file.hpp"

namespace nibble::apps {

struct ServedExport {
  ServedModel model;
  ServedFileSizes sizes;
};

/// Writes the served model of `checkpoint` to `out`, whose folders it makes, with its class names and notes: "steps",
/// and "decoder" (which JPEG decoder read its training images) where the run noted it. The written file takes its name
/// only when its logits equal the checkpoint's. Errors: those of make_served, save_served and verify_served. Cost: that
/// of make_served and save_served, and three evaluations of four images (verify_served).
ServedExport export_served(const Checkpoint& checkpoint, const std::filesystem::path& out);

}  // namespace nibble::apps
