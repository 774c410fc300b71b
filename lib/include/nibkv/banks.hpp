#pragma once

#include "nibkv/snapshot.hpp"

#include "nibkv/macros_push.hpp"

namespace nibkv {

/// Two places for snapshots: files, sectors of flash, regions of FRAM. One of them stays whole
/// whatever happens while the other is written. A power cut after any byte costs the snapshot that
/// was being saved, never the one before.
///
/// save_to_banks writes to the place that does not hold the newest whole snapshot;
/// restore_from_banks reads the newest whole one. A bank that cannot be read counts as one without
/// a whole snapshot.
struct SnapshotBanks {
  /// Copies bytes [offset, offset + count) of bank 0 or 1 to `bytes`; the range
  /// lies within the bank.
  /// @returns false when they cannot be read
  bool (*read)(void* context, std::uint32_t bank, std::uint64_t offset, std::byte* bytes, std::size_t count) = nullptr;
  /// Writes to a bank. Offsets rise from 0 without gaps; every piece but the last has
  /// kSnapshotChunk bytes.
  bool (*write)(void* context, std::uint32_t bank, std::uint64_t offset, const std::byte* bytes,
                std::size_t count) = nullptr;
  /// Prepares a bank to be written from its start; null if nothing has to be done.
  bool (*erase)(void* context, std::uint32_t bank) = nullptr;
  void* context = nullptr;
  std::uint64_t bytes = 0;  ///< size of each bank; most_snapshot_bytes() is always enough
};

/// Finds the newest whole snapshot, whatever cache it is of: the one with the larger sequence
/// number, which may wrap.
/// @param bank  written only on kOk
/// @param info  likewise
/// @returns kBadArgument without a read function; when no bank is whole, kStorageFailed if one
///          could not be read, else kNewerSnapshot if one has another version, else kBadSnapshot
/// Cost: reads both banks.
Status newest_bank(const SnapshotBanks& banks, std::uint32_t& bank, SnapshotInfo& info);

/// Saves into the bank that does not hold the newest whole snapshot; into bank 0 when there is none.
/// @param note  as SaveOptions::note
/// @returns kNotReady; kBadArgument when `read` or `write` is missing or a bank is too
///          small: nothing is written then; kStorageFailed: the newest snapshot is still
///          the same as before
Status save_to_banks(const Cache& cache, const SnapshotBanks& banks, std::span<const std::byte> note = {});

/// restore() from the newest whole snapshot.
/// @returns what newest_bank and restore return
Status restore_from_banks(Cache& cache, const SnapshotBanks& banks);

}  // namespace nibkv

#include "nibkv/macros_pop.hpp"
