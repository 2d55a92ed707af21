// How fast and how large a served model is on this machine, trained or not.
#pragma once
#include <cstdint>

#include "nn/runtime/executor.hpp"
#include "nn/study/point_result.hpp"

namespace nibble::apps {

/// A model with fresh weights and made-up bounds: of the time and size of a trained one, and of no other use.
/// Throws as build_resnet; UnsupportedError for fake mode, whose arithmetic is not served.
ServedModel untrained_model(const NetworkOptions& options);

/// Bytes of the served file, without class names. Cost: writes the file to the system's temporary folder and removes
/// it. DiskError.
uint64_t served_file_bytes(const ServedModel& model);

/// Median time of a call with one and with 32 images of noise, `side` pixels a side. Cost: half a second and seven
/// calls each, at least.
Latency measure_latency(Executor& executor, int64_t side);

}  // namespace nibble::apps
