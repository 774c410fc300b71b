#include "arena/budget.hpp"

#include "numbers/numbers.hpp"

namespace nibkv {
namespace {

constexpr std::uint32_t kPyramidBeta = 20;
constexpr std::uint32_t kFloorShare = 5;  // a competing head has at least 1 / 5 of the mean

// What the rules of FastGen keep of a text: a few special tokens; punctuation, an eighth; the newest and the most
// attended 30 % each. In 1/32 of it.
constexpr std::uint8_t kRuleShares[] = {1, 5, 15, 24, 32};

// Only the whole tiles of a mean of `tokens` are distributed. The rest is added to every head's
// budget. So differing budgets add up to the same total as equal ones, and need as many tiles.
std::uint32_t rest_of(std::uint32_t tokens) {
  return tokens % kTileSlots;
}

// The minimum of whole tiles of a head: together with the rest, they hold what is always
// kept and one more slot.
std::uint32_t least_tiles(const Policy& policy, Budget how, std::uint32_t tokens) {
  const std::uint32_t mean = tokens / kTileSlots;
  const std::uint32_t smallest = detail::smallest_budget(policy);
  const std::uint32_t least = smallest > rest_of(tokens) ? tiles_of(smallest - rest_of(tokens)) : 0;
  const std::uint32_t floor = how == Budget::kPyramid ? 0 : tokens / kFloorShare / kTileSlots;
  const std::uint32_t larger = least > floor ? least : floor;
  return larger < mean ? larger : mean;
}

// The heads of layers with wider codes, or those of the others: both share budgets among themselves.
struct HeadGroup {
  const ArenaView& to;
  bool wide;

  // Calls visit(layer) for its layers in order, visit(layer, kv_head, chain) for its heads.
  template <typename Visit>
  void each_layer(Visit visit) const {
    for (std::uint32_t layer = 0; layer < to.shape().layers; ++layer) {
      if (to.is_wide_layer(layer) == wide) visit(layer);
    }
  }
  template <typename Visit>
  void each_head(Visit visit) const {
    each_layer([&](std::uint32_t layer) {
      for (std::uint32_t head = 0; head < to.shape().kv_heads; ++head) visit(layer, head, to.chain(layer, head));
    });
  }
  std::uint64_t heads() const {
    const std::uint64_t wider = detail::wide_heads(to.shape(), to.policy());
    return wide ? wider : to.heads() - wider;
  }
};

std::uint32_t most_tiles(const HeadGroup& group, std::uint32_t mean) {
  const std::uint32_t most = group.to.policy().most;
  return mean * (group.heads() < most ? static_cast<std::uint32_t>(group.heads()) : most);
}

// Tiles to distribute above the minimum.
class Sharing {
 public:
  Sharing(const HeadGroup& group, Budget how, std::uint32_t tokens)
      : group_(group),
        rest_(rest_of(tokens)),
        mean_(tokens / kTileSlots),
        floor_(least_tiles(group.to.policy(), how, tokens)),
        room_(most_tiles(group, mean_) - floor_),
        left_(group.heads() * std::uint64_t{mean_ - floor_}) {}

  std::uint32_t floor() const { return floor_; }
  std::uint32_t room() const { return room_; }  // above the minimum, for each head
  std::uint64_t left() const { return left_; }

  // The budget of a head above the minimum, as far as its room and what is left go.
  void give(Chain& chain, std::uint64_t tiles) {
    std::uint64_t given = tiles < room_ ? tiles : room_;
    if (given > left_) given = left_;
    chain.budget = static_cast<std::uint32_t>(floor_ + given) * kTileSlots + rest_;
    left_ -= given;
  }
  // Distributes what rounding and the limit left, beginning with the first head.
  void finish() {
    for (bool any = true; left_ != 0 && any;) {
      any = false;
      group_.each_head([&](std::uint32_t, std::uint32_t, Chain& chain) {
        if (left_ == 0 || chain.budget / kTileSlots >= floor_ + room_) return;
        chain.budget += kTileSlots;
        --left_;
        any = true;
      });
    }
  }

