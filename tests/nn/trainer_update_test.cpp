// What a step does with its options: the rate of the schedule, the smoothing of the labels.
#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "nn/trainer.hpp"
#include "tests/nn/one_shard.hpp"
#include "tests/nn/small_model.hpp"

namespace nibble {
namespace {

using testing::random_images;
using testing::small_options;

constexpr int64_t kBatchOfFour = 4;

std::vector<int32_t> labels_in_turn(int64_t n) {
  std::vector<int32_t> labels;
  for (int64_t i = 0; i < n; ++i) labels.push_back(static_cast<int32_t>(i % 5));
  return labels;
}

Trainer trainer_of_bf16(const TrainerOptions& options) {
  return {make_model(build_resnet(small_options("bf16")), {.seed = 5, .zero_last_gamma = false}), options};
}

TEST_CASE("trainer: a step moves each parameter by the rate that the schedule has for it, and reports that rate") {
  TrainerOptions options;
  options.shard = kBatchOfFour;
  options.schedule = {.kind = ScheduleKind::kCosine, .peak = 0.5, .warmup_steps = 3, .total_steps = 12};
  options.optimizer.momentum = 0;  // then the momentum is the gradient
  options.optimizer.nesterov = false;
  options.optimizer.weight_decay = 0;
  Trainer trainer = trainer_of_bf16(options);
  std::vector<float> rates;
  for (int64_t step = 0; step < 3; ++step) {
    CAPTURE(step);
    const Model before = trainer.model().clone();
    const StepResult result =
        trainer.step(random_images(kBatchOfFour, 32, static_cast<uint64_t>(step)), labels_in_turn(kBatchOfFour));
    const float rate = options.schedule.rate(step);
    CHECK(result.rate == rate);
    rates.push_back(rate);
    for (size_t u = 0; u < before.units.size(); ++u) {
      CAPTURE(before.network.units[u].name);
      const auto check_moved = [&](const Tensor& from, const Tensor& to, const Tensor& gradient) {
        if (!from.defined()) return;
        int64_t wrong = 0, moved = 0;
        for (int64_t i = 0; i < from.size(); ++i) {
          const float was = from.data<float>()[i], is = to.data<float>()[i], g = gradient.data<float>()[i];
          wrong += !(std::fabs(is - (was - rate * g)) <= 1e-6f * (std::fabs(was) + std::fabs(rate * g)));
          moved += is != was;
        }
        CHECK(wrong == 0);
        CHECK((moved > 0) == (rate > 0));
      };
      const UnitParameters &was = before.units[u], &is = trainer.model().units[u];
      const auto& gradient = trainer.momentum().units[u];
      check_moved(was.weights, is.weights, gradient.weights);
      check_moved(was.gamma, is.gamma, gradient.gamma);
      check_moved(was.beta, is.beta, gradient.beta);
    }
  }
  // So that neither another step's rate nor the peak would do.
  CHECK(rates[0] < 0.9f * rates[1]);
  CHECK(rates[1] < 0.9f * rates[2]);
}

TEST_CASE("trainer: the loss, and what it trains towards, have the label smoothing of the options") {
  for (const float smoothing : {0.0f, 0.3f}) {
    CAPTURE(smoothing);
    TrainerOptions options;
    options.shard = kBatchOfFour;
    options.label_smoothing = smoothing;
    options.schedule = {.kind = ScheduleKind::kCosine, .peak = 0.1, .warmup_steps = 0, .total_steps = 4};
    options.optimizer.momentum = 0;
    options.optimizer.nesterov = false;
    options.optimizer.weight_decay = 0;
    Trainer trainer = trainer_of_bf16(options);
    const Tensor images = random_images(kBatchOfFour, 32);
    const std::vector<int32_t> labels = labels_in_turn(kBatchOfFour);
    const Tensor logits = testing::forward_and_backward(trainer.model(), images).logits;
    const auto forward =
        softmax_cross_entropy_forward(logits, std::span<const int32_t>(labels), {.label_smoothing = smoothing});
    CHECK(trainer.step(images, labels).loss == doctest::Approx(static_cast<double>(*forward.loss.data<float>())));
    // The gradient of fc's bias is the mean of the logits' gradients: softmax less the target.
    const Tensor& d_bias = trainer.momentum().units.back().bias;
    for (int64_t k = 0; k < 5; ++k) {
      double expected = 0;
      for (int64_t i = 0; i < kBatchOfFour; ++i) {
        const double target = static_cast<double>(smoothing) / 5 +
                              (labels[static_cast<size_t>(i)] == k ? 1 - static_cast<double>(smoothing) : 0);
        expected += (static_cast<double>(forward.probabilities.row<float>(i)[k]) - target) / kBatchOfFour;
      }
      CHECK(std::fabs(static_cast<double>(d_bias.data<float>()[k]) - expected) < 1e-5);
    }
  }
}

}  // namespace
}  // namespace nibble
