#include "arena/prefetch.hpp"
#include "codec/rotary.hpp"
#include "codec/row.hpp"
#include "codec/slot.hpp"
#include "nibkv/plan.hpp"
#include "pipeline/plan_chain.hpp"

namespace nibkv {
namespace {

// A slot that may be merged, and the kept slot most similar to it.
struct Candidate {
  std::uint32_t slot;
  float scale;          // of its key
  float outlier_scale;  // of its outlier codes as a query
  float value_energy;
  float best;            // the largest square of a similarity so far, times energy
  float energy;          // of its key; 1 if it is compared without its position
  std::uint32_t centre;  // new slot
};

constexpr std::uint32_t kBatch = kMaxRows;
// The energy used for a slot that is not compared, so that its similarity is 0.
constexpr float kNobody = std::numeric_limits<float>::infinity();

// Candidates that pass over a chain together, as queries.
class Batch {
 public:
  Batch(const ArenaView& to, const Basis& basis)
      : to_(to),
        basis_(basis),
        turns_(to.policy().position_free),
        turner_(turns_ ? to.shape().rotary : Rotary{}, to.rotary_steps()) {
    const MergeSpace at = merge_space_of(dim());
    row_ = in_place<float>(to.merging() + at.row);
    levels_ = in_place<std::int8_t>(to.merging() + at.levels);
    values_ = in_place<std::int8_t>(to.merging() + at.values);
    dots_ = in_place<std::int32_t>(to.merging() + at.dots);
    outlier_dots_ = in_place<std::int32_t>(to.merging() + at.outlier_dots);
    const std::uint32_t channels = to.shape().outlier_channels;
    if (channels != 0) basis.outlier_scales(outlier_scales_);
  }

  std::uint32_t count() const { return count_; }
  Candidate& operator[](std::uint32_t i) { return candidates_[i]; }

  void clear() { count_ = 0; }
  void add(std::uint32_t slot, const Place& at);
  /// Compares all candidates with the kept slots of a tile.
  void compare(const Cursor& in, const std::uint32_t* energies, const Droppable& centres, const std::uint32_t* target);
  /// The energies of the keys in a tile, as bit patterns of floats.
  void find_energies(std::uint32_t tile, std::uint32_t* energies) const;

 private:
  std::uint32_t dim() const { return to_.shape().head_dim; }
  std::uint32_t channels() const { return to_.shape().outlier_channels; }
  void add_held_key(std::uint32_t i, const Place& at);
  void add_turned_key(std::uint32_t i, const Place& at);
  bool turn_key(const Place& at, float* row) const;
  void compare_held(std::uint32_t tile, const std::uint32_t* energies, std::uint32_t lanes,
                    const std::uint32_t* target);
  void compare_turned(std::uint32_t tile, std::uint32_t lanes, const std::uint32_t* target);
  void multiply(std::uint32_t tile);
  void consider(std::uint32_t i, float similarity, const Place& at, std::uint32_t centre);
  float value_cosine(const Candidate& candidate, std::uint32_t i, std::uint32_t tile, std::uint32_t lane) const;

