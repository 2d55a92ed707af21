#include "ops/norm_activate.hpp"

#include <cmath>
#include <optional>
#include <utility>

#include "ops/activation_codes.hpp"
#include "ops/row_blocks.hpp"

namespace nibble {

namespace {

template <typename T>
kernels::Rows<T> bytes_of(const Tensor& t, int64_t first) {
  if (!t.defined()) return {};
  return {t.row<uint8_t>(first), t.stride()};
}

struct Sums {
  std::vector<double> g, g_xhat;
};

/// The tasks' sums of g and of g*(y - mean), added up; the second then gets its inv_std.
Sums total(const Tensor& partial, int64_t tasks, int64_t c, const NormStatistics& statistics) {
  Sums s{std::vector<double>(static_cast<size_t>(c)), std::vector<double>(static_cast<size_t>(c))};
  add_partial_sums(partial, tasks, c, s.g.data(), s.g_xhat.data());
  for (size_t i = 0; i < s.g_xhat.size(); ++i) s.g_xhat[i] *= static_cast<double>(statistics.inv_std[i]);
  return s;
}

/// Whether g is read again after its first norm has read it.
enum class After { kDropped, kRead };

/// dy = gamma*inv_std*(g - mean(g) - xhat*mean(g*xhat)), as p*g + q*y + r.
class NormGradient final : public GradientRows {
 public:
  NormGradient(const NormBranch& b, const Tensor& g, const Sums& sums)
      : name_(b.name), g_(g), y_(b.y.value()), p_(sums.g.size()), q_(p_), r_(p_) {
    const double n = static_cast<double>(y_.rows());
    for (size_t i = 0; i < p_.size(); ++i) {
      const double scale = b.gradient_scale.empty() ? 1.0 : static_cast<double>(b.gradient_scale[i]);
      const double inv_std = static_cast<double>(b.statistics.inv_std[i]);
      const double m = static_cast<double>(b.gamma.data<float>()[i]) * inv_std * scale;
      const double slope = -m * inv_std * sums.g_xhat[i] / n;
      p_[i] = static_cast<float>(m);
      q_[i] = static_cast<float>(slope);
      r_[i] = static_cast<float>(-m * sums.g[i] / n - slope * static_cast<double>(b.statistics.mean[i]));
    }
  }

  void make(int64_t first, int64_t count, bf16* to, int64_t stride) const override {
    Zone zone("norm backward, apply", name_);
    zone.count([&] { return ZoneWork{.bytes = count * static_cast<int64_t>(g_.row_bytes() + y_.row_bytes())}; });
    apply(first, count, {to, stride}, kernels::Store::kCached);
  }

  /// In g's storage unless g is read again.
  Tensor whole(After g_after) const {
    Zone zone("norm backward, apply", name_);
    const Tensor dy = g_after == After::kDropped ? g_ : bf16_like(y_);
    const kernels::Store store = g_after == After::kDropped ? kernels::Store::kCached : store_of(dy);
    zone.count([&] { return ZoneWork{.bytes = stored_bytes(g_) + stored_bytes(y_) + stored_bytes(dy)}; });
    row_blocks(y_.rows(), [&](int64_t, int64_t first, int64_t count) {
      apply(first, count, {dy.row<bf16>(first), dy.stride()}, store);
    });
    return dy;
  }

 private:
  void apply(int64_t first, int64_t count, kernels::Rows<bf16> to, kernels::Store store) const {
    kernels::active().ew.norm_backward_apply(bf16_rows(g_, first), bf16_rows(y_, first), count, y_.shape().back(),
                                             p_.data(), q_.data(), r_.data(), to, store);
  }

  std::string_view name_;
  Tensor g_, y_;
  std::vector<float> p_, q_, r_;
};

/// Gives the convolution its gradient: as rows, if it takes them. Writes d_gamma, d_beta.
void norm_backward(const NormBranch& b, const Tensor& g, const Sums& sums, After g_after) {
  for (size_t i = 0; i < sums.g.size(); ++i) {
    b.d_beta.data<float>()[i] = static_cast<float>(sums.g[i]);
    b.d_gamma.data<float>()[i] = static_cast<float>(sums.g_xhat[i]);
  }
  if (b.y.takes_grad_rows())
    b.y.set_grad_rows(std::make_shared<NormGradient>(b, g, sums));
  else
    b.y.set_grad(NormGradient(b, g, sums).whole(g_after));
}

/// g = relu'(v) * (quantizer'(v) * through + direct), with the sums of the branch's batch norm: row by row as the last
/// of the gradients is made, or in a pass of its own.
class ActivationBackward final : public GradientStage {
 public:
  ActivationBackward(const NormActivateArgs& args, NormAffine affine, const Activated& out, const Tensor& classes)
      : branch_(args.main),
        affine_(std::move(affine)),
        z_(out.z),
        codes_(out.codes),
        classes_(classes),
        quantizer_(args.quantizer != nullptr ? args.quantizer->kernel() : kernels::UnsignedQuantizer{}) {}

