#include "codec/row.hpp"
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
  struct Mark {
    std::uint64_t offset;
    std::uint32_t crc;  // of what comes before it
  };
  const SnapshotSource& source() const { return source_; }
  /// Of the next tile.
  Mark mark() const { return next_; }
  /// After the last tile.
  bool whole() const { return good_ && next_.crc == whole_; }

 private:
  const SnapshotSource& source_;
  std::uint32_t whole_;
  bool good_;
  Mark here_{};
  Mark next_{};
};

// The slots of a chain in a snapshot. Every tile is read, also those of which no slot is wanted, for the checksums; one
// again if space was made since, which takes the workspace that its codes are in. Faint slots in the order of their
// positions are read from tiles all over their list, each once: the sum of those tiles' checksums must then be right.
class SnapshotSlots {
 public:
  SnapshotSlots(const ArenaView& from, const Recoder& with, const TileLists& lists, const Chain& chain,
                TileSection& sides, TileSection& codes)
      : from_(from),
        with_(with),
        lists_(lists),
        chain_(chain),
        sides_(sides),
        codes_(codes),
        faint_(has_tiers(from.policy()) ? lists.at[0].slots : 0),
        sound_(from.shape(), from.policy(), from.layout().side, chain, faint_) {}

  std::uint32_t faint() const { return faint_; }
  std::uint32_t tail() const { return has_tiers(from_.policy()) ? lists_.at[2].slots : 0; }

  static void take(void* context, const ArenaView& to, Destination& at, std::uint32_t slot, std::uint32_t count) {
    auto& all = *static_cast<SnapshotSlots*>(context);
    if (all.any_order_ && slot < all.faint_) {
      all.take_faint(to, at, slot, count != 0);
    } else {
      all.take_run(to, at, slot, count);
    }
  }
  static std::uint32_t before(void* context, const ArenaView& to, std::uint32_t slot, std::uint32_t position) {
    return static_cast<SnapshotSlots*>(context)->count_before(to, slot, position);
  }
  static void next_faint(void* context, const ArenaView& to, NextFaint& next) {
    static_cast<SnapshotSlots*>(context)->offer_faint(to, next);
  }
  /// Reads the tiles that are left.
  /// @returns false when the source cannot be read, or has changed
  bool finish(const ArenaView& to) {
    read_up_to(to, lists_.tiles());
    return good_ && faint_sum_ == 0;
  }

 private:
  // A tile of the chain.
  struct Tile {
    std::uint32_t number;
    Pool pool;
    std::uint32_t first;  // the number of its first slot
    std::uint32_t slots;
    std::uint32_t list;  // the slots of its list, if it is the first one there; else 0
  };
  Tile tile_at(std::uint32_t number) const;
  Tile tile_of(std::uint32_t slot) const;

  void take_run(const ArenaView& to, Destination& destination, std::uint32_t slot, std::uint32_t count);
  void take_part(const ArenaView& to, Destination* destination, const Tile& tile, std::uint32_t lane,
                 std::uint32_t count);
  void read_up_to(const ArenaView& to, std::uint32_t number) {
    while (good_ && read_ < number) take_part(to, nullptr, tile_at(read_), 0, 0);
  }
  void take_faint(const ArenaView& to, Destination& destination, std::uint32_t slot, bool wanted);
  void offer_faint(const ArenaView& to, NextFaint& next);
  bool read_faint_tile(const ArenaView& to, Destination* destination, const Tile& tile, std::uint32_t lane,
                       std::uint64_t& sum);
  std::uint32_t count_before(const ArenaView& to, std::uint32_t slot, std::uint32_t position);

  bool get_sides(Reader& reader) {
    if (from_.policy().keep == Keep::kScore && !reader.get(&base_, sizeof base_)) return false;
    return reader.get(side_, from_.layout().side_bytes);
  }
  bool read_sides(const Tile& tile, bool again);
  bool get_rows(Reader& reader, const ArenaView& to, Pool pool, const Place* places, std::uint32_t first,
                std::uint32_t count);
  bool get_keys(Reader& reader, const ArenaView& to, Pool pool, const Place* places, std::uint32_t first,
                std::uint32_t count);
  bool get_f32(Reader& reader, const ArenaView& to, const Place* places, std::uint32_t first, std::uint32_t count);
  std::uint32_t position_of(std::uint32_t slot, std::uint32_t lane) const;

  const ArenaView& from_;
  const Recoder& with_;
  const TileLists& lists_;
  const Chain& chain_;
  TileSection& sides_;
  TileSection& codes_;
  std::uint32_t faint_;  // slots
  SideChecks sound_;
  bool good_ = true;
  std::uint32_t read_ = 0;  // tiles
  std::uint32_t base_ = 0;  // of the last one
  alignas(4) std::byte side_[kMostSideBytes];
  // Where faint slots come in another order than they lie:
  bool any_order_ = false;
  TileSection::Mark faint_sides_{};
  TileSection::Mark faint_codes_{};
  std::uint32_t sides_crc_ = 0;  // after the last faint tile
  std::uint64_t faint_sum_ = 0;  // of the checksums of tiles of slots that are still to come
};

