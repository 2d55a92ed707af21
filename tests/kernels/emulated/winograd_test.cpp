// 3x3 Winograd layers on the tiles of levels that a machine may lack: served, and their gradients.
#include "ops/packed_conv_weight_gradient.hpp"
#include "tests/kernels/emulated/levels.hpp"
#include "tests/ops/packed_gradients.hpp"
#include "tests/ops/winograd_checks.hpp"

namespace nibble::testing {
namespace {

TEST_CASE("emulated: levels that pack rows serve 3x3 layers in fewer products, the others do not") {
  const Precision four_bits{"u4 fold, s4", 4, false, FactorForm::kFold, 4};
  const Precision eight_bits{"u8 fold, s8", 8, false, FactorForm::kFold, 8};
  for (const NamedShape& named :
       {NamedShape{"odd map", three(2, 7, 5, 39, 79, 1, 1)}, NamedShape{"many channels", three(1, 4, 6, 130, 33, 1, 1)},
        NamedShape{"several blocks", three(3, 15, 14, 16, 17, 1, 1)},
        NamedShape{"large map, odd channels", three(2, 8, 10, 79, 39, 1, 1)}}) {
    const Operands op = make_operands(named, four_bits);
    for (const kernels::Table* table : {&kernels::emulated_avx2::kEmulated, &kernels::emulated_avxvnni::kEmulated,
                                        &kernels::emulated_avx512::kEmulated, &kernels::emulated_avx512vnni::kEmulated,
                                        &kernels::emulated_avx512bf16::kEmulated}) {
      const LayerWeights layer = op.layer(Passes::kServing, table);
      REQUIRE(layer.fewer_products());
      CHECK(layer.int_gemm == &table->u6s7);
      check_fewer_products(op, layer);
    }
    CHECK_FALSE(op.layer(Passes::kServing, &kernels::emulated_amx::kEmulated).fewer_products());

    const Operands wide = make_operands(named, eight_bits);
    for (const kernels::Table* table : {&kernels::emulated_avx2::kEmulated, &kernels::emulated_avxvnni::kEmulated,
                                        &kernels::emulated_avx512::kEmulated, &kernels::emulated_avx512vnni::kEmulated,
                                        &kernels::emulated_avx512bf16::kEmulated}) {
      const LayerWeights layer = wide.layer(Passes::kServing, table);
      CHECK(layer.served_edge == winograd::wide_edge(wide.shape, table->u8s8.kr == 4));
      if (named.shape.ic == 79) REQUIRE(layer.served_edge == 4);
      if (!layer.fewer_products()) continue;
      CHECK(layer.wide_gemm == &table->s16s14);
      check_fewer_products(wide, layer);
    }
  }
}

TEST_CASE("emulated: levels that pack rows make the gradients of 3x3 layers in fewer products, the others do not") {
  set_float_mode();
  const std::vector<NamedShape> shapes = {{"odd map", three(2, 7, 5, 39, 79, 1, 1)},
                                          {"many channels", three(1, 4, 6, 130, 33, 1, 1)},
                                          {"several blocks and chunks", three(2, 10, 100, 16, 17, 1, 1)},
                                          {"several chunks, whole tiles", three(9, 16, 28, 16, 17, 1, 1)}};
  for_each_layer(shapes, {code_precisions()[4], float_precisions()[0]}, [](const Operands& op) {
    const ConvShape& s = op.shape;
    const OutputGradient g = output_gradient(op);
    const Gather grid = forward_gather(s);
    const LayerWeights any = op.layer(Passes::kForwardAndBackward, &kernels::emulated_avx2::kEmulated);
    const Sums d_x = input_gradient_of(any, s, g, op.w_hat), expected = weight_gradient_of(any, s, g, op.x_hat);
    for (const kernels::Table* table : {&kernels::emulated_avx2::kEmulated, &kernels::emulated_avxvnni::kEmulated,
                                        &kernels::emulated_avx512::kEmulated, &kernels::emulated_avx512vnni::kEmulated,
                                        &kernels::emulated_avx512bf16::kEmulated}) {
      const LayerWeights layer = op.layer(Passes::kForwardAndBackward, table);
      CHECK(layer.gradient_edge == winograd::gradient_edge(s, table->bf16_gemm.kr));
      if (layer.gradient_edge == 0) continue;
      REQUIRE(layer.gradient_gemm == &table->f32_gemm);
      REQUIRE(layer.gradient_edge == any.gradient_edge);  // where both have one it is 4
      check_input_gradient(s, packed_conv_backward_input(layer, g.carried, {s.n, s.h, s.w, s.ic}), d_x,
                           layer.gradient_edge);
      const Tensor d_w = random_f32({s.oc, s.kh, s.kw, s.ic}, 42);
      weight_gradient_winograd(*layer.gradient_gemm, {grid, layer.gradient_edge}, op.x, g.carried,
                               weight_sink(layer, d_w, s.taps(), s.ic));
      check_weight_gradient(s, d_w, expected, layer.gradient_edge);
    }
    CHECK(op.layer(Passes::kForwardAndBackward, &kernels::emulated_amx::kEmulated).gradient_gemm == nullptr);
  });
}

}  // namespace
}  // namespace nibble::testing
