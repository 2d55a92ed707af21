// The proof behind an export: what was trained is what the file serves, where it was written and anywhere else.
#pragma once
#include <filesystem>
#include <string>

#include "nn/model.hpp"
#include "nn/runtime/executor.hpp"

namespace nibble {

/// The logits f32 [4, classes] that a model's served file has to give on the check images, a fixed batch of noise:
/// those of the model's own modules. Cost: one evaluation of four images by the modules.
Tensor check_logits(const Model& model);

/// The served file as read back gives these logits, bit for bit, however the serving threads make the executor walk
/// through the network.
/// Errors: VerificationError when it does not; as load_served.  Cost: two evaluations of four images.
void verify_served(const Tensor& logits, const std::filesystem::path& file);

/// The note of a served file that holds the SHA-256 of its check_logits (nn/FORMAT.md). A model has it when all its
/// layers multiply integers: only then its logits are the same on every kernel level.
inline constexpr const char* kCheckNote = "check_logits_sha256";
bool has_check_note(const QuantizedNetwork& model);
std::string check_note(const Tensor& logits);

/// Whether a loaded served model gives here the logits that its file notes. UsageError when it notes none.
bool gives_noted_logits(Executor& executor, const std::string& path);

}  // namespace nibble
