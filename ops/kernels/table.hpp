// The kernel table: raw-pointer kernels of one ISA level. No state, no files, no threads inside.
//
// A null slot inherits from the next level down (see registry.cpp); a level that must not inherit a slower kernel names
// its own again. Strides are in elements. Pointers are 64-byte aligned only where the comment says so.
#pragma once
#include <cstdint>

#include "engine/cpu.hpp"
#include "engine/dtype.hpp"

namespace nibble::kernels {

/// Whether a GEMM adds to what C holds.
enum class Into { kOverwrite, kAccumulate };

/// Where a segment of a product lies, in bytes: in the left operand relative to the first row, and in the panel of the
/// right one.
struct Segment {
  int64_t rows = 0, panel = 0;
};

/// A left operand that is multiplied where it lies, without packing: 64-byte group g of segment s of row r starts at
/// first + r * row_bytes + segments[s].rows + 64 * g. All of it is readable for as many rows as are multiplied, and
/// what lies after the elements of a segment meets zeros of B (floats must be finite there). Six times slower where
/// groups straddle cache lines (AMX): row_bytes and segments should be multiples of 64.
struct StridedRows {
  const void* first = nullptr;
  int64_t row_bytes = 0;
  const Segment* segments = nullptr;
  int segment_count = 0;  // none, or none of `groups`: the sums are what they start with
  int groups = 0;         // 64-byte groups of one segment: round_up(k, kr) * bytes of an element / 64
};

/// A left operand that is multiplied where it lies, row by row: k-group g of segment s of row r is at
/// rows[s * segment_stride + r] + first_byte + g * (bytes of a k-group). What lies after the elements of a segment, up
/// to the end of its last group, is readable, and meets zeros of B (floats must be finite there).
struct GatheredRows {
  const void* const* rows = nullptr;
  int64_t segment_stride = 0;
  int segments = 0;
  int64_t first_byte = 0;
  int groups = 0;  // k-groups of one segment
  /// The address that stands for a row of zeros: a tile leaves out every segment in which all of its rows have this
  /// address. Null: there is none. With floats, B must be finite, and the sign of a sum of zero may differ.
  const void* zeros = nullptr;
};

/// Where a right operand probably is: one that comes from memory is prefetched ahead of its use.
enum class PanelIn { kCache, kMemory };

/// Where the sums belong that a kernel still holds: `rows` rows, ldc apart, of nr columns. rows 0: it holds none.
template <typename C>
struct HeldSums {
  C* c = nullptr;
  int64_t ldc = 0;
  int rows = 0;
};

/// Integer product C[m,n] = sum_k A[m,k] * B[k,n], exact in s32.
///
/// Operands are packed into panels whose inner layout belongs to the kernel. An A panel holds `mr` rows, a B panel `nr`
/// columns. Both are cut along K into groups of `kr`; a segment of k elements is padded with zeros to round_up(k, kr)
/// and takes mr * round_up(k, kr) * a_bytes (B: nr * round_up(k, kr) * b_bytes) bytes; segments packed in sequence form
/// one longer panel. Panel buffers are 64-byte aligned.
template <typename A, typename B>
struct GemmCodes {
  using Left = A;
  using Right = B;
  int mr = 0, nr = 0, kr = 0;
  int a_bytes = 0, b_bytes = 0;  // bytes of one element inside a panel
  /// Packs rows[0..m) (m <= mr; missing rows become zero) of k elements each.
  void (*pack_a)(const A* const* rows, int m, int k, void* panel) = nullptr;
  /// Packs element (k, n) = src[k * k_stride + n * n_stride], n < columns <= nr; missing columns become zero.
  void (*pack_b)(const B* src, int64_t k_stride, int64_t n_stride, int k, int columns, void* panel) = nullptr;
  /// Multiplies `rows` rows of A panels (a_panel_bytes apart) by one B panel, k (a multiple of kr) elements deep:
  /// c[r][n] for r < rows and all nr columns, rows ldc apart. Rows of c from there to round_up(rows, mr) must exist and
  /// may be written. next_b: what is read soon (the B panel of a later call, rows of the next task), or null; kernels
  /// may prefetch as much of it as they read of b.
  void (*run)(int k, int rows, const void* a, int64_t a_panel_bytes, const void* b, int32_t* c, int64_t ldc, Into into,
              const void* next_b) = nullptr;
  /// The same without packing, the sums in the same order. Null where panels hold other elements than memory, or
  /// packing is as fast.
  void (*run_gathered)(const GatheredRows& a, int rows, const void* b, int32_t* c, int64_t ldc, Into into,
                       const void* next_b) = nullptr;
  /// Multiplies `rows` rows (strided_rows or twice as many) in place by the segments of one B panel: c[r][n] = start[n]
  /// + sum, full tiles of nr columns; start null: 0. The sums stay with the kernel: the next call, or store_held, is
  /// told where they belong and stores them, alongside its own first products (`held`: the sums of the call before).
  /// Between begin() and end() of the same thread, during which nothing is spawned or waited for. Null on levels
  /// without such a kernel.
  void (*run_strided)(const StridedRows& a, int rows, const void* b, PanelIn where, const int32_t* start,
                      const HeldSums<int32_t>& held) = nullptr;
  void (*store_held)(const HeldSums<int32_t>& held) = nullptr;
  int strided_rows = 0;
  void (*begin)() = nullptr;
  void (*end)() = nullptr;
};

/// Unsigned 8-bit codes times signed ones.
using GemmInt = GemmCodes<uint8_t, int8_t>;
/// 16-bit integers. Sums wrap modulo 2^32, so no kernel may add them as signed integers of C++.
using GemmWide = GemmCodes<int16_t, int16_t>;

/// Float product with fp32 accumulation from operands of type T (bf16 or float). Panels as in GemmInt.
/// The order of the sum is fixed by k alone (never by m or by the number of panels); products of bf16 are exact in
/// fp32.
template <typename T>
struct GemmFloat {
  using Left = T;
  using Right = T;
  int mr = 0, nr = 0, kr = 0;
  int a_bytes = 0, b_bytes = 0;
  void (*pack_a)(const T* const* rows, int m, int k, void* panel) = nullptr;
  /// A transposed: element (m, k) = rows[k][m], m < columns <= mr.
  void (*pack_a_transposed)(const T* const* rows, int k, int columns, void* panel) = nullptr;
  void (*pack_b)(const T* src, int64_t k_stride, int64_t n_stride, int k, int columns, void* panel) = nullptr;
  /// B from gathered rows: element (k, n) = rows[k][offset + n], n < columns <= nr; missing columns become zero. The
  /// right operand of a weight gradient.
  void (*pack_b_rows)(const T* const* rows, int64_t offset, int k, int columns, void* panel) = nullptr;
  /// The same from unsigned 8-bit codes, which are exact in bf16. Null for T = float.
  void (*pack_b_rows_u8)(const uint8_t* const* rows, int64_t offset, int k, int columns, void* panel) = nullptr;
  void (*run)(int k, int rows, const void* a, int64_t a_panel_bytes, const void* b, float* c, int64_t ldc, Into into,
              const void* next_b) = nullptr;
  /// As in GemmInt.
  void (*run_gathered)(const GatheredRows& a, int rows, const void* b, float* c, int64_t ldc, Into into,
                       const void* next_b) = nullptr;
  /// As in GemmInt; the order of the sum is that of the segments.
  void (*run_strided)(const StridedRows& a, int rows, const void* b, PanelIn where, const float* start,
                      const HeldSums<float>& held) = nullptr;
  void (*store_held)(const HeldSums<float>& held) = nullptr;
  int strided_rows = 0;
  void (*begin)() = nullptr;
  void (*end)() = nullptr;
};

/// Steps of a product that are consecutive in both operands: from step `left` of the left one and `right` of
/// the right one on.
struct StepRun {
  int64_t left = 0, right = 0, steps = 0;
};

/// One block of WeightGradient: sums[output][channel] of 32 x 32, rows 32 apart, 64-byte aligned.
struct BlockProduct {
  const void* left = nullptr;     // 64-byte aligned, as the other operand
  const void* right = nullptr;    // the first pair under the block's tap; channels 16 to 31 `right_panel_bytes` further
  int64_t right_panel_bytes = 0;  // 64 times the pairs of the right operand
  const StepRun* runs = nullptr;  // the steps of the product, in this order
  int64_t run_count = 0;
  float* sums = nullptr;
  const float* ahead = nullptr;  // 32 rows of 128 bytes, ahead_stride elements apart, which the caller will touch next:
  int64_t ahead_stride = 0;      // they are prefetched, never read, and may be any address
};

/// A convolution's weight gradient in blocks of 32 outputs x 32 channels over points of a plane: sums[o][c] =
/// sum over p of d_y[p][o] * x[p + tap][c], bf16 operands, fp32 sums in the order of the runs.
///
///     left   [step of 32 points][32 outputs][32 points]            one version
///     right  [16 channels' panel][pair of points][16 channels][2]  pairs (0,1) (2,3) .. and pairs (1,2) (3,4) ..
///
/// so that a tap of t points is the address of pair t / 2 of the even (t even) or odd right operand.
/// A level without this kernel leaves the slot null; it is not inherited, no vector instructions need these layouts.
struct WeightGradient {
  static constexpr int kOutputs = 32, kChannels = 32, kPoints = 32;
  /// Element (o, p) = rows[p][offset + o] for o < outputs <= 32, zero beyond; points is a multiple of 32. 64 * points
  /// bytes.
  void (*pack_left)(const bf16* const* rows, int64_t offset, int64_t points, int outputs, void* panel) = nullptr;
  /// Element (p, c) = channel `channel` + c (a multiple of 2 for nibbles) of pixels[p], p <= 2 * pairs, for c <
  /// channels <= 32; columns beyond are finite. 128 * pairs bytes each; null: not wanted.
  using PackRight = void (*)(const void* const* pixels, int64_t channel, int channels, int64_t pairs, void* even,
                             void* odd);
  PackRight pack_right_bf16 = nullptr;
  PackRight pack_right_u8 = nullptr;
  PackRight pack_right_signed = nullptr;  // bytes of code + 128
  PackRight pack_right_u4 = nullptr;      // the first channel in the lower half of a byte
  /// The products of a list, in its order. The two give the same bits: neighbours in the list should
  /// share the left or the right operand, which stays in L1 while the other one passes by.
  using Run = void (*)(const BlockProduct* products, int64_t count, Into into);
  Run run_left_again = nullptr;
  Run run_right_again = nullptr;
};

/// A block of rows: element (r, c) = data[r * stride + c].
template <typename T>
struct Rows {
  T* data = nullptr;
  int64_t stride = 0;
};

/// How a result goes to memory. Streamed: past the caches, whole lines without reading them first, for tensors that the
/// caches have lost before they are read. The thread itself sees it at once, others after Elementwise::publish.
enum class Store { kCached, kStreamed };

/// Rows of clip classes, two bits per element: bit c of a row is bit 0 of the class of channel c, bit c of the row's
/// second half, clip_class_bytes(n) / 2 bytes further, is bit 1. The class says what the gradient of z needs: 0 for z
/// <= 0; otherwise, by the ranges of UnsignedQuantizer, 1 where its derivative is 0.5, 2 where it is 1, 3 where it is
/// 0; without a quantizer 2 for every z > 0.
[[gnu::always_inline]] constexpr int64_t clip_class_bytes(int64_t n) {  // never a symbol of a kernel level
  return 2 * ((n + 7) / 8);
}

/// Quantizer of non-negative values, per channel: with t = max(v * scale[c], 0), code = floor(min(t + offset, top)),
/// top = 2^b - 1 (integer), so clamping comes before the conversion. Its derivative in v: 0.5 for 0 <= t < middle, 1 up
/// to top, 0.5 for top <= t < end, 0 from end on. The defaults are METHOD.md section 2 (unsigned activations).
struct UnsignedQuantizer {
  const float* scale = nullptr;  // [n]; null: no quantizer
  float top = 0;
  float offset = 0;  // 0: floor; 0.5: round half up
  float middle = 1;  // a normal number
  float end = top + 1;
};

/// What affine_add_relu does with an affine result v: z = bf16(max(v + shortcut, 0)), or bf16(max(v, 0)) where the
/// shortcut has no data. z goes to `out` unless that has no data; `out` may be the shortcut. Codes are made from z
/// unless the quantizer has no scale.
struct AddReluArgs {
  Rows<const bf16> shortcut{};
  /// The rows of the shortcut that the next call will read, with the same stride; null: none. They are prefetched, one
  /// row along with each row of this call, but never read, so they may be any address.
  const bf16* next_shortcut = nullptr;
  Rows<bf16> out{};
  UnsignedQuantizer quantizer{};
  Rows<uint8_t> codes{};
  /// The rows of codes that the next call will write, the same way.
  const uint8_t* next_codes = nullptr;
};

/// Arguments of normalise_activate: v = y*m[c] + a[c] (+ shortcut), then ReLU, bf16 and codes.
struct NormaliseActivateArgs {
  int64_t rows = 0, n = 0;
  Rows<const bf16> y{};
  const float* m = nullptr;     // [n]
  const float* a = nullptr;     // [n]
  Rows<const bf16> shortcut{};  // added as it is when data is set and m2 is null
  const float* m2 = nullptr;    // projection: shortcut value = bf16(shortcut*m2[c] + a2[c])
  const float* a2 = nullptr;
  Rows<bf16> z{};                 // null data: not stored. z = bf16(max(v, 0))
  UnsignedQuantizer quantizer{};  // null scale: no codes. Quantizes z rounded to bf16 if `through_bf16`, else max(v, 0)
  bool through_bf16 = false;
  Rows<uint8_t> codes{};    // one byte per code
  Rows<uint8_t> classes{};  // null data: not stored. Clip classes of z = bf16(max(v, 0)), stored or not
  Store store_z = Store::kCached;
  float* channel_max = nullptr;  // [n] if set: raised to the largest max(v, 0), as rounded to bf16
};

/// Arguments of activate_backward: g = relu'(v) * (quantizer'(v) * through_quantizer + direct), then the two sums of
/// batch norm's backward over the rows.
struct ActivateBackwardArgs {
  int64_t rows = 0, n = 0;
  Rows<const bf16> y{};      // stored convolution output
  const float* m = nullptr;  // v = y*m + a where z is null
  const float* a = nullptr;
  Rows<const bf16> z{};                  // block output: v = z
  Rows<const uint8_t> classes{};         // or its clip classes, which give the same gradient
  Rows<const bf16> through_quantizer{};  // gradient of the dequantized activation; null: none
  Rows<const bf16> direct{};             // gradient that bypasses the quantizer; null: none
  UnsignedQuantizer quantizer{};         // null scale: derivative 1
  const float* mean = nullptr;           // [n]
  Rows<bf16> g{};                        // out, rounded; the sums use the rounded value; may be one of the inputs
  Store store_g = Store::kCached;
  float* sum_g = nullptr;          // [n] += sum over rows of g
  float* sum_g_centred = nullptr;  // [n] += sum over rows of g * (y - mean)
};

/// Transforms of tiles of e x e outputs, P = e + 2, for Winograd gradients of 3x3 convolutions (ops/winograd.hpp has S,
/// R, G, H and Q), in fp32, of n channels. M t M^T of a tile t: first the sums down its
/// columns, then those along the rows, both in the order of Lines (generic/elementwise_winograd_gradients.inl.hpp).
/// Strides are in elements.
struct GradientTransforms {
  /// Position P*i + j of S t S^T, t[y][x] = pixels[P*y + x], channels from `offset` on.
  void (*input_u8)(const uint8_t* const* pixels, int64_t offset, int64_t n, float* out, int64_t stride) = nullptr;
  void (*input_bf16)(const bf16* const* pixels, int64_t offset, int64_t n, float* out, int64_t stride) = nullptr;
  /// out[e*u + v][c]: R t R^T of t[i][j] = sums[(P*i + j) * stride + c].
  void (*output)(const float* sums, int64_t stride, int64_t n, float* const* out) = nullptr;
  /// Position P*i + j of G t G^T, t[y][x] = taps[3*y + x].
  void (*weights)(const bf16* const* taps, int64_t n, float* out, int64_t stride) = nullptr;
  /// Position P*i + j of H t H^T, t[u][v] = pixels[e*u + v], channels from `offset` on.
  void (*d_y)(const bf16* const* pixels, int64_t offset, int64_t n, float* out, int64_t stride) = nullptr;
  /// out[(3*y + x) * out_stride + c]: Q t Q^T of t[i][j] = sums[(P*i + j) * stride + c].
  void (*d_w)(const float* sums, int64_t stride, int64_t n, float* out, int64_t out_stride) = nullptr;
};

/// Operations on rows of channels. All float arithmetic is IEEE single, multiply then add, in the order written, so the
/// results are the same bits on every level; sums over rows run down the rows in order, one accumulator per channel.
struct Elementwise {
  // --- after the product, served and evaluated path (METHOD.md section 8): v = float(acc)*m[c] + a[c] ---
  void (*affine_quantize_s32)(const int32_t* acc, int64_t ld, int64_t rows, int64_t n, const float* m, const float* a,
                              UnsignedQuantizer q, Rows<uint8_t> codes) = nullptr;
  void (*affine_bf16_s32)(const int32_t* acc, int64_t ld, int64_t rows, int64_t n, const float* m, const float* a,
                          Rows<bf16> out, const bf16* next_out) = nullptr;  // next_out as AddReluArgs::next_codes
  void (*affine_add_relu_bf16_s32)(const int32_t* acc, int64_t ld, int64_t rows, int64_t n, const float* m,
                                   const float* a, const AddReluArgs& args) = nullptr;
  void (*affine_f32_s32)(const int32_t* acc, int64_t ld, int64_t rows, int64_t n, const float* m, const float* a,
                         Rows<float> out) = nullptr;
  // The same from fp32 accumulators (bf16 models and uncalibrated evaluation).
  void (*affine_quantize_f32)(const float* acc, int64_t ld, int64_t rows, int64_t n, const float* m, const float* a,
                              UnsignedQuantizer q, Rows<uint8_t> codes) = nullptr;
  void (*affine_bf16_f32)(const float* acc, int64_t ld, int64_t rows, int64_t n, const float* m, const float* a,
                          Rows<bf16> out, const bf16* next_out) = nullptr;
  void (*affine_add_relu_bf16_f32)(const float* acc, int64_t ld, int64_t rows, int64_t n, const float* m,
                                   const float* a, const AddReluArgs& args) = nullptr;
  void (*affine_f32_f32)(const float* acc, int64_t ld, int64_t rows, int64_t n, const float* m, const float* a,
                         Rows<float> out) = nullptr;

