#include "nibkv/score.hpp"

#include "attention/class_mass.hpp"
#include "attention/score_rows.hpp"

namespace nibkv {
namespace {

// A weight of 1 in units of the scores, as a power of two.
constexpr std::int32_t kGlobalOne = 24;
constexpr std::int32_t kLocalOne = 14;

// The factor of a row's weights: weight * 2^(the tile's exponent) * share * 2^exponent
// is in units of 2^-24.
struct Fraction {
  std::int32_t share;  // [2^14, 2^15)
  std::int32_t exponent;
};

Fraction share_of(const RowState& state, std::uint32_t heads) {
  // weight * 2^(e - E) / (mass * 2^-24), times 2^24 for the units: 2^48 / mass. The mass is m * 2^k
  // with m in [2^15, 2^16).
  std::int32_t k = 0;
  std::uint64_t mass = state.mass;
  for (; mass >= std::uint64_t{1} << 32; mass >>= 1) ++k;
  mass *= heads;  // below 2^42
  for (; mass >= 65536; mass >>= 1) ++k;
  for (; mass < 32768; mass <<= 1) --k;
  const auto inverse = static_cast<std::int32_t>(((std::uint32_t{1} << 30) + (mass >> 1)) / mass);  // (2^14, 2^15]
  return {inverse < 32767 ? inverse : 32767, 2 * kGlobalOne - 30 - k - state.exponent};
}

// Attention in units of what each slot would get if all got the same: a row counts by the number of tokens that its
// slots stand for.
class UniformShares {
 public:
  UniformShares(const ArenaView& to, const Chain& chain) : members_(chain.members_mass) {
    if (has_masses(to.policy())) places_ = kMassPlaces;
    while (std::uint64_t{1} << capacity_ < std::uint64_t{to.layout().chain_tiles} * kTileSlots) ++capacity_;
  }
  /// A share times the number of tokens, in units of the most that a chain's slots can stand for: at most what it was.
  Fraction of(const Fraction& share, std::uint32_t slots) const {
    std::uint64_t tokens = (std::uint64_t{slots} << 8) + members_;  // below 2^35
    std::int32_t exponent = share.exponent - 8 - capacity_ - places_;
    for (; tokens >= std::uint64_t{1} << 32; tokens >>= 1) ++exponent;
    tokens *= static_cast<std::uint32_t>(share.share);
    for (; tokens >= 32768; tokens = (tokens + 1) >> 1) ++exponent;
    for (; tokens < 16384; tokens <<= 1) --exponent;
    return {static_cast<std::int32_t>(tokens < 32767 ? tokens : 32767), exponent};
  }
  /// Binary places that scores have lost to the biases.
  std::int32_t places() const { return places_; }

