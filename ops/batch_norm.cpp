#include "ops/batch_norm.hpp"

#include "engine/math.hpp"
#include "ops/float_op.hpp"

namespace nibble {

namespace {

/// Sixteen channels: one cache line of a row per step down the rows.
constexpr int64_t kChannelBlock = 16;

int64_t rows_per_task(int64_t channels) {
  return std::max<int64_t>(1, kElementsPerTask / std::max<int64_t>(1, channels));
}

std::vector<float> inverse_std(const BatchStatistics& statistics, float epsilon) {
  std::vector<float> inverse;
  for (float v : statistics.variance) inverse.push_back(1.0f / sqrt_exact(v + epsilon));
  return inverse;
}

/// Adds term(row, channel) down the rows for each channel, in double; finish(channel, sum) gets the totals.
template <typename Term, typename Finish>
void sum_rows(int64_t rows, int64_t channels, const Term& term, const Finish& finish) {
  parallel_blocks(channels, kChannelBlock, [&](int64_t begin, int64_t end) {
    double sum[kChannelBlock] = {};
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = begin; c < end; ++c) sum[c - begin] += term(r, c);
    for (int64_t c = begin; c < end; ++c) finish(c, sum[c - begin]);
  });
}

void require_statistics(const Tensor& x, const BatchStatistics& s) {
  const auto channels = static_cast<size_t>(x.shape().back());
  if (s.mean.size() != channels || s.variance.size() != channels)
    throw ShapeError(
        "[batch_norm] x has {} channels, but the statistics hold {} means and {} variances; "
        "use those of this layer",
        channels, s.mean.size(), s.variance.size());
}

}  // namespace

BatchStatistics batch_statistics(const Tensor& x) {
  require_f32("batch_norm", "x", x, 0);
  const int64_t rows = x.rows(), channels = x.shape().back();
  if (rows == 0)
    throw ShapeError("[batch_norm] x is {}, so a channel has no value to average; pass at least one row",
                     x.shape().str());
  BatchStatistics s;
  s.mean.resize(static_cast<size_t>(channels));
  s.variance.resize(static_cast<size_t>(channels));
  const double count = static_cast<double>(rows);
  const float* from = x.data<float>();
  sum_rows(
      rows, channels, [&](int64_t r, int64_t c) { return static_cast<double>(from[r * channels + c]); },
      [&](int64_t c, double sum) { s.mean[static_cast<size_t>(c)] = static_cast<float>(sum / count); });
  sum_rows(
      rows, channels,
      [&](int64_t r, int64_t c) {
        const double d =
            static_cast<double>(from[r * channels + c]) - static_cast<double>(s.mean[static_cast<size_t>(c)]);
        return d * d;
      },
      [&](int64_t c, double sum) { s.variance[static_cast<size_t>(c)] = static_cast<float>(sum / count); });
  return s;
}

Tensor batch_norm_forward(const Tensor& x, const Tensor& gamma, const Tensor& beta, const BatchStatistics& statistics,
                          float epsilon) {
  require_f32("batch_norm", "x", x, 0);
  const int64_t channels = x.shape().back();
  require_f32("batch_norm", "gamma", gamma, {channels}, "x's channels");
  require_f32("batch_norm", "beta", beta, {channels}, "x's channels");
  require_statistics(x, statistics);
  const std::vector<float> inverse = inverse_std(statistics, epsilon);
  Tensor y(DType::f32, x.shape());
  const float *g = gamma.data<float>(), *b = beta.data<float>(), *mean = statistics.mean.data();
  parallel_blocks(x.rows(), rows_per_task(channels), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float* from = x.row<float>(r);
      float* to = y.row<float>(r);
      for (int64_t c = 0; c < channels; ++c)
        to[c] = (from[c] - mean[c]) * inverse[static_cast<size_t>(c)] * g[c] + b[c];
    }
  });
  return y;
}

