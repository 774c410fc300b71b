#include "codec/refine.hpp"
#include "codec/rotary.hpp"
#include "codec/rotation.hpp"
#include "codec/row.hpp"
#include "codec/slot.hpp"
#include "fold/shared_row.hpp"
#include "nibkv/plan.hpp"
#include "pipeline/compact_chain.hpp"

namespace nibkv {
namespace {

constexpr std::uint32_t kNone = 0xffffffff;
constexpr float kBiasSteps = 16;  // per octave
// If the members of a class weigh less than this share of its centre, the centre's value stays as
// it is: re-quantising it would cost more than they contribute.
constexpr float kLeastShare = 0.25f;

// Accumulates a class for its centre: weighted sums of rotated rows.
class Merger {
 public:
  Merger(const Access& to, const Basis& basis)
      : to_(to),
        basis_(basis),
        dim_(to.shape().head_dim),
        channels_(to.shape().outlier_channels),
        turner_(to.policy().rephase ? to.shape().rotary : Rotary{}, to.rotary_steps()) {
    key_ = to.merging();
    value_ = key_ + dim_;
    row_ = value_ + dim_;
    if (channels_ != 0) basis.outlier_scales(outlier_scales_);
  }

  void start();
  /// @param positions  from the slot to its centre
  void add(const SlotCursor& slot, float weight, std::int64_t positions);
  /// Quantises the sum to codes, u8[head_dim].
  /// @returns the scale
  std::uint16_t encode_value(std::uint8_t* codes);
  /// The same for keys; their outlier channels are written into the centre. `refiner` may be null.
  /// @returns false when they cancel out: the centre keeps its key
  bool encode_key(const SlotCursor& centre, const KeyRefiner* refiner, std::uint8_t* codes, std::uint16_t& scale);
  /// Quantises the sums into the centre, except into codes that another layer shares.
  void finish(const SlotCursor& centre, const KeyRefiner& refiner);

 private:
  float read_key(const SlotCursor& slot, std::int64_t positions, float* outliers);

