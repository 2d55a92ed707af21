// The element-wise kernels of a level whose flags change none of them: empty slots, which inherit, where the build has
// the level that they come from (NIBBLE_INHERIT_ELEMENTWISE, see meson.build), and kernels of its own elsewhere. A
// compilation of them takes 20 to 60 s.
#pragma once
#if defined(NIBBLE_INHERIT_ELEMENTWISE)
#include "ops/kernels/table.hpp"

namespace nibble::kernels::NIBBLE_KERNEL_LEVEL {
namespace {

constexpr Elementwise kElementwise = {};

}  // namespace
}  // namespace nibble::kernels::NIBBLE_KERNEL_LEVEL
#else
#include "ops/kernels/generic/elementwise.inl.hpp"
#endif
