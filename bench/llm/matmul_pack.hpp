#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "bench/llm/gguf.hpp"

namespace nibkv::llm {

/// How the integer formats look once they are all written as scale * (code - offset) + minimum.
struct CodeFormat {
  std::size_t group_length;  ///< columns that share a scale: 16 or 32
  std::int32_t offset;       ///< 0 with a minimum
  bool narrow;               ///< codes of 4 bits
  bool has_minimum;
};

/// @returns false for formats that hold reals.
bool is_code_format(TensorType type);

/// @param type  a code format.
CodeFormat code_format(TensorType type);

/// One group of columns of one row.
struct CodeGroup {
  float scale = 0;
  float minimum = 0;
  std::array<std::uint8_t, 32> codes = {};  ///< the first `group_length` of them
};

/// Reads group `group` of the row that begins at `row`.
/// @param type  a code format.
CodeGroup read_code_group(TensorType type, const std::byte* row, std::size_t group);

}  // namespace nibkv::llm
