// Float GEMM of every level under test, against the product in double.
#include "engine/parallel.hpp"
#include "tests/kernels/gemm_float_checks.hpp"
#include "tests/kernels/gemm_gathered_checks.hpp"
#include "tests/kernels/gemm_strided_checks.hpp"
#include "tests/kernels/levels_under_test.hpp"

namespace nibble::testing {
namespace {

template <typename Body>
void for_each_floating_family(const Body& body) {
  set_float_mode();
  for (const Isa isa : levels_under_test())
    for_each_float_family(kernels::table_of(isa), std::string(nibble::name_of(isa)), body);
}

TEST_CASE("float products lie within the bound of recursive summation and are exact for small integers") {
  for_each_floating_family([](const auto& g, const std::string& kernel) { check_floats(g, kernel); });
}

TEST_CASE("float segments packed one after the other are one longer product") {
  for_each_floating_family([](const auto& g, const std::string& kernel) { check_float_segments(g, kernel); });
}

TEST_CASE("the order of a float sum does not depend on the place in the tile or the number of panels") {
  for_each_floating_family([](const auto& g, const std::string& kernel) { check_float_order(g, kernel); });
}

TEST_CASE("dot products of pairs of bf16 add the upper product first and take denormals for zeros") {
  set_float_mode();
  bool checked = false;
  for (const Isa isa : levels_under_test()) {
    const GemmFloat<bf16>& g = kernels::table_of(isa).bf16_gemm;
    check_pair_sums(g, std::string(nibble::name_of(isa)));
    checked = checked || g.kr == 2;
  }
  if (!checked) MESSAGE("skipped: no level under test multiplies pairs of bf16");
}

TEST_CASE("a float panel does not depend on how its operand lay in memory") {
  for_each_floating_family([](const auto& g, const std::string& kernel) { check_float_layouts(g, kernel); });
}

TEST_CASE("float rows multiplied in place equal the naive product, whatever lies after them") {
  bool checked = false;
  for (const Isa isa : levels_under_test()) {
    const GemmFloat<bf16>& g = kernels::table_of(isa).bf16_gemm;
    check_strided_floats(g, std::string(nibble::name_of(isa)));
    checked = checked || g.run_strided != nullptr;
  }
  note_strided(checked);
}

TEST_CASE("bf16 rows gathered in place give the bits of packed ones") {
  set_float_mode();
  bool checked = false;
  for (const Isa isa : levels_under_test()) {
    const GemmFloat<bf16>& g = kernels::table_of(isa).bf16_gemm;
    check_gathered(g, GatheredReals(), std::string(nibble::name_of(isa)));
    checked = checked || g.run_gathered != nullptr;
  }
  if (!checked) MESSAGE("skipped: no level under test multiplies gathered rows in place");
}

TEST_CASE("gathered rows and codes pack into the same right operand as a matrix") {
  for (const Isa isa : levels_under_test())
    for_each_float_family(kernels::table_of(isa), std::string(nibble::name_of(isa)),
                          [](const auto& g, const std::string& kernel) { check_gathered_rows(g, kernel); });
}

}  // namespace
}  // namespace nibble::testing
