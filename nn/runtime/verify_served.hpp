// The proof behind an export: what was trained is what the file serves.
#pragma once
#include <filesystem>

#include "nn/model.hpp"

namespace nibble {

/// The served file as read back gives the logits of the model's own modules on a fixed batch of noise, bit for bit,
/// however the serving threads make the executor walk through the network.
/// Errors: VerificationError when it does not; as load_served.  Cost: three evaluations of four images, one by the
/// modules and one for each way through the network.
void verify_served(const Model& model, const std::filesystem::path& file);

}  // namespace nibble
