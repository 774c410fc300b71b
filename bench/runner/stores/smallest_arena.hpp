#pragma once

#include <cstdint>
#include <string>

#include "bench/runner/stores/tile_store.hpp"

namespace nibkv::llm {

/// Bytes of the smallest arena that a TileStore takes with these options, whatever `tokens` and `arena_bytes` are: the
/// one of the smallest budget and of single tokens. 0 where the policy has no valid budget.
std::uint64_t smallest_arena(const Config& model, const StoreOptions& options);

/// What an error says of an arena of `options.arena_bytes` bytes that is too small: the smallest one, and in a line each
/// which options make it smaller, with its bytes. Lines have at most 80 columns, so that they fit after a program's name.
std::string too_small_text(const Config& model, const StoreOptions& options);

/// The memory of this machine in bytes; the largest number where it is not known.
std::uint64_t physical_memory();

/// What an error says of an arena of `bytes` bytes where there are only `memory`, and how much half of that holds.
std::string too_large_text(const Config& model, const StoreOptions& options, std::uint64_t bytes, std::uint64_t memory);

}  // namespace nibkv::llm
