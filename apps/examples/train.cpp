// Trains a small quantized network on the images of DIR/train, prints its accuracy on DIR/val and writes the served
// file: the library alone, without the program nibble.
//   g++ -std=c++20 -O2 train.cpp -o train $(pkg-config --cflags --libs --static nibble)
//   ./train DIR MODEL.safetensors EPOCHS
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <optional>
#include <utility>

#include "data/loader.hpp"
#include "data/open_images.hpp"
#include "nn/runtime/evaluation.hpp"
#include "nn/runtime/executor.hpp"
#include "nn/runtime/served_file.hpp"
#include "nn/trainer.hpp"

namespace {

constexpr int kSide = 32;  // pixels
constexpr int64_t kBatch = 16;

nibble::Trainer make_trainer(int classes, int64_t steps) {
  nibble::NetworkOptions network;
  network.arch = "resnet26";
  network.width = 0.25;
  network.precision = "w4a4-fl8";  // 4 bits, the first and the last layer 8
  network.image_size = kSide;
  network.classes = classes;
  nibble::TrainerOptions options;
  options.shard = 8;  // images that share batch norm's statistics; a batch is several shards
  options.schedule = {.peak = 0.05, .warmup_steps = steps / 10, .total_steps = steps};
  options.calibrate_step = std::max<int64_t>(1, steps / 5);  // activations are bf16 before it, codes from then on
  return {nibble::make_model(nibble::build_resnet(network), {.seed = 1}), options};
}

nibble::EvaluationResult evaluate(nibble::Executor& executor, const nibble::DatasetPtr& images) {
  nibble::EvalLoader loader({.dataset = images, .transform = {.size = kSide}, .batch_size = kBatch});
  nibble::Evaluation sums;
  while (const std::optional<nibble::Batch> batch = loader.next()) sums.add(executor.run(batch->images), batch->labels);
  return sums.result();
}

int run(const char* folder, const char* out, int64_t epochs) {
  const nibble::DatasetPtr train = nibble::open_images(folder, "train", nibble::Decoder::auto_);
  const nibble::DatasetPtr val = nibble::open_images(folder, "val", nibble::Decoder::auto_);
  nibble::require_same_classes(*train, *val, "train", "val");
  nibble::TrainLoader loader(
      {.dataset = train, .batch_size = kBatch, .transform = {.size = kSide, .min_crop = 0.25f}, .seed = 1});
  nibble::Trainer trainer = make_trainer(train->num_classes(), epochs * loader.batches_per_epoch());
  for (int64_t epoch = 1; epoch <= epochs; ++epoch) {
    double loss = 0;
    for (int64_t step = 0; step < loader.batches_per_epoch(); ++step) {
      const nibble::Batch batch = loader.next();
      loss += trainer.step(batch.images, batch.labels).loss;
    }
    std::printf("epoch %d  loss %.3f\n", static_cast<int>(epoch),
                loss / static_cast<double>(loader.batches_per_epoch()));
  }
  // What is served is what was trained: the integers of the last steps, with batch norm's running statistics.
  nibble::ServedModel model = nibble::make_served(trainer.model());
  model.class_names = train->class_names();
  model.notes["decoder"] = nibble::name_of(nibble::resolve(nibble::Decoder::auto_));
  nibble::save_served(out, model);
  nibble::Executor executor(std::move(model));
  std::printf("top1 %.1f\n", evaluate(executor, val).top1_percent());
  return 0;
}

}  // namespace

int main(int argc, char** argv) try {
  const int64_t epochs = argc == 4 ? std::atoll(argv[3]) : 0;
  if (epochs < 1) {
    std::fprintf(stderr, "usage: train DIR MODEL.safetensors EPOCHS\n");
    return 2;
  }
  return run(argv[1], argv[2], epochs);
} catch (const nibble::Error& e) {  // one sentence: what, where, why and what to do
  std::fprintf(stderr, "error: %s\n", e.what());
  return static_cast<int>(e.code());
} catch (const std::exception& e) {  // no memory left
  std::fprintf(stderr, "error: %s\n", e.what());
  return 1;
}
