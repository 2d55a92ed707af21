// Levels whose probe fails: never used, whatever the CPU promises.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "engine/cpu.hpp"
#include "engine/env.hpp"
#include "engine/error.hpp"
#include "ops/kernels/table.hpp"

namespace nibble::testing {
namespace {

std::array<int, kIsaCount> calls;
std::array<bool, kIsaCount> answers;

template <int level>
bool probe() {
  ++calls[level];
  return answers[level];
}

/// Tables that hold a probe each and nothing else; all levels but `broken` pass.
struct ProbedTables {
  kernels::Table level[kIsaCount];
  explicit ProbedTables(std::optional<Isa> broken) {
    calls.fill(0);
    answers.fill(true);
    if (broken) answers[static_cast<size_t>(*broken)] = false;
    level[0].probe = probe<0>;
    level[1].probe = probe<1>;
    level[2].probe = probe<2>;
    level[3].probe = probe<3>;
    level[4].probe = probe<4>;
    level[5].probe = probe<5>;
    level[6].probe = probe<6>;
    static_assert(kIsaCount == 7);
  }
};

/// No level is forced meanwhile, and all are as before at the end.
class Unforced {
 public:
  Unforced() { unsetenv("NIBBLE_ISA"); }
  ~Unforced() {
    for (const Isa isa : runnable_) mark_not_runnable(isa, "");
    if (forced_) setenv("NIBBLE_ISA", forced_->c_str(), 1);
    set_active_isa(in_use_);
  }
  Unforced(const Unforced&) = delete;
  Unforced& operator=(const Unforced&) = delete;
  const std::vector<Isa>& runnable() const { return runnable_; }

 private:
  Isa in_use_ = (kernels::active(), active_isa());  // the real probes are done
  std::optional<std::string> forced_ = env(EnvVar::kIsa);
  std::vector<Isa> runnable_ = runnable_isas();
};

TEST_CASE("registry: levels that the machine can execute are probed once, others never, and passing changes nothing") {
  const Unforced unforced;
  const std::vector<Isa> before = unforced.runnable();
  const ProbedTables tables(std::nullopt);
  kernels::rule_out_failing_levels(tables.level);
  CHECK(runnable_isas() == before);
  for (int i = 0; i < kIsaCount; ++i) {
    CAPTURE(i);
    const bool can_run = std::count(before.begin(), before.end(), static_cast<Isa>(i)) > 0;
    CHECK(calls[static_cast<size_t>(i)] == (can_run ? 1 : 0));
  }
}

TEST_CASE("registry: a level whose probe fails is not used, is refused with the reason, and the next one takes over") {
  const Unforced unforced;
  const Isa broken = unforced.runnable().back();
  if (broken == Isa::scalar) {
    MESSAGE("skipped: nothing is left without the scalar level");
    return;
  }
  set_active_isa(broken);
  kernels::rule_out_failing_levels(ProbedTables(broken).level);
  std::vector<Isa> left = unforced.runnable();
  left.pop_back();
  CHECK(runnable_isas() == left);
  CHECK(active_isa() == left.back());
  const std::string reason =
      "(the " + std::string(name_of(broken)) + " instructions gave a wrong result when they were probed)";
  bool nearer = false;  // a level in between that the CPU has and this build leaves out is named instead
  for (int i = static_cast<int>(left.back()) + 1; i < static_cast<int>(broken); ++i)
    nearer = nearer || promised(cpu_features(), static_cast<Isa>(i));
  if (!nearer) CHECK(isa_explanation().find(reason) != std::string::npos);
  try {
    set_active_isa(broken);
    FAIL("it was accepted");
  } catch (const UnsupportedError& e) {
    CHECK(std::string(e.what()).find(reason) != std::string::npos);
  }
}

/// A kernel that its level's table forgot is a null pointer on every level that inherits from it.
TEST_CASE("registry: every kernel of every runnable level is there") {
  kernels::active();
  for (const Isa isa : runnable_isas()) {
    CAPTURE(name_of(isa));
    const kernels::Table& table = kernels::table_of(isa);
    for (const bool is_there :
         {table.u8s8.run != nullptr, table.u8s4.run != nullptr, table.u4s4.run != nullptr, table.u6s7.run != nullptr,
          table.bf16_gemm.run != nullptr, table.f32_gemm.run != nullptr})
      CHECK(is_there);
    using Slot = void (*)();
    std::array<Slot, sizeof(kernels::Elementwise) / sizeof(Slot)> slots;
    std::memcpy(slots.data(), &table.ew, sizeof slots);
    for (size_t i = 0; i < slots.size(); ++i) {
      CAPTURE(i);
      const bool is_there = slots[i] != nullptr;
      CHECK(is_there);
    }
  }
}

}  // namespace
}  // namespace nibble::testing
