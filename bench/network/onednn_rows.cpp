#include "bench/network/onednn_rows.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <dnnl.hpp>
#include <memory>
#include <stdexcept>
#include <unordered_map>

#include "bench/network/layers.hpp"
#include "bench/network/rows.hpp"
#include "engine/cpu.hpp"

namespace nibble::bench {
namespace {

using dnnl::memory;
using Type = memory::data_type;

struct Types {
  const char* name;
  Type source, weights, result;
  MacUnit unit;
};
constexpr Types kCodes{"u8s8", Type::u8, Type::s8, Type::u8, MacUnit::kCode8};
constexpr Types kBf16{"bf16", Type::bf16, Type::bf16, Type::bf16, MacUnit::kBf16};
constexpr Types kF32{"f32", Type::f32, Type::f32, Type::f32, MacUnit::kFloat};

/// A convolution of one shape with every tensor in the layout that oneDNN likes best.
class Peer {
 public:
  Peer(const ConvShape& shape, const Types& types) : shape_(shape), types_(types) {}

  Prepared forward() {
    const auto pd = forward_description();
    const memory x = filled(pd.src_desc()), w = filled(pd.weights_desc()), y = filled(pd.dst_desc());
    return prepared(dnnl::convolution_forward(pd), {{DNNL_ARG_SRC, x}, {DNNL_ARG_WEIGHTS, w}, {DNNL_ARG_DST, y}});
  }
  Prepared backward_data() {
    const dnnl::convolution_backward_data::primitive_desc pd(
        {dnnl::algorithm::convolution_direct, x_any(), w_any(), y_any(), strides(), before(), after()}, engine_,
        forward_description());
    const memory d_x = filled(pd.diff_src_desc()), w = filled(pd.weights_desc()), d_y = filled(pd.diff_dst_desc());
    return prepared(dnnl::convolution_backward_data(pd),
                    {{DNNL_ARG_DIFF_SRC, d_x}, {DNNL_ARG_WEIGHTS, w}, {DNNL_ARG_DIFF_DST, d_y}});
  }
  Prepared backward_weights() {
    // Gradients of the weights are f32, as ours are.
    const memory::desc d_w_any({shape_.oc, shape_.ic, shape_.kh, shape_.kw}, Type::f32, memory::format_tag::any);
    const dnnl::convolution_backward_weights::primitive_desc pd(
        {dnnl::algorithm::convolution_direct, x_any(), d_w_any, y_any(), strides(), before(), after()}, engine_,
        forward_description());
    const memory x = filled(pd.src_desc()), d_w = filled(pd.diff_weights_desc()), d_y = filled(pd.diff_dst_desc());
    return prepared(dnnl::convolution_backward_weights(pd),
                    {{DNNL_ARG_SRC, x}, {DNNL_ARG_DIFF_WEIGHTS, d_w}, {DNNL_ARG_DIFF_DST, d_y}});
  }

 private:
  memory::desc any(const memory::dims& dims, Type type) const { return {dims, type, memory::format_tag::any}; }
  memory::desc x_any() const { return any({shape_.n, shape_.ic, shape_.h, shape_.w}, types_.source); }
  memory::desc w_any() const { return any({shape_.oc, shape_.ic, shape_.kh, shape_.kw}, types_.weights); }
  memory::desc y_any() const { return any({shape_.n, shape_.oc, shape_.oh(), shape_.ow()}, types_.result); }
  memory::dims strides() const { return {shape_.stride, shape_.stride}; }
  memory::dims before() const { return {shape_.pad_before, shape_.pad_before}; }
  memory::dims after() const { return {shape_.pad_after, shape_.pad_after}; }

  dnnl::convolution_forward::primitive_desc forward_description() const {
    const dnnl::convolution_forward::desc description(dnnl::prop_kind::forward_training,
                                                      dnnl::algorithm::convolution_direct, x_any(), w_any(), y_any(),
                                                      strides(), before(), after());
    return {description, engine_};
  }

  /// Ones, or one half: no denormal arises.
  memory filled(const memory::desc& description) const {
    memory m(description, engine_);
    const size_t bytes = description.get_size();
    switch (description.data_type()) {
      case Type::f32:
        std::fill_n(static_cast<float*>(m.get_data_handle()), bytes / sizeof(float), 0.5f);
        break;
      case Type::bf16:
        std::fill_n(static_cast<uint16_t*>(m.get_data_handle()), bytes / 2, uint16_t{0x3f00});
        break;
      default:
        std::fill_n(static_cast<uint8_t*>(m.get_data_handle()), bytes, uint8_t{1});
    }
    return m;
  }

  Prepared prepared(const dnnl::primitive& primitive, const std::unordered_map<int, memory>& arguments) const {
    int64_t bytes = 0;
    for (const auto& argument : arguments) bytes += static_cast<int64_t>(argument.second.get_desc().get_size());
    return {.run =
                [primitive, arguments, stream = dnnl::stream(engine_)]() mutable {
                  primitive.execute(stream, arguments);
                  stream.wait();
                },
            .macs = shape_.macs(),
            .bytes = bytes,
            .unit = types_.unit};
  }

  ConvShape shape_;
  Types types_;
  dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
};

/// Holds oneDNN to what the kernel level in use may execute (NIBBLE_ISA), so that its rows compare with ours: before
/// its first primitive, after which it keeps its choice.
void hold_to_level() {
  const dnnl::cpu_isa most = [] {
    switch (active_isa()) {
      case Isa::scalar:
        return dnnl::cpu_isa::sse41;  // the least that oneDNN knows
      case Isa::avx2:
        return dnnl::cpu_isa::avx2;
      case Isa::avxvnni:
        return dnnl::cpu_isa::avx2_vnni;
      case Isa::avx512:
        return dnnl::cpu_isa::avx512_core;
      case Isa::avx512vnni:
        return dnnl::cpu_isa::avx512_core_vnni;
      case Isa::avx512bf16:
        return dnnl::cpu_isa::avx512_core_bf16;
      case Isa::amx:
        break;
    }
    return dnnl::cpu_isa::avx512_core_amx;
  }();
  if (dnnl::set_max_cpu_isa(most) != dnnl::status::success)
    throw std::runtime_error(fmt::format("oneDNN cannot be held to the kernel level {}", name_of(active_isa())));
}

using Direction = Prepared (Peer::*)();

void add(const std::string& direction, Direction make, const Types& types, bool with_first, int64_t batch) {
  NetworkOptions options;
  options.precision = "bf16";  // only the shapes count
  std::vector<Part> parts;
  for (const LayerRow& row : layer_rows(options)) {
    if (row.first_layer && !with_first) continue;
    ConvShape shape = row.unit.shape;
    shape.n = batch;
    const std::string name = "onednn/" + direction + "/" + types.name + "/" + row.unit.name;
    register_row(name, [shape, types, make] {
      try {
        Peer peer(shape, types);
        return (peer.*make)();
      } catch (const dnnl::error& error) {
        throw std::runtime_error(
            fmt::format("oneDNN has no {} convolution on this CPU ({})", types.name, error.what()));
      }
    });
    parts.push_back({name, row.count});
  }
  register_sum("onednn/" + direction + "/" + types.name + "/network", parts);
}

}  // namespace

void register_onednn(int64_t batch) {
  hold_to_level();
  add("forward", &Peer::forward, kCodes, true, batch);
  for (const Types& types : {kBf16, kF32}) {
    add("forward", &Peer::forward, types, true, batch);
    add("backward-data", &Peer::backward_data, types, false, batch);
    add("backward-weights", &Peer::backward_weights, types, true, batch);
  }
}

}  // namespace nibble::bench
