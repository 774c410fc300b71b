#pragma once

#include <cstddef>
#include <cstdint>

#include "nibkv/rows.hpp"
#include "ports/kernels.hpp"

namespace nibkv {

/// How many rows of a call there are, [tokens][heads], and how long they are. At most 2^30 numbers.
struct RowCounts {
  std::uint32_t tokens;
  std::uint32_t heads;
  std::uint32_t head_dim;
};

/// Whether each row has an address: rows.hpp has the rules.
bool readable(const ConstRows& rows, const RowCounts& counts);
bool writable(const MutableRows& rows, const RowCounts& counts);

/// Whether all numbers are finite. The rows are readable.
bool all_finite(const ConstRows& rows, const RowCounts& counts);

inline std::size_t offset_in(const ConstRows& rows, std::uint32_t token, std::uint32_t head) {
  return token * rows.token_stride + head * rows.head_stride;
}

inline Half half_of(Number number) {
  return number == Number::kF16 ? Half::kF16 : Half::kBf16;
}

/// A row of numbers where they lie.
struct NativeRow {
  const void* numbers;
  Number number;

  bool f32() const { return number == Number::kF32; }
  /// The numbers of an f32 row.
  const float* floats() const { return static_cast<const float*>(numbers); }

  /// The row as f32: where it lies, or else in `space`, f32[head_dim].
  const float* widened(const Kernels& kernels, std::uint32_t head_dim, float* space) const {
    if (f32()) return floats();
    kernels.widen(numbers, static_cast<int>(head_dim), half_of(number), space);
    return space;
  }
  /// The row as f32 in `space`, in any case.
  void copy(const Kernels& kernels, std::uint32_t head_dim, float* space) const;
};

inline NativeRow row_of(const ConstRows& rows, std::uint32_t token, std::uint32_t head) {
  const std::size_t at = offset_in(rows, token, head);
  if (rows.number == Number::kF32) return {static_cast<const float*>(rows.first) + at, rows.number};
  return {static_cast<const std::uint16_t*>(rows.first) + at, rows.number};
}

/// A row to write.
struct NativeOut {
  void* numbers;
  Number number;

  bool f32() const { return number == Number::kF32; }
  float* floats() const { return static_cast<float*>(numbers); }
  /// Where to put the row as f32 before put(): in its place, or else in `space`.
  float* staged(float* space) const { return f32() ? floats() : space; }
  /// Ends what staged() began.
  void put(const Kernels& kernels, std::uint32_t head_dim, const float* space) const {
    if (!f32()) kernels.narrow(space, static_cast<int>(head_dim), half_of(number), numbers);
  }
};

inline NativeOut row_of(const MutableRows& rows, std::uint32_t token, std::uint32_t head) {
  const std::size_t at = offset_in(rows, token, head);
  if (rows.number == Number::kF32) return {static_cast<float*>(rows.first) + at, rows.number};
  return {static_cast<std::uint16_t*>(rows.first) + at, rows.number};
}

}  // namespace nibkv
