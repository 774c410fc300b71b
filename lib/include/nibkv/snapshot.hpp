#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "nibkv/cache.hpp"

#include "nibkv/macros_push.hpp"

namespace nibkv {

/// A snapshot is what a cache holds, in few enough bytes to keep in flash or send: chains, scores and codes of the
/// tiles in use, and whatever the caller wants to have beside them. It says nothing of ports, pointers or the order of
/// tiles in memory, so a cache on another CPU goes on from it with the same bytes. lib/FORMAT.md has every bit.
inline constexpr std::uint32_t kSnapshotVersion = 2;

/// Every call of a sink but the last brings exactly this many bytes.
inline constexpr std::size_t kSnapshotChunk = 512;

/// Where a snapshot goes, piece after piece.
struct SnapshotSink {
  /// @returns false to give up: save() then ends with kStorageFailed
  bool (*write)(void* context, const std::byte* bytes, std::size_t count) = nullptr;
  void* context = nullptr;
};

/// Where a snapshot comes from. It is read three times, the last time into the arena, in pieces of at most
/// kSnapshotChunk bytes and mostly in order.
struct SnapshotSource {
  /// Copies bytes [offset, offset + count) of the source, which lie within it.
  /// @returns false when they cannot be had
  bool (*read)(void* context, std::uint64_t offset, std::byte* bytes, std::size_t count) = nullptr;
  void* context = nullptr;
  std::uint64_t bytes = 0;  ///< of the source; what follows the snapshot is not looked at
};

struct SaveOptions {
  std::uint32_t sequence = 0;            ///< any number; banks.hpp counts with it
  std::span<const std::byte> note = {};  ///< the caller's own bytes, saved with the rest: one checksum, one moment
};

/// What a whole snapshot says of itself.
struct SnapshotInfo {
  std::uint64_t bytes = 0;        ///< of all of it
  std::uint64_t note_offset = 0;  ///< where the caller's own bytes begin
  std::uint64_t note_bytes = 0;
  std::uint32_t sequence = 0;
};

namespace detail {
inline constexpr std::uint32_t kSnapshotHeaderBytes = 64;
inline constexpr std::uint32_t kSectionBytes = 16 + 4;  // what is before and behind each section
inline constexpr std::uint32_t kSections = 5;
inline constexpr std::uint32_t kChainRecordBytes = 32;

/// What a snapshot has of a cache: tiles of the pool, and planes of shared codes with their views.
struct SnapshotCounts {
  std::uint64_t tiles = 0;
  std::uint64_t views = 0;
  std::uint64_t planes = 0;
};
constexpr std::uint64_t snapshot_bytes(const Shape& shape, const Policy& policy, const Layout& layout,
                                       const SnapshotCounts& counts, std::uint64_t note_bytes) {
  const std::uint64_t base = policy.keep == Keep::kScore ? 4 : 0;
  return kSnapshotHeaderBytes + kSections * kSectionBytes + note_bytes +
         std::uint64_t{shape.layers} * shape.kv_heads * kChainRecordBytes +
         (counts.tiles + counts.views) * (base + layout.side_bytes) + counts.tiles * layout.code_bytes +
         counts.planes * (layout.code_bytes / 2);
}
}  // namespace detail

/// Bytes of the largest snapshot that a cache of this shape and policy can give; 0 where footprint() is 0.
constexpr std::uint64_t most_snapshot_bytes(const Shape& shape, const Policy& policy, std::uint64_t note_bytes = 0) {
  if (footprint(shape, policy) == 0) return 0;
  const Layout layout = layout_of(shape, policy);
  const std::uint64_t planes = 2 * layout.both_entries + 3 * (layout.views / 2 - layout.both_entries);
  return detail::snapshot_bytes(shape, policy, layout, {layout.tiles, layout.views, planes}, note_bytes);
}

/// Bytes that save() would write now; 0 for a cache that was not initialised.
std::uint64_t snapshot_bytes(const Cache& cache, std::uint64_t note_bytes = 0);

/// Writes a snapshot. A cache and one restored from its snapshot give the same bytes from then on, whatever their ports
/// and however tiles lie in their arenas.
///
/// The snapshot is whole once the last byte is written; a part of it is refused by all that read one.
/// @returns kNotReady; kBadArgument for a sink without a function; kStorageFailed when the sink gave up. The cache is
///          not written at all.
/// Cost: O(bytes). Stack: about 1 KB.
Status save(const Cache& cache, const SnapshotSink& sink, const SaveOptions& options = {});

/// Writes a snapshot to the first snapshot_bytes(cache, options.note.size()) of `bytes`.
/// @returns kBadArgument also when there are fewer; nothing is written then
Status save(const Cache& cache, std::span<std::byte> bytes, const SaveOptions& options = {});

/// Reads all of a snapshot and compares its checksums, without any cache.
/// @returns kBadArgument for a source without a function; kStorageFailed; kBadSnapshot; kNewerSnapshot. `info` is
///          written on kOk alone.
/// Cost: O(bytes).
Status inspect(const SnapshotSource& source, SnapshotInfo& info);
Status inspect(std::span<const std::byte> bytes, SnapshotInfo& info);

/// Replaces what a cache holds by what was saved, if all of the snapshot is right: everything is checked before the
/// first write to the arena.
///
/// @param cache  of the shape (workers may differ, unless layers share codes for one number and not for the other),
///               policy, budgets and profile of the saved one, on any port
/// @returns kNotReady, kBadArgument, kStorageFailed;
///          kBadSnapshot: not a snapshot, cut short, or a checksum is wrong;
///          kNewerSnapshot: of a version of the format that this library does not know;
///          kOtherShape, kOtherPolicy (also for other budgets, and where layers share in one cache alone),
///          kOtherProfile: of another cache;
///          kCorrupt: checksums are right, and yet it says what no cache can hold.
///          The cache is unchanged unless kOk, with one exception: kLost, when the source gave other bytes, or none, at
///          its last reading. The cache is empty then. A span cannot do that.
/// Cost: O(bytes). Stack: about 2 KB. Uses the scratch of worker 0.
Status restore(Cache& cache, const SnapshotSource& source);
Status restore(Cache& cache, std::span<const std::byte> bytes);

}  // namespace nibkv

#include "nibkv/macros_pop.hpp"
