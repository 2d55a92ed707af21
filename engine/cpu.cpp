#include "engine/cpu.hpp"

#include <fmt/format.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <mutex>

#include "engine/env.hpp"
#include "engine/error.hpp"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace nibble {

namespace {

/// Why a promised level failed its probe; empty: it did not. Read and written by any thread.
class Refusals {
 public:
  std::string of(Isa isa) {
    const std::lock_guard guard(lock_);
    return why_[static_cast<size_t>(isa)];
  }
  void set(Isa isa, const std::string& why) {
    const std::lock_guard guard(lock_);
    why_[static_cast<size_t>(isa)] = why;
  }

 private:
  std::mutex lock_;
  std::array<std::string, kIsaCount> why_;
};
Refusals refusals;
std::atomic<int> chosen{-1};
constexpr int kTileData = 18;  // the state that holds the tiles, by its number in XCR0 and in permissions

#if defined(__x86_64__)
struct Regs {
  uint32_t a = 0, b = 0, c = 0, d = 0;
};
Regs cpuid(uint32_t leaf, uint32_t sub) {
  Regs r;
  const auto highest = static_cast<uint32_t>(__get_cpuid_max(leaf & 0x80000000u, nullptr));  // clang's returns int
  if (highest >= leaf) __cpuid_count(leaf, sub, r.a, r.b, r.c, r.d);
  return r;
}
uint64_t xcr0() {
  uint32_t lo = 0, hi = 0;
  __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
  return (uint64_t{hi} << 32) | lo;
}
constexpr bool bit(uint32_t word, int i) {
  return (word >> i) & 1u;
}

std::string brand_string() {
  if (cpuid(0x80000000u, 0).a < 0x80000004u) return "unknown";
  char text[49] = {};
  for (uint32_t i = 0; i < 3; ++i) {
    const Regs r = cpuid(0x80000002u + i, 0);
    std::memcpy(text + 16 * i, &r, 16);
  }
  const std::string s = text;
  const size_t first = s.find_first_not_of(' '), last = s.find_last_not_of(' ');
  return first == std::string::npos ? "unknown" : s.substr(first, last - first + 1);
}

/// Asks Linux for the tile data state (arch_prctl ARCH_REQ_XCOMP_PERM) and checks that it was granted.
void request_tiles(CpuFeatures& f) {
  constexpr long kRequest = 0x1023, kGet = 0x1022;
  unsigned long granted = 0;
  const int error = syscall(SYS_arch_prctl, kRequest, long{kTileData}) != 0 ? errno : 0;
  if (error == 0 && syscall(SYS_arch_prctl, kGet, &granted) != 0) granted = 0;
  note_tile_permission(f, error, granted);
}
#endif

CpuFeatures detect() {
  CpuFeatures f;
#if defined(__x86_64__)
  f.brand = brand_string();
  const Regs l1 = cpuid(1, 0), l7 = cpuid(7, 0), l71 = cpuid(7, 1);
  const bool osxsave = bit(l1.c, 27);
  const uint64_t state = osxsave ? xcr0() : 0;
  const bool ymm = (state & 0x6) == 0x6, zmm = (state & 0xe6) == 0xe6;
  f.avx2_fma = ymm && bit(l1.c, 28) && bit(l1.c, 12) && bit(l7.b, 5);
  f.avx_vnni = f.avx2_fma && bit(l71.a, 4);
  f.avx512 = zmm && f.avx2_fma && bit(l7.b, 16) && bit(l7.b, 17) && bit(l7.b, 28) && bit(l7.b, 30) && bit(l7.b, 31);
  f.avx512_vnni = f.avx512 && bit(l7.c, 11);
  f.avx512_bf16 = f.avx512 && bit(l71.a, 5);
  const bool tile = bit(l7.d, 24);
  f.amx_int8 = tile && bit(l7.d, 25);
  f.amx_bf16 = tile && bit(l7.d, 22);
  if (f.avx512_vnni && f.amx_int8 && f.amx_bf16) request_tiles(f);
#else
  f.brand = "not x86-64";
#endif
  return f;
}

/// Why a level is not runnable; empty when the CPU simply lacks it, or some of it.
std::string reason_against(const CpuFeatures& f, Isa isa) {
  if (!built(isa)) return fmt::format("this build has no {} kernels", name_of(isa));
  if (std::string refused = refusals.of(isa); !refused.empty()) return refused;
  return isa == Isa::amx ? f.amx_refusal : "";
}

/// The features that keep a CPU with tiles from the amx level; a hypervisor may hide any of them. Empty: none, or there
/// are no tiles.
std::string missing_beside_tiles(const CpuFeatures& f) {
  if (!f.amx_int8 && !f.amx_bf16) return {};
  std::string missing;
  const auto need = [&](bool present, const char* name) {
    if (!present) missing += fmt::format("{}{}", missing.empty() ? "" : " and ", name);
  };
  need(f.amx_int8, "AMX-INT8");
  need(f.amx_bf16, "AMX-BF16");
  need(f.avx512_vnni, "AVX512-VNNI");
  need(f.avx512_bf16, "AVX512-BF16");
  return missing;
}

void require_runnable(Isa isa) {
  if (runnable(isa)) return;
  std::string have;
  for (Isa i : runnable_isas()) have += fmt::format("{}{}", have.empty() ? "" : ", ", name_of(i));
  const std::string reason = reason_against(cpu_features(), isa);
  throw UnsupportedError("kernel level {} cannot run on this machine ({}); choose one of: {}", name_of(isa),
                         reason.empty() ? cpu_features().brand : reason, have);
}

}  // namespace

