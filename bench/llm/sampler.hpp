#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace nibkv::llm {

/// How a token is chosen from logits.
struct SamplerOptions {
  double temperature = 0.4;  ///< logits are divided by it, at least 0; 0 takes the likeliest token always
  double top_p = 0.9;        ///< only the likeliest tokens that together have this share are drawn from, [0, 1]
  std::uint64_t seed = 1;
};

/// Chooses tokens. The same seed and the same logits give the same tokens on every machine: shares are integers, made
/// without the mathematics library, whose last bits differ.
class Sampler {
 public:
  explicit Sampler(const SamplerOptions& options);

  /// Greedy: the largest logit, the lowest id where several are equal. Else a draw from the softmax of
  /// logits / temperature, cut to the likeliest tokens that reach `top_p`; at least one stays.
  ///
  /// @param logits  at least one; not-a-number counts as impossible.
  /// @throws Error when no logit is finite.
  /// Cost: O(n) and O(log n) for each token that stays.
  std::int32_t sample(std::span<const float> logits);

  /// What the next draws depend on, beside the options.
  const std::array<std::uint64_t, 4>& state() const { return state_; }
  /// @param state  of another sampler; all zeros are no state, and nothing changes then
  void set_state(const std::array<std::uint64_t, 4>& state) {
    if (state != std::array<std::uint64_t, 4>{}) state_ = state;
  }

 private:
  struct Candidate {
    std::uint64_t weight;  // Q32 of the likeliest token's share
    std::int32_t id;
  };

  std::uint64_t next_random();
  std::uint64_t random_below(std::uint64_t bound);

  SamplerOptions options_;
  std::array<std::uint64_t, 4> state_;
  std::vector<Candidate> candidates_;
};

/// 2^-x in Q32 for x in [0, 64), x in Q32, to within 2 units. Integers only.
std::uint64_t exp2_negative(std::uint64_t x);

}  // namespace nibkv::llm