 private:
  static constexpr std::int32_t kMassPlaces = 2;
  static_assert(kClassMasses.at[kMostBias] == 256 << kMassPlaces);
  std::uint32_t members_;
  std::int32_t capacity_ = 0;
  std::int32_t places_ = 0;
};

// Makes sure that no global score can overflow when `queries` more are added, except those of the
// sinks, which are never dropped: all scores are halved together as often as necessary.
void make_headroom(const ArenaView& to, Chain& chain, std::uint32_t queries) {
  // A weight of 1, plus what rounding the shares and the factors may add to it (2^-13 and 2^-10
  // of it: a factor has 10 bits or more if 16 rows share the sum), plus the last rounding.
  const auto most_more = [&] {
    const std::uint64_t one = (std::uint64_t{1} << kGlobalOne) + (std::uint64_t{1} << (kGlobalOne - 9));
    return queries * ((one >> (chain.exponent < 31 ? chain.exponent : 31)) + 1);
  };
  if (chain.heaviest + most_more() > 0xffffffff) {
    std::uint32_t heaviest = 0;
    const std::uint32_t own = to.own(chain).begin;
    to.each_slot(chain, [&](std::uint32_t slot, const Place& at) {
      const std::uint32_t score = to.global(at.tile)[at.lane];
      const bool sink = slot >= own && slot - own < to.policy().sinks;
      if (!sink && score > heaviest) heaviest = score;
    });
    std::uint32_t halvings = 0;
    for (; (heaviest >> halvings) + most_more() > 0xffffffff; ++halvings) ++chain.exponent;
    chain.heaviest = heaviest >> halvings;
    if (halvings != 0) {
      for (Cursor each = to.first_slot(chain); each.any(); each.next_tile(to.links())) {
        for (std::uint32_t lane = 0; lane < kTileSlots; ++lane) to.global(each.tile)[lane] >>= halvings;
      }
    }
  }
  NIBKV_ASSERT(chain.heaviest + most_more() <= 0xffffffff);
  chain.heaviest += static_cast<std::uint32_t>(most_more());
}

}  // namespace

void score_rows(const ArenaView& to, Chain& chain, const ScoredRows& rows) {
  const Policy& policy = to.policy();
  const std::uint32_t group = to.shape().group();
  const bool mean = policy.group == Group::kMean;
  Fraction shares[kMaxRows];
  for (std::int32_t i = 0; i < rows.count; ++i) shares[i] = share_of(rows.states[i], mean ? group : 1);
  std::int32_t local_places = kGlobalOne - kLocalOne;
  if (keeps_global(policy) && policy.per_query) {
    const UniformShares uniform(to, chain);
    for (std::int32_t i = 0; i < rows.count; ++i) shares[i] = uniform.of(shares[i], rows.limits[i]);
    local_places -= uniform.places();
  }
  std::int32_t headroom = 0;  // extra bits that the sum over all rows may need
  while (1 << headroom < rows.count) ++headroom;
  if (keeps_global(policy)) {
    make_headroom(to, chain, (static_cast<std::uint32_t>(rows.count) + group - 1) / group);
  }
  TileScores scores{};
  scores.group = mean ? 1 : static_cast<int>(group);
  std::int16_t factors[kMaxRows];
  Cursor each = to.first_slot(chain);
  for (std::uint32_t k = 0; k < rows.tiles; ++k, each.next_tile(to.links())) {
    const std::uint32_t tile = each.tile;
    const std::int32_t* exponents = rows.exponents + k * static_cast<std::uint32_t>(rows.count);
    std::int32_t top = -(1 << 30);
    for (std::int32_t i = 0; i < rows.count; ++i) {
      if (exponents[i] != kUnseen && exponents[i] + shares[i].exponent > top) top = exponents[i] + shares[i].exponent;
    }
    for (std::int32_t i = 0; i < rows.count; ++i) {
      const std::int32_t down = exponents[i] == kUnseen ? 31 : top - (exponents[i] + shares[i].exponent) + headroom;
      factors[i] = static_cast<std::int16_t>(down < 16 ? (shares[i].share + (1 << down >> 1)) >> down : 0);
    }
    // The attention is in units of 2^-(24 + shift). A weight is at most 1, so the shift is not negative.
    const std::int32_t shift = -(top + headroom);
    const auto within = [](std::int32_t places) { return places < 31 ? places > 0 ? places : 0 : 31; };
    scores.global_shift = within(shift + static_cast<std::int32_t>(chain.exponent < 31 ? chain.exponent : 31));
    scores.local_shift = 31;  // nothing
    scores.global = keeps_global(policy) ? to.global(tile) : nullptr;
    scores.local = keeps_local(policy) ? to.local(tile) : nullptr;
    scores.fade = rows.fade;
    scores.softmax = rows.softmax + k * static_cast<std::uint32_t>(rows.count) * kTileSlots;
    scores.factors = factors;
    scores.count = rows.local_from;
    if (rows.local_from != 0) {
      to.kernels().add_scores(scores);
      scores.fade = 0;
    }
    if (rows.local_from == rows.count) continue;
    scores.local_shift = within(shift + local_places);
    scores.softmax += rows.local_from * static_cast<std::int32_t>(kTileSlots);
    scores.factors += rows.local_from;
    scores.count = rows.count - rows.local_from;
    to.kernels().add_scores(scores);
  }
}

Status explain(const Cache& cache, std::uint32_t layer, std::uint32_t kv_head, std::span<SlotInfo> slots) {
  if (!cache.ready()) return Status::kNotReady;
  const ArenaView to{cache};
  if (layer >= to.shape().layers || kv_head >= to.shape().kv_heads) return Status::kBadArgument;
  const Chain& chain = to.chain(layer, kv_head);
  if (slots.size() != chain.used) return Status::kBadArgument;
  const Policy& policy = to.policy();
  to.each_slot(chain, [&](std::uint32_t i, const Place& at) {
    SlotInfo info;
    if (policy.keep == Keep::kScore) {
      info.position = to.position(at.tile, at.lane);
    } else if (i < to.unordered(chain)) {
      info.position = kNoPosition;
    } else {
      info.position = i < policy.sinks ? i : chain.seen - chain.used + i;
    }
    if (keeps_global(policy)) info.global = to.global(at.tile)[at.lane];
    if (keeps_local(policy)) info.local = to.local(at.tile)[at.lane];
    if (merges(policy)) {
      info.bias = to.bias(at.tile)[at.lane];
      info.merged = to.merged(at.tile)[at.lane];
    }
    slots[i] = info;
  });
  return Status::kOk;
}

}  // namespace nibkv