BatchNormSums batch_norm_backward_gamma_beta(const Tensor& d_y, const Tensor& x, const BatchStatistics& statistics,
                                             float epsilon) {
  require_f32("batch_norm", "d_y", d_y, x.shape(), "x's dimensions");
  require_statistics(x, statistics);
  const int64_t rows = x.rows(), channels = x.shape().back();
  const std::vector<float> inverse = inverse_std(statistics, epsilon);
  BatchNormSums sums{Tensor(DType::f32, {channels}), Tensor(DType::f32, {channels})};
  const float *g = d_y.data<float>(), *from = x.data<float>(), *mean = statistics.mean.data();
  sum_rows(
      rows, channels, [&](int64_t r, int64_t c) { return static_cast<double>(g[r * channels + c]); },
      [&](int64_t c, double sum) { sums.d_beta.data<float>()[c] = static_cast<float>(sum); });
  sum_rows(
      rows, channels,
      [&](int64_t r, int64_t c) {
        const float xhat = (from[r * channels + c] - mean[c]) * inverse[static_cast<size_t>(c)];
        return static_cast<double>(g[r * channels + c]) * static_cast<double>(xhat);
      },
      [&](int64_t c, double sum) { sums.d_gamma.data<float>()[c] = static_cast<float>(sum); });
  return sums;
}

Tensor batch_norm_backward_x(const Tensor& d_y, const Tensor& x, const Tensor& gamma, const BatchStatistics& statistics,
                             float epsilon, const BatchNormSums* sums) {
  require_f32("batch_norm", "d_y", d_y, x.shape(), "x's dimensions");
  const int64_t rows = x.rows(), channels = x.shape().back();
  require_f32("batch_norm", "gamma", gamma, {channels}, "x's channels");
  require_statistics(x, statistics);
  const std::vector<float> inverse = inverse_std(statistics, epsilon);
  // d_x = factor * (d_y - mean_g - xhat * mean_g_xhat), the two means being zero for constant statistics
  std::vector<float> factor, mean_g(inverse.size(), 0.0f), mean_g_xhat(inverse.size(), 0.0f);
  const float count = static_cast<float>(rows);
  for (size_t c = 0; c < inverse.size(); ++c) {
    factor.push_back(gamma.data<float>()[c] * inverse[c]);
    if (sums == nullptr) continue;
    mean_g[c] = sums->d_beta.data<float>()[c] / count;
    mean_g_xhat[c] = sums->d_gamma.data<float>()[c] / count;
  }
  Tensor d_x(DType::f32, x.shape());
  parallel_blocks(rows, rows_per_task(channels), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float *g = d_y.row<float>(r), *from = x.row<float>(r);
      float* to = d_x.row<float>(r);
      for (size_t c = 0; c < inverse.size(); ++c) {
        const float xhat = (from[c] - statistics.mean[c]) * inverse[c];
        to[c] = factor[c] * (g[c] - mean_g[c] - xhat * mean_g_xhat[c]);
      }
    }
  });
  return d_x;
}

Variable batch_norm(Tape* tape, const Variable& x, const Variable& gamma, const Variable& beta,
                    const BatchNormArgs& args) {
  const bool constant = args.given != nullptr;
  const BatchStatistics statistics = constant ? *args.given : batch_statistics(x.value());
  if (args.used != nullptr) *args.used = statistics;
  const float epsilon = args.epsilon;
  return taped(
      tape, batch_norm_forward(x.value(), gamma.value(), beta.value(), statistics, epsilon),
      [x, gamma, beta, statistics, epsilon, constant](const Tensor& d_y) {
        const BatchNormSums sums = batch_norm_backward_gamma_beta(d_y, x.value(), statistics, epsilon);
        if (gamma.wants_grad()) gamma.accumulate(sums.d_gamma);
        if (beta.wants_grad()) beta.accumulate(sums.d_beta);
        if (x.wants_grad())
          x.accumulate(
              batch_norm_backward_x(d_y, x.value(), gamma.value(), statistics, epsilon, constant ? nullptr : &sums));
      },
      x, gamma, beta);
}

}  // namespace nibble
