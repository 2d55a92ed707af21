// The images of a training run: opened, cut down to what was asked for, checked, and told apart from other images.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "data/dataset.hpp"
#include "nn/train_options.hpp"

namespace nibble::apps {

struct RunData {
  DatasetPtr train, validation;  // of the same classes; images as they are, without augmentation
  std::string decoder;           // the one in use, never "auto": the pixels of two decoders differ
  /// SHA-256 in hex over class, file name and label of each training image: the same images in another place or layout
  /// are the same images.
  std::string digest;
  std::string validation_digest;  // the same of the validation images
  /// SHA-256 in hex over the file sizes (CIFAR: content hashes) of up to 4,096 images of each split, evenly spread:
  /// other copies with the same names differ in it (a look at each of ImageNet's files would take minutes on a network
  /// disk).
  std::string sizes;
  int64_t steps_per_epoch = 0;        // whole batches in train
  std::vector<std::string> left_out;  // sentences about what is not an image; empty where all are
};

/// Opens DIR/train and DIR/val of `options.data` and keeps the classes and images that the options ask for. Decodes
/// nothing.
/// Errors: DataError when a folder is missing or holds no images, when the two differ in their classes, or for fewer
/// than two classes; UsageError for fewer classes than asked for or less than one batch; UnsupportedError for a decoder
/// that this build lacks.
RunData open_run_data(const TrainOptions& options);

/// UsageError where what a command makes at `out` would lie in a split of the images at `data`, and be taken for a
/// class there the next time.
void require_outside_images(const std::string& out, const std::string& data);

}  // namespace nibble::apps
