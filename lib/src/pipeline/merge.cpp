#include "codec/merger.hpp"
#include "fold/close_folded_gaps.hpp"
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

// Raises the bias of a centre for its members, and with it its scores: they become those of the class.
void raise_bias(const ArenaView& to, const Place& centre, float ratio) {
  if (!(ratio > 1)) return;
  std::uint8_t& bias = to.bias(centre.tile)[centre.lane];
  const auto steps = static_cast<std::uint32_t>(binary_logarithm(ratio) * kBiasSteps + 0.5f);
  const std::uint32_t before = bias;
  bias = static_cast<std::uint8_t>(steps < kMostBias - before ? before + steps : kMostBias);
  const auto raised = [&](std::uint64_t score, std::uint64_t most) {
    score = score * kClassMasses.at[bias] / kClassMasses.at[before];
    return score < most ? score : most;
  };
  if (keeps_global(to.policy())) {
    std::uint32_t& score = to.global(centre.tile)[centre.lane];
    score = static_cast<std::uint32_t>(raised(score, 0xffffffff));
  }
  if (keeps_local(to.policy())) {
    std::uint16_t& score = to.local(centre.tile)[centre.lane];
    score = static_cast<std::uint16_t>(raised(score, 0xffff));
  }
}

// A chain whose slots are merged.
struct Merging {
  Chain& chain;
  std::uint32_t layer;
  std::uint32_t kv_head;
  std::uint32_t* score;
  std::uint32_t* tiles;  // in slot order
  Segments segments;

  Place at(std::uint32_t slot) const {
    const std::uint32_t* of_segment = tiles;
    std::uint32_t i = 0;
    for (; slot >= segments.at[i].end(); ++i) of_segment += tiles_of(segments.at[i].slots);
    const std::uint32_t in_segment = slot - segments.at[i].begin;
    return {of_segment[in_segment / kTileSlots], in_segment % kTileSlots};
  }
};

Merging start_merging(const ArenaView& to, std::uint32_t layer, std::uint32_t kv_head, std::uint32_t* score,
                      std::uint32_t* tiles) {
  Chain& chain = to.chain(layer, kv_head);
  std::uint32_t count = 0;
  for (Cursor each = to.first_slot(chain); each.any(); each.next_tile(to.links())) tiles[count++] = each.tile;
  return {chain, layer, kv_head, score, tiles, to.segments(chain)};
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
void add_class(const ArenaView& to, const Merging& in, Merger& merger, std::uint32_t slot, std::uint32_t member,
               const std::uint32_t* next) {
  const Place centre = in.at(slot);
  const std::int64_t position = to.position(centre.tile, centre.lane);
  merger.start();
  merger.add(centre, weight_of(in, slot), 0);
  for (; member != kNone; member = next[member]) {
    const Place from = in.at(member);
    merger.add(from, weight_of(in, member), position - std::int64_t{to.position(from.tile, from.lane)});
  }
}

// Merges the members of one layer. Of codes that another layer shares, only what
// is each layer's own.
void merge_layer(const ArenaView& to, const Merging& in, const std::uint32_t* target, const PlanArrays& arrays) {
  const Policy& policy = to.policy();
  const Basis basis(to, in.layer, in.kv_head);
  const KeyRefiner refiner(to, basis, to.refining());
  Merger merger(to, basis);
  for (std::uint32_t i = 0; i < in.chain.used; ++i) {
    if (target[i] >= kMember || arrays.first[target[i]] == kNone) continue;
    const Place centre = in.at(i);
    const Weight weight = weigh_class(in, i, arrays.first[target[i]], arrays.next);
    if (weight.changes_rows()) {
      add_class(to, in, merger, i, arrays.first[target[i]], arrays.next);
      merger.finish(centre, refiner);
      forget_distance(to, in.layer, in.kv_head, i);
    }
    const float own_count = static_cast<float>(to.merged(centre.tile)[centre.lane]) + 1.0f;
    float count = own_count;
    for (std::uint32_t member = arrays.first[target[i]]; member != kNone; member = arrays.next[member]) {
      const Place from = in.at(member);
      count += static_cast<float>(to.merged(from.tile)[from.lane]) + 1.0f;
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
  SharedMerge(const ArenaView& to, const Merging (&in)[2])
      : to_(to),
        in_(in),
        bases_{Basis(to, in[0].layer, in[0].kv_head), Basis(to, in[1].layer, in[1].kv_head)},
        mergers_{Merger(to, bases_[0]), Merger(to, bases_[1])} {}

  void run(const std::uint32_t* target, const PlanArrays& arrays) {
    const bool keys = to_.policy().fold.keys.has(in_[0].layer) && to_.policy().merge == Merge::kBoth;
    const bool values = to_.policy().fold.values.has(in_[0].layer);
    const std::uint32_t shared = folded_part(to_, in_[0].chain).used;
    for (std::uint32_t i = 0; i < shared; ++i) {
      if (target[i] >= kMember || arrays.first[target[i]] == kNone) continue;
      if (values) fold_class(i, arrays.first[target[i]], arrays.next, false);
      if (keys) fold_class(i, arrays.first[target[i]], arrays.next, true);
    }
  }

 private:
  void fold_class(std::uint32_t slot, std::uint32_t member, const std::uint32_t* next, bool keys);

  const ArenaView& to_;
  const Merging (&in_)[2];
  Basis bases_[2];
  Merger mergers_[2];
};

// A layer in which the members weigh little contributes its row unchanged.
void SharedMerge::fold_class(std::uint32_t slot, std::uint32_t member, const std::uint32_t* next, bool keys) {
  const Place at[2] = {in_[0].at(slot), in_[1].at(slot)};
  SharedRow row(to_, at, keys);
  bool changed = false;
  for (std::uint32_t w = 0; w < 2; ++w) {
    if (!weigh_class(in_[w], slot, member, next).changes_rows()) continue;
    add_class(to_, in_[w], mergers_[w], slot, member, next);
    if (keys) {
      if (!mergers_[w].encode_key(at[w], nullptr, row.codes[w], row.scales[w])) continue;
    } else {
      row.scales[w] = mergers_[w].encode_value(at[w], row.codes[w]);
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

void merge_members(const ArenaView& to, std::uint32_t layer, std::uint32_t kv_head, const std::uint32_t* target,
                   const PlanArrays& arrays) {
  const std::uint32_t used = to.chain(layer, kv_head).used;
  if (!has_members({target, used})) return;
  list_members(used, target, arrays);
  const Band band = band_of(to, layer);
  if (band.layers == 1) {
    merge_layer(to, start_merging(to, layer, kv_head, arrays.score, arrays.rank), target, arrays);
    return;
  }
  // Planning left the sums of both layers here.
  score_slots(to, to.chain(band.first, kv_head), band.first, kv_head, arrays.score);
  score_slots(to, to.chain(band.first + 1, kv_head), band.first + 1, kv_head, arrays.other);
  const Merging both[2] = {
      start_merging(to, band.first, kv_head, arrays.score, arrays.rank),
      start_merging(to, band.first + 1, kv_head, arrays.other, arrays.rank + to.layout().chain_tiles)};
  SharedMerge(to, both).run(target, arrays);
  for (const Merging& each : both) merge_layer(to, each, target, arrays);
}

}  // namespace nibkv
