// CPU levels: names, what is runnable, the forced level, errors.
#include "engine/cpu.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <initializer_list>
#include <iterator>
#include <set>
#include <sstream>
#include <string>

#include "engine/env.hpp"
#include "tests/gradcheck.hpp"

using namespace nibble;
using nibble::testing::error_of;

TEST_CASE("isa names go both ways, and a wrong one lists them all") {
  for (int i = 0; i < kIsaCount; ++i) CHECK(isa_from_name(name_of(static_cast<Isa>(i))) == static_cast<Isa>(i));
  CHECK(error_of<UsageError>([] { isa_from_name("avx3"); }) ==
        "NIBBLE_ISA is 'avx3', which is not a kernel level; use one of: "
        "scalar, avx2, avxvnni, avx512, avx512vnni, avx512bf16, amx");
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
  if (runnable(Isa::avx512bf16)) CHECK(cpu_features().avx512_vnni);
  if (runnable(Isa::amx)) CHECK((cpu_features().avx512_vnni && cpu_features().amx_permitted));
  // A CPU with tiles either may use them or says why not.
  if (cpu_features().amx_int8 && cpu_features().amx_bf16)
    CHECK(cpu_features().amx_permitted == cpu_features().amx_refusal.empty());
  CHECK_FALSE(cpu_features().brand.empty());
}

#if defined(__x86_64__) && defined(__linux__)
/// One direction: old kernels lack names of features.
TEST_CASE("what the system says of the CPU is found on it") {
  std::ifstream in("/proc/cpuinfo");
  std::set<std::string> flags;
  for (std::string line; flags.empty() && std::getline(in, line);) {
    if (!line.starts_with("flags")) continue;
    std::istringstream words(line.substr(line.find(':') + 1));
    flags = {std::istream_iterator<std::string>(words), {}};
  }
  if (flags.empty()) {
    MESSAGE("skipped: /proc/cpuinfo names no flags");
    return;
  }
  const auto all = [&](std::initializer_list<const char*> names) {
    return std::all_of(names.begin(), names.end(), [&](const char* name) { return flags.contains(name); });
  };
  const CpuFeatures& f = cpu_features();
  if (all({"avx2", "fma"})) CHECK(f.avx2_fma);
  if (all({"avx2", "fma", "avx_vnni"})) CHECK(f.avx_vnni);
  if (!all({"avx2", "fma", "avx512f", "avx512dq", "avx512bw", "avx512vl"})) return;
  CHECK(f.avx512);
  if (all({"avx512_vnni"})) CHECK(f.avx512_vnni);
  if (all({"avx512_bf16"})) CHECK(f.avx512_bf16);
  if (all({"amx_tile", "amx_int8"})) CHECK(f.amx_int8);
  if (all({"amx_tile", "amx_bf16"})) CHECK(f.amx_bf16);
}
#endif

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
  if (broken == Isa::scalar) {
    MESSAGE("skipped: nothing is left without the scalar level");
    return;
  }
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

/// An AMX machine as CPUID describes it, before the kernel was asked.
static CpuFeatures with_tiles() {
  CpuFeatures f;
  f.brand = "A CPU";
  f.avx2_fma = f.avx_vnni = f.avx512 = f.avx512_vnni = f.avx512_bf16 = f.amx_int8 = f.amx_bf16 = true;
  return f;
}

TEST_CASE("tiles may be used when the kernel granted them, and else their refusal is kept in words") {
  constexpr uint64_t kTileBit = uint64_t{1} << 18;
  CpuFeatures f = with_tiles();
  note_tile_permission(f, 0, kTileBit | 7);
  CHECK(f.amx_permitted);
  CHECK(f.amx_refusal.empty());
  CHECK(promised(f, Isa::amx));

  f = with_tiles();
  note_tile_permission(f, 0, ~kTileBit);  // the request succeeded, and yet: all but the tiles
  CHECK_FALSE(f.amx_permitted);
  CHECK(f.amx_refusal == "the kernel did not grant AMX tiles");
  CHECK_FALSE(promised(f, Isa::amx));

  f = with_tiles();
  note_tile_permission(f, EPERM, kTileBit);
  CHECK_FALSE(f.amx_permitted);
  CHECK(f.amx_refusal == "the kernel refused AMX tiles (arch_prctl: Operation not permitted)");
  CHECK_FALSE(promised(f, Isa::amx));
  CHECK(promised(f, Isa::avx512bf16));
}

TEST_CASE("a level is promised by all the features that it needs and by no fewer") {
  CpuFeatures all = with_tiles();
  all.amx_permitted = true;
  const auto levels = [](const CpuFeatures& f) {
    std::string names;
    for (int i = 0; i < kIsaCount; ++i)
      if (promised(f, static_cast<Isa>(i))) names += std::string(name_of(static_cast<Isa>(i))) + " ";
    return names;
  };
  const auto without = [&](bool CpuFeatures::*feature) {
    CpuFeatures f = all;
    f.*feature = false;
    return levels(f);
  };
  CHECK(levels(CpuFeatures()) == "scalar ");
  CHECK(levels(all) == "scalar avx2 avxvnni avx512 avx512vnni avx512bf16 amx ");
  CHECK(without(&CpuFeatures::avx_vnni) == "scalar avx2 avx512 avx512vnni avx512bf16 amx ");
  for (bool CpuFeatures::*feature : {&CpuFeatures::amx_int8, &CpuFeatures::amx_bf16, &CpuFeatures::amx_permitted})
    CHECK(without(feature) == "scalar avx2 avxvnni avx512 avx512vnni avx512bf16 ");
  CHECK(without(&CpuFeatures::avx512_bf16) == "scalar avx2 avxvnni avx512 avx512vnni ");
  CHECK(without(&CpuFeatures::avx512_vnni) == "scalar avx2 avxvnni avx512 ");
}

TEST_CASE("the explanation names what keeps the tiles from being used") {
  struct Restore {
    Isa in_use = active_isa();
    std::optional<std::string> forced = env(EnvVar::kIsa);
    ~Restore() {
      if (forced) setenv("NIBBLE_ISA", forced->c_str(), 1);
      set_active_isa(in_use);
    }
  } restore;
  unsetenv("NIBBLE_ISA");
  set_active_isa(Isa::scalar);
  CpuFeatures f;  // no level but scalar, so that none that this machine lacks comes before the tiles
  f.brand = "A CPU";
  CHECK(isa_explanation(f) == "scalar on A CPU (the best this CPU has)");
  f.amx_int8 = f.amx_bf16 = f.amx_permitted = true;
  CHECK(isa_explanation(f) ==
        "scalar on A CPU (its tiles stay unused: the CPU, or what it runs under, does not report "
        "AVX512-VNNI and AVX512-BF16)");
  f.amx_bf16 = false;
  CHECK(isa_explanation(f) ==
        "scalar on A CPU (its tiles stay unused: the CPU, or what it runs under, does not report "
        "AMX-BF16 and AVX512-VNNI and AVX512-BF16)");
  f.amx_bf16 = f.avx512_bf16 = true;
  note_tile_permission(f, ENOSYS, 0);
  CHECK(isa_explanation(f) == "scalar on A CPU (the kernel refused AMX tiles (arch_prctl: Function not implemented))");
}
