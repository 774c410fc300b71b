#include "arena/view.hpp"
#include "cold/index.hpp"
#include "numbers/crc32.hpp"
#include "snapshot/fingerprint.hpp"
#include "snapshot/format.hpp"
#include "snapshot/judge.hpp"
#include "snapshot/parts.hpp"

namespace nibkv {
namespace {

// Collects pieces of any length into chunks of equal length, and computes the checksum of the
// section being written.
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
  // Writes the checksum of everything so far; the next section's checksum continues from it.
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

// Writes arrays of 32 slots of `bytes_of_slot` each, one after the other. All but the first `live`
// slots are written as 0.
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

void put_side(Writer& to, const ArenaView& from, std::uint32_t tile, std::uint32_t live) {
  if (from.policy().keep == Keep::kScore) to.put(&from.base(tile), 4);
  const std::byte* side = from.side(tile);
  const Side& at = from.layout().side;
  if (live == kTileSlots) {
    to.put(side, at.total);
    return;
  }
  for (const SideField& field : kSideFields) {
    const std::uint32_t bytes = field.arrays(from.shape(), from.policy()) * kTileSlots * field.bytes;
    put_slots(to, side + at.*field.offset, bytes, field.bytes, live);
  }
}

// The bits of the i-th byte of a tile's key or value codes that belong to its first `live` slots (FORMAT.md).
std::uint32_t live_bits(std::uint32_t bits, bool keys, std::uint32_t dim, std::uint32_t i, std::uint32_t live) {
  const auto of = [live](std::uint32_t slot, std::uint32_t mask) { return slot < live ? mask : 0u; };
  const std::uint32_t group = i / (4 * dim);  // of values
  if (bits == 8) return of(keys ? i / 4 % kTileSlots : group * 4 + i % 4, 0xff);
  if (bits == 4 || keys) {
    const std::uint32_t slot = keys ? i / 4 % 16 : group * 4 + i % 4;
    return bits == 4 ? of(slot, 0x0f) | of(slot + 16, 0xf0) : of(slot, 0x33) | of(slot + 16, 0xcc);
  }
  const std::uint32_t slot = group * 8 + i % 4;
  return of(slot, 0x03) | of(slot + 16, 0x0c) | of(slot + 4, 0x30) | of(slot + 20, 0xc0);
}

// Writes the codes of the keys or the values of a tile, or of an entry.
void put_plane(Writer& to, const ArenaView& from, Pool pool, const std::uint8_t* plane, bool keys, std::uint32_t live) {
  const std::uint32_t bits = keys ? from.format(pool).key_bits : from.format(pool).value_bits;
  const std::uint32_t bytes = keys ? from.key_bytes(pool) : from.value_bytes(pool);
  const std::uint32_t dim = from.shape().head_dim;
  constexpr std::uint32_t kPiece = 64;  // divides 8 * head_dim
  std::uint8_t piece[kPiece];
  for (std::uint32_t start = 0; start < bytes; start += kPiece) {
    for (std::uint32_t n = 0; n < kPiece; ++n) {
      piece[n] = static_cast<std::uint8_t>(plane[start + n] & live_bits(bits, keys, dim, start + n, live));
    }
    to.put(piece, kPiece);
  }
}

void put_codes(Writer& to, const ArenaView& from, std::uint32_t tile, std::uint32_t live) {
  const std::byte* codes = from.codes(tile);
  const Pool pool = from.pool_of(tile);
  const std::uint32_t bytes = from.code_bytes(pool);
  const std::uint32_t half = from.layout().key_bytes;
  if (live == kTileSlots) {
    to.put(codes, bytes);
  } else if (from.shape().storage == Storage::kF32) {
    put_slots(to, codes, half, 4, live);
    put_slots(to, codes + half, half, 4 * from.shape().head_dim, live);
  } else {
    put_plane(to, from, pool, from.key_codes(tile), true, live);
    put_plane(to, from, pool, from.value_codes(tile), false, live);
  }
}

void put_entry(Writer& to, const ArenaView& from, std::uint32_t lower_view, std::uint32_t live) {
  each_plane(from, lower_view,
             [&](const std::uint8_t* plane, bool keys) { put_plane(to, from, Pool::kKept, plane, keys, live); });
}

// Those of a chain that a snapshot has: all but what is recalled, which is in the store.
Segments saved_segments(const ArenaView& from, const Chain& chain) {
  if (!keeps_log(from.policy())) return from.segments(chain);
  Segments own;
  own.add(from.own(chain));
  return own;
}

// Calls `put(writer, view, tile, slots in it)` for the `wanted` tiles in use, in the
// order of their chains.
template <typename Wanted, typename Put>
void put_tiles(Writer& to, const ArenaView& from, Wanted wanted, Put put) {
  for (std::size_t i = 0; i < from.heads(); ++i) {
    const Segments segments = saved_segments(from, from.chains()[i]);
    for (Cursor at(segments); at.any(); at.next_tile(from.links())) {
      if (wanted(from, at.tile)) put(to, from, at.tile, at.slots_in_tile());
    }
  }
}

detail::SnapshotCounts counts_of(const ArenaView& of) {
  detail::SnapshotCounts counts;
  for (std::size_t i = 0; i < of.heads(); ++i) {
    const auto layer = static_cast<std::uint32_t>(i / of.shape().kv_heads);
    count_chain(counts, of.policy(), layer, lists_of(of.policy(), layer, record_of(of, i)));
    if (keeps_log(of.policy())) counts.pages += kept_pages(of, cold_head(of, of.chains()[i]));
  }
  return counts;
}

void put_log(Writer& to, const ArenaView& from) {
  const LogHeader header{from.store().identity, 0};
  to.put(&header, sizeof header);
  for (std::size_t i = 0; i < from.heads(); ++i) {
    const ColdHead& head = cold_head(from, from.chains()[i]);
    LogRecord record{};
    if (head.index != kNotIndexed) record = {head.pages, head.written, head.read, head.lost, head.chosen, head.found};
    to.put(&record, sizeof record);
  }
  for (std::size_t i = 0; i < from.heads(); ++i) {
    const ColdHead& head = cold_head(from, from.chains()[i]);
    if (head.index == kNotIndexed) continue;
    const HeadIndex index(from, head);
    for (std::uint32_t page = first_page(from, head); page < head.pages; ++page)
      to.put(index.at(page).bytes, index_page_bytes(from.shape().head_dim));
  }
}

// A sink that is a span.
struct SpanEnd {
  std::byte* next;
};
bool write_span(void* context, const std::byte* bytes, std::size_t count) {
  auto& end = *static_cast<SpanEnd*>(context);
  std::memcpy(end.next, bytes, count);
  end.next += count;
  return true;
}
}  // namespace

std::uint64_t snapshot_bytes(const Cache& cache, std::uint64_t note_bytes) {
  if (!cache.ready()) return 0;
  const ArenaView from{cache};
  return detail::snapshot_bytes(from.shape(), from.policy(), from.layout(), counts_of(from), note_bytes);
}

Status save(const Cache& cache, const SnapshotSink& sink, const SaveOptions& options) {
  if (!cache.ready()) return Status::kNotReady;
  if (sink.write == nullptr) return Status::kBadArgument;
  const ArenaView from{cache};
  const std::size_t heads = from.heads();
  const detail::SnapshotCounts counts = counts_of(from);
  SnapshotHeader header{};
  header.magic = kSnapshotMagic;
  header.version = kSnapshotVersion;
  header.header_bytes = sizeof header;
  header.bytes = snapshot_bytes(cache, options.note.size());
  header.shape = fingerprint(from.shape(), from.policy());
  header.policy = policy_print(from);
  header.profile = profile_of(from);
  header.used_tiles = from.header().used_tiles;
  header.peak_tiles = from.header().peak_tiles;
  header.peak_bytes = from.header().peak_bytes;
  header.sequence = options.sequence;
  header.whole_from = from.header().whole_from;

  Writer to(sink);
  to.put(&header, offsetof(SnapshotHeader, crc));
  to.seal();
  to.start(kNote, options.note.size());
  to.put(options.note.data(), options.note.size());
  to.seal();
  to.start(kChains, chain_section_bytes(from));
  for (std::size_t i = 0; i < heads; ++i) {
    const ChainRecord record = record_of(from, i);
    to.put(&record, sizeof record);
  }
  if (from.shape().basis == KeyBasis::kMeasured) to.put(from.measured(0, 0), heads * measured_bytes(from.shape()));
  to.seal();
  to.start(kSides, side_section_bytes(from, counts));
  put_tiles(to, from, all_tiles, put_side);
  to.seal();
  to.start(kCodes, code_section_bytes(from, counts));
  put_tiles(to, from, pool_tiles, put_codes);
  to.seal();
  to.start(kShared, shared_section_bytes(from, counts));
  put_tiles(to, from, lower_views, put_entry);
  to.seal();
  if (keeps_log(from.policy())) {
    to.start(kLog, log_section_bytes(from, counts));
    put_log(to, from);
    to.seal();
  }
  return to.finish() ? Status::kOk : Status::kStorageFailed;
}

Status save(const Cache& cache, std::span<std::byte> bytes, const SaveOptions& options) {
  if (!cache.ready()) return Status::kNotReady;
  if (bytes.size() < snapshot_bytes(cache, options.note.size())) return Status::kBadArgument;
  SpanEnd end{bytes.data()};
  return save(cache, SnapshotSink{write_span, &end}, options);
}

}  // namespace nibkv
