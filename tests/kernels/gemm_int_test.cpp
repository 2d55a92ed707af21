// Integer GEMM of every level under test, against the naive product.
#include "tests/kernels/gemm_gathered_checks.hpp"
#include "tests/kernels/gemm_strided_checks.hpp"
#include "tests/kernels/levels_under_test.hpp"

namespace nibble::testing {
namespace {

template <typename Body>
void for_each_int_family(const Body& body) {
  for (const Isa isa : levels_under_test())
    for_each_code_family(kernels::table_of(isa), std::string(nibble::name_of(isa)), body);
}

TEST_CASE("integer products equal the naive ones for every extent and every extreme of the codes") {
  for_each_int_family([](const auto&... args) { check_codes(args...); });
}

TEST_CASE("integer segments packed one after the other are one longer product") {
  for_each_int_family([](const auto&... args) { check_code_segments(args...); });
}

TEST_CASE("an integer panel does not depend on how the right operand lay in memory") {
  for_each_int_family([](const auto&... args) { check_code_layouts(args...); });
}

TEST_CASE("integer rows multiplied in place equal the naive product, whatever lies after them") {
  bool checked = false;
  for_each_int_family([&](const auto& g, CodeRange range, const std::string& kernel) {
    check_strided_codes(g, range, kernel);
    checked = checked || g.run_strided != nullptr;
  });
  note_strided(checked);
}

TEST_CASE("integer rows gathered in place give the bits of packed ones") {
  bool checked = false;
  for_each_int_family([&](const auto& g, CodeRange range, const std::string& kernel) {
    check_gathered_codes(g, range, kernel);
    checked = checked || g.run_gathered != nullptr;
  });
  if (!checked) MESSAGE("skipped: no level under test multiplies gathered rows in place");
}

TEST_CASE("levels with a dot product use it for 4-bit codes, too, and all but tiles have a wide product") {
  for (const Isa isa : {Isa::avxvnni, Isa::avx512vnni, Isa::avx512bf16, Isa::amx}) {
    if (!built(isa)) continue;
    const kernels::Table& t = kernels::table_of(isa);
    CHECK((t.u8s8.run == t.u8s4.run));
    CHECK((t.u8s8.run == t.u4s4.run));
    CHECK((t.u8s8.run == t.u6s7.run));
  }
  for (const Isa isa : {Isa::scalar, Isa::avx2, Isa::avxvnni, Isa::avx512, Isa::avx512vnni, Isa::avx512bf16})
    if (built(isa)) CHECK((kernels::table_of(isa).s16s14.run != nullptr));
  if (built(Isa::amx)) CHECK((kernels::table_of(Isa::amx).s16s14.run == nullptr));
}

}  // namespace
}  // namespace nibble::testing
