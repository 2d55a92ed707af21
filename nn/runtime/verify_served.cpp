#include "nn/runtime/verify_served.hpp"

#include <algorithm>
#include <cstring>

#include "engine/error.hpp"
#include "nn/evaluate_modules.hpp"
#include "nn/noise_images.hpp"
#include "nn/runtime/served_file.hpp"
#include "nn/sha256.hpp"

namespace nibble {
namespace {

Tensor check_images(const QuantizedNetwork& model) {
  return noise_images(4, model.network.options.image_size);
}

}  // namespace

Tensor check_logits(const Model& model) {
  return evaluate_modules(model, prepare_weights(model, Passes::kForward), check_images(model));
}

void verify_served(const Tensor& logits, const std::filesystem::path& file) {
  Executor executor(load_served(file));
  const Tensor images = check_images(executor.model());
  for (const Walk walk : {Walk::kByRows, Walk::kWholeMaps}) {
    const Tensor served = executor.run(images, walk);
    if (served.bytes() != logits.bytes() || std::memcmp(logits.raw(), served.raw(), logits.bytes()) != 0)
      throw VerificationError(
          "the logits of the served model differ from the checkpoint's on the check images, so no file was written; "
          "please report this with `nibble doctor`'s output");
  }
}

bool has_check_note(const QuantizedNetwork& model) {
  const std::vector<UnitSpec>& units = model.network.units;
  return model.calibrated() && model.network.options.mode == QuantMode::kInteger &&
         std::all_of(units.begin(), units.end(), [](const UnitSpec& u) { return u.precision.weight_bits < 16; });
}

std::string check_note(const Tensor& logits) {
  Sha256 hash;
  hash.update({logits.raw(), logits.bytes()});
  return hash.hex();
}

bool gives_noted_logits(Executor& executor, const std::string& path) {
  const ServedModel& model = executor.model();
  const auto noted = model.notes.find(kCheckNote);
  if (noted == model.notes.end())
    throw UsageError("{} notes no logits to compare with: {}", path,
                     has_check_note(model) ? "an earlier version exported it; export it again"
                                           : "it has bf16 layers, whose sums differ between kernel levels");
  return check_note(executor.run(check_images(model))) == noted->second;
}

}  // namespace nibble
