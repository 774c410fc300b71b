#include "bench/runner/model/sampler.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <limits>

#include "bench/runner/gguf/gguf.hpp"

namespace nibkv::llm {
namespace {

constexpr double kLog2E = 1.4426950408889634;
constexpr double kSteepest = 1e30;  // keeps 0 * (1 / temperature) a number
constexpr double kLeastShare = 32;  // a token 2^32 times less likely than the most likely one has no share in Q32
constexpr std::uint64_t kOne = std::uint64_t{1} << 32;
constexpr std::uint64_t kLn2 = 2977044472;  // Q32

// The id of the largest logit.
std::size_t likeliest(std::span<const float> logits) {
  std::size_t best = 0;
  float largest = -std::numeric_limits<float>::infinity();
  for (std::size_t id = 0; id < logits.size(); ++id) {
    if (logits[id] > largest) {
      largest = logits[id];
      best = id;
    }
  }
  if (!std::isfinite(largest)) throw Error("the model's logits are not finite numbers");
  return best;
}

}  // namespace

std::uint64_t exp2_negative(std::uint64_t x) {
  // 2^-f = e^-y = 1 - y (1 - y/2 (1 - y/3 (...))), y = f ln 2 < 0.694. Every bracket lies in (0, 1], so products of Q32
  // numbers fit 64 bits; the twelfth term is below 2^-34.
  const std::uint64_t y = ((x & (kOne - 1)) * kLn2) >> 32;
  std::uint64_t bracket = kOne;
  for (std::uint64_t term = 12; term >= 1; --term) bracket = kOne - ((bracket * y) >> 32) / term;
  return bracket >> (x >> 32);
}

Sampler::Sampler(const SamplerOptions& options) : options_(options) {
  // splitmix64 spreads any seed, including 0, over the state.
  std::uint64_t sequence = options.seed;
  for (std::uint64_t& word : state_) {
    sequence += 0x9e3779b97f4a7c15;
    std::uint64_t mixed = sequence;
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111eb;
    word = mixed ^ (mixed >> 31);
  }
}

// xoshiro256**
std::uint64_t Sampler::next_random() {
  const std::uint64_t result = std::rotl(state_[1] * 5, 7) * 9;
  const std::uint64_t shifted = state_[1] << 17;
  state_[2] ^= state_[0];
  state_[3] ^= state_[1];
  state_[1] ^= state_[2];
  state_[0] ^= state_[3];
  state_[2] ^= shifted;
  state_[3] = std::rotl(state_[3], 45);
  return result;
}

std::uint64_t Sampler::random_below(std::uint64_t bound) {
  const std::uint64_t surplus = (0 - bound) % bound;  // 2^64 mod bound: values that would favour small results
  std::uint64_t value = next_random();
  while (value < surplus) value = next_random();
  return value % bound;
}

std::span<const float> Sampler::with_penalty(std::span<const float> logits, std::span<const std::int32_t> before) {
  if (options_.repeat_penalty == 1 || before.empty()) return logits;
  penalised_.assign(logits.begin(), logits.end());
  for (const std::int32_t id : before.last(std::min(before.size(), kRepeatTokens))) {
    const double logit = logits[static_cast<std::size_t>(id)];
    const double changed = logit > 0 ? logit / options_.repeat_penalty : logit * options_.repeat_penalty;
    penalised_[static_cast<std::size_t>(id)] = static_cast<float>(changed);
  }
  return penalised_;
}

std::int32_t Sampler::sample(std::span<const float> all, std::span<const std::int32_t> before) {
  const std::span<const float> logits = with_penalty(all, before);
  const std::size_t best = likeliest(logits);
  if (options_.temperature <= 0) return static_cast<std::int32_t>(best);

  // One rounding per line: no addition follows a product, so no compiler fuses them, and
  // all machines agree.
  const double steepness = std::min(kLog2E / options_.temperature, kSteepest);
  const double largest = logits[best];
  candidates_.clear();
  std::uint64_t total = 0;  // below 2^32 * the vocabulary, so a double holds it exactly
  for (std::size_t id = 0; id < logits.size(); ++id) {
    const double distance = (largest - static_cast<double>(logits[id])) * steepness;
    if (!(distance < kLeastShare)) continue;
    const std::uint64_t weight = exp2_negative(static_cast<std::uint64_t>(distance * static_cast<double>(kOne)));
    if (weight == 0) continue;
    candidates_.push_back({weight, static_cast<std::int32_t>(id)});
    total += weight;
  }

  const auto is_less = [](const Candidate& a, const Candidate& b) {
    return a.weight != b.weight ? a.weight < b.weight : a.id > b.id;
  };
  // The most likely ones leave the heap one by one and collect at the end of the array, until
  // they reach their share.
  const auto wanted = static_cast<std::uint64_t>(options_.top_p * static_cast<double>(total));
  std::make_heap(candidates_.begin(), candidates_.end(), is_less);
  auto rest = candidates_.end();
  std::uint64_t kept = 0;
  do {
    std::pop_heap(candidates_.begin(), rest, is_less);
    --rest;
    kept += rest->weight;
  } while (kept < wanted && rest != candidates_.begin());

  std::uint64_t drawn = random_below(kept);
  auto chosen = candidates_.end() - 1;
  while (drawn >= chosen->weight) {
    drawn -= chosen->weight;
    --chosen;
  }
  return chosen->id;
}

}  // namespace nibkv::llm
