// How much memory a training will take, before it takes it.
#pragma once
#include <cstdint>
#include <string>

#include "nn/train_options.hpp"

namespace nibble::apps {

/// Bytes that the process will hold at the peak of a training step, which comes before calibration (a value of bf16
/// takes two bytes, a code one). Where a step of as many images as are at work at the same time takes half a second,
/// and 4 GiB are available, one is made and its memory counted; otherwise along a line from steps on a few images.
/// Evaluations take less.
/// Needs    o.network.classes > 1, o.shard and o.batch_size valid.
/// Seen     0.94 to 1.12 of the peak that was then measured, of 230 to 2,850 MiB; 1.3 of 112 MiB.
/// Cost     one step, or two, of half a second (of a few images of 512 px and more several); what they take is given
/// back. `most_macs`: forward multiply-adds of a step that is made as it is.
int64_t forecast_memory(const TrainOptions& o, int64_t most_macs = 32'000'000'000);

/// Bytes that this process may still take: what the system says is available, within the limits of control groups; 0
/// where the system does not say.
int64_t available_memory();

/// "2.74 GiB", "531 MiB".
std::string memory_text(int64_t bytes);

/// "memory about 2.74 GiB (forecast); 21.3 GiB are available", and, where that is less, what else to do.
std::string describe_memory(int64_t forecast, int64_t available, const TrainOptions& o);

}  // namespace nibble::apps
