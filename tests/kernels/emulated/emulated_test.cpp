// The products of every level on emulated instructions: the same facts as on hardware, on machines without it.
#include <array>

#include "engine/parallel.hpp"
#include "tests/kernels/emulated/levels.hpp"
#include "tests/kernels/gemm_float_checks.hpp"
#include "tests/kernels/gemm_gathered_checks.hpp"
#include "tests/kernels/gemm_strided_checks.hpp"
#include "tests/kernels/weight_gradient_checks.hpp"

namespace nibble::testing {
namespace {

struct Level {
  const char* name;
  const kernels::Table* table;
};
const std::array<Level, 6> kLevels = {{
    {"emulated avx2", &kernels::emulated_avx2::kEmulated},
    {"emulated avxvnni", &kernels::emulated_avxvnni::kEmulated},
    {"emulated avx512", &kernels::emulated_avx512::kEmulated},
    {"emulated avx512vnni", &kernels::emulated_avx512vnni::kEmulated},
    {"emulated avx512bf16", &kernels::emulated_avx512bf16::kEmulated},
    {"emulated amx", &kernels::emulated_amx::kEmulated},
}};

template <typename Body>
void for_each_int(const Body& body) {
  for (const Level& level : kLevels) for_each_code_family(*level.table, level.name, body);
}

template <typename Body>
void for_each_float(const Body& body) {
  for (const Level& level : kLevels) {
    body(level.table->bf16_gemm, std::string(level.name) + " bf16");
    body(level.table->f32_gemm, std::string(level.name) + " f32");
  }
}

TEST_CASE("emulated: integer products equal the naive ones for every extent and every extreme of the codes") {
  for_each_int([](const auto&... args) { check_codes(args...); });
}

TEST_CASE("emulated: integer segments packed one after the other are one longer product") {
  for_each_int([](const auto&... args) { check_code_segments(args...); });
}

TEST_CASE("emulated: an integer panel does not depend on how the right operand lay in memory") {
  for_each_int([](const auto&... args) { check_code_layouts(args...); });
}

TEST_CASE("emulated: rows multiplied in place equal the naive product, whatever lies after them") {
  for_each_int([](const auto&... args) { check_strided_codes(args...); });
  for (const Level& level : kLevels) check_strided_floats(level.table->bf16_gemm, level.name);
}

TEST_CASE("emulated: rows gathered in place give the bits of packed ones") {
  set_float_mode();
  for_each_int([](const auto&... args) { check_gathered_codes(args...); });
  for (const Level& level : kLevels) check_gathered(level.table->bf16_gemm, GatheredReals(), level.name);
  CHECK((kernels::emulated_avxvnni::kEmulated.u4s4.run_gathered != nullptr));
  CHECK((kernels::emulated_avx512vnni::kEmulated.u4s4.run_gathered != nullptr));
  CHECK((kernels::emulated_avx512bf16::kEmulated.u4s4.run_gathered != nullptr));
}

TEST_CASE("emulated: float products lie within the bound and are exact for small integers") {
  for_each_float([](const auto& g, const std::string& kernel) { check_floats(g, kernel); });
}

TEST_CASE("emulated: float segments packed one after the other are one longer product") {
  for_each_float([](const auto& g, const std::string& kernel) { check_float_segments(g, kernel); });
}

TEST_CASE("emulated: the order of a float sum does not depend on the place in the tile or the number of panels") {
  for_each_float([](const auto& g, const std::string& kernel) { check_float_order(g, kernel); });
}

TEST_CASE("emulated: dot products of pairs of bf16 add the upper product first and take denormals for zeros") {
  set_float_mode();
  check_pair_sums(kernels::emulated_avx512bf16::kEmulated.bf16_gemm, "emulated avx512bf16");
}

TEST_CASE("emulated: a float panel does not depend on how its operand lay in memory") {
  for_each_float([](const auto& g, const std::string& kernel) { check_float_layouts(g, kernel); });
}

TEST_CASE("emulated: gathered rows and codes pack into the same right operand as a matrix") {
  for_each_float([](const auto& g, const std::string& kernel) { check_gathered_rows(g, kernel); });
}

TEST_CASE("emulated: blocks of a weight gradient are exact for small integers under every tap and every stored form") {
  check_weight_gradient(kernels::emulated_amx::kEmulated.weight_gradient, "emulated amx");
}

TEST_CASE("emulated: the probe of the bf16 dot product accepts a working one, and no wrong sum") {
  CHECK(kernels::emulated_avx512bf16::kEmulated.probe());
  CHECK_FALSE(kernels::emulated_avx512bf16::probe_with_wrong_sum());
}

TEST_CASE(
    "emulated: the tile probe accepts working tiles, and neither lost contents nor a single wrong sum of any product") {
  CHECK(kernels::emulated_amx::kEmulated.probe());
  CHECK_FALSE(kernels::emulated_amx::probe_without_contents());
  CHECK_FALSE(kernels::emulated_amx::probe_with_wrong_sum());
  CHECK_FALSE(kernels::emulated_amx::probe_with_wrong_real_sum());
  CHECK_FALSE(kernels::emulated_amx::probe_without_streamed_loads());
  CHECK(kernels::emulated_amx::kEmulated.probe());
}

}  // namespace
}  // namespace nibble::testing
