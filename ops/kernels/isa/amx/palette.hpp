// The palette of every kernel on tiles, without intrinsics: isa/peak.cpp is compiled without the level's flags.
#pragma once
#include <cstdint>

namespace nibble::kernels {
namespace {

/// Palette 1, eight tiles of 16 rows x 64 bytes (Intel SDM, LDTILECFG memory layout).
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileConfig) == 64);
constexpr TileConfig kTileConfig;

}  // namespace
}  // namespace nibble::kernels