 private:
  const HeadGroup& group_;
  std::uint32_t rest_, mean_, floor_, room_;
  std::uint64_t left_;
};

// Each chain's budget is its weight before, in any unit.
void share_by_weights(const HeadGroup& group, Sharing& sharing) {
  const std::uint64_t extra = sharing.left();
  std::uint64_t sum = 0;
  group.each_head([&](std::uint32_t, std::uint32_t, const Chain& chain) { sum += chain.budget; });
  group.each_head([&](std::uint32_t, std::uint32_t, Chain& chain) {
    sharing.give(chain, sum != 0 ? extra * chain.budget / sum : 0);
  });
  sharing.finish();
}

std::uint32_t head_score(const ArenaView& to, std::uint32_t layer, std::uint32_t kv_head) {
  return to.profile().empty() ? 0 : to.profile().head(layer, kv_head).head_score;
}

// A head's share of what is left above the minimum.
std::uint32_t weight_of(const ArenaView& to, Budget how, std::uint32_t layer, std::uint32_t kv_head) {
  if (how == Budget::kScores || how == Budget::kAnyScores) return head_score(to, layer, kv_head);
  if (how == Budget::kRules) return kRuleShares[static_cast<std::uint8_t>(rule_of(to, layer, kv_head))];
  // From (2 - 1 / beta) times the mean in the first layer down to 1 / beta of it in the last.
  const std::uint32_t last = to.shape().layers > 1 ? to.shape().layers - 1u : 1;
  return (2 * kPyramidBeta - 1) * last - (2 * kPyramidBeta - 2) * layer;
}

// The score of the head that comes after the `count` with the largest ones; 0 if there is none. Of equal ones the first
// ones count.
std::uint32_t score_after(const HeadGroup& group, std::uint64_t count) {
  return largest_that([&](std::uint32_t least) {
    std::uint64_t heads = 0;
    group.each_head([&](std::uint32_t layer, std::uint32_t head, const Chain&) {
      heads += head_score(group.to, layer, head) >= least ? 1 : 0;
    });
    return heads > count;
  });
}

// The heads with the largest scores take as much as a chain can hold, the others the least.
void share_by_rank(const HeadGroup& group, Sharing& sharing) {
  const std::uint32_t limit = score_after(group, sharing.room() != 0 ? sharing.left() / sharing.room() : 0);
  for (const std::uint32_t above : {1u, 0u}) {
    group.each_head([&](std::uint32_t layer, std::uint32_t head, Chain& chain) {
      const std::uint32_t score = head_score(group.to, layer, head);
      if ((score > limit) == (above != 0)) sharing.give(chain, score < limit ? 0 : sharing.room());
    });
  }
  sharing.finish();
}

// Tokens of all heads that hold a share of a layer's attention: a place on their curves, in 1/256 of a point.
std::uint64_t tokens_at(const ArenaView& to, std::uint32_t layer, std::uint32_t place, void*) {
  std::uint64_t sum = 0;
  for (std::uint32_t head = 0; head < to.shape().kv_heads; ++head) {
    const HeadAttention attention = to.profile().attention(layer, head);
    const std::uint32_t point = place / 256;
    const std::uint32_t below = point == 0 ? 0 : attention.tokens[point - 1];
    const std::uint32_t above = point == kAttentionPoints ? below : attention.tokens[point];
    sum += below + (above - below) * (place % 256) / 256;
  }
  return sum;
}

// Whether budgets of whole tiles are in range, and fit the arena together.
template <typename BudgetOf>
bool fit(const Shape& shape, const Policy& policy, const Layout& layout, BudgetOf budget_of) {
  const std::uint64_t heads = detail::all_heads(shape);
  const std::uint64_t wider = detail::wide_heads(shape, policy);
  const std::uint32_t slack = detail::slack_tiles(shape, policy);
  const std::uint32_t most = layout.chain_tiles - detail::tail_tiles(shape, policy) - detail::faint_tiles(policy);
  std::uint64_t tiles[2] = {};  // of layers with wider codes last
  for (std::size_t i = 0; i < heads; ++i) {
    const std::uint32_t budget = budget_of(i);
    if (budget < detail::smallest_budget(policy)) return false;
    const std::uint32_t kept = detail::kept_of(policy, budget);
    const std::uint32_t whole = has_tiers(policy) ? tiles_of(kept) : kept / kTileSlots;  // without a tail, beside slack
    if (whole > most - slack) return false;
    tiles[policy.wide.has(static_cast<std::uint32_t>(i / shape.kv_heads)) ? 1 : 0] += whole;
  }
  const std::uint64_t mean = layout.tiles_per_head - slack;
  return tiles[0] <= (heads - wider) * mean && tiles[1] <= wider * mean;
}

}  // namespace

Status check_budgets(const Shape& shape, const Policy& policy, const Layout& layout, const ProfileView& profile,
                     std::span<const std::uint32_t> table) {
  if (!has_needed(policy.budget, profile)) return Status::kBadProfile;
  if (policy.budget != Budget::kTable) return Status::kOk;
  const std::uint64_t heads = std::uint64_t{shape.layers} * shape.kv_heads;
  if (table.size() != heads) return Status::kBadPolicy;
  const auto budget = [&](std::size_t i) { return table[i] / kTileSlots * kTileSlots; };
  return fit(shape, policy, layout, budget) ? Status::kOk : Status::kBadPolicy;
}

void set_budgets(const ArenaView& to, std::span<const std::uint32_t> table) {
  const Policy& policy = to.policy();
  for (std::size_t i = 0; i < to.heads(); ++i) {
    const bool own = policy.budget == Budget::kTable;
    to.chains()[i].budget = own ? table[i] / kTileSlots * kTileSlots : policy.tokens;
  }
  share_heads(to, policy.budget, policy.tokens);
}

bool sound_budgets(const ArenaView& to) {
  const Policy& policy = to.policy();
  const Budget how = policy.budget;
  if (how == Budget::kAdaptive) return true;
  const std::uint32_t rest = how == Budget::kTable ? 0 : rest_of(policy.tokens);
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < to.heads(); ++i) {
    const std::uint32_t budget = to.chains()[i].budget;
    const std::uint32_t recall = keeps_log(policy) && is_indexed(to, to.chains()[i]) ? policy.recall : 0;
    if (how == Budget::kUniform ? budget != policy.tokens - recall : budget % kTileSlots != rest) return false;
    sum += budget;
  }
  if (how == Budget::kUniform) return true;
  if (how != Budget::kTable && sum != to.heads() * std::uint64_t{policy.tokens}) return false;
  return fit(to.shape(), policy, to.layout(), [&](std::size_t i) { return to.chains()[i].budget; });
}

