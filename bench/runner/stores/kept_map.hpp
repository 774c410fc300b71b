#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "nibkv/nibkv.hpp"

namespace nibkv::llm {

/// Which tokens each head of a cache holds.
struct KeptMap {
  std::string title;
  std::size_t tokens = 0;                   ///< number of tokens seen
  std::size_t kv_heads = 1;                 ///< number of KV heads of a layer
  std::uint32_t sinks = 0;                  ///< first tokens that are always held
  std::uint32_t recent = 0;                 ///< newest tokens that are always held
  std::vector<std::vector<SlotInfo>> rows;  ///< [layer * kv_heads + kv_head], each in position order
};

/// @throws Error when the cache cannot explain itself
KeptMap kept_map_of(const Cache& cache, const std::string& title);

/// The map as an SVG file: one row per head, with the heads of a layer next to one another and layer 0
/// on top; a mark where a token is held, and a darker one where others were merged into it.
std::string as_svg(const KeptMap& map);

/// The map as lines of text for a terminal of 80 columns: a row for a layer or, where there are more than 16, for a few
/// neighbours; in a column, how many of the tokens at these positions are held, all heads together. Then how many slots
/// a head holds of each kind.
std::string as_text(const KeptMap& map);

}  // namespace nibkv::llm
