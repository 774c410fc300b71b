#include "tests/reference/scores.hpp"

#include <algorithm>
#include <bit>
#include <cmath>

namespace nibkv::reference {

// Where the bound comes from. A row's weight is softmax[t] * 2^e * share, with share = 2^48 / mass
// (/ heads, for the mean over a group) rounded to 15 bits. The mass is truncated to 16 bits,
// a relative error of 2^-15; the division adds 2^-15; and 32767 stands for 32768, another 2^-15:
// together less than 2^-13. Up to 16 rows r pass over a tile together, with factors in the same
// unit: 15 - ceil(log2 r) bits for the row with the largest share. So the error of a factor is half
// a unit, and that of the weight half a unit times 2^15, the maximum of softmax. The largest weight
// of that row in the tile has softmax >= 2^14 and a share of 2^14 or more. So the error of each row
// is 2^(ceil(log2 r) - 14) of the largest weight that any row has in the tile. The sum is rounded
// once per pass. The errors of the weights themselves come on top.
std::vector<ScoreModel::Score> ScoreModel::sum_of(const std::vector<WeighedRow>& rows, std::size_t first,
                                                  std::size_t end) const {
  const std::size_t group = shape_.group();
  std::size_t slots = 0;
  for (const WeighedRow& row : rows) slots = std::max(slots, row.weights.size());
  std::vector<double> largest((slots + 31) / 32, 0.0);
  for (const WeighedRow& row : rows) {
    for (std::size_t t = 0; t < row.weights.size(); ++t)
      largest[t / 32] = std::max(largest[t / 32], row.weights[t] + row.bounds[t]);
  }
  const double together = static_cast<double>(std::min<std::size_t>(kMaxRows, rows.size()));
  const double factor_slack = std::exp2(std::ceil(std::log2(together)) - 14);
  std::vector<Score> sums(slots);
  for (std::size_t query = first; query < end; ++query) {
    for (std::size_t t = 0; t < slots; ++t) {
      Score all;
      Score most;
      for (std::size_t member = 0; member < group; ++member) {
        const WeighedRow& row = rows[query * group + member];
        if (t >= row.weights.size()) continue;
        const double bound = row.bounds[t] + 0x1p-13 * row.weights[t] + factor_slack * largest[t / 32];
        all.value += row.weights[t] / static_cast<double>(group);
        all.bound += bound / static_cast<double>(group);
        most.value = std::max(most.value, row.weights[t]);
        most.bound = std::max(most.bound, bound);
      }
      const Score& one = policy_.group == Group::kMean ? all : most;
      sums[t].value += one.value;
      sums[t].bound += one.bound;
    }
  }
  return sums;
}

// Attention in units of what each of the visible slots would get if all got the same, over the most that a chain
// holds, rounded up to a power of two. In integers the product is rounded to 15 bits once more, with each halving on
// the way: together less than 2^-13 of it.
std::vector<WeighedRow> ScoreModel::in_uniform_shares(const std::vector<WeighedRow>& rows) const {
  const std::size_t most = layout_of(shape_, policy_).chain_tiles * std::size_t{kTileSlots};
  std::vector<WeighedRow> counted = rows;
  for (WeighedRow& row : counted) {
    const double factor = static_cast<double>(row.weights.size()) / static_cast<double>(std::bit_ceil(most));
    for (std::size_t t = 0; t < row.weights.size(); ++t) {
      row.weights[t] *= factor;
      row.bounds[t] = row.bounds[t] * factor + 0x1p-13 * row.weights[t];
    }
  }
  return counted;
}

void ScoreModel::attend(const std::vector<WeighedRow>& weighed) {
  const std::vector<WeighedRow> rows =
      policy_.per_query && keeps_global(policy_) ? in_uniform_shares(weighed) : weighed;
  const std::size_t group = shape_.group();
  const std::size_t count = rows.size() / group;
  const std::size_t window = policy_.window;
  const std::vector<Score> all = sum_of(rows, 0, count);
  const std::vector<Score> last = sum_of(rows, count > window ? count - window : 0, count);
  global_.resize(std::max(global_.size(), all.size()));
  local_.resize(global_.size());
  const double passes = static_cast<double>(2 * count * ((group + kMaxRows - 1) / kMaxRows));
  const double stays = count < window ? 1 - static_cast<double>(count) / static_cast<double>(window) : 0;
  roundings_ += passes;
  for (std::size_t t = 0; t < all.size(); ++t) {
    global_[t].value += all[t].value * 0x1p24;
    global_[t].bound += all[t].bound * 0x1p24 + passes;
    local_[t].value = std::min(65535.0, local_[t].value * stays + last[t].value * 0x1p14);
    local_[t].bound = local_[t].bound * stays + last[t].bound * 0x1p14 + passes + 1;
  }
}

std::vector<double> importance(const Policy& policy, std::uint32_t seen, std::span<const SlotInfo> slots) {
  const std::size_t begin = std::min<std::size_t>(policy.sinks, slots.size());
  const std::size_t end =
      std::max<std::size_t>(begin, slots.size() - std::min<std::size_t>(recent_of(policy, seen), slots.size()));
  std::vector<double> global;
  std::vector<double> local;
  double global_mean = 0;
  double local_mean = 0;
  for (std::size_t i = 0; i < slots.size(); ++i) {
    global.push_back(policy.per_query ? slots[i].global / static_cast<double>(seen - slots[i].position)
                                      : slots[i].global);
    local.push_back(slots[i].local);
    if (i < begin || i >= end) continue;
    global_mean += global[i] / static_cast<double>(end - begin);
    local_mean += local[i] / static_cast<double>(end - begin);
  }
  std::vector<double> scores;
  for (std::size_t i = 0; i < slots.size(); ++i) {
    const double far = global_mean > 0 ? global[i] / global_mean : 0;
    const double near = local_mean > 0 ? local[i] / local_mean : 0;
    scores.push_back(policy.combine == Combine::kSum ? far + near : std::max(far, near));
  }
  return scores;
}

std::vector<double> ranks(const Policy& policy, std::vector<double> scores, std::span<const Slot> slots) {
  if (!policy.value_norms) return scores;
  double sum = 0;
  for (const Slot& slot : slots) sum += scale16_value(slot.value_scale);
  if (sum == 0) return scores;
  const double mean = sum / static_cast<double>(slots.size());
  for (std::size_t i = 0; i < slots.size(); ++i)
    scores[i] *= std::max(1.0 / 16, scale16_value(slots[i].value_scale) / mean);
  return scores;
}

std::vector<double> pooled(const std::vector<double>& scores, std::size_t width) {
  std::vector<double> out;
  for (std::size_t i = 0; i < scores.size(); ++i) {
    const std::size_t first = i > width / 2 ? i - width / 2 : 0;
    const std::size_t end = std::min(scores.size(), i + width / 2 + 1);
    out.push_back(*std::max_element(scores.begin() + static_cast<std::ptrdiff_t>(first),
                                    scores.begin() + static_cast<std::ptrdiff_t>(end)));
  }
  return out;
}

}  // namespace nibkv::reference
