#pragma once

#include "arena/view.hpp"
#include "snapshot/reader.hpp"

// What a snapshot says of a log. The pages are in the store.

namespace nibkv {

/// Checks that there is such a section where there is a log and nowhere else, that it is of the cache's store, and that
/// it has what indices have, for the tokens that the chains have seen and do not hold.
/// @returns kOtherStore; kCorrupt; kStorageFailed
Status check_log(const ArenaView& to, const SnapshotSource& source, const Parts& parts);

/// Fills the logs of a cache whose chains are loaded, and which has nothing recalled.
/// @returns false when the source has changed
bool load_log(const ArenaView& to, const SnapshotSource& source, const Parts& parts);

}  // namespace nibkv
