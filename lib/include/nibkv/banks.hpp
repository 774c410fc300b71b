#pragma once

#include "nibkv/snapshot.hpp"

#include "nibkv/macros_push.hpp"

namespace nibkv {

/// Two places for snapshots, so that one of them is whole whatever happens while the other is written: a power cut
/// after any byte costs what was saved last, never what was saved before. Files, sectors of flash, regions of FRAM.
///
///   Write to the place that does not hold the newest whole snapshot. Read the newest whole one.
struct SnapshotBanks {
  /// Copies bytes [offset, offset + count) of bank 0 or 1, which lie within it. @returns false when they cannot be had
  bool (*read)(void* context, std::uint32_t bank, std::uint64_t offset, std::byte* bytes, std::size_t count) = nullptr;
  /// Writes there. Offsets rise from 0 without gaps, in pieces of kSnapshotChunk bytes but for the last.
  bool (*write)(void* context, std::uint32_t bank, std::uint64_t offset, const std::byte* bytes,
                std::size_t count) = nullptr;
  /// Makes a bank ready to be written from its start on; null where nothing has to be done.
  bool (*erase)(void* context, std::uint32_t bank) = nullptr;
  void* context = nullptr;
  std::uint64_t bytes = 0;  ///< of each bank: most_snapshot_bytes() is always enough
};

/// Finds the newest whole snapshot, of any cache: that of the larger sequence number, which may wrap.
/// @param bank  written on kOk alone
/// @param info  likewise
/// @returns kBadArgument without a read function; when no bank is whole, kStorageFailed if one could not be read, else
///          kNewerSnapshot if one is of a later version, else kBadSnapshot
/// Cost: reads both banks.
Status newest_bank(const SnapshotBanks& banks, std::uint32_t& bank, SnapshotInfo& info);

/// Saves into the bank that does not hold the newest whole snapshot; bank 0 when there is none.
/// @param note  as SaveOptions::note
/// @returns kNotReady; kBadArgument when a function is missing or a bank is too small, and nothing is written then;
///          kStorageFailed, and the newest snapshot is the one that it was
Status save_to_banks(const Cache& cache, const SnapshotBanks& banks, std::span<const std::byte> note = {});

/// restore() from the newest whole snapshot.
/// @returns what newest_bank and restore return
Status restore_from_banks(Cache& cache, const SnapshotBanks& banks);

}  // namespace nibkv

#include "nibkv/macros_pop.hpp"
