#include "compact_chain.hpp"
#include "nibkv/plan.hpp"
#include "refine.hpp"
#include "rotary.hpp"
#include "row.hpp"
#include "slot.hpp"

namespace nibkv {
namespace {

constexpr std::uint32_t kNone = 0xffffffff;
constexpr float kBiasSteps = 16;  // an octave
// A class whose members weigh less than this share of its centre leaves the centre's value as it is: coding it anew
// costs more than they bring.
constexpr float kLeastShare = 0.25f;

// A class on its way into its centre: weighted sums of rotated rows.
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
  /// Codes what came together into the centre.
  void finish(const SlotCursor& centre, const KeyRefiner& refiner);

 private:
  float read_key(const SlotCursor& slot, std::int64_t positions, float* outliers);
  void finish_value(const SlotCursor& centre);
  void finish_key(const SlotCursor& centre, const KeyRefiner& refiner);

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

// Puts a key as tiles hold it into row_, in units of the scale that is returned, and its outlier channels into
// `outliers`. One that is turned must be restored for it: the mean key does not turn, and pairs of channels are apart.
float Merger::read_key(const SlotCursor& at, std::int64_t positions, float* outliers) {
  std::int8_t outlier_codes[kMaxOutlierChannels];
  float scale = 1;
  if (to_.policy().rephase && positions != 0) {
    restore_key(to_, basis_, at.tile, at.lane, row_);
    turner_.turn(row_, positions);
    basis_.split_key(row_, outlier_codes);
    to_.kernels().rotate(row_, static_cast<int>(dim_));
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

void Merger::finish_value(const SlotCursor& centre) {
  std::uint8_t codes[kMaxHeadDim];
  const float share = 1.0f / weights_;
  for (std::uint32_t c = 0; c < dim_; ++c) value_[c] *= share;
  const std::uint16_t scale = to_.kernels().encode_row(value_, static_cast<int>(dim_), codes);
  put_value(to_, centre.tile, centre.lane, codes, scale);
}

// A direction's average is shorter than 1: the norms' average makes up for it.
void Merger::finish_key(const SlotCursor& centre, const KeyRefiner& refiner) {
  float energy = 0;
  for (std::uint32_t c = 0; c < dim_; ++c) energy += key_[c] * key_[c];
  for (std::uint32_t n = 0; n < channels_; ++n) energy += outliers_[n] * outliers_[n];
  const float length = square_root(energy);
  if (!(length >= ports::kSmallest)) return;  // they cancel: the centre keeps its key
  const float stretch = norms_ / weights_ / length;
  std::uint8_t codes[kMaxHeadDim];
  for (std::uint32_t c = 0; c < dim_; ++c) row_[c] = key_[c] * stretch;
  std::uint16_t scale = to_.kernels().encode_row(row_, static_cast<int>(dim_), codes);
  if (scale != 0) scale = refiner.refine(row_, codes, scale);
  put_key(to_, centre.tile, centre.lane, codes, scale);
  for (std::uint32_t n = 0; n < channels_; ++n) {
    to_.outliers(centre.tile)[outlier_byte(centre.lane, n)] = outlier_code(outliers_[n] * stretch, outlier_scales_[n]);
  }
}

void Merger::finish(const SlotCursor& centre, const KeyRefiner& refiner) {
  finish_value(centre);
  if (to_.policy().merge == Merge::kBoth) finish_key(centre, refiner);
}

std::uint32_t saturating_sum(std::uint32_t a, std::uint32_t b, std::uint32_t most) {
  return b >= most || a >= most - b ? most : a + b;
}

// What was known of a member goes to its centre.
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

}  // namespace

void merge_members(const Access& to, Chain& chain, std::uint32_t layer, std::uint32_t kv_head,
                   const std::uint32_t* target, const PlanArrays& arrays) {
  const Policy& policy = to.policy();
  bool any = false;
  for (std::uint32_t i = 0; i < chain.used && !any; ++i) any = target[i] >= kMember && target[i] != kDrop;
  if (!any) return;
  score_slots(to, chain, layer, kv_head, arrays.score);
  // Lists of members by centre, oldest first; and the tile of every 32 slots.
  for (std::uint32_t i = 0; i < chain.used; ++i) arrays.first[i] = kNone;
  for (std::uint32_t i = chain.used; i-- > 0;) {
    if (target[i] < kMember || target[i] == kDrop) continue;
    arrays.next[i] = arrays.first[target[i] - kMember];
    arrays.first[target[i] - kMember] = i;
  }
  std::uint32_t* tiles = arrays.rank;
  for (std::uint32_t tile = chain.first, k = 0; tile != kNoTile; tile = to.links()[tile]) tiles[k++] = tile;
  const auto at = [&](std::uint32_t slot) { return SlotCursor{tiles[slot / kTileSlots], slot % kTileSlots}; };

  const Basis basis(to.profile(), to.shape(), layer, kv_head);
  const KeyRefiner refiner(to.kernels(), basis, to.shape().head_dim, to.encoding() + to.shape().head_dim);
  Merger merger(to, basis);
  for (std::uint32_t i = 0; i < chain.used; ++i) {
    if (target[i] >= kMember || arrays.first[target[i]] == kNone) continue;
    const SlotCursor centre = at(i);
    const std::int64_t position = to.position(centre.tile, centre.lane);
    const float own = static_cast<float>(arrays.score[i]) + 1.0f;
    float weights = own;
    const float own_count = static_cast<float>(to.merged(centre.tile)[centre.lane]) + 1.0f;
    float count = own_count;
    merger.start();
    merger.add(centre, own, 0);
    for (std::uint32_t member = arrays.first[target[i]]; member != kNone; member = arrays.next[member]) {
      const SlotCursor from = at(member);
      const float weight = static_cast<float>(arrays.score[member]) + 1.0f;
      merger.add(from, weight, position - std::int64_t{to.position(from.tile, from.lane)});
      weights += weight;
      count += static_cast<float>(to.merged(from.tile)[from.lane]) + 1.0f;
      add_scores_to(to, centre, from);
    }
    if (weights >= own * (1 + kLeastShare)) merger.finish(centre, refiner);
    to.merged(centre.tile)[centre.lane] = static_cast<std::uint8_t>(count < 256.0f ? count - 1.0f : 255.0f);
    if (policy.mass == Mass::kShare) raise_bias(to, centre, weights / own);
    if (policy.mass == Mass::kCount) raise_bias(to, centre, count / own_count);
  }
  // No score may be above what the chain knows of.
  if (keeps_global(policy)) chain.heaviest = 0xffffffff;
}

}  // namespace nibkv
