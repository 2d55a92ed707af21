// The smallest program of a library user: installed headers and library, nothing of the source tree. It has loops of
// its own, too.
#include <tbb/global_control.h>

#include <cstdio>
#include <cstring>

#include "engine/cpu.hpp"
#include "engine/parallel.hpp"
#include "engine/version.hpp"
#include "ops/kernels/table.hpp"

namespace {

int wrong(const char* sentence) {
  std::puts(sentence);
  return 1;
}

size_t threads_of_host() {
  return tbb::global_control::active_value(tbb::global_control::max_allowed_parallelism);
}

}  // namespace

int main(int, char** argv) {  // VERSION
  const size_t before = threads_of_host();
  int calls[4] = {};
  nibble::set_threads(1);
  nibble::parallel_for(4, [&](int64_t i) { ++calls[i]; });
  for (const int n : calls)
    if (n != 1) return wrong("parallel_for of the installed library did not run each index once");
  if (threads_of_host() != before) return wrong("set_threads(1) left the host program's own loops one thread");
  nibble::set_threads(static_cast<int>(before) + 2);
  if (threads_of_host() != before + 2) return wrong("more threads than cores were asked for and are not allowed");
  nibble::set_threads(1);
  if (threads_of_host() != before) return wrong("the number of threads that was raised has not come back");
  if (nibble::kernels::active().u8s8.run == nullptr)
    return wrong("the installed library has no kernel table: its kernel levels were not linked in");
  if (std::strcmp(nibble::version(), argv[1]) != 0) return wrong("the installed library says another version");
  std::printf("%s\n", nibble::isa_explanation().c_str());
}