bool has_needed(Budget how, const ProfileView& profile) {
  if (how == Budget::kPrefix || how == Budget::kRules) return profile.has_attention();
  return !profile.empty() || (how != Budget::kScores && how != Budget::kRetrieval);
}

namespace {

void share_evenly(const HeadGroup& group, std::uint32_t tokens, std::uint32_t places, WantedTokens wanted,
                  void* context) {
  const ArenaView& to = group.to;
  Sharing sharing(group, Budget::kPrefix, tokens);
  const std::uint32_t least = sharing.floor() * kTileSlots;
  // Tokens of each head of a layer above the minimum.
  const auto more_of = [&](std::uint32_t layer, std::uint32_t place) {
    const auto mean = static_cast<std::uint32_t>(wanted(to, layer, place, context) / to.shape().kv_heads);
    return mean > least ? mean - least : 0;
  };
  std::uint32_t low = 0;
  std::uint32_t high = places + 1;
  while (high - low > 1) {
    const std::uint32_t middle = low + (high - low) / 2;
    std::uint64_t sum = 0;
    group.each_layer([&](std::uint32_t layer) { sum += more_of(layer, middle); });
    (sum * to.shape().kv_heads <= sharing.left() * kTileSlots ? low : high) = middle;
  }
  group.each_layer([&](std::uint32_t layer) {
    const std::uint32_t more = more_of(layer, low);
    for (std::uint32_t head = 0; head < to.shape().kv_heads; ++head) to.chain(layer, head).budget = more;
  });
  share_by_weights(group, sharing);
}

void share_in(const HeadGroup& group, Budget how, std::uint32_t tokens) {
  if (how == Budget::kPrefix) return share_evenly(group, tokens, kAttentionPoints * 256, tokens_at, nullptr);
  Sharing sharing(group, how, tokens);
  if (how == Budget::kRetrieval) return share_by_rank(group, sharing);
  group.each_head([&](std::uint32_t layer, std::uint32_t head, Chain& chain) {
    chain.budget = weight_of(group.to, how, layer, head);
  });
  share_by_weights(group, sharing);
}

// Calls visit(group) for those that have heads.
template <typename Visit>
void each_group(const ArenaView& to, Visit visit) {
  for (const bool wide : {false, true}) {
    const HeadGroup group{to, wide};
    if (group.heads() != 0) visit(group);
  }
}

}  // namespace

void share_heads(const ArenaView& to, Budget how, std::uint32_t tokens) {
  if (how == Budget::kUniform || how == Budget::kAdaptive || how == Budget::kTable) return;
  each_group(to, [&](const HeadGroup& group) { share_in(group, how, tokens); });
}

void share_evenly(const ArenaView& to, std::uint32_t tokens, std::uint32_t places, WantedTokens wanted, void* context) {
  each_group(to, [&](const HeadGroup& group) { share_evenly(group, tokens, places, wanted, context); });
}

HeadRule rule_of(const ArenaView& to, std::uint32_t layer, std::uint32_t kv_head) {
  const HeadAttention attention = to.profile().attention(layer, kv_head);
  std::uint8_t rule = 0;
  while (rule < 4 && attention.recovered[rule] < to.policy().recovered * 256u) ++rule;
  return static_cast<HeadRule>(rule);
}

LayerShares layer_shares(const Policy& policy, std::uint32_t tokens) {
  const std::uint32_t mean = tokens / kTileSlots;
  return {least_tiles(policy, Budget::kAdaptive, tokens), mean * policy.most, mean, rest_of(tokens)};
}

void choose_indexed(const ArenaView& to) {
  const Policy& policy = to.policy();
  const std::uint32_t wanted = indexed_heads(to.shape(), policy);
  const HeadGroup all{to, false};
  const std::uint32_t limit = score_after(all, wanted);
  std::uint32_t equal = wanted;  // of those with just this score, how many have an index
  all.each_head([&](std::uint32_t layer, std::uint32_t head, const Chain&) {
    equal -= head_score(to, layer, head) > limit ? 1 : 0;
  });
  std::uint32_t next = 0;
  all.each_head([&](std::uint32_t layer, std::uint32_t head, Chain& chain) {
    const std::uint32_t score = head_score(to, layer, head);
    const bool last = score == limit && equal != 0;
    equal -= last ? 1 : 0;
    const bool chosen = score > limit || last;
    cold_head(to, chain) = {};
    cold_head(to, chain).index = chosen ? next++ : kNotIndexed;
    chain.budget = policy.tokens - (chosen ? policy.recall : 0);
  });
  NIBKV_ASSERT(next == wanted);
}

}  // namespace nibkv