SnapshotSlots::Tile SnapshotSlots::tile_at(std::uint32_t number) const {
  std::uint32_t in_list = number;
  std::uint32_t first = 0;
  const TileList* list = lists_.at;
  for (; in_list >= list->tiles(); ++list) {
    in_list -= list->tiles();
    first += list->slots;
  }
  const std::uint32_t left = list->slots - in_list * kTileSlots;
  return {number, list->pool_of(in_list), first + in_list * kTileSlots, left < kTileSlots ? left : kTileSlots,
          in_list == 0 ? list->slots : 0};
}

SnapshotSlots::Tile SnapshotSlots::tile_of(std::uint32_t slot) const {
  std::uint32_t number = 0;
  const TileList* list = lists_.at;
  for (; slot >= list->slots; ++list) {
    slot -= list->slots;
    number += list->tiles();
  }
  return tile_at(number + slot / kTileSlots);
}

// As ArenaView::position_of.
std::uint32_t SnapshotSlots::position_of(std::uint32_t slot, std::uint32_t lane) const {
  if (from_.policy().keep != Keep::kScore) return from_.position_in_order(chain_, slot);
  std::uint16_t offset;
  std::memcpy(&offset, side_ + from_.layout().side.positions + lane * sizeof offset, sizeof offset);
  return base_ + offset;
}

