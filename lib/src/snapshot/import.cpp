#include "codec/slot.hpp"
#include "move/mover.hpp"
#include "snapshot/judge.hpp"
#include "snapshot/side_checks.hpp"

namespace nibkv {
namespace {

// A section that is read from tile to tile, where a tile may be read again.
class TileSection {
 public:
  TileSection(const SnapshotSource& source, const Parts& parts, Section kind)
      : source_(source), whole_(parts.crc[kind]) {
    SectionHeader header;
    Reader reader(source, parts.offset[kind] - sizeof header, parts.crc[kind - 1]);
    good_ = reader.get(&header, sizeof header);
    next_ = {parts.offset[kind], reader.crc()};
  }

  /// @param again  the tile that came last, not the next one
  Reader begin(bool again) {
    if (!again) here_ = next_;
    return Reader(source_, here_.offset, here_.crc);
  }
  /// @returns false if it was read again, and has changed
  bool end(const Reader& reader, std::uint32_t bytes, bool again) {
    if (again) return reader.crc() == next_.crc;
    next_ = {here_.offset + bytes, reader.crc()};
    return true;
  }
  /// After the last tile.
  bool whole() const { return good_ && next_.crc == whole_; }

 private:
  struct Mark {
    std::uint64_t offset;
    std::uint32_t crc;  // of what comes before it
  };
  const SnapshotSource& source_;
  std::uint32_t whole_;
  bool good_;
  Mark here_{};
  Mark next_{};
};

// The slots of a chain in a snapshot. Every tile is read, also those of which no slot is wanted, for the checksums; one
// again if space was made since, which takes the workspace that its codes are in.
class SnapshotSlots {
 public:
  SnapshotSlots(const ArenaView& from, const TileList& list, const Chain& chain, TileSection& sides, TileSection& codes)
      : from_(from),
        list_(list),
        chain_(chain),
        sides_(sides),
        codes_(codes),
        sound_(from.shape(), from.policy(), from.layout().side, chain, 0) {
    sound_.begin(chain.used);
  }

  static void take(void* context, const ArenaView& to, Chain& chain, std::uint32_t slot, std::uint32_t count) {
    static_cast<SnapshotSlots*>(context)->take_run(to, chain, slot, count);
  }
  /// Reads the tiles that are left.
  /// @returns false when the source cannot be read, or has changed
  bool finish(const ArenaView& to) {
    Chain none;
    while (good_ && read_ < tiles_of(chain_.used)) take_part(to, none, read_ * kTileSlots, 0);
    return good_;
  }

 private:
  void take_run(const ArenaView& to, Chain& chain, std::uint32_t slot, std::uint32_t count);
  void take_part(const ArenaView& to, Chain& chain, std::uint32_t slot, std::uint32_t count);
  bool read_sides(bool again);
  bool read_rows(const ArenaView& to, std::uint32_t tile, bool again, const Place* places, std::uint32_t first,
                 std::uint32_t count);
  bool get_f32(Reader& reader, const ArenaView& to, const Place* places, std::uint32_t first, std::uint32_t count);
  std::uint32_t position_of(std::uint32_t slot) const;

