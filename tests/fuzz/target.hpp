// What each fuzz target gives: a check of one input, and good inputs to begin with.
#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace nibble::testing {

using FuzzInput = std::vector<uint8_t>;

struct FuzzTarget {
  const char* name;
  /// Reads the input as the program does. Returns whether it was accepted, or refused with an Error of the documented
  /// kind; whatever else happens (another exception, a signal, a sanitizer's report) is a defect. Throws
  /// std::logic_error when an accepted input breaks a promise.
  bool (*check)(std::span<const uint8_t>);
  std::vector<FuzzInput> (*seeds)();
};

extern const FuzzTarget kImageTarget;        // a JPEG or PNG file, both decoders
extern const FuzzTarget kSafetensorsTarget;  // any safetensors file
extern const FuzzTarget kModelTarget;        // a checkpoint or served file, sealed with new checksums
extern const FuzzTarget kConfigTarget;       // a training config
extern const FuzzTarget kStudyTarget;        // study.json, plan.json, metrics.jsonl
extern const FuzzTarget kLabelsTarget;       // a list of images and their classes
extern const FuzzTarget kTorchTarget;        // a file of torch.save, or a pickle that is put into one

inline FuzzInput bytes_of(const std::string& text) {
  return {text.begin(), text.end()};
}

inline std::string text_of(std::span<const uint8_t> input) {
  return {reinterpret_cast<const char*>(input.data()), input.size()};
}

}  // namespace nibble::testing