// What planning reads must be sound even if the source has changed, so it is checked again.
bool SnapshotSlots::read_sides(const Tile& tile, bool again) {
  Reader reader = sides_.begin(again);
  if (!get_sides(reader)) return false;
  if (!again && tile.list != 0) sound_.begin(tile.list);
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

// Reads the keys of a tile. Those that are coded again need the workspace that all lie in: they are read again.
bool SnapshotSlots::get_keys(Reader& reader, const ArenaView& to, Pool pool, const Place* places, std::uint32_t first,
                             std::uint32_t count) {
  auto* const plane = in_place<std::uint8_t>(to.refining());
  static_assert(kRefinerRows * sizeof(float) >= kTileSlots, "a tile's keys or values fit there, beside a row");
  const CodePlane coded = {from_.format(pool).key_bits, to.shape().head_dim};
  const Reader start = reader;
  if (!reader.get(plane, from_.key_bytes(pool))) return false;
  std::uint8_t codes[kMaxHeadDim];
  for (const bool again : {false, true}) {
    for (std::uint32_t i = 0; i < count; ++i) {
      if ((coded.bits > key_plane(to, places[i].tile).bits) != again) continue;
      if (again) {
        Reader same = start;
        if (!same.get(plane, from_.key_bytes(pool)) || same.crc() != reader.crc()) return false;
      }
      get_key_codes(coded, plane, first + i, codes);
      with_.put_key(coded.bits, codes, places[i]);
    }
  }
  return true;
}

bool SnapshotSlots::get_rows(Reader& reader, const ArenaView& to, Pool pool, const Place* places, std::uint32_t first,
                             std::uint32_t count) {
  if (to.shape().storage == Storage::kF32) return get_f32(reader, to, places, first, count);
  const SideBytes side{from_.policy(), from_.layout().side, side_};
  for (std::uint32_t i = 0; i < count; ++i) copy_side(side, first + i, to, places[i]);
  if (!get_keys(reader, to, pool, places, first, count)) return false;
  auto* const plane = in_place<std::uint8_t>(to.refining());
  const CodePlane coded = {from_.format(pool).value_bits, to.shape().head_dim};
  if (!reader.get(plane, from_.value_bytes(pool))) return false;
  std::uint8_t codes[kMaxHeadDim];
  for (std::uint32_t i = 0; i < count; ++i) {
    get_value_codes(coded, plane, first + i, codes);
    with_.put_value(coded.bits, codes, places[i]);
  }
  return true;
}

// Takes slots of one tile, from a lane on.
void SnapshotSlots::take_part(const ArenaView& to, Destination* destination, const Tile& tile, std::uint32_t lane,
                              std::uint32_t count) {
  const bool again = read_ > tile.number;
  good_ = good_ && read_sides(tile, again);
  if (!good_) return;
  Place places[kTileSlots];
  for (std::uint32_t i = 0; i < count; ++i)
    places[i] = add_slot(to, *destination, position_of(tile.first + lane + i, lane + i));
  Reader reader = codes_.begin(again);
  good_ =
      get_rows(reader, to, tile.pool, places, lane, count) && codes_.end(reader, from_.code_bytes(tile.pool), again);
  read_ = tile.number + 1;
}

void SnapshotSlots::take_run(const ArenaView& to, Destination& destination, std::uint32_t slot, std::uint32_t count) {
  const std::uint32_t end = slot + count;
  while (good_ && slot < end) {
    const Tile tile = tile_of(slot);
    read_up_to(to, tile.number);
    const std::uint32_t lane = slot - tile.first;
    const std::uint32_t part = end - slot < tile.slots - lane ? end - slot : tile.slots - lane;
    take_part(to, &destination, tile, lane, part);
    slot += part;
  }
}

std::uint32_t SnapshotSlots::count_before(const ArenaView& to, std::uint32_t slot, std::uint32_t position) {
  const Tile tile = tile_of(slot);
  read_up_to(to, tile.number);
  if (read_ == tile.number) {
    take_part(to, nullptr, tile, 0, 0);
  } else {
    good_ = good_ && read_sides(tile, true);
  }
  std::uint32_t count = 0;
  while (good_ && slot < tile.first + tile.slots && position_of(slot, slot - tile.first) < position) {
    ++count;
    ++slot;
  }
  return count;
}

// Reads a faint tile apart from the checksums of the sections, and takes one of its slots.
// @param destination  nullptr: none
// @param sum  the checksums of its parts are added
bool SnapshotSlots::read_faint_tile(const ArenaView& to, Destination* destination, const Tile& tile, std::uint32_t lane,
                                    std::uint64_t& sum) {
  Reader sides(sides_.source(), faint_sides_.offset + std::uint64_t{tile.number} * side_record_bytes(from_));
  if (!get_sides(sides)) return false;
  SideChecks sound(from_.shape(), from_.policy(), from_.layout().side, chain_, faint_);
  sound.begin(tile.slots);
  if (!sound.next(side_, base_)) return false;
  Place place{};
  if (destination != nullptr) place = add_slot(to, *destination, position_of(tile.first + lane, lane));
  Reader codes(sides_.source(), faint_codes_.offset + std::uint64_t{tile.number} * from_.code_bytes(tile.pool));
  if (!get_rows(codes, to, tile.pool, &place, lane, destination != nullptr ? 1 : 0)) return false;
  sum += std::uint64_t{sides.crc()} + codes.crc();
  return true;
}

void SnapshotSlots::take_faint(const ArenaView& to, Destination& destination, std::uint32_t slot, bool wanted) {
  const Tile tile = tile_of(slot);
  std::uint64_t sum = 0;
  good_ = good_ && read_faint_tile(to, wanted ? &destination : nullptr, tile, slot - tile.first, sum);
  faint_sum_ -= sum;
}

void SnapshotSlots::offer_faint(const ArenaView& to, NextFaint& next) {
  const std::uint32_t tiles = tiles_of(faint_);
  if (!any_order_) {
    any_order_ = true;
    faint_sides_ = sides_.mark();
    faint_codes_ = codes_.mark();
    for (std::uint32_t i = 0; good_ && i < tiles; ++i) {
      const Tile tile = tile_at(i);
      std::uint64_t sum = 0;
      good_ = read_faint_tile(to, nullptr, tile, 0, sum);
      faint_sum_ += tile.slots * sum;
      read_up_to(to, i + 1);
    }
    sides_crc_ = sides_.mark().crc;
  }
  Reader reader(sides_.source(), faint_sides_.offset, faint_sides_.crc);
  for (std::uint32_t i = 0; good_ && i < tiles; ++i) {
    good_ = get_sides(reader);
    const Tile tile = tile_at(i);
    for (std::uint32_t lane = 0; good_ && lane < tile.slots; ++lane)
      next.offer(position_of(tile.first + lane, lane), tile.first + lane);
  }
  good_ = good_ && reader.crc() == sides_crc_;
  if (!good_) next.begin();
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
    if (!has_space(to, judge.list_tiles(), record.used)) return false;
    Chain chain;
    chain.used = record.used;
    chain.seen = record.seen;
    chain.heaviest = record.heaviest;
    chain.exponent = record.exponent;
    const auto layer = static_cast<std::uint32_t>(i / to.shape().kv_heads);
    const auto head = static_cast<std::uint32_t>(i % to.shape().kv_heads);
    const TileLists lists = lists_of(from.policy(), layer, record);
    const Recoder with(to, layer, head);
    SnapshotSlots slots(from, with, lists, chain, sides, codes);
    mover.fill(layer, head,
               {from.policy(), chain, slots.faint(), slots.tail(), SnapshotSlots::take, SnapshotSlots::before,
                SnapshotSlots::next_faint, &slots});
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
  if (keeps_log(to.policy()) || keeps_log(policy)) return Status::kBadPolicy;
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
  if (!has_space(to, judge.list_tiles(), judge.most_used())) return Status::kFull;
  if (cache.clear() != Status::kOk) return Status::kNotReady;
  if (load(from, to, source, parts)) return Status::kOk;
  return cache.clear() == Status::kOk ? Status::kLost : Status::kNotReady;
}

Status import_snapshot(Cache& cache, const Shape& shape, const Policy& policy, std::span<const std::byte> bytes) {
  return import_snapshot(cache, shape, policy, source_of(bytes));
}

}  // namespace nibkv