  // --- training forward ---
  /// y = bf16(float(acc) * scale[c]) (scale null: 1); sum[c] += y, sum_sq[c] += y*y over the rows, from the rounded y;
  /// both null: not wanted.
  void (*rescale_stats_s32)(const int32_t* acc, int64_t ld, int64_t rows, int64_t n, const float* scale, Rows<bf16> y,
                            Store store, float* sum, float* sum_sq) = nullptr;
  void (*rescale_stats_f32)(const float* acc, int64_t ld, int64_t rows, int64_t n, const float* scale, Rows<bf16> y,
                            Store store, float* sum, float* sum_sq) = nullptr;
  void (*normalise_activate)(const NormaliseActivateArgs& args) = nullptr;
  void (*quantize_bf16)(Rows<const bf16> x, int64_t rows, int64_t n, UnsignedQuantizer q,
                        Rows<uint8_t> codes) = nullptr;
  /// x_hat = bf16(code / scale[c]): fake mode.
  void (*dequantize_bf16)(Rows<const uint8_t> codes, int64_t rows, int64_t n, const float* scale,
                          Rows<bf16> out) = nullptr;

  // --- training backward ---
  void (*activate_backward)(const ActivateBackwardArgs& args) = nullptr;
  /// sum_g[c] += g, sum_g_centred[c] += g*(y-mean): the sums alone, for the projection's batch norm.
  void (*norm_backward_sums)(Rows<const bf16> g, Rows<const bf16> y, int64_t rows, int64_t n, const float* mean,
                             float* sum_g, float* sum_g_centred) = nullptr;
  /// dy = bf16(p[c]*g + q[c]*y + r[c]); dy may be g.
  void (*norm_backward_apply)(Rows<const bf16> g, Rows<const bf16> y, int64_t rows, int64_t n, const float* p,
                              const float* q, const float* r, Rows<bf16> dy, Store store) = nullptr;
  /// out = bf16(acc * scale[c]) (scale null: 1), and added to what out holds (in fp32, then rounded) for kAccumulate.
  void (*scale_bf16_f32)(const float* acc, int64_t ld, int64_t rows, int64_t n, const float* scale, Rows<bf16> out,
                         Into into, Store store) = nullptr;
  /// Makes what this thread has streamed visible to the threads that it synchronises with from here on.
  void (*publish)() = nullptr;
  /// out = bf16(a + b).
  void (*add_bf16)(Rows<const bf16> a, Rows<const bf16> b, int64_t rows, int64_t n, Rows<bf16> out) = nullptr;

