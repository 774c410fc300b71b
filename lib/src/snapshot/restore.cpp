#include "arena/budget.hpp"
#include "arena/pool.hpp"
#include "nibkv/check.hpp"
#include "numbers/crc32.hpp"
#include "pipeline/plan_chain.hpp"
#include "snapshot/fingerprint.hpp"
#include "snapshot/format.hpp"
#include "snapshot/parts.hpp"
#include "snapshot/side_checks.hpp"

namespace nibkv {
namespace {

// Distances of folded slots are below this (fold.cpp).
constexpr std::uint32_t kDistances = 1u << 19;

// Where the sections of a snapshot begin, and their checksums.
struct Parts {
  SnapshotHeader header;
  std::uint64_t offset[detail::kSections];  // of what follows the section's header
  std::uint64_t bytes[detail::kSections];
  std::uint32_t crc[detail::kSections];
};

// Reads sequentially from an offset and updates the checksum.
class Reader {
 public:
  Reader(const SnapshotSource& source, std::uint64_t offset, std::uint32_t crc = 0)
      : source_(source), offset_(offset), crc_(crc) {}

  bool get(void* bytes, std::size_t count) {
    auto* to = static_cast<std::byte*>(bytes);
    while (count != 0) {
      const std::size_t part = count < kSnapshotChunk ? count : kSnapshotChunk;
      if (!source_.read(source_.context, offset_, to, part)) return false;
      crc_ = crc32(crc_, to, part);
      offset_ += part;
      to += part;
      count -= part;
    }
    return true;
  }
  bool skip(std::uint64_t count) {
    std::byte chunk[kSnapshotChunk];
    while (count != 0) {
      const std::size_t part = count < kSnapshotChunk ? static_cast<std::size_t>(count) : kSnapshotChunk;
      if (!get(chunk, part)) return false;
      count -= part;
    }
    return true;
  }
  std::uint32_t crc() const { return crc_; }

 private:
  const SnapshotSource& source_;
  std::uint64_t offset_;
  std::uint32_t crc_;
};

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
  return header.reserved == 0 ? Status::kOk : Status::kBadSnapshot;
}

// Finds the sections and compares all checksums.
Status read_parts(const SnapshotSource& source, Parts& parts) {
  if (const Status read = read_header(source, parts.header); read != Status::kOk) return read;
  std::uint64_t at = sizeof(SnapshotHeader);
  std::uint32_t crc = parts.header.crc;
  for (std::uint32_t kind = 0; kind < detail::kSections; ++kind) {
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
  }
  return at == parts.header.bytes ? Status::kOk : Status::kBadSnapshot;
}

// Takes the records of chains, one after the other, and checks them.
class ChainJudge {
 public:
  explicit ChainJudge(const Access& to) : to_(to), shares_(layer_shares(to.policy(), to.policy().tokens)) {}

  Status take(const ChainRecord& record);
  /// The totals of all chains so far.
  const detail::SnapshotCounts& counts() const { return counts_; }

 private:
  bool sound(const ChainRecord& record);
  bool sound_fold(const ChainRecord& record) const;
  bool right_budget(const ChainRecord& record);

