#pragma once

#include "arena/access.hpp"
#include "snapshot/reader.hpp"

// What snapshots say of layers that share codes.

namespace nibkv {

/// Adds what a chain's folded part is to its record.
void record_fold(const Access& from, std::uint32_t layer, const Chain& chain, ChainRecord& record);

/// Checks what a record says about a folded part, without the other layer.
bool sound_fold(const Access& to, std::uint32_t layer, const ChainRecord& record);

/// Checks layers that share codes against each other, after each record of a chain was
/// found valid by itself.
Status check_pairs(const Access& to, const SnapshotSource& source, const Parts& parts);

/// Takes the entries that the record names for a chain that is empty.
void load_fold(const Access& to, std::uint32_t layer, std::uint32_t kv_head, const ChainRecord& record);

}  // namespace nibkv
