// Builds the complete tables: a null slot inherits from the next level down; probes levels once.
#include "ops/kernels/isa/tables.hpp"
#include "ops/kernels/table.hpp"

namespace nibble::kernels {

namespace {

// avx512 CPUs need not have AVX-VNNI, so that level does not inherit from avxvnni.
constexpr int kParent[kIsaCount] = {-1, 0, 1, 1, 3, 4, 5};

/// Fills the null slots of `mine` from `base`. GEMM entries are taken whole; the element-wise part is a plain array of
/// function pointers, filled one by one.
void inherit(Table& mine, const Table& base) {
  if (mine.u8s8.run == nullptr) mine.u8s8 = base.u8s8;
  if (mine.u8s4.run == nullptr) mine.u8s4 = base.u8s4;
  if (mine.u4s4.run == nullptr) mine.u4s4 = base.u4s4;
  if (mine.u6s7.run == nullptr) mine.u6s7 = base.u6s7;
  // Not s16s14 and weight_gradient: a level that has none does without.
  if (mine.bf16_gemm.run == nullptr) mine.bf16_gemm = base.bf16_gemm;
  if (mine.f32_gemm.run == nullptr) mine.f32_gemm = base.f32_gemm;
  using Slot = void (*)();
  static_assert(sizeof(Elementwise) % sizeof(Slot) == 0 && sizeof(Slot) == sizeof(void*));
  Slot own[sizeof(Elementwise) / sizeof(Slot)];
  Slot from[sizeof(Elementwise) / sizeof(Slot)];
  __builtin_memcpy(own, &mine.ew, sizeof own);
  __builtin_memcpy(from, &base.ew, sizeof from);
  for (size_t i = 0; i < sizeof(Elementwise) / sizeof(Slot); ++i)
    if (own[i] == nullptr) own[i] = from[i];
  __builtin_memcpy(static_cast<void*>(&mine.ew), own, sizeof own);
}

struct Complete {
  Table level[kIsaCount];  // one that this build leaves out has only inherited slots, and is not runnable
  Complete() {
#define NIBBLE_LEVEL(name) level[static_cast<int>(Isa::name)] = name::kTable;
    NIBBLE_KERNEL_LEVELS
#undef NIBBLE_LEVEL
    for (int i = 0; i < kIsaCount; ++i)
      if (kParent[i] >= 0) inherit(level[i], level[kParent[i]]);
    rule_out_failing_levels(level);
  }
};

const Complete& complete() {
  static const Complete tables;
  return tables;
}

}  // namespace

const Table& active() {
  const Complete& tables = complete();  // the first call probes: it may rule out the level that was in use until then
  return tables.level[static_cast<int>(active_isa())];
}

const Table& table_of(Isa isa) {
  return complete().level[static_cast<int>(isa)];
}

void rule_out_failing_levels(const Table (&level)[kIsaCount]) {
  for (int i = 0; i < kIsaCount; ++i) {
    const Isa isa = static_cast<Isa>(i);
    if (level[i].probe != nullptr && runnable(isa) && !level[i].probe())
      mark_not_runnable(isa, std::string("the ") + std::string(name_of(isa)) +
                                 " instructions gave a wrong result when they were probed");
  }
}

}  // namespace nibble::kernels
