// Checkpoints: the trainer's whole state as one safetensors file, masters under torchvision's names.
//
// Tensors: <layer>.weight F32 OIHW (fc: [classes, features]), <norm>.{weight,bias,running_mean,running_var}, fc.bias,
// momentum.<the same names>, <quantizer>.{mean_of_max,ema_weight,bound,usage}. Metadata: nibble.format = "checkpoint",
// nibble.version, nibble.network (JSON), nibble.steps, nibble.run (JSON from the caller), nibble.classes (JSON).
// Nothing about the machine, the time or the number of threads enters, so equal training gives equal bytes.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "nn/gradients.hpp"
#include "nn/import/weights_file.hpp"
#include "nn/model_file.hpp"

namespace nibble {

struct Checkpoint {
  Model model;
  Gradients momentum;
  int64_t steps_done = 0;
  std::string run;  // JSON text from the caller: options, decoder, hash of the images, best step
  std::vector<std::string> class_names;
};

/// Writes atomically; returns the bytes. DiskError when it cannot, ModelError for names or a `run` that the format
/// cannot hold (not UTF-8, a header above its limit); older files untouched.
uint64_t save_checkpoint(const std::filesystem::path& path, const Model& model, const Gradients& momentum,
                         int64_t steps_done, const std::string& run, const std::vector<std::string>& class_names);

/// Throws ModelError that names the file and the section when anything is wrong: damage, another version, missing or
/// surplus tensors, shapes that do not match the network, values that are not finite.
Checkpoint load_checkpoint(const std::filesystem::path& path);
Checkpoint load_checkpoint(const SafetensorsFile& file);

struct GivenWeights {
  int64_t tensors = 0;         // taken over
  std::string fresh, because;  // the layer that keeps the weights it had (fc) and why; empty: none
  std::string note;            // Weights::note
};
/// Starts from any file of weights (open_weights) with torchvision's names, a checkpoint included. Takes kernels and
/// batch norm; fc, too, if the file has as many classes and, where both sides name them, the same ones. ModelError,
/// with the model left as it was, for a missing tensor, a wrong shape, a value that is not finite, a served file, a
/// tensor that the network lacks, or one of a deeper network.
GivenWeights load_torchvision_weights(const std::filesystem::path& path, Model& model,
                                      const std::vector<std::string>& class_names = {},
                                      const WeightsChoice& choice = {});

}  // namespace nibble
