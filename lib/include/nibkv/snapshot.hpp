#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "nibkv/cache.hpp"

#include "nibkv/macros_push.hpp"

namespace nibkv {

/// A snapshot is what a cache holds, small enough to keep in flash or to send: the chains, scores
/// and codes of the tiles in use, and a note of the caller's. It does not depend on ports, pointers
/// or the order of tiles in memory, so a cache on another CPU continues from it with the same
/// bytes. lib/FORMAT.md specifies every bit.
inline constexpr std::uint32_t kSnapshotVersion = 2;

/// Every call of a sink but the last passes exactly this many bytes.
inline constexpr std::size_t kSnapshotChunk = 512;

/// Where a snapshot is written, piece by piece.
struct SnapshotSink {
  /// @returns false to give up: save() then returns kStorageFailed
  bool (*write)(void* context, const std::byte* bytes, std::size_t count) = nullptr;
  void* context = nullptr;
};

/// Where a snapshot is read from, in pieces of at most kSnapshotChunk bytes. restore() and import_snapshot()
/// read it in three passes: they compare the checksums, check the content, and load it into the arena.
/// inspect() only makes the first pass. Offsets mostly rise within a pass; import_snapshot() may read parts again.
struct SnapshotSource {
  /// Copies bytes [offset, offset + count) of the source to `bytes`; the range
  /// lies within the source.
  /// @returns false when they cannot be read
  bool (*read)(void* context, std::uint64_t offset, std::byte* bytes, std::size_t count) = nullptr;
  void* context = nullptr;
  std::uint64_t bytes = 0;  ///< size of the source; anything after the snapshot is ignored
};

struct SaveOptions {
  std::uint32_t sequence = 0;            ///< any number; save_to_banks counts up with it
  std::span<const std::byte> note = {};  ///< the caller's own bytes, saved with the rest under the same checksum
};

/// What the header of a whole snapshot says.
struct SnapshotInfo {
  std::uint64_t bytes = 0;        ///< size of the whole snapshot
  std::uint64_t note_offset = 0;  ///< where the caller's own bytes begin
  std::uint64_t note_bytes = 0;
  std::uint32_t sequence = 0;
};

namespace detail {
inline constexpr std::uint32_t kSnapshotHeaderBytes = 64;
inline constexpr std::uint32_t kSectionBytes = 16 + 4;  // what comes before and after each section
inline constexpr std::uint32_t kSections = 5;           // and one more where there is a log
inline constexpr std::uint32_t kChainRecordBytes = 32;
inline constexpr std::uint32_t kLogRecordBytes = 32;

/// What a snapshot contains: tiles of the pools, and planes of shared codes with their views.
struct SnapshotCounts {
  PoolTiles tiles = {};
  std::uint64_t views = 0;
  std::uint64_t planes = 0;
  std::uint64_t pages = 0;  // of logs, that are not forgotten
};
/// What a snapshot has of a log; 0 where there is none.
constexpr std::uint64_t log_section_bytes(const Shape& shape, const Policy& policy, std::uint64_t pages) {
  if (!has_log(policy)) return 0;
  return 8 + std::uint64_t{shape.layers} * shape.kv_heads * kLogRecordBytes + pages * index_page_bytes(shape.head_dim);
}
constexpr std::uint64_t snapshot_bytes(const Shape& shape, const Policy& policy, const Layout& layout,
                                       const SnapshotCounts& counts, std::uint64_t note_bytes) {
  const std::uint64_t base = policy.keep == Keep::kScore ? 4 : 0;
  const std::uint64_t rest =
      kSnapshotHeaderBytes + kSections * kSectionBytes +
      std::uint64_t{shape.layers} * shape.kv_heads * (kChainRecordBytes + measured_bytes(shape)) +
      (counts.tiles.all() + counts.views) * (base + layout.side_bytes) +
      code_bytes(shape, policy, counts.tiles, layout.code_bytes) + counts.planes * (layout.code_bytes / 2) +
      (has_log(policy) ? kSectionBytes + log_section_bytes(shape, policy, counts.pages) : 0);
  constexpr std::uint64_t kMost = std::numeric_limits<std::uint64_t>::max();
  return note_bytes <= kMost - rest ? rest + note_bytes : kMost;
}
}  // namespace detail

/// The size in bytes of the largest snapshot of a cache of this shape and policy; 0
/// if footprint() is 0.
constexpr std::uint64_t most_snapshot_bytes(const Shape& shape, const Policy& policy, std::uint64_t note_bytes = 0) {
  if (footprint(shape, policy) == 0) return 0;
  const Layout layout = layout_of(shape, policy);
  const std::uint64_t planes = 2 * layout.both_entries + 3 * (layout.views / 2 - layout.both_entries);
  detail::SnapshotCounts most{detail::tiles_of_pools(layout), layout.views, planes};
  const std::uint64_t indexed = indexed_heads(shape, policy);
  most.tiles[Pool::kKept] -= indexed * (policy.recall / kTileSlots);  // what is recalled, the store has
  most.pages = indexed * (policy.log / kTileSlots);
  return detail::snapshot_bytes(shape, policy, layout, most, note_bytes);
}

/// The bytes that save() would write now; 0 for a cache that was not initialised.
std::uint64_t snapshot_bytes(const Cache& cache, std::uint64_t note_bytes = 0);

/// Writes a snapshot. From then on, a cache and one restored from its snapshot give the same bytes,
/// whatever their ports and however tiles lie in their arenas.
///
/// The snapshot is whole once the last byte is written. A part of one is refused by everything
/// that reads snapshots.
/// Of a log (Policy::log) it has the index and how many pages each head has written. The pages stay in the store, which
/// goes with it: what the cache writes later may take the places of pages that the snapshot counts on, once the log is
/// full. What is recalled at the moment is not in it; the next recall brings the same again.
/// @returns kNotReady; kBadArgument for a sink without a function; kStorageFailed when the sink
///          gave up. The cache is never changed.
/// Cost: O(bytes). Stack: about 1 KB.
Status save(const Cache& cache, const SnapshotSink& sink, const SaveOptions& options = {});

/// Writes a snapshot to the first snapshot_bytes(cache, options.note.size()) of `bytes`.
/// @returns kBadArgument also when `bytes` is shorter; nothing is written then
Status save(const Cache& cache, std::span<std::byte> bytes, const SaveOptions& options = {});

/// Reads a whole snapshot and compares its checksums; needs no cache.
/// @returns kBadArgument for a source without a function; kStorageFailed; kBadSnapshot;
///          kNewerSnapshot. `info` is written only on kOk.
/// Cost: O(bytes).
Status inspect(const SnapshotSource& source, SnapshotInfo& info);
Status inspect(std::span<const std::byte> bytes, SnapshotInfo& info);

/// Replaces what a cache holds with what was saved, if the whole snapshot is valid: everything is
/// checked before the first write to the arena.
///
/// @param cache  of the same shape, policy, budgets and profile as the saved one, on any port.
///               The number of workers may differ, unless layers share codes with one number and
///               not with the other. Shape::rotary matters only if the policy reads it
///               or it has a reach
///               With a log, its store has the identity and the pages of the saved one. Pages that are not there, or
///               have been written again since, are found when recall wants them, or by verify_log: they are lost, and
///               counted, as any page that a store does not return. restore itself reads none
/// @returns kNotReady; kBadArgument for a source without a function; kStorageFailed;
///          kBadSnapshot: not a snapshot, truncated, or with a wrong checksum;
///          kNewerSnapshot: of a version of the format that this library does not know,
///          older ones included;
///          kOtherShape, kOtherPolicy, kOtherProfile: of a cache with another shape, policy or
///          profile. kOtherPolicy also for other budgets, and when layers share codes in only one
///          of the two caches;
///          kOtherStore: of a cache whose log has another ColdStore::identity;
///          kCorrupt: the checksums are right, but the content is something that no cache can hold.
///          The cache is unchanged unless kOk, with one exception: kLost, when the source
///          returned other bytes, or none, in its last pass. The cache is empty then. This cannot
///          happen with a span.
/// Cost: O(bytes). Stack: about 2 KB. Uses the scratch of worker 0.
Status restore(Cache& cache, const SnapshotSource& source);
Status restore(Cache& cache, std::span<const std::byte> bytes);

/// restore() into a cache of another budget, max_chunk, number of workers, or policy: replaces what it holds with what
/// was saved, and cuts that back to what it has space for. For an app that has to give back memory: it saves, frees
/// its arena, and goes on in a smaller one; and for a conversation that goes on on another device. The
/// cache's own arena is all the memory that it takes.
///
/// The bytes are those of restore() into a cache of the saved one's policy, and move_to() from there: move.hpp says
/// what one policy keeps of what another knew.
///
/// @param cache   of the same layers, heads, head_dim, outlier channels, storage and profile as the saved one
/// @param shape   of the saved cache. A snapshot has fingerprints of shape and policy, not the numbers: who does not
///                know them puts them into the note
/// @param policy  of the saved cache. It may not share codes between layers, and neither may that of `cache`; tiers
///                may differ
/// @returns what restore() returns; kBadPolicy where one of the two caches has a log, whose pages stay as they were
///          written, for restore() alone; kBadShape, kBadPolicy: no cache can have that shape or policy (footprint()
///          is 0); kOtherShape, kOtherPolicy: the snapshot is not of a cache of `shape` and `policy`, or they and
///          `cache` do not go together as above; kBadArgument: layers of the saved
///          cache had not seen the same tokens; kFull: `cache` keeps everything and has too few tiles. Budgets of heads
///          that the saved cache had (Options::budgets, or by its profile) need not be known. The cache is unchanged
///          unless kOk, apart from kLost as of restore().
/// Cost: O(bytes), and that of plan and compact for each tile that is more than the budget; a tile is read again
///       where space is made inside it, and the keys of one for each slot of it that is coded again, as slots of a tail
///       are that come into narrower tiles. Where faint slots are put among the others, their tiles are read once for
///       each of their slots, and the side data of all for each 64. Stack: about 5 KB. Uses the scratch of worker 0.
Status import_snapshot(Cache& cache, const Shape& shape, const Policy& policy, const SnapshotSource& source);
Status import_snapshot(Cache& cache, const Shape& shape, const Policy& policy, std::span<const std::byte> bytes);

}  // namespace nibkv

#include "nibkv/macros_pop.hpp"
