#include "bench/runner/stores/f16_fold.hpp"

#include <algorithm>
#include <cmath>
#include <string>

#include "bench/runner/gguf/gguf.hpp"
#include "bench/runner/gguf/half.hpp"

namespace nibkv::llm {
namespace {

double norm_of(std::span<const float> row) {
  double sum = 0;
  for (const float x : row) sum += static_cast<double>(x) * static_cast<double>(x);
  return std::sqrt(sum);
}

void remove(LayerSet& from, const LayerSet& what) {
  for (std::size_t i = 0; i < std::size(from.words); ++i) from.words[i] &= ~what.words[i];
}

}  // namespace

bool is_f16_fold(std::string_view name) {
  return name == kF16Fold || name == kF16FoldTokens;
}

double angle_between(std::span<const float> a, std::span<const float> b) {
  const double norms[2] = {norm_of(a), norm_of(b)};
  if (norms[0] == 0 || norms[1] == 0) return 0;
  // Not by acos, which is inaccurate for small angles.
  double sum = 0, difference = 0;
  for (std::size_t c = 0; c < a.size(); ++c) {
    const double x = static_cast<double>(a[c]) / norms[0], y = static_cast<double>(b[c]) / norms[1];
    sum += (x + y) * (x + y);
    difference += (x - y) * (x - y);
  }
  return 2 * std::atan2(std::sqrt(difference), std::sqrt(sum));
}

void share_direction(std::span<float> lower, std::span<float> upper, double t) {
  const double norms[2] = {norm_of(lower), norm_of(upper)};
  const double angle = angle_between(lower, upper);
  double weights[2] = {1 - t, t};
  if (std::sin(angle) > 1e-6) {
    for (double& weight : weights) weight = std::sin(weight * angle) / std::sin(angle);
  }
  for (std::size_t w = 0; w < 2; ++w) weights[w] = norms[w] == 0 ? 0 : weights[w] / norms[w];
  std::vector<double> way(lower.size());
  double squares = 0;
  for (std::size_t c = 0; c < way.size(); ++c) {
    way[c] = weights[0] * static_cast<double>(lower[c]) + weights[1] * static_cast<double>(upper[c]);
    squares += way[c] * way[c];
  }
  std::vector<float> direction(way.size());
  for (std::size_t c = 0; c < way.size() && squares != 0; ++c) {
    direction[c] = rounded_to_f16(static_cast<float>(way[c] / std::sqrt(squares)));
  }
  // After rounding, its length is slightly different.
  const double length = squares != 0 ? norm_of(direction) : 1;
  for (std::size_t w = 0; w < 2; ++w) {
    const double norm = static_cast<double>(rounded_to_f16(static_cast<float>(norms[w])));
    const std::span<float> row = w == 0 ? lower : upper;
    for (std::size_t c = 0; c < row.size(); ++c) {
      row[c] = static_cast<float>(norm * static_cast<double>(direction[c]) / length);
    }
  }
}

F16Fold::F16Fold(const Shape& shape, const Policy& policy, std::string_view name)
    : shape_(shape),
      policy_(policy),
      store_(shape.layers, shape.query_heads, shape.kv_heads, shape.head_dim, shape.max_chunk) {
  remove(policy_.fold.keys, policy.fold.aligned_keys);
  remove(policy_.fold.values, policy.fold.aligned_values);
  policy_.fold.aligned_keys = policy_.fold.aligned_values = {};
  store_.keep_f16(0, policy.tokens);
  const std::size_t together = name == kF16FoldTokens ? shape.kv_heads : 1;
  for (std::uint32_t lower = 0; lower + 1 < shape.layers; ++lower) {
    if (!policy_.fold.keys.has(lower) && !policy_.fold.values.has(lower)) continue;
    for (std::size_t first = 0; first < shape.kv_heads; first += together) heads_.push_back({lower, first, together});
  }
  clear();
}

// The rows of both layers that will fold.
template <typename F>
void F16Fold::for_rows(const Heads& heads, std::size_t slot, F&& use) {
  const auto lower = static_cast<std::uint32_t>(heads.lower);
  const auto row = [&](std::span<float> rows) { return rows.subspan(slot * shape_.head_dim, shape_.head_dim); };
  for (std::size_t head = heads.first; head < heads.first + heads.count; ++head) {
    if (policy_.fold.keys.has(lower)) use(row(store_.keys(lower, head)), row(store_.keys(lower + 1, head)));
    if (policy_.fold.values.has(lower)) use(row(store_.values(lower, head)), row(store_.values(lower + 1, head)));
  }
}

// The share of all tokens; Retain::kFarRange keeps only those of them that are far.
std::size_t F16Fold::retained_of(const Heads& heads) const {
  const Fold& fold = policy_.fold;
  const auto most = static_cast<std::size_t>(std::uint64_t{policy_.tokens} * fold.retained / 256);
  if (fold.retain != Retain::kFarRange) return most;
  const double limit = heads.farthest - (heads.farthest - heads.nearest) * fold.retained / 256;
  const auto far =
      std::count_if(heads.whole.begin(), heads.whole.end(), [&](const Whole& whole) { return whole.distance > limit; });
  return std::min(most, static_cast<std::size_t>(far));
}

// Among equal ones the newest fold.
void F16Fold::fold_some(Heads& heads) {
  const double sign = policy_.fold.retain == Retain::kNear ? -1 : 1;
  std::sort(heads.whole.begin(), heads.whole.end(), [&](const Whole& a, const Whole& b) {
    return a.distance != b.distance ? sign * a.distance < sign * b.distance : a.slot > b.slot;
  });
  const auto end = heads.whole.begin() + kTileSlots;
  for (auto whole = heads.whole.begin(); whole != end; ++whole) {
    for_rows(heads, whole->slot, [&](std::span<float> lower, std::span<float> upper) {
      share_direction(lower, upper, policy_.fold.t / 256.0);
    });
  }
  heads.whole.erase(heads.whole.begin(), end);
}

void F16Fold::add_old(Heads& heads) {
  double distance = 0;
  for_rows(heads, heads.old, [&](auto lower, auto upper) { distance += angle_between(lower, upper); });
  heads.whole.push_back({heads.old++, distance});
  heads.nearest = std::min(heads.nearest, distance);
  heads.farthest = std::max(heads.farthest, distance);
  if (heads.whole.size() >= kTileSlots + retained_of(heads)) fold_some(heads);
}

void F16Fold::append(int layer, std::size_t count, const float* keys, const float* values, ThreadPool& pool) {
  const auto upper = static_cast<std::size_t>(layer);
  const std::size_t before = store_.keys(upper, 0).size() / shape_.head_dim;
  if (before + count > policy_.tokens) throw Error("the cache is full after " + std::to_string(before) + " tokens");
  store_.append(layer, count, keys, values, pool);
  for (Heads& heads : heads_) {
    if (heads.lower + 1 != upper) continue;
    while (heads.old + detail::unfolded(shape_, policy_) < before + count) add_old(heads);
  }
  if (upper + 1 != shape_.layers || bytes() <= peak_bytes_) return;
  peak_bytes_ = bytes();
  const std::size_t channels = std::size_t{2} * shape_.layers * shape_.kv_heads * shape_.head_dim * store_.size();
  bits_per_channel_ = 8.0 * static_cast<double>(peak_bytes_) / static_cast<double>(channels);
}

void F16Fold::attend(int layer, std::size_t count, const float* queries, float* out, ThreadPool& pool) {
  store_.attend(layer, count, queries, out, pool);
}

void F16Fold::clear() {
  store_.clear();
  for (Heads& heads : heads_) {
    heads = {heads.lower, heads.first, heads.count};
    heads.old = policy_.sinks;
  }
}

std::uint64_t F16Fold::bytes() const {
  constexpr std::uint64_t kHalf = 2, kPosition = 4;
  const std::uint64_t row = kHalf * shape_.head_dim;
  std::uint64_t bytes = 2 * row * shape_.layers * shape_.kv_heads * store_.size();
  for (const Heads& heads : heads_) {
    const auto lower = static_cast<std::uint32_t>(heads.lower);
    const std::uint64_t folded = heads.old - policy_.sinks - heads.whole.size();
    const std::uint64_t kinds = (policy_.fold.keys.has(lower) ? 1u : 0u) + (policy_.fold.values.has(lower) ? 1u : 0u);
    // Two rows become one and two norms.
    bytes -= folded * heads.count * kinds * (row - 2 * kHalf);
    bytes += heads.whole.size() * kPosition;
  }
  return bytes;
}

}  // namespace nibkv::llm