  const Access& to_;
  const Basis& basis_;
  std::uint32_t dim_;
  std::uint32_t channels_;
  KeyTurner turner_;
  float* key_;    // sum of weight * direction
  float* value_;  // sum of weight * value
  float* row_;
  float outliers_[kMaxOutlierChannels];  // the direction's outlier channels
  float outlier_scales_[kMaxOutlierChannels] = {};
  float norms_ = 0;  // sum of weight * norm
  float weights_ = 0;
};

void Merger::start() {
  for (std::uint32_t c = 0; c < dim_; ++c) key_[c] = value_[c] = 0;
  for (float& outlier : outliers_) outlier = 0;
  norms_ = 0;
  weights_ = 0;
}

// Loads a key, in the form in which tiles hold it, into row_, in units of the returned scale, and its
// outlier channels into `outliers`. A key that is rotated to another position must be restored first,
// because the mean key does not rotate, and the two channels of a pair may be held separately.
float Merger::read_key(const SlotCursor& at, std::int64_t positions, float* outliers) {
  std::int8_t outlier_codes[kMaxOutlierChannels];
  float scale = 1;
  if (to_.policy().rephase && positions != 0) {
    restore_key(to_, basis_, at.tile, at.lane, row_);
    turner_.turn(row_, positions);
    basis_.split_key(row_, outlier_codes);
    rotate_in(to_.kernels(), row_, dim_, row_);
  } else {
    std::int8_t levels[kMaxHeadDim];
    key_levels(to_, at.tile, at.lane, levels);
    for (std::uint32_t c = 0; c < dim_; ++c) row_[c] = static_cast<float>(levels[c]);
    for (std::uint32_t n = 0; n < channels_; ++n) outlier_codes[n] = to_.outliers(at.tile)[outlier_byte(at.lane, n)];
    scale = from_scale16(to_.key_scales(at.tile)[at.lane]);
  }
  for (std::uint32_t n = 0; n < channels_; ++n) outliers[n] = static_cast<float>(outlier_codes[n]) * outlier_scales_[n];
  return scale;
}

void Merger::add(const SlotCursor& at, float weight, std::int64_t positions) {
  std::int8_t levels[kMaxHeadDim];
  weights_ += weight;
  value_levels(to_, at.tile, at.lane, levels);
  const float value_scale = from_scale16(to_.value_scales(at.tile)[at.lane]) * weight;
  for (std::uint32_t c = 0; c < dim_; ++c) value_[c] += static_cast<float>(levels[c]) * value_scale;
  if (to_.policy().merge != Merge::kBoth) return;
  float outliers[kMaxOutlierChannels];
  const float scale = read_key(at, positions, outliers);
  float energy = 0;
  for (std::uint32_t c = 0; c < dim_; ++c) {
    const float channel = row_[c] * scale;
    energy += channel * channel;
  }
  for (std::uint32_t n = 0; n < channels_; ++n) energy += outliers[n] * outliers[n];
  const float norm = square_root(energy);
  if (!(norm >= ports::kSmallest)) return;
  norms_ += weight * norm;
  const float share = weight / norm;
  for (std::uint32_t c = 0; c < dim_; ++c) key_[c] += row_[c] * (scale * share);
  for (std::uint32_t n = 0; n < channels_; ++n) outliers_[n] += outliers[n] * share;
}

std::uint16_t Merger::encode_value(std::uint8_t* codes) {
  const float share = 1.0f / weights_;
  for (std::uint32_t c = 0; c < dim_; ++c) value_[c] *= share;
  return to_.kernels().encode_row(value_, static_cast<int>(dim_), codes);
}

// The average of directions is shorter than 1; the average of the norms compensates for that.
bool Merger::encode_key(const SlotCursor& centre, const KeyRefiner* refiner, std::uint8_t* codes,
                        std::uint16_t& scale) {
  float energy = 0;
  for (std::uint32_t c = 0; c < dim_; ++c) energy += key_[c] * key_[c];
  for (std::uint32_t n = 0; n < channels_; ++n) energy += outliers_[n] * outliers_[n];
  const float length = square_root(energy);
  if (!(length >= ports::kSmallest)) return false;
  const float stretch = norms_ / weights_ / length;
  for (std::uint32_t c = 0; c < dim_; ++c) row_[c] = key_[c] * stretch;
  scale = to_.kernels().encode_row(row_, static_cast<int>(dim_), codes);
  if (refiner != nullptr && scale != 0) scale = refiner->refine(row_, codes, scale);
  for (std::uint32_t n = 0; n < channels_; ++n) {
    to_.outliers(centre.tile)[outlier_byte(centre.lane, n)] = outlier_code(outliers_[n] * stretch, outlier_scales_[n]);
  }
  return true;
}

void Merger::finish(const SlotCursor& centre, const KeyRefiner& refiner) {
  const bool view = to_.is_view(centre.tile);
  std::uint8_t codes[kMaxHeadDim];
  if (!view || !to_.shares_values(centre.tile)) {
    put_value(to_, centre.tile, centre.lane, codes, encode_value(codes));
  }
  std::uint16_t scale = 0;
  if (to_.policy().merge != Merge::kBoth || (view && to_.shares_keys(centre.tile))) return;
  if (encode_key(centre, &refiner, codes, scale)) put_key(to_, centre.tile, centre.lane, codes, scale);
}

std::uint32_t saturating_sum(std::uint32_t a, std::uint32_t b, std::uint32_t most) {
  return b >= most || a >= most - b ? most : a + b;
}

// Adds what is known about a member to its centre.
void add_scores_to(const Access& to, const SlotCursor& centre, const SlotCursor& member) {
  if (keeps_global(to.policy())) {
    std::uint32_t& score = to.global(centre.tile)[centre.lane];
    score = saturating_sum(score, to.global(member.tile)[member.lane], 0xffffffff);
  }
  if (keeps_local(to.policy())) {
    std::uint16_t& score = to.local(centre.tile)[centre.lane];
    score = static_cast<std::uint16_t>(saturating_sum(score, to.local(member.tile)[member.lane], 65535));
  }
}

void raise_bias(const Access& to, const SlotCursor& centre, float ratio) {
  if (!(ratio > 1)) return;
  std::uint8_t& bias = to.bias(centre.tile)[centre.lane];
  const auto steps = static_cast<std::uint32_t>(binary_logarithm(ratio) * kBiasSteps + 0.5f);
  bias = static_cast<std::uint8_t>(saturating_sum(bias, steps, kMostBias));
}

// A chain whose slots are merged.
struct Merging {
  Chain& chain;
  std::uint32_t layer;
  std::uint32_t kv_head;
  std::uint32_t* score;
  std::uint32_t* tiles;  // the tile of every 32 slots, folded ones first