  const Access& to_;
  LayerShares shares_;
  std::size_t index_ = 0;
  detail::SnapshotCounts counts_;
  std::uint32_t layer_seen_ = 0;    // the layer's first head's
  std::uint64_t layer_tiles_ = 0;   // tiles in use, of its heads so far
  std::uint64_t layer_budget_ = 0;  // of its heads so far, in tokens
  bool all_shared_ = true;          // whether all budgets of the layer so far are ones that share_layer can give
};

// Competing heads must have budgets that share_layer can give, and equal budgets of `tokens` are
// such ones. Other heads must have the cache's own budgets.
bool ChainJudge::right_budget(const ChainRecord& record) {
  if (to_.policy().budget != Budget::kAdaptive) {
    return record.budget == to_.chains()[index_].budget;
  }
  const std::uint32_t tiles = record.budget / kTileSlots;
  all_shared_ =
      all_shared_ && record.budget % kTileSlots == shares_.rest && tiles >= shares_.least && tiles <= shares_.most;
  layer_budget_ += record.budget;
  if (index_ % to_.shape().kv_heads != to_.shape().kv_heads - 1u) return true;
  return all_shared_ && layer_budget_ == std::uint64_t{to_.policy().tokens} * to_.shape().kv_heads;
}

// Checks what a chain says about its folded part, without the other layer.
bool ChainJudge::sound_fold(const ChainRecord& record) const {
  const auto layer = static_cast<std::uint32_t>(index_ / to_.shape().kv_heads);
  if (!is_paired(to_, layer)) return record.folded == 0 && record.retained == 0 && record.reach == 0;
  const Policy& policy = to_.policy();
  const std::uint64_t most_folded = std::uint64_t{to_.layout().paired_entries} * kTileSlots;
  if (record.folded > most_folded || record.folded > record.used) return false;
  // A chain that holds more than this would have folded, and its own tiles could not
  // hold the next tokens.
  const std::uint64_t most_retained = policy.sinks + detail::retained_beside(policy, most_folded);
  const std::uint64_t always = most_retained + detail::unfolded(to_.shape(), policy) + kTileSlots - 1;
  const bool lower = detail::is_lower(policy, layer);
  const std::uint32_t own = record.used - record.folded;
  if (own > always + (lower ? to_.shape().max_chunk : 0)) return false;
  if (record.retained > own || record.retained > most_retained) return false;
  const FoldedPart none;
  if (policy.fold.retain != Retain::kFarRange) return record.reach == (lower ? none.nearest : none.farthest);
  return record.reach < kDistances || (lower && record.reach == none.nearest);
}

bool ChainJudge::sound(const ChainRecord& record) {
  if (record.used > record.seen || record.seen != layer_seen_ || !sound_fold(record)) return false;
  if (!keeps_global(to_.policy()) && (record.heaviest != 0 || record.exponent != 0)) return false;
  const std::uint64_t tiles_before = counts_.tiles;
  count_chain(counts_, to_.policy(), static_cast<std::uint32_t>(index_ / to_.shape().kv_heads), record.used,
              record.folded);
  const std::uint64_t tiles = counts_.tiles - tiles_before;
  layer_tiles_ += tiles;
  if (counts_.tiles > to_.layout().tiles) return false;
  if (folds(to_)) return record.used <= capacity_of(to_, to_.chains()[index_]);
  if (to_.policy().keep == Keep::kAll) return true;
  // After compact_now, a chain may be longer than its adaptive budget until the next append.
  if (tiles > to_.layout().chain_tiles) return false;
  if (to_.policy().budget == Budget::kAdaptive) {
    return layer_tiles_ <= std::uint64_t{to_.shape().kv_heads} * to_.layout().tiles_per_head;
  }
  return record.used <= capacity_of(to_, to_.chains()[index_]);
}

Status ChainJudge::take(const ChainRecord& record) {
  if (index_ % to_.shape().kv_heads == 0) {
    layer_seen_ = record.seen;
    layer_tiles_ = layer_budget_ = 0;
    all_shared_ = true;
  }
  if (!right_budget(record)) {
    return to_.policy().budget == Budget::kAdaptive ? Status::kCorrupt : Status::kOtherPolicy;
  }
  if (!sound(record)) return Status::kCorrupt;
  ++index_;
  return Status::kOk;
}

// Reads the records of chains, one after the other, and computes where their tiles begin in
// the section of sides.
class ChainReader {
 public:
  ChainReader(const Access& to, const SnapshotSource& source, const Parts& parts)
      : reader_(source, parts.offset[kChains]),
        next_(parts.offset[kSides]),
        end_(next_ + parts.bytes[kSides]),
        stride_(side_record_bytes(to)) {}

  /// @returns false also when a record has changed since it was checked, and has more
  ///          tiles than there are
  bool next() {
    at_ = next_;
    if (!reader_.get(&record_, sizeof record_) || record_.folded > record_.used) return false;
    const std::uint32_t tiles = tiles_of(record_.folded) + tiles_of(record_.used - record_.folded);
    next_ += std::uint64_t{tiles} * stride_;
    return next_ <= end_;
  }
  const ChainRecord& record() const { return record_; }
  /// The offset of the record of the chain's n-th tile.
  std::uint64_t tile(std::uint32_t n) const { return at_ + std::uint64_t{n} * stride_; }

