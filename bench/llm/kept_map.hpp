#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "nibkv/nibkv.hpp"

namespace nibkv::llm {

/// Which tokens each head of a cache holds.
struct KeptMap {
  std::string title;
  std::size_t tokens = 0;                   ///< number of tokens seen
  std::size_t kv_heads = 1;                 ///< number of KV heads of a layer
  std::vector<std::vector<SlotInfo>> rows;  ///< [layer * kv_heads + kv_head], each in position order
};

/// @throws Error when the cache cannot explain itself
KeptMap kept_map_of(const Cache& cache, const std::string& title);

/// The map as an SVG file: one row per head, with the heads of a layer next to one another and layer 0
/// on top; a mark where a token is held, and a darker one where others were merged into it.
std::string as_svg(const KeptMap& map);

}  // namespace nibkv::llm