  SlotCursor at(std::uint32_t slot, std::uint32_t folded) const {
    if (slot < folded) return {tiles[slot / kTileSlots], slot % kTileSlots};
    return {tiles[tiles_of(folded) + (slot - folded) / kTileSlots], (slot - folded) % kTileSlots};
  }
};

Merging start_merging(const Access& to, std::uint32_t layer, std::uint32_t kv_head, std::uint32_t* score,
                      std::uint32_t* tiles) {
  Chain& chain = to.chain(layer, kv_head);
  std::uint32_t count = 0;
  for (TileCursor each = to.first_tile(chain); each.tile != kNoTile; each.next(to.links())) tiles[count++] = each.tile;
  return {chain, layer, kv_head, score, tiles};
}

bool is_member(std::uint32_t target) {
  return target >= kMember && target != kDrop;
}

// Lists of members by centre, oldest first.
void list_members(std::uint32_t used, const std::uint32_t* target, const PlanArrays& arrays) {
  for (std::uint32_t i = 0; i < used; ++i) arrays.first[i] = kNone;
  for (std::uint32_t i = used; i-- > 0;) {
    if (!is_member(target[i])) continue;
    arrays.next[i] = arrays.first[target[i] - kMember];
    arrays.first[target[i] - kMember] = i;
  }
}

// The weights of a class.
struct Weight {
  float own;  // the centre's
  float all;

  bool changes_rows() const { return all >= own * (1 + kLeastShare); }
};

float weight_of(const Merging& in, std::uint32_t slot) {
  return static_cast<float>(in.score[slot]) + 1.0f;
}

// Computes the weights of a centre and of its members, whose list begins with `member`.
Weight weigh_class(const Merging& in, std::uint32_t slot, std::uint32_t member, const std::uint32_t* next) {
  Weight weight{weight_of(in, slot), weight_of(in, slot)};
  for (; member != kNone; member = next[member]) weight.all += weight_of(in, member);
  return weight;
}

// Adds up the rows of a class.
void add_class(const Access& to, const Merging& in, Merger& merger, std::uint32_t slot, std::uint32_t member,
               const std::uint32_t* next) {
  const std::uint32_t folded = to.folded(in.chain);
  const SlotCursor centre = in.at(slot, folded);
  const std::int64_t position = to.position(centre.tile, centre.lane);
  merger.start();
  merger.add(centre, weight_of(in, slot), 0);
  for (; member != kNone; member = next[member]) {
    const SlotCursor from = in.at(member, folded);
    merger.add(from, weight_of(in, member), position - std::int64_t{to.position(from.tile, from.lane)});
  }
}

// Marks the distance of a retained slot of a pair as unknown, as its rows have changed.
void forget_distance(const Access& to, const Merging& in, std::uint32_t slot) {
  if (!to.paired(in.layer)) return;
  const FoldedPart& part = to.folded_part(in.chain);
  const std::uint32_t first = part.used + to.policy().sinks;
  if (slot < first || slot >= part.used + part.retained) return;
  to.distances(to.lower_of(in.layer), in.kv_head)[slot - first] = kUnknownDistance;
}

// Merges the members of one layer. Of codes that another layer shares, only what
// is each layer's own.
void merge_layer(const Access& to, const Merging& in, const std::uint32_t* target, const PlanArrays& arrays) {
  const Policy& policy = to.policy();
  const std::uint32_t folded = to.folded(in.chain);
  const Basis basis(to, in.layer, in.kv_head);
  const KeyRefiner refiner(to.kernels(), basis, to.shape().head_dim, to.encoding() + to.shape().head_dim);
  Merger merger(to, basis);
  for (std::uint32_t i = 0; i < in.chain.used; ++i) {
    if (target[i] >= kMember || arrays.first[target[i]] == kNone) continue;
    const SlotCursor centre = in.at(i, folded);
    const Weight weight = weigh_class(in, i, arrays.first[target[i]], arrays.next);
    if (weight.changes_rows()) {
      add_class(to, in, merger, i, arrays.first[target[i]], arrays.next);
      merger.finish(centre, refiner);
      forget_distance(to, in, i);
    }
    const float own_count = static_cast<float>(to.merged(centre.tile)[centre.lane]) + 1.0f;
    float count = own_count;
    for (std::uint32_t member = arrays.first[target[i]]; member != kNone; member = arrays.next[member]) {
      const SlotCursor from = in.at(member, folded);
      count += static_cast<float>(to.merged(from.tile)[from.lane]) + 1.0f;
      add_scores_to(to, centre, from);
    }
    to.merged(centre.tile)[centre.lane] = static_cast<std::uint8_t>(count < 256.0f ? count - 1.0f : 255.0f);
    if (policy.mass == Mass::kShare) raise_bias(to, centre, weight.all / weight.own);
    if (policy.mass == Mass::kCount) raise_bias(to, centre, count / own_count);
  }
  // No score may exceed the chain's bound.
  if (keeps_global(policy)) in.chain.heaviest = 0xffffffff;
}

// Merges into codes that two layers share: each layer merges its own rows, and the
// results are folded again.
class SharedMerge {
 public:
  SharedMerge(const Access& to, const Merging (&in)[2])
      : to_(to),
        in_(in),
        bases_{Basis(to, in[0].layer, in[0].kv_head), Basis(to, in[1].layer, in[1].kv_head)},
        mergers_{Merger(to, bases_[0]), Merger(to, bases_[1])} {}

