// Weight-gradient kernel of every level under test that has one, against the sums in double.
#include "tests/kernels/weight_gradient_checks.hpp"

#include "engine/parallel.hpp"
#include "tests/kernels/levels_under_test.hpp"

namespace nibble::testing {
namespace {

TEST_CASE("blocks of a weight gradient are exact for small integers under every tap and every stored form") {
  set_float_mode();
  bool checked = false;
  for (const Isa isa : levels_under_test()) {
    const kernels::Table& table = kernels::table_of(isa);
    CHECK((table.weight_gradient.run_left_again != nullptr) == (isa == Isa::amx));
    if (table.weight_gradient.run_left_again == nullptr) continue;
    check_weight_gradient(table.weight_gradient, std::string(nibble::name_of(isa)));
    checked = true;
  }
  if (!checked) MESSAGE("skipped: no level under test has tiles");
}

}  // namespace
}  // namespace nibble::testing
