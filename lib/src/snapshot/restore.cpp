#include "arena/pool.hpp"
#include "attention/class_mass.hpp"
#include "nibkv/check.hpp"
#include "snapshot/bands.hpp"
#include "snapshot/judge.hpp"
#include "snapshot/logs.hpp"

namespace nibkv {
namespace {

// Reads a section into the arena: calls `get` for every wanted tile.
bool load_tiles(const ArenaView& to, const SnapshotSource& source, const Parts& parts, Section kind,
                bool (*wanted)(const ArenaView&, std::uint32_t),
                bool (*get)(Reader&, const ArenaView&, std::uint32_t)) {
  Reader reader(source, parts.offset[kind] - sizeof(SectionHeader), parts.crc[kind - 1]);
  SectionHeader header;
  if (!reader.get(&header, sizeof header)) return false;
  for (std::size_t i = 0; i < to.heads(); ++i) {
    for (Cursor at = to.first_slot(to.chains()[i]); at.any(); at.next_tile(to.links())) {
      if (wanted(to, at.tile) && !get(reader, to, at.tile)) return false;
    }
  }
  return reader.crc() == parts.crc[kind];
}

bool get_side(Reader& from, const ArenaView& to, std::uint32_t tile) {
  if (to.policy().keep == Keep::kScore && !from.get(&to.base(tile), sizeof(std::uint32_t))) return false;
  return from.get(to.side(tile), to.layout().side_bytes);
}

bool get_codes(Reader& from, const ArenaView& to, std::uint32_t tile) {
  return from.get(to.codes(tile), to.code_bytes(to.pool_of(tile)));
}

bool get_entry(Reader& from, const ArenaView& to, std::uint32_t view) {
  bool good = true;
  each_plane(to, view, [&](std::uint8_t* plane, bool) { good = good && from.get(plane, to.layout().key_bytes); });
  return good;
}

void load_tiers(const ArenaView& to, Chain& chain, const ChainRecord& record) {
  const auto load = [&](Tier& tier, std::uint32_t slots) {
    for (std::uint32_t left = tiles_of(slots); left != 0; --left) grow(to, chain, tier);
    tier.used = slots;
  };
  if (has_faint(to)) load(faint_tier(to, chain), record.folded);
  load(kept_tier(to, chain), record.retained);
  for (std::uint32_t left = tiles_of(record.used - record.folded - record.retained); left != 0; --left) grow(to, chain);
}

// Fills empty chains with tiles as the records say.
// @returns false when the source has changed
bool load_chains(const ArenaView& to, const SnapshotSource& source, const Parts& parts) {
  Reader reader(source, parts.offset[kChains] - sizeof(SectionHeader), parts.crc[kNote]);
  SectionHeader header;
  if (!reader.get(&header, sizeof header)) return false;
  ChainJudge judge(to, said_whole_from(parts.header));
  for (std::size_t i = 0; i < to.heads(); ++i) {
    ChainRecord record;
    if (!reader.get(&record, sizeof record) || judge.take(record) != Status::kOk) return false;
    Chain& chain = to.chains()[i];
    if (has_tiers(to.policy())) {
      load_tiers(to, chain, record);
    } else {
      for (std::uint32_t left = tiles_of(record.used - record.folded); left != 0; --left) grow(to, chain);
    }
    chain.used = record.used;
    chain.seen = record.seen;
    chain.budget = record.budget;
    chain.heaviest = record.heaviest;
    chain.exponent = record.exponent;
    chain.level = record.level;
    const auto layer = static_cast<std::uint32_t>(i / to.shape().kv_heads);
    load_fold(to, layer, static_cast<std::uint32_t>(i % to.shape().kv_heads), record);
  }
  if (to.shape().basis == KeyBasis::kMeasured &&
      (!reader.get(to.measured(0, 0), to.heads() * measured_bytes(to.shape())) || !sound_measured(to)))
    return false;
  to.header().peak_tiles = parts.header.peak_tiles;
  to.header().peak_bytes = parts.header.peak_bytes;
  to.header().whole_from = judge.whole_from();
  to.header().exact_from = judge.exact_from();
  return reader.crc() == parts.crc[kChains];
}

bool load(Cache& cache, const SnapshotSource& source, const Parts& parts) {
  const ArenaView to{cache};
  if (!load_chains(to, source, parts)) return false;
  if (!load_tiles(to, source, parts, kSides, all_tiles, get_side)) return false;
  for (std::size_t i = 0; i < to.heads(); ++i) to.chains()[i].members_mass = mass_of_members(to, to.chains()[i]);
  return load_tiles(to, source, parts, kCodes, pool_tiles, get_codes) &&
         load_tiles(to, source, parts, kShared, lower_views, get_entry) && load_log(to, source, parts) &&
         check(cache) == Status::kOk;
}

}  // namespace

Status restore(Cache& cache, const SnapshotSource& source) {
  if (!cache.ready()) return Status::kNotReady;
  const ArenaView to{cache};
  Parts parts;
  if (const Status read = read_parts(source, parts); read != Status::kOk) return read;
  if (const Status fits = check_header(to, parts.header); fits != Status::kOk) return fits;
  ChainJudge judge(to, said_whole_from(parts.header));
  if (const Status sound = check_content(to, source, parts, judge); sound != Status::kOk) return sound;
  if (cache.clear() != Status::kOk) return Status::kNotReady;
  if (load(cache, source, parts)) return Status::kOk;
  return cache.clear() == Status::kOk ? Status::kLost : Status::kNotReady;
}

Status restore(Cache& cache, std::span<const std::byte> bytes) {
  return restore(cache, source_of(bytes));
}

}  // namespace nibkv