 private:
  Reader reader_;
  ChainRecord record_{};
  std::uint64_t at_ = 0;
  std::uint64_t next_;
  std::uint64_t end_;
  std::uint32_t stride_;
};

// Whether two chains of a pair match. The lower one may be a chunk ahead.
bool in_step(const Access& to, const ChainRecord& lower, const ChainRecord& upper) {
  if (lower.folded != upper.folded || lower.retained != upper.retained) return false;
  if (lower.seen < upper.seen || lower.seen - upper.seen > to.shape().max_chunk) return false;
  if (lower.used < upper.used || lower.used - upper.used != lower.seen - upper.seen) return false;
  if (upper.retained > upper.used - upper.folded) return false;
  const FoldedPart none;
  if (lower.reach == none.nearest) return upper.reach == none.farthest;
  return lower.reach <= upper.reach;
}

// Checks that both chains of a pair hold the same positions, slot for slot.
Status check_positions(const Access& to, const SnapshotSource& source, const ChainReader (&pair)[2]) {
  const std::uint32_t folded = pair[0].record().folded;
  const std::uint32_t own = pair[1].record().used - folded;
  const std::uint32_t tiles = tiles_of(folded) + tiles_of(own);
  for (std::uint32_t n = 0; n < tiles; ++n) {
    std::uint32_t base[2];
    std::uint16_t offset[2][kTileSlots];
    for (int i = 0; i < 2; ++i) {
      Reader bases(source, pair[i].tile(n));
      Reader offsets(source, pair[i].tile(n) + sizeof(std::uint32_t) + to.layout().side.positions);
      if (!bases.get(&base[i], sizeof base[i]) || !offsets.get(offset[i], sizeof offset[i]))
        return Status::kStorageFailed;
    }
    const bool view = n < tiles_of(folded);
    const std::uint32_t left = view ? folded - n * kTileSlots : own - (n - tiles_of(folded)) * kTileSlots;
    for (std::uint32_t lane = 0; lane < kTileSlots && lane < left; ++lane) {
      if (base[0] + offset[0][lane] != base[1] + offset[1][lane]) return Status::kCorrupt;
    }
  }
  return Status::kOk;
}

// Checks layers that share codes against each other, after each record of a chain was
// found valid by itself.
Status check_pairs(const Access& to, const SnapshotSource& source, const Parts& parts) {
  const std::uint32_t heads = to.shape().kv_heads;
  ChainReader pair[2] = {{to, source, parts}, {to, source, parts}};
  for (std::uint32_t layer = 0; layer < to.shape().layers; ++layer) {
    for (std::uint32_t head = 0; head < heads; ++head) {
      if (!pair[1].next()) return Status::kStorageFailed;
      if (layer == 0) continue;
      if (!pair[0].next()) return Status::kStorageFailed;
      if (!detail::is_lower(to.policy(), layer - 1)) continue;
      if (!in_step(to, pair[0].record(), pair[1].record())) return Status::kCorrupt;
      if (to.policy().keep != Keep::kScore) continue;
      if (const Status same = check_positions(to, source, pair); same != Status::kOk) return same;
    }
  }
  return Status::kOk;
}

// The bytes that Usage counts for the given tiles, views and planes, if layers share codes.
std::uint64_t bytes_in_use(const Access& to, const detail::SnapshotCounts& counts) {
  const std::uint64_t beside = bytes_of_tile(to, 0) - to.layout().code_bytes;
  return counts.tiles * bytes_of_tile(to, 0) + counts.views * beside + counts.planes * (to.layout().code_bytes / 2);
}

bool sound_peaks(const Access& to, const SnapshotHeader& header, const detail::SnapshotCounts& counts) {
  const Layout& layout = to.layout();
  if (header.used_tiles != counts.tiles || header.peak_tiles < header.used_tiles || header.peak_tiles > layout.tiles)
    return false;
  if (!folds(to)) return header.peak_bytes == 0;
  const std::uint64_t planes = 2 * layout.both_entries + 3 * (layout.views / 2 - layout.both_entries);
  return header.peak_bytes >= bytes_in_use(to, counts) &&
         header.peak_bytes <= bytes_in_use(to, {layout.tiles, layout.views, planes});
}

// Compares the header with the cache.
Status check_header(const Access& to, const SnapshotHeader& header) {
  if (header.shape != fingerprint(to.shape(), to.policy())) return Status::kOtherShape;
  if (header.policy != fingerprint(to.policy(), folds(to))) return Status::kOtherPolicy;
  if (header.profile != profile_of(to)) return Status::kOtherProfile;
  return Status::kOk;
}

// Checks the content of sections whose checksums are right: everything that restoring relies on.
Status check_content(const Access& to, const SnapshotSource& source, const Parts& parts) {
  const std::size_t heads = to.heads();
  if (parts.bytes[kChains] != heads * sizeof(ChainRecord)) return Status::kCorrupt;
  ChainJudge judge(to);
  Reader records(source, parts.offset[kChains]);
  for (std::size_t i = 0; i < heads; ++i) {
    ChainRecord record;
    if (!records.get(&record, sizeof record)) return Status::kStorageFailed;
    if (const Status taken = judge.take(record); taken != Status::kOk) return taken;
  }
  const detail::SnapshotCounts& counts = judge.counts();
  if (!sound_peaks(to, parts.header, counts)) return Status::kCorrupt;
  if (parts.bytes[kSides] != side_section_bytes(to, counts)) return Status::kCorrupt;
  if (parts.bytes[kCodes] != counts.tiles * to.layout().code_bytes) return Status::kCorrupt;
  if (parts.bytes[kShared] != shared_section_bytes(to, counts)) return Status::kCorrupt;
  if (folds(to)) {
    if (const Status paired = check_pairs(to, source, parts); paired != Status::kOk) return paired;
  }
  if (to.shape().storage != Storage::kQ4) return Status::kOk;

  ChainReader again(to, source, parts);
  Reader sides(source, parts.offset[kSides]);
  for (std::size_t i = 0; i < heads; ++i) {
    if (!again.next()) return Status::kStorageFailed;
    const ChainRecord& record = again.record();
    Chain chain;
    chain.used = record.used;
    chain.seen = record.seen;
    chain.heaviest = record.heaviest;
    SideChecks sound(to.shape(), to.policy(), to.layout().side, chain, record.folded);
    for (std::uint32_t left = tiles_of(record.folded) + tiles_of(chain.used - record.folded); left != 0; --left) {
      std::uint32_t base = 0;
      std::byte side[kMostSideBytes];
      if (to.policy().keep == Keep::kScore && !sides.get(&base, sizeof base)) return Status::kStorageFailed;
      if (!sides.get(side, to.layout().side_bytes)) return Status::kStorageFailed;
      if (!sound.next(side, base)) return Status::kCorrupt;
    }
  }
  return Status::kOk;
}

// Reads a section into the arena: calls `get(reader, tile)` for every wanted tile.
template <typename Wanted, typename Get>
bool load_tiles(const Access& to, const SnapshotSource& source, const Parts& parts, Section kind, Wanted wanted,
                Get get) {
  Reader reader(source, parts.offset[kind] - sizeof(SectionHeader), parts.crc[kind - 1]);
  SectionHeader header;
  if (!reader.get(&header, sizeof header)) return false;
  for (std::size_t i = 0; i < to.heads(); ++i) {
    for (Cursor at = to.first_slot(to.chains()[i]); at.any(); at.next_tile(to.links())) {
      if (wanted(to, at.tile) && !get(reader, at.tile)) return false;
    }
  }
  return reader.crc() == parts.crc[kind];
}

// Takes the entries that the record names for a chain that is empty.
void load_folded(const Access& to, std::uint32_t layer, std::uint32_t kv_head, const ChainRecord& record) {
  FoldedPart& part = folded_part(to, to.chain(layer, kv_head));
  for (std::uint32_t left = tiles_of(record.folded); left != 0; --left) grow(to, part);
  part.used = record.folded;
  part.retained = record.retained;
  if (detail::is_lower(to.policy(), layer)) {
    part.nearest = record.reach;
  } else {
    folded_part(to, to.chain(layer - 1, kv_head)).farthest = record.reach;
  }
}

// Fills empty chains with tiles as the records say.
// @returns false when the source has changed
bool load_chains(const Access& to, const SnapshotSource& source, const Parts& parts) {
  Reader reader(source, parts.offset[kChains] - sizeof(SectionHeader), parts.crc[kNote]);
  SectionHeader header;
  if (!reader.get(&header, sizeof header)) return false;
  ChainJudge judge(to);
  for (std::size_t i = 0; i < to.heads(); ++i) {
    ChainRecord record;
    if (!reader.get(&record, sizeof record) || judge.take(record) != Status::kOk) return false;
    Chain& chain = to.chains()[i];
    for (std::uint32_t left = tiles_of(record.used - record.folded); left != 0; --left) grow(to, chain);
    chain.used = record.used;
    chain.seen = record.seen;
    chain.budget = record.budget;
    chain.heaviest = record.heaviest;
    chain.exponent = record.exponent;
    const auto layer = static_cast<std::uint32_t>(i / to.shape().kv_heads);
    if (is_paired(to, layer)) load_folded(to, layer, static_cast<std::uint32_t>(i % to.shape().kv_heads), record);
  }
  to.header().peak_tiles = parts.header.peak_tiles;
  to.header().peak_bytes = parts.header.peak_bytes;
  return reader.crc() == parts.crc[kChains];
}

bool load(Cache& cache, const SnapshotSource& source, const Parts& parts) {
  const Access to{cache};
  if (!load_chains(to, source, parts)) return false;
  const bool positioned = to.policy().keep == Keep::kScore;
  const auto get_side = [&](Reader& from, std::uint32_t tile) {
    return (!positioned || from.get(&to.base(tile), 4)) && from.get(to.side(tile), to.layout().side_bytes);
  };
  const auto get_codes = [&](Reader& from, std::uint32_t tile) {
    return from.get(to.codes(tile), to.layout().code_bytes);
  };
  const auto get_entry = [&](Reader& from, std::uint32_t view) {
    bool good = true;
    each_plane(to, view,
               [&](std::uint8_t* plane, bool) { good = good && from.get(plane, to.layout().code_bytes / 2); });
    return good;
  };
  return load_tiles(to, source, parts, kSides, all_tiles, get_side) &&
         load_tiles(to, source, parts, kCodes, pool_tiles, get_codes) &&
         load_tiles(to, source, parts, kShared, lower_views, get_entry) && check(cache) == Status::kOk;
}

// A source that is a span.
bool read_span(void* context, std::uint64_t offset, std::byte* bytes, std::size_t count) {
  std::memcpy(bytes, static_cast<const std::byte*>(context) + offset, count);
  return true;
}
SnapshotSource source_of(std::span<const std::byte> bytes) {
  return {read_span, const_cast<std::byte*>(bytes.data()), bytes.size()};
}

}  // namespace

Status inspect(const SnapshotSource& source, SnapshotInfo& info) {
  Parts parts;
  if (const Status read = read_parts(source, parts); read != Status::kOk) return read;
  info = {parts.header.bytes, parts.offset[kNote], parts.bytes[kNote], parts.header.sequence};
  return Status::kOk;
}

Status inspect(std::span<const std::byte> bytes, SnapshotInfo& info) {
  return inspect(source_of(bytes), info);
}

Status restore(Cache& cache, const SnapshotSource& source) {
  if (!cache.ready()) return Status::kNotReady;
  const Access to{cache};
  Parts parts;
  if (const Status read = read_parts(source, parts); read != Status::kOk) return read;
  if (const Status fits = check_header(to, parts.header); fits != Status::kOk) return fits;
  if (const Status sound = check_content(to, source, parts); sound != Status::kOk) return sound;
  if (cache.clear() != Status::kOk) return Status::kNotReady;
  if (load(cache, source, parts)) return Status::kOk;
  return cache.clear() == Status::kOk ? Status::kLost : Status::kNotReady;
}

Status restore(Cache& cache, std::span<const std::byte> bytes) {
  return restore(cache, source_of(bytes));
}

}  // namespace nibkv