  void begin(int64_t tasks) override {
    branch_.y.remake();
    tasks_ = tasks;
    partial_ = Tensor::zeros(DType::f32, {tasks, 2 * channels()});
    g_ = bf16_like(y());
  }

  void take(int64_t task, kernels::Rows<const bf16> d, int64_t first, int64_t count) override {
    Zone zone("norm backward, sums", branch_.name);
    // The gradient of the codes, or of z where no codes are read.
    const Tensor direct = codes_.defined() && z_.defined() ? z_.grad() : Tensor();
    zone.count([&] { return ZoneWork{.bytes = count * bytes_of_row(direct)}; });
    for (int64_t at = 0; at < count; at += kBlockPixels) {
      const int64_t rows = std::min(kBlockPixels, count - at);
      const kernels::Rows<const bf16> block{d.data + at * d.stride, d.stride};
      if (codes_.defined())
        run(task, first + at, rows, block, bf16_rows(direct, first + at));
      else
        run(task, first + at, rows, {}, block);
    }
    kernels::active().ew.publish();
  }

  /// g; `sums` are those over all rows.
  Tensor finish(Sums& sums) {
    if (!g_.defined()) whole();
    sums = total(partial_, tasks_, channels(), branch_.statistics);
    return std::exchange(g_, Tensor());
  }

 private:
  const Tensor& y() const { return branch_.y.value(); }
  int64_t channels() const { return y().shape().back(); }
  int64_t bytes_of_row(const Tensor& direct) const {
    const Tensor& z = classes_.defined() || !z_.defined() ? classes_ : z_.value();
    const int64_t bytes = stored_bytes(y()) + stored_bytes(z) + stored_bytes(direct) + stored_bytes(g_);
    return bytes / std::max<int64_t>(1, y().rows());
  }

  void whole() {
    Zone zone("norm backward, sums", branch_.name);
    const Tensor through = codes_.defined() ? codes_.grad() : Tensor(), direct = z_.defined() ? z_.grad() : Tensor();
    branch_.y.remake();
    begin(row_tasks(y().rows()));
    zone.count([&] { return ZoneWork{.bytes = y().rows() * bytes_of_row(direct) + stored_bytes(through)}; });
    row_blocks(y().rows(), [&](int64_t task, int64_t first, int64_t rows) {
      run(task, first, rows, bf16_rows(through, first), bf16_rows(direct, first));
    });
  }

  void run(int64_t task, int64_t first, int64_t rows, kernels::Rows<const bf16> through,
           kernels::Rows<const bf16> direct) const {
    float* sum = partial_.row<float>(task);
    const bool from_z = z_.defined() && !classes_.defined();  // without z and classes v is computed again from y
    kernels::active().ew.activate_backward({.rows = rows,
                                            .n = channels(),
                                            .y = bf16_rows(y(), first),
                                            .m = affine_.m.data(),
                                            .a = affine_.a.data(),
                                            .z = bf16_rows(from_z ? z_.value() : Tensor(), first),
                                            .classes = bytes_of<const uint8_t>(classes_, first),
                                            .through_quantizer = through,
                                            .direct = direct,
                                            .quantizer = quantizer_,
                                            .mean = branch_.statistics.mean.data(),
                                            .g = {g_.row<bf16>(first), g_.stride()},
                                            .store_g = store_of(g_),
                                            .sum_g = sum,
                                            .sum_g_centred = sum + channels()});
  }