  const ArenaView& from_;
  TileList list_;  // of its tiles
  const Chain& chain_;
  TileSection& sides_;
  TileSection& codes_;
  SideChecks sound_;
  bool good_ = true;
  std::uint32_t read_ = 0;  // tiles
  std::uint32_t base_ = 0;  // of the last one
  alignas(4) std::byte side_[kMostSideBytes];
};

// As ArenaView::position_of.
std::uint32_t SnapshotSlots::position_of(std::uint32_t slot) const {
  if (from_.policy().keep != Keep::kScore) return from_.position_in_order(chain_, slot);
  std::uint16_t offset;
  std::memcpy(&offset, side_ + from_.layout().side.positions + slot % kTileSlots * sizeof offset, sizeof offset);
  return base_ + offset;
}

// What planning reads must be sound even if the source has changed, so it is checked again.
bool SnapshotSlots::read_sides(bool again) {
  Reader reader = sides_.begin(again);
  if (from_.policy().keep == Keep::kScore && !reader.get(&base_, sizeof base_)) return false;
  if (!reader.get(side_, from_.layout().side_bytes)) return false;
  return sides_.end(reader, side_record_bytes(from_), again) && (again || sound_.next(side_, base_));
}

bool SnapshotSlots::get_f32(Reader& reader, const ArenaView& to, const Place* places, std::uint32_t first,
                            std::uint32_t count) {
  float channel[kTileSlots];
  for (std::uint32_t c = 0; c < to.shape().head_dim; ++c) {
    if (!reader.get(channel, sizeof channel)) return false;
    for (std::uint32_t i = 0; i < count; ++i) {
      to.key_rows(places[i].tile)[c * kTileSlots + places[i].lane] = channel[first + i];
    }
  }
  const std::uint32_t bytes = to.shape().head_dim * static_cast<std::uint32_t>(sizeof(float));
  for (std::uint32_t lane = 0; lane < kTileSlots; ++lane) {
    if (lane < first || lane >= first + count) {
      if (!reader.skip(bytes)) return false;
    } else {
      const Place& place = places[lane - first];
      if (!reader.get(to.value_rows(place.tile) + place.lane * to.shape().head_dim, bytes)) return false;
    }
  }
  return true;
}

bool SnapshotSlots::read_rows(const ArenaView& to, std::uint32_t tile, bool again, const Place* places,
                              std::uint32_t first, std::uint32_t count) {
  Reader reader = codes_.begin(again);
  const Pool pool = list_.pool_of(tile);
  const std::uint32_t bytes = from_.code_bytes(pool);
  if (to.shape().storage == Storage::kF32) {
    return get_f32(reader, to, places, first, count) && codes_.end(reader, bytes, again);
  }
  const SideBytes side{from_.policy(), from_.layout().side, side_};
  for (std::uint32_t i = 0; i < count; ++i) copy_side(side, first + i, to, places[i]);
  auto* plane = in_place<std::uint8_t>(to.encoding());
  static_assert((1 + kRefinerRows) * sizeof(float) >= kTileSlots, "a tile's keys or values fit there");
  if (!reader.get(plane, from_.key_bytes(pool))) return false;
  for (std::uint32_t i = 0; i < count; ++i) copy_key_codes(pool, plane, first + i, to, places[i]);
  if (!reader.get(plane, from_.value_bytes(pool))) return false;
  for (std::uint32_t i = 0; i < count; ++i) copy_value_codes(pool, plane, first + i, to, places[i]);
  return codes_.end(reader, bytes, again);
}

// Takes slots of one tile.
void SnapshotSlots::take_part(const ArenaView& to, Chain& chain, std::uint32_t slot, std::uint32_t count) {
  const std::uint32_t tile = slot / kTileSlots;
  const bool again = read_ > tile;
  good_ = good_ && read_sides(again);
  if (!good_) return;
  Place places[kTileSlots];
  for (std::uint32_t i = 0; i < count; ++i) places[i] = add_slot(to, chain, position_of(slot + i));
  good_ = read_rows(to, tile, again, places, slot % kTileSlots, count);
  read_ = tile + 1;
}

void SnapshotSlots::take_run(const ArenaView& to, Chain& chain, std::uint32_t slot, std::uint32_t count) {
  const std::uint32_t end = slot + count;
  while (good_ && slot < end) {
    if (read_ < slot / kTileSlots) {
      take_part(to, chain, read_ * kTileSlots, 0);
      continue;
    }
    const std::uint32_t in_tile = kTileSlots - slot % kTileSlots;
    const std::uint32_t part = end - slot < in_tile ? end - slot : in_tile;
    take_part(to, chain, slot, part);
    slot += part;
  }
}

// Fills an empty cache.
// @returns false when the source has changed
bool load(const ArenaView& from, const ArenaView& to, const SnapshotSource& source, const Parts& parts) {
  Reader records(source, parts.offset[kChains] - sizeof(SectionHeader), parts.crc[kNote]);
  SectionHeader header;
  if (!records.get(&header, sizeof header)) return false;
  if (to.shape().basis == KeyBasis::kMeasured) {
    Reader measured(source, parts.offset[kChains] + to.heads() * sizeof(ChainRecord));
    if (!measured.get(to.measured(0, 0), to.heads() * measured_bytes(to.shape())) || !sound_measured(to)) return false;
  }
  TileSection sides(source, parts, kSides);
  TileSection codes(source, parts, kCodes);
  ChainJudge judge(from, said_whole_from(parts.header));
  Mover mover(to);
  for (std::size_t i = 0; i < to.heads(); ++i) {
    ChainRecord record;
    if (!records.get(&record, sizeof record) || judge.take(record) != Status::kOk) return false;
    if (to.policy().keep == Keep::kAll && judge.counts().tiles.all() > to.layout().tiles) return false;
    if (to.policy().keep == Keep::kAll && record.used > most_slots(to)) return false;
    Chain chain;
    chain.used = record.used;
    chain.seen = record.seen;
    chain.heaviest = record.heaviest;
    chain.exponent = record.exponent;
    const auto layer = static_cast<std::uint32_t>(i / to.shape().kv_heads);
    SnapshotSlots slots(from, lists_of(from.policy(), layer, record).at[1], chain, sides, codes);
    mover.fill(layer, static_cast<std::uint32_t>(i % to.shape().kv_heads),
               {from.policy(), chain, SnapshotSlots::take, &slots});
    if (!slots.finish(to)) return false;
  }
  if (!records.skip(to.heads() * measured_bytes(from.shape()))) return false;
  mover.finish(judge.most_seen(), judge.whole_from(), judge.exact_from());
  return records.crc() == parts.crc[kChains] && sides.whole() && codes.whole();
}

}  // namespace

Status import_snapshot(Cache& cache, const Shape& shape, const Policy& policy, const SnapshotSource& source) {
  if (!cache.ready()) return Status::kNotReady;
  const ArenaView to{cache};
  if (has_log(to.policy()) || has_log(policy)) return Status::kBadPolicy;
  Layout layout;
  if (const Status found = find_layout(shape, policy, layout); found != Status::kOk) return found;
  Cache saved;  // what it was, without an arena
  ArenaView::set(saved, nullptr, shape, policy, layout, to.profile(), to.kernels());
  const ArenaView from{saved};
  Parts parts;
  if (const Status read = read_parts(source, parts); read != Status::kOk) return read;
  if (const Status kinds = check_kinds(from, to); kinds != Status::kOk) return kinds;
  if (const Status said = check_header(from, parts.header); said != Status::kOk) return said;
  ChainJudge judge(from, said_whole_from(parts.header));
  if (const Status sound = check_content(from, source, parts, judge); sound != Status::kOk) return sound;
  if (!judge.in_step()) return Status::kBadArgument;
  if (to.policy().keep == Keep::kAll &&
      (judge.counts().tiles.all() > to.layout().tiles || judge.most_used() > most_slots(to)))
    return Status::kFull;
  if (cache.clear() != Status::kOk) return Status::kNotReady;
  if (load(from, to, source, parts)) return Status::kOk;
  return cache.clear() == Status::kOk ? Status::kLost : Status::kNotReady;
}

Status import_snapshot(Cache& cache, const Shape& shape, const Policy& policy, std::span<const std::byte> bytes) {
  return import_snapshot(cache, shape, policy, source_of(bytes));
}

}  // namespace nibkv
