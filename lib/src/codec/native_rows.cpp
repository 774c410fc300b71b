#include "codec/native_rows.hpp"

#include <limits>

#include "numbers/numbers.hpp"

namespace nibkv {
namespace {

bool addressable(const void* first, Number number, std::size_t token_stride, std::size_t head_stride,
                 const RowCounts& counts) {
  if (first == nullptr || number > Number::kBf16) return false;
  std::size_t left = std::numeric_limits<std::size_t>::max() / (number == Number::kF32 ? 8 : 4) - counts.head_dim;
  if (counts.tokens > 1) {
    if (token_stride > left / (counts.tokens - 1)) return false;
    left -= token_stride * (counts.tokens - 1);
  }
  return counts.heads == 1 || head_stride <= left / (counts.heads - 1);
}

}  // namespace

bool readable(const ConstRows& rows, const RowCounts& counts) {
  return addressable(rows.first, rows.number, rows.token_stride, rows.head_stride, counts);
}

bool writable(const MutableRows& rows, const RowCounts& counts) {
  if (!addressable(rows.first, rows.number, rows.token_stride, rows.head_stride, counts)) return false;
  if (counts.heads == 1) return counts.tokens == 1 || rows.token_stride >= counts.head_dim;
  if (counts.tokens == 1) return rows.head_stride >= counts.head_dim;
  const bool heads_inside = rows.head_stride <= rows.token_stride;
  const std::size_t inner = heads_inside ? rows.head_stride : rows.token_stride;
  const std::size_t outer = heads_inside ? rows.token_stride : rows.head_stride;
  const std::size_t along = heads_inside ? counts.heads : counts.tokens;
  return inner >= counts.head_dim && outer >= (along - 1) * inner + counts.head_dim;
}

bool all_finite(const ConstRows& rows, const RowCounts& counts) {
  // As few runs as there are gaps.
  const bool heads_touch = counts.heads == 1 || rows.head_stride == counts.head_dim;
  const std::size_t run = std::size_t{counts.head_dim} * (heads_touch ? counts.heads : 1);
  const bool tokens_touch = heads_touch && (counts.tokens == 1 || rows.token_stride == run);
  const std::size_t length = run * (tokens_touch ? counts.tokens : 1);
  const std::uint16_t exponent = rows.number == Number::kF16 ? 0x7c00 : 0x7f80;
  for (std::uint32_t token = 0; token < (tokens_touch ? 1 : counts.tokens); ++token) {
    for (std::uint32_t head = 0; head < (heads_touch ? 1 : counts.heads); ++head) {
      const NativeRow row = row_of(rows, token, head);
      const bool finite = row.f32() ? all_finite(row.floats(), length)
                                    : halves_finite(static_cast<const std::uint16_t*>(row.numbers), length, exponent);
      if (!finite) return false;
    }
  }
  return true;
}

void NativeRow::copy(const Kernels& kernels, std::uint32_t head_dim, float* space) const {
  if (f32()) {
    std::memcpy(space, numbers, head_dim * sizeof(float));
  } else {
    kernels.widen(numbers, static_cast<int>(head_dim), half_of(number), space);
  }
}

}  // namespace nibkv
