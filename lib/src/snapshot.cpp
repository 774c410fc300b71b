#include "nibkv/snapshot.hpp"

#include "access.hpp"
#include "budget.hpp"
#include "crc32.hpp"
#include "fingerprint.hpp"
#include "nibkv/check.hpp"
#include "plan_chain.hpp"
#include "snapshot_format.hpp"
#include "sound.hpp"

namespace nibkv {
namespace {

std::size_t heads_of(const Shape& shape) {
  return std::size_t{shape.layers} * shape.kv_heads;
}

std::uint32_t profile_of(const Access& to) {
  return to.shape().storage == Storage::kQ4 ? to.profile().checksum() : 0;
}

// Bytes of a tile in the section of sides.
std::uint32_t side_record_bytes(const Access& to) {
  return to.layout().side_bytes + (to.policy().keep == Keep::kScore ? 4 : 0);
}

// Pieces of any length in, chunks of one length out, with the checksum of the section that is being written.
class Writer {
 public:
  explicit Writer(const SnapshotSink& sink) : sink_(sink) {}

  void put(const void* bytes, std::size_t count) {
    const auto* from = static_cast<const std::byte*>(bytes);
    crc_ = crc32(crc_, from, count);
    while (count != 0) {
      const std::size_t room = kSnapshotChunk - filled_;
      const std::size_t part = count < room ? count : room;
      std::memcpy(chunk_ + filled_, from, part);
      filled_ += part;
      from += part;
      count -= part;
      if (filled_ == kSnapshotChunk) flush();
    }
  }
  void start(Section kind, std::uint64_t bytes) {
    const SectionHeader header{kind, 0, bytes};
    put(&header, sizeof header);
  }
  // Writes the checksum of all since the last one, which the next one goes on from.
  void seal() {
    const std::uint32_t crc = crc_;
    put(&crc, sizeof crc);
    crc_ = crc;
  }
  bool finish() {
    flush();
    return good_;
  }

 private:
  void flush() {
    if (good_ && filled_ != 0) good_ = sink_.write(sink_.context, chunk_, filled_);
    filled_ = 0;
  }

  const SnapshotSink& sink_;
  std::uint32_t crc_ = 0;
  std::size_t filled_ = 0;
  bool good_ = true;
  std::byte chunk_[kSnapshotChunk];
};

// An array whose slots have `bytes_of_slot` each, over and over. What is not of the first `live` is written as 0.
void put_slots(Writer& to, const std::byte* array, std::uint32_t bytes, std::uint32_t bytes_of_slot,
               std::uint32_t live) {
  for (std::uint32_t at = 0; at < bytes; at += bytes_of_slot) {
    constexpr std::byte kDead[4] = {};
    if (at / bytes_of_slot % kTileSlots < live) {
      to.put(array + at, bytes_of_slot);
    } else {
      for (std::uint32_t i = 0; i < bytes_of_slot; i += 4) {
        to.put(kDead, bytes_of_slot - i < 4 ? bytes_of_slot - i : 4);
      }
    }
  }
}

void put_side(Writer& to, const Access& from, std::uint32_t tile, std::uint32_t live) {
  if (from.policy().keep == Keep::kScore) to.put(&from.base(tile), 4);
  const std::byte* side = from.side(tile);
  const Side& at = from.layout().side;
  if (live == kTileSlots) {
    to.put(side, at.total);
    return;
  }
  const std::uint32_t ends[] = {at.value_scales, at.outliers, at.global, at.positions,
                                at.local,        at.bias,     at.merged, at.total};
  std::uint32_t start = 0;
  for (const std::uint32_t end : ends) {
    const bool outliers = start == at.outliers;  // four of them side by side
    if (end != start) put_slots(to, side + start, end - start, outliers ? 4 : (end - start) / kTileSlots, live);
    start = end;
  }
}

void put_codes(Writer& to, const Access& from, std::uint32_t tile, std::uint32_t live) {
  const std::byte* codes = from.codes(tile);
  const std::uint32_t bytes = from.layout().code_bytes;
  const std::uint32_t half = bytes / 2;
  const std::uint32_t dim = from.shape().head_dim;
  if (live == kTileSlots) {
    to.put(codes, bytes);
  } else if (from.shape().storage == Storage::kF32) {
    put_slots(to, codes, half, 4, live);
    put_slots(to, codes + half, half, 4 * dim, live);
  } else {
    constexpr std::uint32_t kPiece = 64;  // divides 32 * head_dim
    std::byte piece[kPiece];
    for (std::uint32_t start = 0; start < bytes; start += kPiece) {
      for (std::uint32_t i = start; i < start + kPiece; ++i) {
        const std::uint32_t lane = i < half ? i / 4 % 16 : (i - half) / (4 * dim) * 4 + i % 4;
        const int mask = (lane < live ? 0x0f : 0) | (lane + 16 < live ? 0xf0 : 0);
        piece[i - start] = codes[i] & static_cast<std::byte>(mask);
      }
      to.put(piece, kPiece);
    }
  }
}

// Calls `put(writer, access, tile, slots in it)` for all tiles in use, in the order of their chains.
template <typename Put>
void put_tiles(Writer& to, const Access& from, Put put) {
  for (std::size_t i = 0; i < heads_of(from.shape()); ++i) {
    const Chain& chain = from.at<Chain>(from.layout().chains)[i];
    std::uint32_t left = chain.used;
    for (std::uint32_t tile = chain.first; left != 0; tile = from.links()[tile]) {
      const std::uint32_t live = left < kTileSlots ? left : kTileSlots;
      put(to, from, tile, live);
      left -= live;
    }
  }
}

// Where the sections of a snapshot begin, and their checksums.
struct Parts {
  SnapshotHeader header;
  std::uint64_t offset[detail::kSections];  // of what is behind the section's header
  std::uint64_t bytes[detail::kSections];
  std::uint32_t crc[detail::kSections];
};

// Reads on from some offset and sums.
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
  for (const std::uint32_t word : header.reserved) {
    if (word != 0) return Status::kBadSnapshot;
  }
  return Status::kOk;
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

// Takes the records of chains, one after the other, and knows what is wrong with them.
class ChainJudge {
 public:
  explicit ChainJudge(const Access& to) : to_(to), shares_(layer_shares(to.shape(), to.policy(), to.policy().tokens)) {}