  // --- pooling ---
  /// out[c] = max over the `count` rows; arg[c] (if set) = index of the first row that attains it. count >= 1.
  void (*max_rows_bf16)(const bf16* const* rows, int count, int64_t n, bf16* out, uint8_t* arg) = nullptr;
  /// out[c] = max over the `count` rows of codes, for each of several pixels: those of pixel p lie `rows.stride` bytes
  /// after those of pixel p - 1, its result out.stride bytes. count >= 1.
  void (*max_rows_u8)(Rows<const uint8_t* const> rows, int count, int64_t pixels, int64_t n,
                      Rows<uint8_t> out) = nullptr;
  /// The gradient of one pixel that `count` windows read: out[c] = bf16(sum over windows i in order, from 0, of
  /// g[i][c] where arg[i][c] == place[i], else 0). count >= 0.
  void (*max_rows_backward_bf16)(const bf16* const* g, const uint8_t* const* arg, const uint8_t* place, int count,
                                 int64_t n, bf16* out) = nullptr;
  /// sum[c] = sum over rows in order, fp32 (sum is overwritten).
  void (*sum_rows_bf16)(Rows<const bf16> x, int64_t rows, int64_t n, float* sum) = nullptr;

  // --- Winograd convolutions (ops/winograd.hpp) ---
  /// Position 4*i + j of a transformed tile of 4 x 4 pixels, pixels[4*y + x], of codes 0 to 15: the sum over y and x of
  /// S[i][y] * S[j][x] * pixel, plus 30 but for position 5, in n channels from `offset` on; `stride` bytes from
  /// position to position. S = [1 0 -1 0; 0 1 1 0; 0 -1 1 0; 0 1 0 -1]; results are 0 to 60.
  void (*winograd_input)(const uint8_t* const* pixels, int64_t offset, int64_t n, uint8_t* out,
                         int64_t stride) = nullptr;
  /// The same of any bytes, without the 30s; results are -510 to 1020. The stride is in elements.
  void (*winograd_input_wide)(const uint8_t* const* pixels, int64_t offset, int64_t n, int16_t* out,
                              int64_t stride) = nullptr;
  /// out[2*u + v][c] = (sum over i and j of R[u][i] * R[v][j] * sums[(4*i + j) * stride + c] - start[(2*u + v) *
  /// start_stride + c]) / 4, which has no remainder. R = [1 1 1 0; 0 1 -1 -1]. Sums are modulo 2^32.
  void (*winograd_output)(const int32_t* sums, int64_t stride, int64_t n, const int32_t* start, int64_t start_stride,
                          int32_t* const* out) = nullptr;
  /// Position 6*i + j of a transformed tile of 6 x 6 bytes, pixels[6*y + x]: the sum over y and x of S[i][y] * S[j][x]
  /// * pixel, n channels from `offset` on. S = [4 0 -5 0 1 0; 0 -4 -4 1 1 0; 0 4 -4 -1 1 0; 0 -2 -1 2 1 0; 0 2 -1 -2 1
  /// 0; 0 4 0 -5 0 1]; results are -12750 to 17340. The stride is in elements.
  void (*winograd_input_4x4)(const uint8_t* const* pixels, int64_t offset, int64_t n, int16_t* out,
                             int64_t stride) = nullptr;
  /// out[4*u + v][c] = (sum over i and j of R[u][i] * R[v][j] * sums[(6*i + j) * stride + c]) / 576, which has no
  /// remainder and is -2^25 to 2^25 - 1. R = [6 -4 -4 1 1 0; 0 -4 4 2 -2 0; 0 -4 -4 4 4 0; 0 -4 4 8 -8 24]. Sums are
  /// modulo 2^32: a ninth is the product by the inverse of 9, a 64th a shift of what is left.
  void (*winograd_output_4x4)(const int32_t* sums, int64_t stride, int64_t n, int32_t* const* out) = nullptr;
  /// The gradients': tiles of 2x2 and of 4x4 outputs.
  GradientTransforms f2x2{}, f4x4{};

