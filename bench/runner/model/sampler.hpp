#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace nibkv::llm {

/// How a token is chosen from logits.
struct SamplerOptions {
  double temperature = 0.4;  ///< logits are divided by it, at least 0; 0 always takes the most likely token
  double top_p = 0.9;        ///< draws only from the most likely tokens that together have this share, [0, 1]
  std::uint64_t seed = 1;
  /// Of tokens that came lately: their logits are divided by it where they are positive, and multiplied elsewhere (CTRL,
  /// arXiv 1909.05858), at least 1; 1: none.
  double repeat_penalty = 1;
};

/// How many tokens "lately" are, of messages and answers.
inline constexpr std::size_t kRepeatTokens = 64;

/// Chooses tokens. The same seed and the same logits give the same tokens on every machine: shares are integers, made
/// without the mathematics library, whose last bits differ.
class Sampler {
 public:
  explicit Sampler(const SamplerOptions& options);

  /// Greedy: the largest logit, and the lowest id among equal ones. Otherwise a draw from
  /// the softmax of logits / temperature, limited to the most likely tokens that reach `top_p`;
  /// at least one stays.
  ///
  /// @param logits  at least one; not-a-number counts as impossible.
  /// @param before  ids of the tokens before, of which the last kRepeatTokens get the penalty, each once
  /// @throws Error if no logit is finite.
  /// Cost: O(n) and O(log n) for each token that stays.
  std::int32_t sample(std::span<const float> logits, std::span<const std::int32_t> before = {});

  /// What the next draws depend on, in addition to the options.
  const std::array<std::uint64_t, 4>& state() const { return state_; }
  /// @param state  of another sampler; all zeros are not a valid state, and then nothing changes
  void set_state(const std::array<std::uint64_t, 4>& state) {
    if (state != std::array<std::uint64_t, 4>{}) state_ = state;
  }

 private:
  struct Candidate {
    std::uint64_t weight;  // Q32, relative to the most likely token's share
    std::int32_t id;
  };

  std::span<const float> with_penalty(std::span<const float> logits, std::span<const std::int32_t> before);
  std::uint64_t next_random();
  std::uint64_t random_below(std::uint64_t bound);

  SamplerOptions options_;
  std::array<std::uint64_t, 4> state_;
  std::vector<Candidate> candidates_;
  std::vector<float> penalised_;  // logits
};

/// 2^-x in Q32 for x in [0, 64), x in Q32, to within 2 units. Integers only.
std::uint64_t exp2_negative(std::uint64_t x);

}  // namespace nibkv::llm
