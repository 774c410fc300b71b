#pragma once

#include <cstdint>
#include <string>

#include "bench/llm/tile_store.hpp"

namespace nibkv::llm {

/// Bytes of the smallest arena that a TileStore takes with these options, whatever `tokens` and `arena_bytes` are: the
/// one of the smallest budget and of single tokens. 0 where the policy has no valid budget.
std::uint64_t smallest_arena(const Config& model, const StoreOptions& options);

/// What an error says of an arena of `options.arena_bytes` bytes that is too small: the smallest one, and which options
/// make it smaller, each with its bytes.
std::string too_small_text(const Config& model, const StoreOptions& options);

}  // namespace nibkv::llm