  // --- codes and conversions, n elements ---
  void (*pack_u4)(const uint8_t* codes, int64_t n, uint8_t* packed) = nullptr;  // odd n: last high nibble zero
  void (*unpack_u4)(const uint8_t* packed, int64_t n, uint8_t* codes) = nullptr;
  void (*pack_s4)(const int8_t* codes, int64_t n, uint8_t* packed) = nullptr;
  void (*unpack_s4)(const uint8_t* packed, int64_t n, int8_t* codes) = nullptr;
  void (*multiply_u8)(const uint8_t* codes, const uint8_t* factor, int64_t n,
                      uint8_t* out) = nullptr;  // products <= 255
  void (*f32_to_bf16)(const float* x, int64_t n, bf16* out) = nullptr;
  void (*bf16_to_f32)(const bf16* x, int64_t n, float* out) = nullptr;
  void (*s8_to_bf16)(const int8_t* x, int64_t n, bf16* out) = nullptr;

  // --- weights and optimiser, n elements ---
  /// max |w[i] * fold[i]| (fold null: 1); 0 for n = 0; NaN if any product is NaN.
  float (*absmax)(const float* w, const float* fold, int64_t n) = nullptr;
  /// code = floor(clamp(w*fold*scale, -top, top) + 0.5), multiplied in that order (METHOD.md section 2, weights).
  void (*quantize_weights)(const float* w, const float* fold, int64_t n, float scale, float top,
                           int8_t* codes) = nullptr;
  /// d = g + decay*w; m = momentum*m + d; w -= rate * (nesterov ? d + momentum*m : m).
  void (*sgd_step)(float* w, float* m, const float* g, int64_t n, float rate, float momentum, float decay,
                   bool nesterov) = nullptr;
  /// out += x.
  void (*add_f32)(const float* x, int64_t n, float* out) = nullptr;
  /// out = or += (column[r] * row[i]) * x, rows of n; null: 1. Only what is overwritten can be streamed.
  void (*scale_rows_f32)(Rows<const float> x, int64_t rows, int64_t n, const float* column, const float* row,
                         Rows<float> out, Into into, Store store) = nullptr;
};

struct Table {
  GemmInt u8s8{};  // any codes: |sum| exact as long as k * 255 * 128 < 2^31
  GemmInt u8s4{};  // B in [-8, 7]; A any unsigned byte
  GemmInt u4s4{};  // B in [-8, 7]; A in [0, 15]
  GemmInt u6s7{};  // B in [-64, 63]; A in [0, 63]: 4-bit codes after the transforms of ops/winograd.hpp
  /// A in [-17340, 17340], B in [-6272, 6272]: 8-bit codes after them. Null on amx, where tiles multiply plain codes.
  GemmWide s16s14{};
  GemmFloat<bf16> bf16_gemm{};
  GemmFloat<float> f32_gemm{};
  WeightGradient weight_gradient{};  // null on levels without tiles
  Elementwise ew{};
  /// Executes one instruction group of the level and checks its result; null: nothing to probe.
  bool (*probe)() = nullptr;
};

/// The complete table of the level in use: all set but weight_gradient and s16s14. Cheap enough to call per operation.
const Table& active();
/// The complete (inherited) table of one level, runnable here or not; calling kernels of one that is not is fatal.
const Table& table_of(Isa isa);
/// Probes the levels that this process can execute and marks those that fail as not runnable (engine/cpu.hpp). The
/// first call of active() or table_of() does so with the tables of this build.
void rule_out_failing_levels(const Table (&level)[kIsaCount]);

}  // namespace nibble::kernels
