// One target for libFuzzer, chosen by the build: NIBBLE_FUZZ_TARGET. The corpus folder that is named first gets the
// target's seeds when it is empty.
#include <filesystem>
#include <fstream>

#include "tests/fuzz/target.hpp"

namespace {

const nibble::testing::FuzzTarget& target() {
  return nibble::testing::NIBBLE_FUZZ_TARGET;
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  namespace fs = std::filesystem;
  for (int i = 1; i < *argc; ++i) {
    const fs::path folder = (*argv)[i];
    if (!fs::is_directory(folder)) continue;
    if (!fs::is_empty(folder)) break;
    int n = 0;
    for (const nibble::testing::FuzzInput& seed : target().seeds())
      std::ofstream(folder / ("seed-" + std::to_string(n++)), std::ios::binary)
          .write(reinterpret_cast<const char*>(seed.data()), static_cast<std::streamsize>(seed.size()));
    break;
  }
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  target().check({data, size});
  return 0;
}
