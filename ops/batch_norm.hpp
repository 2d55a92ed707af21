// Batch norm over all dimensions except the channels, with batch or given statistics.
#pragma once
#include <vector>

#include "engine/tape.hpp"

namespace nibble {

/// Per-channel mean and biased variance (divided by the number of rows, not rows - 1).
struct BatchStatistics {
  std::vector<float> mean, variance;
};

struct BatchNormArgs {
  float epsilon = 1e-5f;
  /// Statistics to use as constants (evaluation); null: those of this batch.
  const BatchStatistics* given = nullptr;
  /// Receives the statistics that were used, for running averages; null: not wanted.
  BatchStatistics* used = nullptr;
};

/// Mean, then the mean of (x - mean)^2, in double down the rows in order, each rounded to f32 once.
/// Errors: ShapeError if x has no rows.
BatchStatistics batch_statistics(const Tensor& x);

/// y = (x - mean[c]) * inv_std[c] * gamma[c] + beta[c], inv_std = 1 / sqrt(variance + epsilon).
/// Shapes: x [..., c], gamma [c], beta [c], y as x.  Types: f32, dense.  Layout: channels innermost.
/// Exact?: IEEE single in the order written, the same on every kernel level.
/// Threads: statistics by blocks of 16 channels, y by blocks of rows.  Cost: three passes over x.
/// Errors: ShapeError if a vector's length is not c, DTypeError if an operand is not f32.
Tensor batch_norm_forward(const Tensor& x, const Tensor& gamma, const Tensor& beta, const BatchStatistics& statistics,
                          float epsilon);

/// sum_g[c] = sum of d_y and sum_g_xhat[c] = sum of d_y * xhat over the rows, xhat = (x - mean) * inv_std, in double
/// down the rows in order, each rounded to f32 once. They are the gradients of beta and gamma, f32 [c].
struct BatchNormSums {
  Tensor d_gamma, d_beta;
};
BatchNormSums batch_norm_backward_gamma_beta(const Tensor& d_y, const Tensor& x, const BatchStatistics& statistics,
                                             float epsilon);

/// With batch statistics (Ioffe and Szegedy 2015, section 3, with both statistics differentiated), N rows:
///   d_x = gamma * inv_std * (d_y - d_beta / N - xhat * d_gamma / N).
/// `sums` null: the statistics were constants, d_x = gamma * inv_std * d_y.
Tensor batch_norm_backward_x(const Tensor& d_y, const Tensor& x, const Tensor& gamma, const BatchStatistics& statistics,
                             float epsilon, const BatchNormSums* sums);

/// Saves: x and the statistics.  Gradients: x, gamma, beta; through the statistics unless they are given.
Variable batch_norm(Tape* tape, const Variable& x, const Variable& gamma, const Variable& beta,
                    const BatchNormArgs& args);

}  // namespace nibble
