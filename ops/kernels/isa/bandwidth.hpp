// Loops that move memory and do next to nothing else, for the bandwidth probe (not called by any op).
#pragma once
#include <cstdint>

namespace nibble::kernels {

/// Sum of x[0..n). Moves 4n bytes.
float read_floats(const float* x, int64_t n);
/// x[i] = 0.5 * x[i]. Moves 8n bytes: every line is read and written back.
void halve_floats(float* x, int64_t n);
/// to[i] = a[i] + s * b[i] with stores that bypass the caches where the machine has them. Moves 12n bytes; with
/// ordinary stores it would be 16n, as `to` would be read first. `to` aligned to 16 bytes, n a multiple of 4.
void stream_triad(float* to, const float* a, const float* b, float s, int64_t n);

}  // namespace nibble::kernels
