// The smallest program of a library user: installed headers and library, nothing of the source tree.
#include <cstdio>

#include "engine/cpu.hpp"
#include "engine/parallel.hpp"
#include "ops/kernels/table.hpp"

int main() {
  int calls[4] = {};
  nibble::parallel_for(4, [&](int64_t i) { ++calls[i]; });
  for (const int n : calls)
    if (n != 1) return std::puts("parallel_for of the installed library did not run each index once"), 1;
  if (nibble::kernels::active().u8s8.run == nullptr)
    return std::puts("the installed library has no kernel table: its kernel levels were not linked in"), 1;
  std::printf("%s\n", nibble::isa_explanation().c_str());
}
