#include "snapshot/reader.hpp"

#include <cstring>

namespace nibkv {
namespace {

Status read_header(const SnapshotSource& source, SnapshotHeader& header) {
  if (source.read == nullptr) return Status::kBadArgument;
  if (source.bytes < sizeof header) return Status::kBadSnapshot;
  Reader reader(source, 0);
  if (!reader.get(&header, offsetof(SnapshotHeader, crc))) return Status::kStorageFailed;
  const std::uint32_t crc = reader.crc();
  if (!reader.get(&header.crc, sizeof header.crc)) return Status::kStorageFailed;
  if (header.magic != kSnapshotMagic || header.crc != crc) return Status::kBadSnapshot;
  if (header.version != kSnapshotVersion) return Status::kNewerSnapshot;
  if (header.header_bytes != sizeof header || header.bytes < sizeof header || header.bytes > source.bytes)
    return Status::kBadSnapshot;
  return Status::kOk;
}

// A source that is a span.
bool read_span(void* context, std::uint64_t offset, std::byte* bytes, std::size_t count) {
  std::memcpy(bytes, static_cast<const std::byte*>(context) + offset, count);
  return true;
}

}  // namespace

bool Reader::get(void* bytes, std::size_t count) {
  auto* to = static_cast<std::byte*>(bytes);
  while (count != 0) {
    const std::size_t part = count < kSnapshotChunk ? count : kSnapshotChunk;
    // Where a source has changed, it may say that there is more.
    if (offset_ > source_.bytes || part > source_.bytes - offset_) return false;
    if (!source_.read(source_.context, offset_, to, part)) return false;
    crc_ = crc32(crc_, to, part);
    offset_ += part;
    to += part;
    count -= part;
  }
  return true;
}

bool Reader::skip(std::uint64_t count) {
  std::byte chunk[kSnapshotChunk];
  while (count != 0) {
    const std::size_t part = count < kSnapshotChunk ? static_cast<std::size_t>(count) : kSnapshotChunk;
    if (!get(chunk, part)) return false;
    count -= part;
  }
  return true;
}

SnapshotSource source_of(std::span<const std::byte> bytes) {
  return {read_span, const_cast<std::byte*>(bytes.data()), bytes.size()};
}

Status read_parts(const SnapshotSource& source, Parts& parts) {
  if (const Status read = read_header(source, parts.header); read != Status::kOk) return read;
  std::uint64_t at = sizeof(SnapshotHeader);
  std::uint32_t crc = parts.header.crc;
  parts.count = 0;
  for (std::uint32_t kind = 0; kind < kMostSections; ++kind) {
    if (kind == kLog && at == parts.header.bytes) break;  // there is no log
    if (parts.header.bytes - at < detail::kSectionBytes) return Status::kBadSnapshot;
    Reader reader(source, at, crc);
    SectionHeader section;
    if (!reader.get(&section, sizeof section)) return Status::kStorageFailed;
    if (section.kind != kind || section.reserved != 0) return Status::kBadSnapshot;
    if (section.bytes > parts.header.bytes - at - detail::kSectionBytes) return Status::kBadSnapshot;
    if (!reader.skip(section.bytes)) return Status::kStorageFailed;
    crc = reader.crc();
    if (!reader.get(&parts.crc[kind], 4)) return Status::kStorageFailed;
    if (parts.crc[kind] != crc) return Status::kBadSnapshot;
    parts.offset[kind] = at + sizeof section;
    parts.bytes[kind] = section.bytes;
    at += detail::kSectionBytes + section.bytes;
    ++parts.count;
  }
  return at == parts.header.bytes ? Status::kOk : Status::kBadSnapshot;
}

Status inspect(const SnapshotSource& source, SnapshotInfo& info) {
  Parts parts;
  if (const Status read = read_parts(source, parts); read != Status::kOk) return read;
  info = {parts.header.bytes, parts.offset[kNote], parts.bytes[kNote], parts.header.sequence};
  return Status::kOk;
}

Status inspect(std::span<const std::byte> bytes, SnapshotInfo& info) {
  return inspect(source_of(bytes), info);
}

}  // namespace nibkv