  NormBranch branch_;
  NormAffine affine_;
  Variable z_, codes_;
  Tensor classes_, partial_, g_;
  kernels::UnsignedQuantizer quantizer_;
  int64_t tasks_ = 0;
};

void projection_backward(const NormBranch& b, const Tensor& g) {
  b.y.remake();
  const Tensor& y = b.y.value();
  const int64_t c = y.shape().back(), tasks = row_tasks(y.rows());
  const Tensor partial = Tensor::zeros(DType::f32, {tasks, 2 * c});
  const auto& ew = kernels::active().ew;
  Zone zone("norm backward, sums", b.name);
  zone.count([&] { return ZoneWork{.bytes = stored_bytes(g) + stored_bytes(y)}; });
  row_blocks(y.rows(), [&](int64_t task, int64_t first, int64_t rows) {
    float* sum = partial.row<float>(task);
    ew.norm_backward_sums(bf16_rows(g, first), bf16_rows(y, first), rows, c, b.statistics.mean.data(), sum, sum + c);
  });
  norm_backward(b, g, total(partial, tasks, c, b.statistics), After::kRead);
}

}  // namespace

NormStatistics normalise_sums(const ChannelSums& sums) {
  NormStatistics s;
  const double n = static_cast<double>(std::max<int64_t>(1, sums.count));
  for (size_t c = 0; c < sums.sum.size(); ++c) {
    const double mean = sums.sum[c] / n, variance = std::max(0.0, sums.sum_sq[c] / n - mean * mean);
    s.mean.push_back(static_cast<float>(mean));
    s.variance.push_back(static_cast<float>(variance));
    s.inv_std.push_back(1.0f / std::sqrt(s.variance.back() + kNormEpsilon));
  }
  return s;
}

NormAffine norm_affine(const NormStatistics& s, const Tensor& gamma, const Tensor& beta) {
  NormAffine f;
  for (size_t c = 0; c < s.mean.size(); ++c) {
    f.m.push_back(gamma.data<float>()[c] * s.inv_std[c]);
    f.a.push_back(beta.data<float>()[c] - s.mean[c] * f.m.back());
  }
  return f;
}

namespace {

void check_channels(const NormBranch& in, int64_t channels) {
  const auto statistics = static_cast<int64_t>(in.statistics.mean.size());
  if (in.y.shape().back() != channels || in.gamma.size() != channels || in.beta.size() != channels ||
      statistics != channels)
    throw ShapeError("[norm_activate] {} has {} channels, gamma {}, beta {}, statistics {}; all must be {}", in.name,
                     in.y.shape().back(), in.gamma.size(), in.beta.size(), statistics, channels);
}

void check_arguments(const Tape* tape, const NormActivateArgs& args) {
  const int64_t channels = args.main.y.shape().back();
  check_channels(args.main, channels);
  if (args.projection != nullptr) check_channels(*args.projection, channels);
  if (args.quantizer != nullptr && args.quantizer->channels() != channels)
    throw ShapeError("[norm_activate] {} has {} channels, its quantizer {}", args.main.name, channels,
                     args.quantizer->channels());
  if (args.quantizer != nullptr && args.quantizer->is_signed)
    throw UsageError(
        "[norm_activate] writes unsigned codes only; store z and call quantize_tensor for a signed quantizer");
  // Backward computes v again from y alone when there is no z.
  if (tape != nullptr && !args.store_z && (args.projection != nullptr || args.shortcut.defined()))
    throw UsageError("[norm_activate] a unit with a shortcut must store z for its backward pass; set store_z");
  if (args.keep_classes && !args.store_z)
    throw UsageError("[norm_activate] keeps the classes of a stored z only; set store_z");
}

/// The backward step of v = y*m + a + shortcut; z = relu(v); code = quantize(z). Its first half becomes out.backward.
void record_backward(Tape& tape, const NormActivateArgs& args, const NormAffine& main, const Tensor& classes,
                     Activated& out) {
  const bool has_projection = args.projection != nullptr;
  const auto activation = std::make_shared<ActivationBackward>(args, main, out, classes);
  out.backward = activation;
  tape.record([args, out, activation, has_projection, branch = has_projection ? *args.projection : NormBranch{}] {
    Sums sums;
    const Tensor g = activation->finish(sums);
    if (has_projection) projection_backward(branch, g);
    const bool to_shortcut = !has_projection && args.shortcut.defined();
    const bool read_again = to_shortcut || (has_projection && branch.y.takes_grad_rows());
    norm_backward(args.main, g, sums, read_again ? After::kRead : After::kDropped);
    if (to_shortcut) args.shortcut.accumulate(g);
    if (out.z.defined()) out.z.release();
    if (out.codes.defined()) out.codes.release();
  });
}

}  // namespace

Activated norm_activate(Tape* tape, const NormActivateArgs& args) {
  Zone zone("norm and activate", args.main.name);
  check_arguments(tape, args);
  const Tensor& y = args.main.y.value();
  const int64_t c = y.shape().back(), tasks = row_tasks(y.rows());
  const NormAffine main = norm_affine(args.main.statistics, args.main.gamma, args.main.beta);
  NormAffine side;
  if (args.projection != nullptr)
    side = norm_affine(args.projection->statistics, args.projection->gamma, args.projection->beta);
  const Tensor shortcut = args.projection != nullptr ? args.projection->y.value()
                          : args.shortcut.defined()  ? args.shortcut.value()
                                                     : Tensor();
  if (shortcut.defined() && shortcut.shape() != y.shape())
    throw ShapeError("[norm_activate] shortcut {} does not match {}", shortcut.shape().str(), y.shape().str());

  const Tensor z = args.store_z ? bf16_like(y) : Tensor();
  Tensor codes = args.quantizer != nullptr ? new_codes(y.shape(), *args.quantizer) : Tensor();
  const Tensor classes =
      tape != nullptr && args.keep_classes ? Tensor(DType::u8, {y.rows(), kernels::clip_class_bytes(c)}) : Tensor();
  const Tensor maxima = args.channel_max != nullptr ? Tensor::zeros(DType::f32, {tasks, c}) : Tensor();
  const auto& ew = kernels::active().ew;
  zone.count([&] {
    return ZoneWork{.bytes = stored_bytes(y) + stored_bytes(shortcut) + stored_bytes(z) + stored_bytes(codes) +
                             stored_bytes(classes)};
  });
  row_blocks(y.rows(), [&](int64_t task, int64_t first, int64_t rows) {
    Scratch scratch;
    kernels::NormaliseActivateArgs k;
    k.rows = rows;
    k.n = c;
    k.y = bf16_rows(y, first);
    k.m = main.m.data();
    k.a = main.a.data();
    k.shortcut = bf16_rows(shortcut, first);
    if (args.projection != nullptr) {
      k.m2 = side.m.data();
      k.a2 = side.a.data();
    }
    if (z.defined()) {
      k.z = {z.row<bf16>(first), z.stride()};
      k.store_z = store_of(z);
    }
    k.classes = bytes_of<uint8_t>(classes, first);
    if (maxima.defined()) k.channel_max = maxima.row<float>(task);
    std::optional<CodeBlock> block;
    if (codes.defined()) {
      block.emplace(codes, first, rows, scratch);
      k.quantizer = args.quantizer->kernel();
      k.through_bf16 = args.store_z;  // block outputs are rounded first: METHOD.md section 8
      k.codes = block->bytes();
    }
    ew.normalise_activate(k);
    if (block) block->store();
  });
  if (maxima.defined()) merge_maxima(maxima, tasks, c, args.channel_max);
  if (codes.defined() && args.dequantize) codes = dequantize_tensor(codes, *args.quantizer);

  const Grad grad = tape != nullptr ? Grad::kWanted : Grad::kNone;
  Activated out;
  if (z.defined()) out.z = Variable(z, grad);
  if (codes.defined()) out.codes = Variable(codes, grad);
  if (tape != nullptr) record_backward(*tape, args, main, classes, out);
  return out;
}

Tensor normalised_activation(const NormBranch& branch) {
  Zone zone("norm and activate", branch.name);
  const Tensor& y = branch.y.value();
  const Tensor z = bf16_like(y);
  zone.count([&] { return ZoneWork{.bytes = stored_bytes(y) + stored_bytes(z)}; });
  const NormAffine affine = norm_affine(branch.statistics, branch.gamma, branch.beta);
  const auto& ew = kernels::active().ew;
  row_blocks(y.rows(), [&](int64_t, int64_t first, int64_t rows) {
    kernels::NormaliseActivateArgs k;
    k.rows = rows;
    k.n = y.shape().back();
    k.y = bf16_rows(y, first);
    k.m = affine.m.data();
    k.a = affine.a.data();
    k.z = {z.row<bf16>(first), z.stride()};
    k.store_z = store_of(z);
    ew.normalise_activate(k);
  });
  return z;
}

}  // namespace nibble
