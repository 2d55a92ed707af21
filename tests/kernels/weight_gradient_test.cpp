// Weight-gradient kernel of every level this machine runs that has one, against the sums in double.
#include "tests/kernels/weight_gradient_checks.hpp"

#include "engine/cpu.hpp"
#include "engine/parallel.hpp"

namespace nibble::testing {
namespace {

TEST_CASE("blocks of a weight gradient are exact for small integers under every tap and every stored form") {
  set_float_mode();
  for (const Isa isa : runnable_isas()) {
    const kernels::Table& table = kernels::table_of(isa);
    CHECK((table.weight_gradient.run_left_again != nullptr) == (isa == Isa::amx));
    if (table.weight_gradient.run_left_again != nullptr)
      check_weight_gradient(table.weight_gradient, std::string(nibble::name_of(isa)));
  }
}

}  // namespace
}  // namespace nibble::testing
