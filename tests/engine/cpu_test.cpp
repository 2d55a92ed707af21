// CPU levels: names, what is runnable, the forced level, errors.
#include "engine/cpu.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>

#include "engine/env.hpp"
#include "tests/gradcheck.hpp"

using namespace nibble;
using nibble::testing::error_of;

TEST_CASE("isa names go both ways, and a wrong one lists them all") {
  for (int i = 0; i < kIsaCount; ++i) CHECK(isa_from_name(name_of(static_cast<Isa>(i))) == static_cast<Isa>(i));
  CHECK(error_of<UsageError>([] { isa_from_name("avx3"); }) ==
        "NIBBLE_ISA is 'avx3', which is no kernel level; use one of: "
        "scalar, avx2, avxvnni, avx512, avx512vnni, amx");
  CHECK(error_of<UsageError>([] { isa_from_name(""); }).find("NIBBLE_ISA is ''") == 0);
}

TEST_CASE("scalar always runs, and a level runs only if what it builds on does") {
  const std::vector<Isa> all = runnable_isas();
  REQUIRE_FALSE(all.empty());
  CHECK(all.front() == Isa::scalar);
  CHECK(std::is_sorted(all.begin(), all.end()));
  if (runnable(Isa::avxvnni)) CHECK(cpu_features().avx2_fma);
  if (runnable(Isa::avx512)) CHECK(cpu_features().avx2_fma);
  if (runnable(Isa::avx512vnni)) CHECK(cpu_features().avx512);
  if (runnable(Isa::amx)) CHECK((cpu_features().avx512_vnni && cpu_features().amx_permitted));
  // A CPU with tiles either may use them or says why not.
  if (cpu_features().amx_int8 && cpu_features().amx_bf16)
    CHECK(cpu_features().amx_permitted == cpu_features().amx_refusal.empty());
  CHECK_FALSE(cpu_features().brand.empty());
}

TEST_CASE("the level in use is the one NIBBLE_ISA asks for") {
  const auto forced = env(EnvVar::kIsa);
  if (!forced) {
    CHECK(runnable(active_isa()));
    return;
  }
  CHECK(name_of(active_isa()) == *forced);
  CHECK(isa_explanation().find("(forced by NIBBLE_ISA)") != std::string::npos);
}

TEST_CASE("set_active_isa switches to every runnable level and refuses the others by name") {
  const Isa before = active_isa();
  for (int i = 0; i < kIsaCount; ++i) {
    const Isa isa = static_cast<Isa>(i);
    if (runnable(isa)) {
      set_active_isa(isa);
      CHECK(active_isa() == isa);
      CHECK(isa_explanation().find(name_of(isa)) == 0);
    } else {
      const std::string sentence = error_of<UnsupportedError>([&] { set_active_isa(isa); });
      CHECK(sentence.find(name_of(isa)) != std::string::npos);
      CHECK(sentence.find("cannot run on this machine") != std::string::npos);
      CHECK(sentence.find("choose one of: scalar") != std::string::npos);
      CHECK((sentence.find("this build has no") != std::string::npos) == !built(isa));
    }
  }
  set_active_isa(before);
}

TEST_CASE("a level that fails its probe after it was chosen is replaced, or refused where it is forced") {
  struct Restore {
    Isa in_use = active_isa();
    std::optional<std::string> forced = env(EnvVar::kIsa);
    Isa broken = runnable_isas().back();
    ~Restore() {
      mark_not_runnable(broken, "");
      if (forced)
        setenv("NIBBLE_ISA", forced->c_str(), 1);
      else
        unsetenv("NIBBLE_ISA");
      set_active_isa(in_use);
    }
  } restore;
  const Isa broken = restore.broken;
  if (broken == Isa::scalar) return;  // nothing is left without it
  unsetenv("NIBBLE_ISA");
  set_active_isa(broken);
  mark_not_runnable(broken, "its products are wrong");
  CHECK_FALSE(runnable(broken));
  CHECK(active_isa() == runnable_isas().back());
  CHECK(active_isa() != broken);

  mark_not_runnable(broken, "");
  set_active_isa(broken);
  mark_not_runnable(broken, "its products are wrong");
  setenv("NIBBLE_ISA", std::string(name_of(broken)).c_str(), 1);
  const std::string sentence = error_of<UnsupportedError>([] { active_isa(); });
  CHECK(sentence.find("kernel level " + std::string(name_of(broken)) + " cannot run on this machine") == 0);
  CHECK(sentence.find("(its products are wrong)") != std::string::npos);
}
