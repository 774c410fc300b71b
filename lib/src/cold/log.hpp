#pragma once

#include "arena/band.hpp"

namespace nibkv {

/// Writes the oldest tokens after the sinks to the store, before they are dropped, if their head is indexed. Takes the
/// scratch of worker 0.
/// @param count  of tokens, a multiple of 32
void write_pages(const ArenaView& to, std::uint32_t layer, std::uint32_t kv_head, std::uint32_t count);

/// Copies the pages of all logs to the store of a cache in another arena, which has the same index. Those that cannot
/// be read or written are lost there. Takes its scratch of worker 0.
void copy_pages(const ArenaView& from, const ArenaView& to);

}  // namespace nibkv
