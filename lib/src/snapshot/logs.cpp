#include "snapshot/logs.hpp"

#include "cold/index.hpp"
#include "snapshot/parts.hpp"

namespace nibkv {
namespace {

// Whether a head's log is what has left its chain, and has all of it.
bool sound_record(const ColdHead& head, const ChainRecord& chain, const LogRecord& log) {
  if (head.index == kNotIndexed) {
    return (log.pages | log.written | log.read | log.lost) == 0 && (log.chosen | log.found) == 0;
  }
  return chain.used <= chain.seen && std::uint64_t{log.pages} * kTileSlots == chain.seen - chain.used;
}

// The pages of which an index knows.
std::uint32_t indexed_pages(const ArenaView& to, const LogRecord& log) {
  return log.pages < log_pages(to) ? log.pages : log_pages(to);
}

}  // namespace

Status check_log(const ArenaView& to, const SnapshotSource& source, const Parts& parts) {
  if ((parts.count == kMostSections) != keeps_log(to.policy())) return Status::kCorrupt;
  if (!keeps_log(to.policy())) return Status::kOk;
  if (parts.bytes[kLog] < log_section_bytes(to, {}) || parts.bytes[kChains] != chain_section_bytes(to))
    return Status::kCorrupt;
  Reader logs(source, parts.offset[kLog]);
  LogHeader header;
  if (!logs.get(&header, sizeof header)) return Status::kStorageFailed;
  if (header.identity != to.store().identity) return Status::kOtherStore;
  if (header.reserved != 0) return Status::kCorrupt;
  Reader chains(source, parts.offset[kChains]);
  detail::SnapshotCounts counts;
  for (std::size_t i = 0; i < to.heads(); ++i) {
    ChainRecord chain;
    LogRecord log;
    if (!chains.get(&chain, sizeof chain) || !logs.get(&log, sizeof log)) return Status::kStorageFailed;
    if (!sound_record(cold_head(to, to.chains()[i]), chain, log)) return Status::kCorrupt;
    counts.pages += indexed_pages(to, log);
  }
  if (parts.bytes[kLog] != log_section_bytes(to, counts)) return Status::kCorrupt;
  const std::uint32_t dim = to.shape().head_dim, signs = kTileSlots / 8 * dim;
  std::uint8_t after_signs[index_page_bytes(kMaxHeadDim) - kTileSlots / 8 * kMaxHeadDim];
  for (; counts.pages != 0; --counts.pages) {
    if (!logs.skip(signs) || !logs.get(after_signs, index_page_bytes(dim) - signs)) return Status::kStorageFailed;
    if (!sound_index(after_signs, dim)) return Status::kCorrupt;
  }
  return Status::kOk;
}

bool load_log(const ArenaView& to, const SnapshotSource& source, const Parts& parts) {
  if (!keeps_log(to.policy())) return true;
  Reader logs(source, parts.offset[kLog] - sizeof(SectionHeader), parts.crc[kShared]);
  SectionHeader section;
  LogHeader header;
  if (!logs.get(&section, sizeof section) || !logs.get(&header, sizeof header)) return false;
  for (std::size_t i = 0; i < to.heads(); ++i) {
    ColdHead& head = cold_head(to, to.chains()[i]);
    LogRecord log;
    if (!logs.get(&log, sizeof log)) return false;
    if (head.index == kNotIndexed) continue;
    head = {head.index, 0, log.pages, log.written, log.read, log.lost, log.chosen, log.found, 0};
  }
  for (std::size_t i = 0; i < to.heads(); ++i) {
    const ColdHead& head = cold_head(to, to.chains()[i]);
    if (head.index == kNotIndexed) continue;
    const HeadIndex index(to, head);
    for (std::uint32_t page = first_page(to, head); page < head.pages; ++page) {
      if (!logs.get(index.at(page).bytes, index_page_bytes(to.shape().head_dim))) return false;
    }
  }
  return logs.crc() == parts.crc[kLog];
}

}  // namespace nibkv