  void run(const std::uint32_t* target, const PlanArrays& arrays) {
    const bool keys = to_.policy().fold.keys.has(in_[0].layer) && to_.policy().merge == Merge::kBoth;
    const bool values = to_.policy().fold.values.has(in_[0].layer);
    const std::uint32_t folded = to_.folded(in_[0].chain);
    for (std::uint32_t i = 0; i < folded; ++i) {
      if (target[i] >= kMember || arrays.first[target[i]] == kNone) continue;
      if (values) fold_class(i, arrays.first[target[i]], arrays.next, false);
      if (keys) fold_class(i, arrays.first[target[i]], arrays.next, true);
    }
  }

 private:
  void fold_class(std::uint32_t slot, std::uint32_t member, const std::uint32_t* next, bool keys);

  const Access& to_;
  const Merging (&in_)[2];
  Basis bases_[2];
  Merger mergers_[2];
};

// A layer in which the members weigh little contributes its row unchanged.
void SharedMerge::fold_class(std::uint32_t slot, std::uint32_t member, const std::uint32_t* next, bool keys) {
  const std::uint32_t folded = to_.folded(in_[0].chain);
  const SlotCursor at[2] = {in_[0].at(slot, folded), in_[1].at(slot, folded)};
  SharedRow row(to_, at, keys);
  bool changed = false;
  for (std::uint32_t w = 0; w < 2; ++w) {
    if (!weigh_class(in_[w], slot, member, next).changes_rows()) continue;
    add_class(to_, in_[w], mergers_[w], slot, member, next);
    if (keys) {
      if (!mergers_[w].encode_key(at[w], nullptr, row.codes[w], row.scales[w])) continue;
    } else {
      row.scales[w] = mergers_[w].encode_value(row.codes[w]);
    }
    changed = true;
  }
  if (changed) row.fold_into(at);
}

}  // namespace

bool has_members(std::span<const std::uint32_t> target) {
  for (const std::uint32_t slot : target) {
    if (is_member(slot)) return true;
  }
  return false;
}

void merge_members(const Access& to, std::uint32_t layer, std::uint32_t kv_head, const std::uint32_t* target,
                   const PlanArrays& arrays) {
  const std::uint32_t used = to.chain(layer, kv_head).used;
  if (!has_members({target, used})) return;
  list_members(used, target, arrays);
  if (!to.paired(layer)) {
    merge_layer(to, start_merging(to, layer, kv_head, arrays.score, arrays.rank), target, arrays);
    return;
  }
  const std::uint32_t lower = to.lower_of(layer);
  // Planning left the sums of both layers here.
  score_slots(to, to.chain(lower, kv_head), lower, kv_head, arrays.score);
  score_slots(to, to.chain(lower + 1, kv_head), lower + 1, kv_head, arrays.other);
  const Merging both[2] = {start_merging(to, lower, kv_head, arrays.score, arrays.rank),
                           start_merging(to, lower + 1, kv_head, arrays.other, arrays.rank + to.layout().chain_tiles)};
  SharedMerge(to, both).run(target, arrays);
  for (const Merging& each : both) merge_layer(to, each, target, arrays);
}

}  // namespace nibkv
