#include "snapshot/judge.hpp"

#include "pipeline/plan_chain.hpp"
#include "profile/format.hpp"
#include "snapshot/logs.hpp"
#include "snapshot/side_checks.hpp"

namespace nibkv {

ChainRecord record_of(const ArenaView& from, std::size_t index) {
  const Chain& chain = from.chains()[index];
  ChainRecord record{chain.used, chain.seen, chain.budget, chain.heaviest, chain.exponent, chain.level, 0, 0, 0};
  if (has_tiers(from.policy())) {
    record.folded = faint_slots(from, chain);
    record.retained = kept_tier(from, chain).used;
  }
  record.used -= recalled_used(from, chain);  // which the log has
  const auto layer = static_cast<std::uint32_t>(index / from.shape().kv_heads);
  record_fold(from, layer, chain, record);
  return record;
}

// What a description does not say, Options::budgets or a profile did.
bool ChainJudge::own_budget(const ChainRecord& record) {
  if (to_.cache.ready()) return record.budget == to_.chains()[index_].budget;
  const Policy& policy = to_.policy();
  if (policy.budget == Budget::kUniform) return record.budget == policy.tokens;
  const std::uint32_t most = to_.layout().chain_tiles - detail::slack_tiles(to_.shape(), policy);
  return record.budget >= detail::smallest_budget(policy) && record.budget / kTileSlots <= most;
}

// Competing heads must have budgets that share_layer can give, and equal budgets of `tokens` are
// such ones. Other heads must have the cache's own budgets.
bool ChainJudge::right_budget(const ChainRecord& record) {
  if (to_.policy().budget != Budget::kAdaptive) return own_budget(record);
  const std::uint32_t tiles = record.budget / kTileSlots;
  all_shared_ =
      all_shared_ && record.budget % kTileSlots == shares_.rest && tiles >= shares_.least && tiles <= shares_.most;
  layer_budget_ += record.budget;
  if (index_ % to_.shape().kv_heads != to_.shape().kv_heads - 1u) return true;
  return all_shared_ && layer_budget_ == std::uint64_t{to_.policy().tokens} * to_.shape().kv_heads;
}

bool ChainJudge::sound(const ChainRecord& record) {
  const auto layer = static_cast<std::uint32_t>(index_ / to_.shape().kv_heads);
  const bool tiers = has_tiers(to_.policy());
  if (record.used > record.seen || record.seen != layer_seen_) return false;
  if (tiers ? record.reach != 0 || !sound_tiers(to_, record) : !sound_fold(to_, layer, record)) return false;
  // Tokens that can go back lie in order, at the chain's end.
  const std::uint64_t whole = record.seen > whole_from_ ? record.seen - whole_from_ : 0;
  const std::uint64_t unordered = record.folded + std::uint64_t{tiers ? 0 : record.retained};
  if (whole + unordered > record.used && whole != 0) return false;
  list_tiles_ += tiles_of(record.used);
  most_used_ = record.used > most_used_ ? record.used : most_used_;
  most_seen_ = record.seen > most_seen_ ? record.seen : most_seen_;
  least_seen_ = record.seen < least_seen_ ? record.seen : least_seen_;
  any_gone_ = any_gone_ || record.used != record.seen || record.folded != 0;
  any_lowered_ = any_lowered_ || (tiers && record.retained != 0) || to_.shape().basis == KeyBasis::kMeasured;
  if (!keeps_global(to_.policy()) && (record.heaviest != 0 || record.exponent != 0)) return false;
  if (!keeps_local(to_.policy()) && record.level != 0) return false;
  const std::uint64_t tiles_before = counts_.tiles.all();
  count_chain(counts_, to_.policy(), layer, lists_of(to_.policy(), layer, record));
  const std::uint64_t tiles = counts_.tiles.all() - tiles_before;
  layer_tiles_ += tiers ? tiles_of(record.retained) : tiles;
  const PoolTiles most = detail::tiles_of_pools(to_.layout());
  for (std::uint32_t pool = 0; pool < kPools; ++pool) {
    if (counts_.tiles.at[pool] > most.at[pool]) return false;
  }
  Chain own;
  own.budget = record.budget;
  if (folds(to_)) return record.used <= capacity_of(to_, own);
  if (to_.policy().keep == Keep::kAll) return record.used <= most_slots(to_);
  // After compact_now, a chain may be longer than its adaptive budget until the next append.
  if (tiles > to_.layout().chain_tiles) return false;
  if (to_.policy().budget == Budget::kAdaptive) {
    return layer_tiles_ <= std::uint64_t{to_.shape().kv_heads} * to_.layout().tiles_per_head;
  }
  return tiers || record.used <= capacity_of(to_, own);
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

bool ChainReader::next() {
  at_ = next_;
  if (!reader_.get(&record_, sizeof record_) || !sound_tiers(to_, record_)) return false;
  next_ += std::uint64_t{lists_of(to_.policy(), 0, record_).tiles()} * stride_;
  return next_ <= end_;
}

namespace {

// Of the records of a layer's heads, one after the other.
class MeasuredChecks {
 public:
  explicit MeasuredChecks(const Shape& shape) : shape_(shape) {}

  bool next(const std::uint8_t* record) {
    std::uint32_t tokens;
    std::memcpy(&tokens, record, sizeof tokens);
    if (index_++ % shape_.kv_heads == 0) tokens_ = tokens;
    if (tokens != tokens_ || tokens > 4096) return false;  // of a chunk
    record += sizeof tokens;
    if (tokens >= kLeastMeasured) return good_channels(record, shape_.head_dim);
    for (std::uint32_t i = 0; i < measured_bytes(shape_) - sizeof tokens; ++i) tokens |= record[i];
    return tokens == 0;
  }

 private:
  const Shape& shape_;
  std::uint32_t index_ = 0;
  std::uint32_t tokens_ = 0;
};

}  // namespace

Status check_measured(const ArenaView& to, Reader& records) {
  if (to.shape().basis != KeyBasis::kMeasured) return Status::kOk;
  std::uint8_t record[4 + kMaxOutlierChannels * 3 + 2 * kMaxHeadDim];
  MeasuredChecks sound(to.shape());
  for (std::size_t i = 0; i < to.heads(); ++i) {
    if (!records.get(record, measured_bytes(to.shape()))) return Status::kStorageFailed;
    if (!sound.next(record)) return Status::kCorrupt;
  }
  return Status::kOk;
}

bool sound_measured(const ArenaView& to) {
  MeasuredChecks sound(to.shape());
  bool good = true;
  for (std::size_t i = 0; to.shape().basis == KeyBasis::kMeasured && i < to.heads(); ++i)
    good = good && sound.next(to.measured(0, 0) + i * measured_bytes(to.shape()));
  return good;
}

Status check_header(const ArenaView& to, const SnapshotHeader& header) {
  if (header.shape != fingerprint(to.shape(), to.policy())) return Status::kOtherShape;
  if (header.policy != policy_print(to)) return Status::kOtherPolicy;
  if (header.profile != profile_of(to)) return Status::kOtherProfile;
  return Status::kOk;
}

namespace {

// Reads the codes of the keys or of the values of a tile.
// @param status  kCorrupt if they are of 8 bits, and not ones that rows have; kStorageFailed
bool read_plane(Reader& codes, std::uint32_t bits, std::uint32_t bytes, Status& status) {
  constexpr std::uint32_t kPiece = 64;  // divides a plane
  std::uint8_t piece[kPiece];
  for (std::uint32_t left = bytes; left != 0; left -= kPiece) {
    if (!codes.get(piece, sizeof piece)) status = Status::kStorageFailed;
    if (status == Status::kOk && bits == 8 && !sound_bytes(piece, sizeof piece)) status = Status::kCorrupt;
    if (status != Status::kOk) return false;
  }
  return true;
}

}  // namespace

Status check_content(const ArenaView& to, const SnapshotSource& source, const Parts& parts, ChainJudge& judge) {
  const std::size_t heads = to.heads();
  if (const Status log = check_log(to, source, parts); log != Status::kOk) return log;
  if (parts.bytes[kChains] != chain_section_bytes(to)) return Status::kCorrupt;
  Reader records(source, parts.offset[kChains]);
  for (std::size_t i = 0; i < heads; ++i) {
    ChainRecord record;
    if (!records.get(&record, sizeof record)) return Status::kStorageFailed;
    if (const Status taken = judge.take(record); taken != Status::kOk) return taken;
  }
  if (const Status measured = check_measured(to, records); measured != Status::kOk) return measured;
  const detail::SnapshotCounts& counts = judge.counts();
  const SnapshotHeader& header = parts.header;
  if (!judge.sound_whole_from()) return Status::kCorrupt;
  if (!sound_peaks(to, {header.used_tiles, header.peak_tiles, header.peak_bytes}, counts)) return Status::kCorrupt;
  if (parts.bytes[kSides] != side_section_bytes(to, counts)) return Status::kCorrupt;
  if (parts.bytes[kCodes] != code_section_bytes(to, counts)) return Status::kCorrupt;
  if (parts.bytes[kShared] != shared_section_bytes(to, counts)) return Status::kCorrupt;
  if (const Status paired = check_pairs(to, source, parts); paired != Status::kOk) return paired;
  if (!has_codes(to.shape().storage)) return Status::kOk;

  ChainReader again(to, source, parts);
  Reader sides(source, parts.offset[kSides]);
  Reader codes(source, parts.offset[kCodes]);
  bool bytes = false;  // whether any codes have 8 bits
  for (std::uint32_t i = 0; i < kPools; ++i) {
    const Pool pool{static_cast<std::uint8_t>(i)};
    const TileFormat format = to.format(pool);
    bytes = bytes || (counts.tiles[pool] != 0 && (format.key_bits == 8 || format.value_bits == 8));
  }
  for (std::size_t i = 0; i < heads; ++i) {
    if (!again.next()) return Status::kStorageFailed;
    const ChainRecord& record = again.record();
    Chain chain;
    chain.used = record.used;
    chain.seen = record.seen;
    chain.heaviest = record.heaviest;
    const TileLists lists = lists_of(to.policy(), static_cast<std::uint32_t>(i / to.shape().kv_heads), record);
    SideChecks sound(to.shape(), to.policy(), to.layout().side, chain, record.folded);
    for (const TileList& list : lists.at) {
      sound.begin(list.slots);
      for (std::uint32_t tile = 0; tile < list.tiles(); ++tile) {
        std::uint32_t base = 0;
        std::byte side[kMostSideBytes];
        if (to.policy().keep == Keep::kScore && !sides.get(&base, sizeof base)) return Status::kStorageFailed;
        if (!sides.get(side, to.layout().side_bytes)) return Status::kStorageFailed;
        if (!sound.next(side, base)) return Status::kCorrupt;
        if (!bytes) continue;
        const Pool pool = list.pool_of(tile);
        Status status = Status::kOk;
        if (!read_plane(codes, to.format(pool).key_bits, to.key_bytes(pool), status)) return status;
        if (!read_plane(codes, to.format(pool).value_bits, to.value_bytes(pool), status)) return status;
      }
    }
  }
  return Status::kOk;
}

}  // namespace nibkv
