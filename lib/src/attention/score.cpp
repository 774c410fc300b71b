#include "nibkv/score.hpp"

#include <bit>

#include "attention/class_mass.hpp"
#include "attention/score_rows.hpp"

namespace nibkv {
namespace {

// How many bits a number has; `int` in each version of the standard library.
std::int32_t bits_of(std::uint64_t number) {
  return static_cast<std::int32_t>(std::bit_width(number));
}

// A weight of 1 in units of the scores, as a power of two.
constexpr std::int32_t kGlobalOne = 24;
constexpr std::int32_t kLocalOne = 14;

// In place of the octaves of a tile that a row does not see: 16 or more below those of any other.
constexpr std::int32_t kFarBelow = -(5 << 28);

// The factor of a row's weights: weight * 2^(the tile's exponent) * share * 2^exponent
// is in units of 2^-24.
struct Fraction {
  std::int32_t share;  // [2^14, 2^15)
  std::int32_t exponent;
};

Fraction share_of(const RowState& state, std::uint32_t heads) {
  // weight * 2^(e - E) / (mass * 2^-24), times 2^24 for the units: 2^48 / mass. The mass is m * 2^k
  // with m in [2^15, 2^16).
  std::uint64_t mass = state.mass;
  const std::int32_t above = bits_of(mass) - 32;
  std::int32_t k = above > 0 ? above : 0;
  mass = (mass >> k) * heads;  // below 2^42
  const std::int32_t more = bits_of(mass) - 16;
  k += more;
  mass = more > 0 ? mass >> more : mass << -more;
  const auto inverse = static_cast<std::int32_t>(((std::uint32_t{1} << 30) + (mass >> 1)) / mass);  // (2^14, 2^15]
  return {inverse < 32767 ? inverse : 32767, 2 * kGlobalOne - 30 - k - state.exponent};
}

// Attention in units of what each slot would get if all got the same: a row counts by the number of tokens that its
// slots stand for.
class UniformShares {
 public:
  UniformShares(const ArenaView& to, const Chain& chain) : members_(chain.members_mass) {
    if (has_masses(to.policy())) places_ = kMassPlaces;
    capacity_ = bits_of(std::uint64_t{to.layout().chain_tiles} * kTileSlots - 1);
  }
  /// A share times the number of tokens, in units of the most that a chain's slots can stand for: at most what it was.
  Fraction of(const Fraction& share, std::uint32_t slots) const {
    std::uint64_t tokens = (std::uint64_t{slots} << 8) + members_;  // below 2^35
    std::int32_t exponent = share.exponent - 8 - capacity_ - places_;
    const std::int32_t above = bits_of(tokens) - 32;
    if (above > 0) tokens >>= above;
    tokens *= static_cast<std::uint32_t>(share.share);  // at least 2^22
    const std::int32_t more = bits_of(tokens) - 15;
    exponent += (above > 0 ? above : 0) + more;
    tokens = (tokens + (std::uint64_t{1} << more) - 1) >> more;  // rounded up, to 2^15 at most
    if (tokens == 32768) return {16384, exponent + 1};
    return {static_cast<std::int32_t>(tokens), exponent};
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
    const std::uint32_t own = to.sinks_from(chain);
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
  std::int32_t octaves[kMaxRows];
  // What stays the same from tile to tile, which compilers cannot know.
  const std::int32_t count = rows.count;
  const std::uint32_t* const links = to.links();
  const bool global = keeps_global(policy), local = keeps_local(policy);
  const std::uint32_t global_at = to.layout().side.global, local_at = to.layout().side.local;
  const std::int32_t halved = static_cast<std::int32_t>(chain.exponent < 31 ? chain.exponent : 31);
  const std::int32_t* exponents = rows.exponents;
  const std::uint16_t* softmax = rows.softmax;
  Cursor each = to.first_slot(chain);
  for (std::uint32_t k = 0; k < rows.tiles;
       ++k, each.next_tile(links), exponents += count, softmax += count * static_cast<std::int32_t>(kTileSlots)) {
    std::int32_t top = -(1 << 30);
    for (std::int32_t i = 0; i < count; ++i) {
      octaves[i] = exponents[i] == kUnseen ? kFarBelow : exponents[i] + shares[i].exponent;
      top = octaves[i] > top ? octaves[i] : top;
    }
    for (std::int32_t i = 0; i < count; ++i) {
      const std::int32_t down = top - octaves[i] + headroom;
      factors[i] = static_cast<std::int16_t>(down < 16 ? (shares[i].share + (1 << down >> 1)) >> down : 0);
    }
    // The attention is in units of 2^-(24 + shift). A weight is at most 1, so the shift is not negative.
    const std::int32_t shift = -(top + headroom);
    const auto within = [](std::int32_t places) { return places < 31 ? places > 0 ? places : 0 : 31; };
    scores.global_shift = within(shift + halved);
    scores.local_shift = 31;  // nothing
    std::byte* const side = to.side(each.tile);
    scores.global = global ? in_place<std::uint32_t>(side + global_at) : nullptr;
    scores.local = local ? in_place<std::uint16_t>(side + local_at) : nullptr;
    scores.fade = rows.fade;
    scores.softmax = softmax;
    scores.factors = factors;
    scores.count = rows.local_from;
    if (rows.local_from != 0) {
      to.kernels().add_scores(scores);
      scores.fade = 0;
    }
    if (rows.local_from == count) continue;
    scores.local_shift = within(shift + local_places);
    scores.softmax += rows.local_from * static_cast<std::int32_t>(kTileSlots);
    scores.factors += rows.local_from;
    scores.count = count - rows.local_from;
    to.kernels().add_scores(scores);
  }
  // Slots that none of the rows sees fade, too.
  for (; local && rows.fade != 0 && each.any(); each.next_tile(links)) {
    std::uint16_t* const faded = to.local(each.tile);
    for (std::uint32_t lane = 0; lane < kTileSlots; ++lane)
      faded[lane] = static_cast<std::uint16_t>(faded[lane] - ((faded[lane] * rows.fade + 65535) >> 16));
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
      info.position = keeps_log(policy) ? recalled_position(to, chain, i) : kNoPosition;
    } else {
      info.position = to.position_in_order(chain, i);
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
