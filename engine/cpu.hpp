// CPU features and the choice of the kernel level.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace nibble {

/// Kernel levels, slowest first; ops/kernels/README.md shows which takes kernels of which.
/// scalar: baseline x86-64 (or any CPU). avx2: AVX2 + FMA. avxvnni: avx2 + AVX-VNNI (VEX). avx512: F, BW, VL, DQ.
/// avx512vnni: avx512 + VNNI. avx512bf16: avx512vnni + AVX512-BF16. amx: avx512bf16 + AMX-TILE, AMX-INT8, AMX-BF16, and
/// the kernel's permission.
enum class Isa { scalar, avx2, avxvnni, avx512, avx512vnni, avx512bf16, amx };
inline constexpr int kIsaCount = 7;

constexpr std::string_view name_of(Isa isa) {
  constexpr std::string_view kNames[] = {"scalar", "avx2", "avxvnni", "avx512", "avx512vnni", "avx512bf16", "amx"};
  return kNames[static_cast<int>(isa)];
}

struct CpuFeatures {
  std::string brand;
  bool avx2_fma = false;
  bool avx_vnni = false;
  bool avx512 = false;  // F, BW, VL, DQ
  bool avx512_vnni = false;
  bool avx512_bf16 = false;
  bool amx_int8 = false;  // the CPU has tiles; amx_permitted tells whether the system grants them
  bool amx_bf16 = false;
  bool amx_permitted = false;  // this process may use tiles
  std::string amx_refusal;     // why not, when the CPU has tiles and the process may not use them
};

/// Detected once; asks the kernel for AMX permission (arch_prctl) on the first call.
const CpuFeatures& cpu_features();

/// Sets amx_permitted or amx_refusal from the kernel's answers: the errno of the request (0: none) and the features
/// that the process was then granted, one bit each.
void note_tile_permission(CpuFeatures& features, int error, uint64_t granted);
/// True if a CPU with these features executes the level, whatever this build has and its probe says.
bool promised(const CpuFeatures& features, Isa isa);

/// True if this build has kernels of the level (option kernel_levels).
bool built(Isa isa);
/// True if this build has the level and this process can execute it (avx512 does not imply avxvnni: that branch has its
/// own bit).
bool runnable(Isa isa);
/// All runnable levels, slowest first.
std::vector<Isa> runnable_isas();
/// The level whose name is `name`; throws UsageError that lists the names.
Isa isa_from_name(std::string_view name);

/// The level in use: NIBBLE_ISA if set (throws UnsupportedError when the machine lacks it), otherwise the best runnable
/// one.
Isa active_isa();
/// Replaces the level in use, for tests and benchmarks that visit several; throws UnsupportedError when not runnable.
void set_active_isa(Isa isa);
/// Called by the kernel room when a level that CPUID promises fails its probe (products of bf16, and with tiles of
/// codes); it is then not runnable, and no longer in use if it was. Tests take it back with an empty reason.
void mark_not_runnable(Isa isa, const std::string& reason);
/// One line that says which level runs and why not the next better one.
std::string isa_explanation();
/// The same as if this machine's CPU had these features: they decide what is named as missing, not what runs here.
std::string isa_explanation(const CpuFeatures& features);

}  // namespace nibble