  Status take(const ChainRecord& record);
  /// Tiles of all chains so far.
  std::uint64_t tiles() const { return tiles_; }

 private:
  bool sound(const ChainRecord& record);
  bool right_budget(const ChainRecord& record);

  const Access& to_;
  LayerShares shares_;
  std::size_t index_ = 0;
  std::uint64_t tiles_ = 0;
  std::uint32_t layer_seen_ = 0;    // of the layer's first head
  std::uint64_t layer_tiles_ = 0;   // in use, of its heads so far
  std::uint64_t layer_budget_ = 0;  // of its heads so far, in tokens
  bool all_start_ = true;           // its heads have the budgets of an empty cache
  bool all_shared_ = true;          // or ones that share_layer gives
};

// Heads that compete have what share_layer last gave them, or `tokens` each; others what the cache gives them.
bool ChainJudge::right_budget(const ChainRecord& record) {
  if (to_.policy().budget != Budget::kAdaptive) {
    return record.budget == to_.at<Chain>(to_.layout().chains)[index_].budget;
  }
  const std::uint32_t tiles = record.budget / kTileSlots;
  all_start_ = all_start_ && record.budget == to_.policy().tokens;
  all_shared_ = all_shared_ && record.budget % kTileSlots == 0 && tiles >= shares_.least && tiles <= shares_.most;
  layer_budget_ += record.budget;
  if (index_ % to_.shape().kv_heads != to_.shape().kv_heads - 1u) return true;
  const std::uint64_t whole = std::uint64_t{shares_.mean} * to_.shape().kv_heads * kTileSlots;
  return all_start_ || (all_shared_ && layer_budget_ == whole);
}

bool ChainJudge::sound(const ChainRecord& record) {
  for (const std::uint32_t word : record.reserved) {
    if (word != 0) return false;
  }
  if (record.used > record.seen || record.seen != layer_seen_) return false;
  if (!keeps_global(to_.policy()) && (record.heaviest != 0 || record.exponent != 0)) return false;
  const std::uint64_t tiles = (std::uint64_t{record.used} + kTileSlots - 1) / kTileSlots;
  tiles_ += tiles;
  layer_tiles_ += tiles;
  if (tiles_ > to_.layout().tiles) return false;
  if (to_.policy().keep == Keep::kAll) return true;
  // After compact_now a chain may be longer than the budget that it competes with, until the next append.
  if (tiles > to_.layout().chain_tiles) return false;
  if (to_.policy().budget == Budget::kAdaptive) {
    return layer_tiles_ <= std::uint64_t{to_.shape().kv_heads} * to_.layout().tiles_per_head;
  }
  return record.used <= capacity_of(to_, to_.at<Chain>(to_.layout().chains)[index_]);
}

Status ChainJudge::take(const ChainRecord& record) {
  if (index_ % to_.shape().kv_heads == 0) {
    layer_seen_ = record.seen;
    layer_tiles_ = layer_budget_ = 0;
    all_start_ = all_shared_ = true;
  }
  if (!right_budget(record)) {
    return to_.policy().budget == Budget::kAdaptive ? Status::kCorrupt : Status::kOtherPolicy;
  }
  if (!sound(record)) return Status::kCorrupt;
  ++index_;
  return Status::kOk;
}

// What the header says, against the cache.
Status check_header(const Access& to, const SnapshotHeader& header) {
  if (header.shape != fingerprint(to.shape(), to.policy())) return Status::kOtherShape;
  if (header.policy != fingerprint(to.policy())) return Status::kOtherPolicy;
  if (header.profile != profile_of(to)) return Status::kOtherProfile;
  return Status::kOk;
}

// What whole and fitting sections say: everything that restoring relies on.
Status check_content(const Access& to, const SnapshotSource& source, const Parts& parts) {
  const std::size_t heads = heads_of(to.shape());
  if (parts.bytes[kChains] != heads * sizeof(ChainRecord)) return Status::kCorrupt;
  ChainJudge judge(to);
  Reader records(source, parts.offset[kChains]);
  for (std::size_t i = 0; i < heads; ++i) {
    ChainRecord record;
    if (!records.get(&record, sizeof record)) return Status::kStorageFailed;
    if (const Status taken = judge.take(record); taken != Status::kOk) return taken;
  }
  const SnapshotHeader& header = parts.header;
  if (header.used_tiles != judge.tiles() || header.peak_tiles < header.used_tiles ||
      header.peak_tiles > to.layout().tiles)
    return Status::kCorrupt;
  if (parts.bytes[kSides] != judge.tiles() * side_record_bytes(to)) return Status::kCorrupt;
  if (parts.bytes[kCodes] != judge.tiles() * to.layout().code_bytes) return Status::kCorrupt;
  if (to.shape().storage != Storage::kQ4) return Status::kOk;

  Reader again(source, parts.offset[kChains]);
  Reader sides(source, parts.offset[kSides]);
  for (std::size_t i = 0; i < heads; ++i) {
    ChainRecord record;
    if (!again.get(&record, sizeof record)) return Status::kStorageFailed;
    Chain chain;
    chain.used = record.used;
    chain.seen = record.seen;
    chain.heaviest = record.heaviest;
    SoundSides sound(to.shape(), to.policy(), to.layout().side, chain, 0);
    for (std::uint32_t left = tiles_of(chain.used); left != 0; --left) {
      constexpr std::uint32_t kMostSideBytes = kTileSlots * (2 + 2 + kMaxOutlierChannels + 4 + 2 + 2 + 1 + 1);
      std::uint32_t base = 0;
      std::byte side[kMostSideBytes];
      if (to.policy().keep == Keep::kScore && !sides.get(&base, sizeof base)) return Status::kStorageFailed;
      if (!sides.get(side, to.layout().side_bytes)) return Status::kStorageFailed;
      if (!sound.next(side, base)) return Status::kCorrupt;
    }
  }
  return Status::kOk;
}

// Reads a section into the arena: `get(reader, tile)` for every tile.
template <typename Get>
bool load_tiles(const Access& to, const SnapshotSource& source, const Parts& parts, Section kind, Get get) {
  Reader reader(source, parts.offset[kind] - sizeof(SectionHeader), parts.crc[kind - 1]);
  SectionHeader header;
  if (!reader.get(&header, sizeof header)) return false;
  for (std::size_t i = 0; i < heads_of(to.shape()); ++i) {
    for (std::uint32_t tile = to.at<Chain>(to.layout().chains)[i].first; tile != kNoTile; tile = to.links()[tile]) {
      if (!get(reader, tile)) return false;
    }
  }
  return reader.crc() == parts.crc[kind];
}

// Lays out empty chains as the records say. @returns false when the source is no longer what it was.
bool load_chains(const Access& to, const SnapshotSource& source, const Parts& parts) {
  Reader reader(source, parts.offset[kChains] - sizeof(SectionHeader), parts.crc[kNote]);
  SectionHeader header;
  if (!reader.get(&header, sizeof header)) return false;
  ChainJudge judge(to);
  for (std::size_t i = 0; i < heads_of(to.shape()); ++i) {
    ChainRecord record;
    if (!reader.get(&record, sizeof record) || judge.take(record) != Status::kOk) return false;
    Chain& chain = to.at<Chain>(to.layout().chains)[i];
    for (std::uint32_t left = tiles_of(record.used); left != 0; --left) to.grow(chain);
    chain.used = record.used;
    chain.seen = record.seen;
    chain.budget = record.budget;
    chain.heaviest = record.heaviest;
    chain.exponent = record.exponent;
  }
  to.header().peak_tiles = parts.header.peak_tiles;
  return reader.crc() == parts.crc[kChains];
}

bool load(const Access& to, const SnapshotSource& source, const Parts& parts) {
  if (!load_chains(to, source, parts)) return false;
  const bool positioned = to.policy().keep == Keep::kScore;
  const auto get_side = [&](Reader& from, std::uint32_t tile) {
    return (!positioned || from.get(&to.base(tile), 4)) && from.get(to.side(tile), to.layout().side_bytes);
  };
  const auto get_codes = [&](Reader& from, std::uint32_t tile) {
    return from.get(to.codes(tile), to.layout().code_bytes);
  };
  return load_tiles(to, source, parts, kSides, get_side) && load_tiles(to, source, parts, kCodes, get_codes) &&
         check(to.cache) == Status::kOk;
}

// A sink and a source that are spans.
struct SpanEnd {
  std::byte* next;
};
bool write_span(void* context, const std::byte* bytes, std::size_t count) {
  auto& end = *static_cast<SpanEnd*>(context);
  std::memcpy(end.next, bytes, count);
  end.next += count;
  return true;
}
bool read_span(void* context, std::uint64_t offset, std::byte* bytes, std::size_t count) {
  std::memcpy(bytes, static_cast<const std::byte*>(context) + offset, count);
  return true;
}
SnapshotSource source_of(std::span<const std::byte> bytes) {
  return {read_span, const_cast<std::byte*>(bytes.data()), bytes.size()};
}

}  // namespace

std::uint64_t snapshot_bytes(const Cache& cache, std::uint64_t note_bytes) {
  if (!cache.ready()) return 0;
  const Access from{cache};
  return detail::snapshot_bytes(from.shape(), from.policy(), from.layout(), from.header().used_tiles, note_bytes);
}

Status save(const Cache& cache, const SnapshotSink& sink, const SaveOptions& options) {
  if (!cache.ready()) return Status::kNotReady;
  if (sink.write == nullptr) return Status::kBadArgument;
  const Access from{cache};
  if (from.folds()) return Status::kBadPolicy;
  const std::size_t heads = heads_of(from.shape());
  const std::uint64_t tiles = from.header().used_tiles;
  SnapshotHeader header{};
  header.magic = kSnapshotMagic;
  header.version = kSnapshotVersion;
  header.header_bytes = sizeof header;
  header.bytes = snapshot_bytes(cache, options.note.size());
  header.shape = fingerprint(from.shape(), from.policy());
  header.policy = fingerprint(from.policy());
  header.profile = profile_of(from);
  header.used_tiles = from.header().used_tiles;
  header.peak_tiles = from.header().peak_tiles;
  header.sequence = options.sequence;

  Writer to(sink);
  to.put(&header, offsetof(SnapshotHeader, crc));
  to.seal();
  to.start(kNote, options.note.size());
  to.put(options.note.data(), options.note.size());
  to.seal();
  to.start(kChains, heads * sizeof(ChainRecord));
  for (std::size_t i = 0; i < heads; ++i) {
    const Chain& chain = from.at<Chain>(from.layout().chains)[i];
    const ChainRecord record{chain.used, chain.seen, chain.budget, chain.heaviest, chain.exponent, {}};
    to.put(&record, sizeof record);
  }
  to.seal();
  to.start(kSides, tiles * side_record_bytes(from));
  put_tiles(to, from, put_side);
  to.seal();
  to.start(kCodes, tiles * from.layout().code_bytes);
  put_tiles(to, from, put_codes);
  to.seal();
  return to.finish() ? Status::kOk : Status::kStorageFailed;
}

Status save(const Cache& cache, std::span<std::byte> bytes, const SaveOptions& options) {
  if (!cache.ready()) return Status::kNotReady;
  if (bytes.size() < snapshot_bytes(cache, options.note.size())) return Status::kBadArgument;
  SpanEnd end{bytes.data()};
  return save(cache, SnapshotSink{write_span, &end}, options);
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

Status restore(Cache& cache, const SnapshotSource& source) {
  if (!cache.ready()) return Status::kNotReady;
  const Access to{cache};
  if (to.folds()) return Status::kBadPolicy;
  Parts parts;
  if (const Status read = read_parts(source, parts); read != Status::kOk) return read;
  if (const Status fits = check_header(to, parts.header); fits != Status::kOk) return fits;
  if (const Status sound = check_content(to, source, parts); sound != Status::kOk) return sound;
  if (cache.clear() != Status::kOk) return Status::kNotReady;
  if (load(to, source, parts)) return Status::kOk;
  return cache.clear() == Status::kOk ? Status::kLost : Status::kNotReady;
}

Status restore(Cache& cache, std::span<const std::byte> bytes) {
  return restore(cache, source_of(bytes));
}

}  // namespace nibkv
