#include "nn/runtime/verify_served.hpp"

#include <cstring>

#include "engine/error.hpp"
#include "nn/evaluate_modules.hpp"
#include "nn/noise_images.hpp"
#include "nn/runtime/executor.hpp"
#include "nn/runtime/served_file.hpp"

namespace nibble {

void verify_served(const Model& model, const std::filesystem::path& file) {
  constexpr int64_t kImages = 4;
  const Tensor images = noise_images(kImages, model.network.options.image_size);
  const Tensor trained = evaluate_modules(model, prepare_weights(model, Passes::kForward), images);
  Executor executor(load_served(file));
  for (const Walk walk : {Walk::kByRows, Walk::kWholeMaps}) {
    const Tensor served = executor.run(images, walk);
    if (served.bytes() != trained.bytes() || std::memcmp(trained.raw(), served.raw(), trained.bytes()) != 0)
      throw VerificationError(
          "the logits of the served model differ from the checkpoint's on the check images, so no file was written; "
          "please report this with `nibble doctor`'s output");
  }
}

}  // namespace nibble
