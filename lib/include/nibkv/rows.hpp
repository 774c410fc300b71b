#pragma once

#include <cstddef>
#include <cstdint>

#include "nibkv/limits.hpp"

namespace nibkv {

/// The type of the numbers of a caller's rows, in the byte order of the machine.
enum class Number : std::uint8_t {
  kF32 = 0,
  kF16 = 1,   ///< IEEE 754 binary16
  kBf16 = 2,  ///< bfloat16: the upper half of an f32
};

/// Rows of an engine as they lie in its memory: one of head_dim numbers, side by side, for each token and head. That of
/// `token` and `head` begins `token * token_stride + head * head_stride` numbers after `first`.
///
/// Each call says how many tokens and heads there are. It returns kBadArgument when `first` is null, when `number` is
/// not one of the three, or when the rows would reach beyond half of the address space. Input rows may overlap: a
/// head_stride of 0 gives all heads the same one.
struct ConstRows {
  const void* first = nullptr;  ///< aligned for its numbers: to 4 or 2 bytes
  Number number = Number::kF32;
  std::size_t token_stride = 0;  ///< from a token to the next, in numbers
  std::size_t head_stride = 0;   ///< from a head to the next, in numbers
};

/// Rows to write. They may not overlap: kBadArgument unless the smaller stride is at least head_dim, and the larger one
/// at least as long as all rows along the smaller one. The stride along which there is a single row is not looked at.
///
/// Numbers are rounded to nearest, ties to even. What is then beyond the type's range becomes infinite, as IEEE 754
/// says: from 65520 on in f16. Numbers of f16 below 2^-14 are denormal, in steps of 2^-24.
struct MutableRows {
  void* first = nullptr;  ///< as in ConstRows; the next three too
  Number number = Number::kF32;
  std::size_t token_stride = 0;
  std::size_t head_stride = 0;

  /// What can be written can be read.
  constexpr operator ConstRows() const { return {first, number, token_stride, head_stride}; }
};

/// Dense rows, tokens outermost: [token][heads][head_dim].
constexpr ConstRows tokens_first(const void* rows, Number number, std::size_t heads, std::size_t head_dim) {
  return {rows, number, heads * head_dim, head_dim};
}
constexpr MutableRows tokens_first(void* rows, Number number, std::size_t heads, std::size_t head_dim) {
  return {rows, number, heads * head_dim, head_dim};
}

/// Dense rows, heads outermost: [head][tokens][head_dim], where `tokens` is what there is space for, such as
/// the length of the engine's buffer: at least the tokens of a call.
constexpr ConstRows heads_first(const void* rows, Number number, std::size_t tokens, std::size_t head_dim) {
  return {rows, number, head_dim, tokens * head_dim};
}
constexpr MutableRows heads_first(void* rows, Number number, std::size_t tokens, std::size_t head_dim) {
  return {rows, number, head_dim, tokens * head_dim};
}

}  // namespace nibkv