const CpuFeatures& cpu_features() {
  static const CpuFeatures features = detect();
  return features;
}

void note_tile_permission(CpuFeatures& f, int error, uint64_t granted) {
  f.amx_permitted = error == 0 && ((granted >> kTileData) & 1) != 0;
  if (error != 0)
    f.amx_refusal = fmt::format("the kernel refused AMX tiles (arch_prctl: {})", std::strerror(error));
  else if (!f.amx_permitted)
    f.amx_refusal = "the kernel did not grant AMX tiles";
}

bool promised(const CpuFeatures& f, Isa isa) {
  switch (isa) {
    case Isa::scalar:
      return true;
    case Isa::avx2:
      return f.avx2_fma;
    case Isa::avxvnni:
      return f.avx_vnni;
    case Isa::avx512:
      return f.avx512;
    case Isa::avx512vnni:
      return f.avx512_vnni;
    case Isa::avx512bf16:
      return f.avx512_vnni && f.avx512_bf16;
    case Isa::amx:
      return f.avx512_vnni && f.amx_int8 && f.amx_bf16 && f.avx512_bf16 && f.amx_permitted;
  }
  return false;
}

bool built(Isa isa) {
  switch (isa) {
#define NIBBLE_LEVEL(name) case Isa::name:
    NIBBLE_KERNEL_LEVELS
#undef NIBBLE_LEVEL
    return true;
    default:
      return false;
  }
}

bool runnable(Isa isa) {
  return built(isa) && promised(cpu_features(), isa) && refusals.of(isa).empty();
}

std::vector<Isa> runnable_isas() {
  std::vector<Isa> all;
  for (int i = 0; i < kIsaCount; ++i)
    if (runnable(static_cast<Isa>(i))) all.push_back(static_cast<Isa>(i));
  return all;
}

Isa isa_from_name(std::string_view name) {
  std::string names;
  for (int i = 0; i < kIsaCount; ++i) {
    const Isa isa = static_cast<Isa>(i);
    if (name_of(isa) == name) return isa;
    names += fmt::format("{}{}", i ? ", " : "", name_of(isa));
  }
  throw UsageError("NIBBLE_ISA is '{}', which is not a kernel level; use one of: {}", name, names);
}

Isa active_isa() {
  if (int c = chosen.load(); c >= 0) return static_cast<Isa>(c);
  Isa isa = runnable_isas().back();
  if (const auto forced = env(EnvVar::kIsa)) {
    isa = isa_from_name(*forced);
    require_runnable(isa);
  }
  chosen.store(static_cast<int>(isa));
  if (runnable(isa)) return isa;
  mark_not_runnable(isa, refusals.of(isa));  // found out meanwhile
  return active_isa();
}

void set_active_isa(Isa isa) {
  require_runnable(isa);
  chosen.store(static_cast<int>(isa));
}

void mark_not_runnable(Isa isa, const std::string& reason) {
  refusals.set(isa, reason);
  int in_use = static_cast<int>(isa);
  chosen.compare_exchange_strong(in_use, -1);  // active_isa() chooses again, or refuses the level that was forced
}

std::string isa_explanation() {
  return isa_explanation(cpu_features());
}

std::string isa_explanation(const CpuFeatures& f) {
  std::string why = fmt::format("{} on {}", name_of(active_isa()), f.brand);
  if (env(EnvVar::kIsa)) return why + " (forced by NIBBLE_ISA)";
  for (int i = static_cast<int>(active_isa()) + 1; i < kIsaCount; ++i) {
    const Isa better = static_cast<Isa>(i);
    if (promised(f, better) && !runnable(better)) return why + " (" + reason_against(f, better) + ")";
  }
  if (!f.amx_refusal.empty()) return why + " (" + f.amx_refusal + ")";
  if (const std::string missing = missing_beside_tiles(f); !missing.empty())
    return why + fmt::format(" (its tiles stay unused: the CPU, or what it runs under, does not report {})", missing);
  return why + " (the best this CPU has)";
}

}  // namespace nibble
