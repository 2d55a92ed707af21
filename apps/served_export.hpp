// The served file of a checkpoint, as `nibble export` and a study's points write it: packed, noted, checked.
#pragma once
#include <filesystem>
#include <map>
#include <string>

#include "nn/checkpoint.hpp"
#include "nn/runtime/served_file.hpp"

namespace nibble::apps {

struct ServedExport {
  ServedModel model;
  ServedFileSizes sizes;
};

/// UsageError for the ending of a format that nibble does not write (.onnx, .pt, ...).
void refuse_other_format(const std::filesystem::path& out);
/// Only a served model gives way to a served model: UsageError where `out` is another file that is not empty (the
/// folder of a run is full of them).
void refuse_to_replace_other_than_served(const std::filesystem::path& out);

/// Writes the served model of `checkpoint` to `out`, whose folders it makes, with its class names and notes: "steps",
/// "decoder" (which JPEG decoder read its training images) where the run noted it, the hash of its logits on the check
/// images (kCheckNote) where all layers are integer, and those given. The written file
/// takes its name only when its logits equal the checkpoint's. Errors: those of make_served, save_served and
/// verify_served. Cost: that of make_served and save_served, and three evaluations of four images (verify_served).
ServedExport export_served(const Checkpoint& checkpoint, const std::filesystem::path& out,
                           const std::map<std::string, std::string>& notes = {});

}  // namespace nibble::apps