  const ArenaView& to_;
  const Basis& basis_;
  bool turns_;
  KeyTurner turner_;
  std::uint32_t count_ = 0;
  Candidate candidates_[kBatch];
  float outlier_scales_[kMaxOutlierChannels] = {};
  std::int8_t outliers_[kBatch * kMaxOutlierChannels];
  // In the arena: too large for a small device's stack.
  float* row_;                  // [head_dim]
  std::int8_t* levels_;         // [candidate][head_dim], of keys
  std::int8_t* values_;         // [candidate][head_dim]
  std::int32_t* dots_;          // [candidate][32]
  std::int32_t* outlier_dots_;  // [candidate][32]
  std::int32_t sums_[kBatch];
  std::int32_t outlier_sums_[kBatch];
};

// Prepares the key as a query of key_dots and outlier_dots.
void Batch::add_held_key(std::uint32_t i, const Place& at) {
  Candidate& candidate = candidates_[i];
  std::int8_t* levels = levels_ + i * dim();
  key_levels(to_, at.tile, at.lane, levels);
  candidate.energy = candidate.scale * candidate.scale * static_cast<float>(dot_of_codes(levels, levels, dim()));
  sums_[i] = sum_of_codes(levels, dim());
  if (channels() == 0) return;
  float weighed[kMaxOutlierChannels];
  for (std::uint32_t n = 0; n < channels(); ++n) {
    const auto code = static_cast<float>(to_.outliers(at.tile)[outlier_byte(at.lane, n)]);
    weighed[n] = code * outlier_scales_[n] * outlier_scales_[n];
    candidate.energy += code * weighed[n];
  }
  std::int8_t* outliers = outliers_ + i * channels();
  candidate.outlier_scale = to_.kernels().quantise_query(weighed, static_cast<int>(channels()), outliers);
  outlier_sums_[i] = sum_of_codes(outliers, channels());
}

// The key before rotary embedding, scaled to length 1.
// @returns false for a key of length 0
bool Batch::turn_key(const Place& at, float* row) const {
  restore_key(to_, basis_, at.tile, at.lane, row);
  turner_.turn(row, -std::int64_t{to_.position(at.tile, at.lane)});
  float energy = 0;
  for (std::uint32_t c = 0; c < dim(); ++c) energy += row[c] * row[c];
  const float norm = square_root(energy);
  if (!(norm >= ports::kSmallest)) return false;
  const float share = 1.0f / norm;
  for (std::uint32_t c = 0; c < dim(); ++c) row[c] *= share;
  return true;
}

void Batch::add_turned_key(std::uint32_t i, const Place& at) {
  float* row = row_;
  const bool any = turn_key(at, row);
  candidates_[i].energy = any ? 1.0f : 0.0f;
  for (std::uint32_t c = 0; c < dim(); ++c) to_.turned()[c * kBatch + i] = any ? row[c] : 0.0f;
}

void Batch::add(std::uint32_t slot, const Place& at) {
  const std::uint32_t i = count_++;
  Candidate& candidate = candidates_[i];
  candidate = {slot, from_scale16(to_.key_scales(at.tile)[at.lane]), 0, 0, 0, 0, 0};
  if (turns_) {
    add_turned_key(i, at);
  } else {
    add_held_key(i, at);
  }
  if (to_.policy().similarity != Similarity::kKey) {
    value_levels(to_, at.tile, at.lane, values_ + i * dim());
    candidate.value_energy = static_cast<float>(dot_of_codes(values_ + i * dim(), values_ + i * dim(), dim()));
  }
}

// Clamped at 0. The scales cancel out.
float Batch::value_cosine(const Candidate& candidate, std::uint32_t i, std::uint32_t tile, std::uint32_t lane) const {
  std::int8_t levels[kMaxHeadDim];
  value_levels(to_, tile, lane, levels);
  const auto dot = static_cast<float>(dot_of_codes(values_ + i * dim(), levels, dim()));
  if (!(dot > 0) || to_.value_scales(tile)[lane] == 0) return 0;
  return dot / square_root(candidate.value_energy * static_cast<float>(dot_of_codes(levels, levels, dim())));
}

// The dot products of all candidates with the keys that a tile holds.
void Batch::multiply(std::uint32_t tile) {
  const int count = static_cast<int>(count_);
  to_.key_kernels(tile).key_dots(to_.key_codes(tile), static_cast<int>(dim()), levels_, sums_, count, dots_);
  if (channels() != 0) {
    to_.kernels().outlier_dots(to_.outliers(tile), static_cast<int>(channels()), outliers_, outlier_sums_, count,
                               outlier_dots_);
  }
}

void Batch::find_energies(std::uint32_t tile, std::uint32_t* energies) const {
  float sums[kTileSlots];
  key_energies(to_, tile, sums);
  for (std::uint32_t t = 0; t < kTileSlots; ++t) {
    const float scale = from_scale16(to_.key_scales(tile)[t]);
    float energy = scale * scale * sums[t];
    for (std::uint32_t n = 0; n < channels(); ++n) {
      const float outlier = static_cast<float>(to_.outliers(tile)[outlier_byte(t, n)]) * outlier_scales_[n];
      energy += outlier * outlier;
    }
    energies[t] = bits_from_float(energy);
  }
}

// A similarity is the square of the keys' cosine, clamped at 0, times the candidate's energy.
void Batch::consider(std::uint32_t i, float similarity, const Place& at, std::uint32_t centre) {
  Candidate& candidate = candidates_[i];
  if (to_.policy().similarity != Similarity::kKey) {
    const float value = value_cosine(candidate, i, at.tile, at.lane);
    const float key = to_.policy().similarity == Similarity::kValue ? candidate.energy : similarity;
    similarity = key * value * value;
  }
  if (similarity > candidate.best) {
    candidate.best = similarity;
    candidate.centre = centre;
  }
}

void Batch::compare_held(std::uint32_t tile, const std::uint32_t* held_energies, std::uint32_t lanes,
                         const std::uint32_t* target) {
  float scales[kTileSlots];
  float energies[kTileSlots];
  for (std::uint32_t t = 0; t < kTileSlots; ++t) {
    scales[t] = from_scale16(to_.key_scales(tile)[t]);
    energies[t] = float_from_bits(held_energies[t]);
    if (!(energies[t] >= ports::kSmallest)) lanes &= ~(1u << t);
    if ((lanes >> t & 1) == 0) energies[t] = kNobody;
  }
  multiply(tile);
  const bool keys_only = to_.policy().similarity == Similarity::kKey;
  for (std::uint32_t i = 0; i < count_; ++i) {
    // All lanes side by side, without branches, so that compilers can vectorise it. Below 0 for
    // keys that point apart.
    const std::int32_t* dots = dots_ + i * kTileSlots;
    const float scale = candidates_[i].scale;
    const float best = candidates_[i].best;
    float similarities[kTileSlots];
    std::uint32_t better = 0;
    const auto finish = [&](std::uint32_t t, float product) {
      similarities[t] = product * __builtin_fabsf(product) / energies[t];
      better += similarities[t] > best ? 1u : 0u;
    };
    if (channels() != 0) {
      const std::int32_t* more = outlier_dots_ + i * kTileSlots;
      const float outlier_scale = candidates_[i].outlier_scale;
      for (std::uint32_t t = 0; t < kTileSlots; ++t) {
        finish(t, static_cast<float>(dots[t]) * scales[t] * scale + static_cast<float>(more[t]) * outlier_scale);
      }
    } else {
      for (std::uint32_t t = 0; t < kTileSlots; ++t) finish(t, static_cast<float>(dots[t]) * scales[t] * scale);
    }
    if (keys_only && better == 0) continue;  // usually
    for (std::uint32_t t = 0; t < kTileSlots; ++t) {
      if ((lanes >> t & 1) == 0 || (keys_only && !(similarities[t] > candidates_[i].best))) continue;
      consider(i, similarities[t], {tile, t}, target[t]);
    }
  }
}

// Sums are in the order of the channels, candidates side by side.
void Batch::compare_turned(std::uint32_t tile, std::uint32_t lanes, const std::uint32_t* target) {
  float* row = row_;
  const float* keys = to_.turned();
  for (std::uint32_t t = 0; t < kTileSlots; ++t) {
    if ((lanes >> t & 1) == 0 || !turn_key({tile, t}, row)) continue;
    float dots[kBatch] = {};
    for (std::uint32_t c = 0; c < dim(); ++c) {
      for (std::uint32_t i = 0; i < count_; ++i) dots[i] += row[c] * keys[c * kBatch + i];
    }
    for (std::uint32_t i = 0; i < count_; ++i) {
      consider(i, dots[i] > 0 ? dots[i] * dots[i] : 0, {tile, t}, target[t]);
    }
  }
}

// The lanes of a tile that may become centres.
std::uint32_t centre_lanes(const Cursor& in, const Droppable& centres, const std::uint32_t* target) {
  const std::uint32_t slot = in.first_slot();
  if (!centres.any_from(slot, kTileSlots)) return 0;
  std::uint32_t lanes = 0;
  for (std::uint32_t t = 0; t < in.slots_in_tile(); ++t) {
    if (centres.has(slot + t) && target[slot + t] < kMember) lanes |= 1u << t;
  }
  return lanes;
}

void Batch::compare(const Cursor& in, const std::uint32_t* energies, const Droppable& centres,
                    const std::uint32_t* target) {
  const std::uint32_t tile = in.tile;
  const std::uint32_t slot = in.first_slot();
  const std::uint32_t lanes = centre_lanes(in, centres, target);
  if (lanes == 0) return;
  if (turns_) {
    compare_turned(tile, lanes, target + slot);
  } else {
    compare_held(tile, energies + slot, lanes, target + slot);
  }
}

// The smallest score of a candidate: of the slots that may be dropped, those above it hold
// `policy.candidate_mass` of the importance.
std::uint32_t least_candidate(const Policy& policy, const std::uint32_t* score, const Droppable& inner) {
  if (policy.candidate_mass == 0) return 0;
  const auto mass_from = [&](std::uint32_t limit) {
    std::uint64_t mass = 0;
    inner.each([&](std::uint32_t i) { mass += score[i] >= limit ? score[i] : 0; });
    return mass;
  };
  const std::uint64_t wanted = mass_from(0) / 256 * policy.candidate_mass;
  return largest_that([&](std::uint32_t limit) { return mass_from(limit) >= wanted; });
}

}  // namespace

void assign_members(const ArenaView& to, const Chain& chain, std::uint32_t layer, std::uint32_t kv_head,
                    const PlanArrays& arrays, std::uint32_t* target) {
  const Policy& policy = to.policy();
  const Basis basis(to, layer, kv_head);
  const std::uint32_t* links = to.links();
  const Droppable inner(to, chain);
  const std::uint32_t least = least_candidate(policy, arrays.score, inner);
  // Until the threshold is known, these arrays hold the candidates' cosines, as bit patterns, and
  // arrays.next their classes.
  std::uint32_t* cosines = arrays.first;
  Batch batch(to, basis);
  std::uint32_t* energies = arrays.rank;  // no longer needed: it is known which slots stay
  if (!policy.position_free) {
    for (Cursor each = to.first_slot(chain); each.any(); each.next_tile(links)) {
      if (centre_lanes(each, inner, target) == 0) continue;  // not compared with
      const std::uint32_t ahead = links[each.tile];
      if (ahead != kNoTile) prefetch(to.key_codes(ahead), to.key_bytes(to.pool_of(ahead)));
      batch.find_energies(each.tile, energies + each.first_slot());
    }
  }
  float cosine_sum = 0;
  std::uint32_t candidates = 0;
  const auto flush = [&] {
    for (Cursor each = to.first_slot(chain); each.any(); each.next_tile(links)) {
      batch.compare(each, energies, inner, target);
    }
    for (std::uint32_t i = 0; i < batch.count(); ++i) {
      const Candidate& candidate = batch[i];
      const bool any = candidate.best > 0 && candidate.energy >= ports::kSmallest;
      const float cosine = any ? square_root(candidate.best / candidate.energy) : 0;
      cosines[candidate.slot] = bits_from_float(cosine);
      arrays.next[candidate.slot] = any ? kMember + candidate.centre : kDrop;
      cosine_sum += cosine;
      ++candidates;
    }
    batch.clear();
  };
  to.each_slot(chain, [&](std::uint32_t i, const Place& at) {
    arrays.next[i] = kDrop;
    if (target[i] != kDrop || arrays.score[i] < least) return;
    batch.add(i, at);
    if (batch.count() == kBatch) flush();
  });
  if (batch.count() != 0) flush();
  const float threshold = policy.mean_threshold ? (candidates != 0 ? cosine_sum / static_cast<float>(candidates) : 0)
                                                : static_cast<float>(policy.threshold) / 256.0f;
  for (std::uint32_t i = 0; i < chain.used; ++i) {
    if (target[i] == kDrop && arrays.next[i] != kDrop && float_from_bits(cosines[i]) >= threshold) {
      target[i] = arrays.next[i];
    }
  }
}

}  // namespace nibkv
