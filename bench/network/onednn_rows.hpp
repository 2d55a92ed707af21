// oneDNN's convolutions on the same shapes as ours, in the same program (meson -Donednn=enabled).
#pragma once
#include <cstdint>

namespace nibble::bench {

/// Rows onednn/forward/u8s8/<layer>, onednn/{forward,backward-data,backward-weights}/{bf16,f32}/<layer>, and their
/// sums. Layouts are oneDNN's own choice, weights are reordered before, results are u8 for codes and the operand's type
/// otherwise. oneDNN is held to the kernel level in use. Types it lacks there (bf16 below AVX-512) are skipped with a
/// message.
void register_onednn(int64_t batch);

}  // namespace nibble::bench
