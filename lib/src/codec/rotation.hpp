#pragma once

#include "numbers/numbers.hpp"
#include "ports/kernels.hpp"

namespace nibkv {

/// Rotates a row from the model's channels to those of the tiles. First each channel gets
/// a sign, in a fixed pattern:
/// (-1)^(c0 c1 + c2 c3 + c4 c5 + c6 c7), where c0 is the lowest bit of channel c. Then the row
/// goes through the port's transform. Rows that the transform alone would turn into a single spike
/// (all ones, every pattern of period 2, 4, 8, ...) come out flat (lib/DESIGN.md).
/// @param rotated  f32[head_dim], written; may be `row`
void rotate_in(const Kernels& kernels, const float* row, std::uint32_t head_dim, float* rotated);

/// The inverse.
/// @param rotated  f32[head_dim], changed
/// @param row      f32[head_dim], written; may be `rotated`
void rotate_out(const Kernels& kernels, float* rotated, std::uint32_t head_dim, float* row);

}  // namespace nibkv
