#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "numbers/crc32.hpp"
#include "snapshot/format.hpp"

namespace nibkv {

/// Where the sections of a snapshot begin, and their checksums.
struct Parts {
  SnapshotHeader header;
  std::uint32_t count;                  // of sections
  std::uint64_t offset[kMostSections];  // of what follows the section's header
  std::uint64_t bytes[kMostSections];
  std::uint32_t crc[kMostSections];
};

/// Reads sequentially from an offset and updates the checksum.
class Reader {
 public:
  Reader(const SnapshotSource& source, std::uint64_t offset, std::uint32_t crc = 0)
      : source_(source), offset_(offset), crc_(crc) {}

  bool get(void* bytes, std::size_t count);
  bool skip(std::uint64_t count);
  std::uint32_t crc() const { return crc_; }

 private:
  const SnapshotSource& source_;
  std::uint64_t offset_;
  std::uint32_t crc_;
};

/// Finds the sections and compares all checksums.
Status read_parts(const SnapshotSource& source, Parts& parts);

/// A source that is a span, which must outlive it.
SnapshotSource source_of(std::span<const std::byte> bytes);

}  // namespace nibkv
