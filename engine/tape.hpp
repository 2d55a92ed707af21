// Tape autograd: operations append their backward step to a tape; backward() runs them in reverse.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/tensor.hpp"

namespace nibble {

enum class Grad { kNone, kWanted };

/// A gradient that is made when it is read, rows at a time, and never stored as a whole.
class GradientRows {
 public:
  virtual ~GradientRows() = default;
  /// Rows [first, first + count) of the gradient, to `to`, `stride` elements apart. Safe to call concurrently.
  virtual void make(int64_t first, int64_t count, bf16* to, int64_t stride) const = 0;
};

/// A value with room for its gradient; copies share both. A tape, its variables and their gradients belong to one
/// shard. A shard's steps run one after another, so gradients need no locks: the threads that share a step only read
/// them, and what the step sets is set after all of them are done.
class Variable {
 public:
  Variable() = default;
  explicit Variable(Tensor value, Grad grad = Grad::kNone) : state_(std::make_shared<State>()) {
    state_->value = std::move(value);
    state_->wanted = grad == Grad::kWanted;
  }

  bool defined() const { return state_ != nullptr; }
  const Tensor& value() const { return state_->value; }
  const Shape& shape() const { return state_->value.shape(); }
  bool wants_grad() const { return state_ != nullptr && state_->wanted; }
  /// Undefined tensor until something flowed back.
  const Tensor& grad() const { return state_->grad; }
  /// Takes `g` as the gradient, or adds it to the one already there (f32 and bf16, equal layout). ShapeError
  /// when the two differ, DTypeError for other types.
  void accumulate(const Tensor& g) const;
  /// Drops value and gradient memory; for activations that backward has finished with.
  void release() const {
    state_->value = Tensor();
    state_->grad = Tensor();
    state_->rows = nullptr;
    state_->again = nullptr;
  }
  void set_grad(Tensor g) const { state_->grad = std::move(g); }
  /// Set by the op that made the value, if its backward step can read the gradient as rows (grad_rows). The value's
  /// only reader may then call set_grad_rows instead of set_grad.
  void take_grad_rows() const { state_->takes_rows = true; }
  bool takes_grad_rows() const { return state_->takes_rows; }
  void set_grad_rows(std::shared_ptr<const GradientRows> rows) const { state_->rows = std::move(rows); }
  const std::shared_ptr<const GradientRows>& grad_rows() const { return state_->rows; }
  /// Drops the value's memory; no later step of the tape may read it.
  void drop() const { state_->value = Tensor(); }
  /// Drops a value that is cheaper to make again than to keep until backward: remake() then calls `again`, once.
  void drop(std::function<Tensor()> again) const {
    state_->value = Tensor();
    state_->again = std::move(again);
  }
  /// Makes the value again if it was dropped this way. Code that may read such a value in backward calls this first,
  /// from one thread.
  void remake() const {
    if (const auto again = std::exchange(state_->again, nullptr)) state_->value = again();
  }

 private:
  struct State {
    Tensor value;
    Tensor grad;
    std::shared_ptr<const GradientRows> rows;
    std::function<Tensor()> again;
    bool wanted = false, takes_rows = false;
  };
  std::shared_ptr<State> state_;
};

class Tape {
 public:
  /// Appends one backward step. The closure owns what it saved; it is destroyed as soon as it has run.
  void record(std::function<void()> backward) { steps_.push_back(std::move(backward)); }
  /// Runs all steps in reverse after seeding d loss / d loss = 1; `loss` is f32 with one element. The tape is empty
  /// afterwards, also when a step throws; gradients then hold what was added up to that step.
  void backward(const Variable& loss);
  /// The same with a given gradient of `output` (same shape and type).
  void backward(const Variable& output, const Tensor& gradient);
  size_t size() const { return steps_.size(); }

 private:
  std::vector<std::function<void()>> steps_;
};

/// True if an operation on these inputs must be recorded: there is a tape and some input wants a gradient.
template <typename... Variables>
bool recording(const Tape* tape, const Variables&... inputs) {
  return tape != nullptr && (inputs.wants_grad() || ...);
}

}  // namespace nibble
