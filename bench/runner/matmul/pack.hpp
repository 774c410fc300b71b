#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "bench/runner/gguf/gguf.hpp"

namespace nibkv::llm {

/// The properties of the integer formats after conversion to the form of a Panel.
struct CodeFormat {
  std::uint8_t bits;    ///< of a code
  std::int32_t offset;  ///< 0 with a minimum
  bool in_blocks;
  bool has_minimum;
};

/// @returns false for formats that hold reals.
bool is_code_format(TensorType type);

/// @param type  a code format.
CodeFormat code_format(TensorType type);

/// One group of columns of one row. Only formats in blocks have factors.
struct CodeGroup {
  std::uint16_t scale = 0;    ///< bits of f16
  std::uint16_t minimum = 0;  ///< bits of f16
  std::int8_t scale_factor = 0;
  std::int8_t minimum_factor = 0;
  std::array<std::uint8_t, 32> codes = {};  ///< the first group_length() of them
};

/// Reads group `group` of the row that begins at `row`.
/// @param type  a code format.
CodeGroup read_code_group(TensorType type, const std::byte* row, std::size_t group);

}  // namespace nibkv::llm
