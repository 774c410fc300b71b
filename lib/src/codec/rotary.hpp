#pragma once

#include <cstdint>

#include "nibkv/shape.hpp"

namespace nibkv {

/// The cosine and sine of an angle, each with an error of at most 2^-22.
struct Angle {
  float cosine;
  float sine;
};
/// @param turns  fraction of a turn, in units of 2^-64: whole turns wrap around
Angle angle_of(std::uint64_t turns);

/// How far each pair of channels rotates from one position to the next, in 2^-64 of a turn.
/// @param rotary  known
/// @param steps   u64[dims / 2], written
void rotary_steps(const Rotary& rotary, std::uint64_t* steps);

/// Rotates keys from one position to another, as a model's rotary embedding would have done. Steps,
/// angles and products are integers or single IEEE operations in a fixed order, and nothing comes
/// from the C library, so the bits are the same on every machine. Angles are within 1e-6 radians
/// of the definition up to 2^24 positions.
class KeyTurner {
 public:
  /// @param rotary  not known: turn() may not be called
  /// @param steps   u64[dims / 2], written, kept
  KeyTurner(const Rotary& rotary, std::uint64_t* steps);

  /// @param row        f32[head_dim], changed: a key in the channels in which it was appended
  /// @param positions  by how many positions; negative: to earlier ones. For a key at position
  ///                   p, -p gives it without an embedding.
  void turn(float* row, std::int64_t positions) const;

 private:
  std::uint32_t pairs_;
  bool adjacent_;
  const std::uint64_t* steps_;
};

/// Rotates one row by a number of positions, with the same bits as KeyTurner.
/// @param rotary  known
/// @param row     f32[head_dim], changed
void turn_row(const Rotary& rotary, float* row, std::int64_t positions);

/// Rotates many rows by one number of positions, with the same bits as KeyTurner: angles are computed once.
class RowTurner {
 public:
  /// @param rotary  known
  explicit RowTurner(const Rotary& rotary) : rotary_(rotary) {}

  /// @param positions  by how many positions the next rows are rotated back
  void set_back(std::uint32_t positions);

  /// @param row  f32[head_dim], changed
  void turn(float* row) const;

 private:
  Rotary rotary_;
  std::uint32_t positions_ = 0;  // the angles are known if it is not 0
  Angle angles_[kMaxHeadDim / 2];
};

}  // namespace nibkv
