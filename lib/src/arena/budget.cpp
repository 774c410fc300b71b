#include "arena/budget.hpp"

namespace nibkv {
namespace {

constexpr std::uint32_t kPyramidBeta = 20;
constexpr std::uint32_t kFloorShare = 5;  // a competing head has at least 1 / 5 of the mean

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

// A head's share of what is left above the minimum, in any unit.
std::uint64_t weight_of(const ArenaView& to, Budget how, std::uint32_t layer, std::uint32_t kv_head) {
  if (how == Budget::kScores) return to.profile().head(layer, kv_head).head_score;
  // From (2 - 1 / beta) times the mean in the first layer down to 1 / beta of it in the last.
  const std::uint64_t last = to.shape().layers > 1 ? to.shape().layers - 1 : 1;
  return (2 * kPyramidBeta - 1) * last - std::uint64_t{2 * kPyramidBeta - 2} * layer;
}

void share_by_weights(const ArenaView& to, Budget how, std::uint32_t tokens) {
  const Shape& shape = to.shape();
  const std::uint64_t heads = std::uint64_t{shape.layers} * shape.kv_heads;
  const std::uint32_t mean = tokens / kTileSlots;
  const std::uint32_t floor = least_tiles(to.policy(), how, tokens);
  const std::uint32_t most = mean * static_cast<std::uint32_t>(heads < kMostBudget ? heads : kMostBudget);
  const std::uint64_t extra = heads * (mean - floor);
  std::uint64_t sum = 0;
  for (std::uint32_t layer = 0; layer < shape.layers; ++layer) {
    for (std::uint32_t head = 0; head < shape.kv_heads; ++head) sum += weight_of(to, how, layer, head);
  }
  std::uint64_t left = extra;
  for (std::uint32_t layer = 0; layer < shape.layers; ++layer) {
    for (std::uint32_t head = 0; head < shape.kv_heads; ++head) {
      const std::uint64_t share = sum != 0 ? extra * weight_of(to, how, layer, head) / sum : 0;
      const std::uint64_t room = most - floor;
      const std::uint64_t given = share < room ? share : room;
      to.chain(layer, head).budget = static_cast<std::uint32_t>(floor + given) * kTileSlots + rest_of(tokens);
      left -= given;
    }
  }
  // Distributes what rounding and the limit left, beginning with the first head.
  for (bool any = true; left != 0 && any;) {
    any = false;
    for (std::uint32_t i = 0; i < heads && left != 0; ++i) {
      Chain& chain = to.chains()[i];
      if (chain.budget / kTileSlots >= most) continue;
      chain.budget += kTileSlots;
      --left;
      any = true;
    }
  }
}

// Whether budgets of whole tiles are in range, and fit the arena together.
template <typename BudgetOf>
bool fit(const Shape& shape, const Policy& policy, const Layout& layout, BudgetOf budget_of) {
  const std::uint64_t heads = detail::all_heads(shape);
  const std::uint32_t slack = detail::slack_tiles(shape, policy);
  std::uint64_t tiles = 0;
  for (std::size_t i = 0; i < heads; ++i) {
    const std::uint32_t budget = budget_of(i);
    const std::uint32_t whole = budget / kTileSlots;
    if (budget < detail::smallest_budget(policy) || whole > layout.chain_tiles - slack) return false;
    tiles += whole;
  }
  return tiles <= heads * (layout.tiles_per_head - slack);
}

}  // namespace

Status check_budgets(const Shape& shape, const Policy& policy, const Layout& layout, const ProfileView& profile,
                     std::span<const std::uint32_t> table) {
  if (policy.keep != Keep::kScore) return Status::kOk;
  if (policy.budget == Budget::kScores) return profile.empty() ? Status::kBadProfile : Status::kOk;
  if (policy.budget != Budget::kTable) return Status::kOk;
  const std::uint64_t heads = std::uint64_t{shape.layers} * shape.kv_heads;
  if (table.size() != heads) return Status::kBadPolicy;
  const auto budget = [&](std::size_t i) { return table[i] / kTileSlots * kTileSlots; };
  return fit(shape, policy, layout, budget) ? Status::kOk : Status::kBadPolicy;
}

void set_budgets(const ArenaView& to, std::span<const std::uint32_t> table) {
  const Policy& policy = to.policy();
  for (std::size_t i = 0; i < to.heads(); ++i) {
    const bool own = policy.keep == Keep::kScore && policy.budget == Budget::kTable;
    to.chains()[i].budget = own ? table[i] / kTileSlots * kTileSlots : policy.tokens;
  }
  if (policy.keep == Keep::kScore) share_heads(to, policy.budget, policy.tokens);
}

bool sound_budgets(const ArenaView& to) {
  const Policy& policy = to.policy();
  const Budget how = policy.keep == Keep::kScore ? policy.budget : Budget::kUniform;
  if (how == Budget::kAdaptive) return true;
  std::uint32_t rest = 0;
  if (how == Budget::kPyramid || how == Budget::kScores) rest = rest_of(policy.tokens);
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < to.heads(); ++i) {
    const std::uint32_t budget = to.chains()[i].budget;
    if (how == Budget::kUniform ? budget != policy.tokens : budget % kTileSlots != rest) return false;
    sum += budget;
  }
  if (how == Budget::kUniform) return true;
  if (how != Budget::kTable && sum != to.heads() * std::uint64_t{policy.tokens}) return false;
  return fit(to.shape(), policy, to.layout(), [&](std::size_t i) { return to.chains()[i].budget; });
}

void share_heads(const ArenaView& to, Budget how, std::uint32_t tokens) {
  if (how == Budget::kPyramid || how == Budget::kScores) share_by_weights(to, how, tokens);
}

LayerShares layer_shares(const Policy& policy, std::uint32_t tokens) {
  const std::uint32_t mean = tokens / kTileSlots;
  return {least_tiles(policy, Budget::kAdaptive, tokens), mean * kMostBudget, mean, rest_of(tokens)};
}

}  // namespace nibkv
