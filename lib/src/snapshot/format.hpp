#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#include "nibkv/snapshot.hpp"

namespace nibkv {

static_assert(std::endian::native == std::endian::little, "snapshots are read in place");

inline constexpr std::uint32_t kSnapshotMagic = 0x534b424e;  // "NBKS"

/// First 64 bytes of a snapshot. Magic, version and checksum stay where they are in all versions.
struct SnapshotHeader {
  std::uint32_t magic;
  std::uint16_t version;
  std::uint16_t header_bytes;
  std::uint64_t bytes;
  std::uint64_t shape;
  std::uint64_t policy;
  std::uint32_t profile;
  std::uint32_t used_tiles;
  std::uint32_t peak_tiles;
  std::uint32_t sequence;
  std::uint64_t peak_bytes;  // if layers share codes, else 0
  std::uint32_t whole_from;  // of the arena's header; 0 also in snapshots that do not say it
  std::uint32_t crc;         // of what is before it
};
static_assert(sizeof(SnapshotHeader) == detail::kSnapshotHeaderBytes && offsetof(SnapshotHeader, crc) == 60 &&
              offsetof(SnapshotHeader, profile) == 32);

/// Precedes each section. The section's checksum follows its content, continues from the checksum
/// before, and covers this header too.
struct SectionHeader {
  std::uint32_t kind;
  std::uint32_t reserved;
  std::uint64_t bytes;
};
static_assert(sizeof(SectionHeader) + 4 == detail::kSectionBytes);

/// Sections, in their order in a snapshot.
enum Section : std::uint32_t {
  kNote = 0,    // the caller's bytes
  kChains = 1,  // ChainRecord[layers][kv_heads], then what is measured of heads (Layout::tiers)
  kSides = 2,   // of the tiles in use, chain by chain: u32 base under Keep::kScore, then side data
  kCodes = 3,   // of those of them that are tiles of the pool, not views
  kShared = 4,  // planes of the entries in use, in the order of the lower layers' chains
  kLog = 5,     // only where there is a log: LogHeader, LogRecord[layers][kv_heads], then the index
};
static_assert(kShared + 1 == detail::kSections && kLog == detail::kSections);
inline constexpr std::uint32_t kMostSections = detail::kSections + 1;

struct ChainRecord {
  std::uint32_t used;
  std::uint32_t seen;
  std::uint32_t budget;
  std::uint32_t heaviest;
  std::uint16_t exponent;
  std::uint16_t level;
  std::uint32_t folded;    // how many of its first slots lie in views, or are faint
  std::uint32_t retained;  // as in FoldedPart; where there are tiers, the slots between the faint ones and the tail
  std::uint32_t reach;     // of a pair: FoldedPart::nearest in the lower layer's record, ::farthest in the upper one's
};
static_assert(sizeof(ChainRecord) == detail::kChainRecordBytes);

struct LogHeader {
  std::uint32_t identity;  // of the store
  std::uint32_t reserved;
};
static_assert(sizeof(LogHeader) == 8);

/// Of a head's log, as ColdHead has it; zeros for a head without one.
struct LogRecord {
  std::uint32_t pages;
  std::uint32_t written;
  std::uint32_t read;
  std::uint32_t lost;
  std::uint64_t chosen;
  std::uint64_t found;
};
static_assert(sizeof(LogRecord) == detail::kLogRecordBytes);

}  // namespace nibkv
