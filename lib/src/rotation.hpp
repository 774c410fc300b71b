#pragma once

#include "numbers.hpp"
#include "ports/kernels.hpp"

namespace nibkv {

/// From channels as they come to those of tiles. Each gets its sign, a fixed pattern:
/// (-1)^(c0 c1 + c2 c3 + c4 c5 + c6 c7), where c0 is the lowest bit of channel c. Then they go through the port's
/// transform. Rows that it alone would make one spike of (all ones, every pattern of period 2, 4, 8, ...) come out of
/// both flat (lib/DESIGN.md).
/// @param rotated  f32[head_dim], written; may be `row`
void rotate_in(const Kernels& kernels, const float* row, std::uint32_t head_dim, float* rotated);

/// The way back.
/// @param rotated  f32[head_dim], changed
/// @param row      f32[head_dim], written; may be `rotated`
void rotate_out(const Kernels& kernels, float* rotated, std::uint32_t head_dim, float* row);

}  // namespace nibkv
