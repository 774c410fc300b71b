#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "bench/runner/gguf/gguf.hpp"
#include "bench/runner/gguf/half.hpp"

namespace nibkv::llm {

/// True when `number`, as read from a file, is a TensorType of this runner. The other functions here take only such
/// types and throw Error for any other.
bool is_known_type(std::uint32_t number);

/// The name of `type`, as model files spell it, such as "Q4_1".
std::string_view type_name(TensorType type);

/// The number of weights in one block of `type`: 1, 32 or 256.
std::size_t block_length(TensorType type);

/// The bytes of one block of `type`.
std::size_t block_bytes(TensorType type);

/// The bytes of a row of `columns` weights.
/// @throws Error if `columns` is not a whole number of blocks, or the row is larger than
///         the address space.
std::size_t row_bytes(TensorType type, std::size_t columns);

/// Writes `count` weights, decoded from the row_bytes(type, count) bytes at `source`, to `target`.
///
/// Every decoded weight is the exact product of its factors (the significands are short enough),
/// rounded at most once, by the final addition of formats with an offset. So there is exactly one
/// correct value, to the last bit, on every machine.
///
/// @param source  any alignment.
/// @param target  space for `count` floats, not overlapping `source`.
/// @throws Error if `count` is not a whole number of blocks.
void dequantise(TensorType type, const std::byte* source, float* target, std::size_t count);

}  // namespace nibkv::llm
