// How long loading takes alongside training: what a probe of steps on noise leaves out.
#pragma once
#include "apps/step_probe.hpp"
#include "data/dataset.hpp"
#include "nn/train_options.hpp"

namespace nibble::apps {

/// Seconds of one thread to read, decode, crop and resize a training image at o.network.image_size, the mean of up to
/// 16 spread over `images`; those that cannot be read are skipped. 0: none can. Cost: at most about 0.3 s.
double probe_loading(const Dataset& images, const TrainOptions& o);

/// The seconds per image of steps that wait for o.loader_threads loaders, where `step` is without loading and `loading`
/// is for one thread: a step is no faster than its images come, and both share the machine's cores.
PhaseSeconds with_loading(const PhaseSeconds& step, double loading, const TrainOptions& o);

}  // namespace nibble::apps
