#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "bench/llm/model.hpp"
#include "bench/llm/needles.hpp"
#include "bench/llm/tile_store.hpp"

namespace nibkv::llm {

/// When a cache learns what will be asked.
enum class AskMode : std::uint8_t {
  /// 'question unseen': the haystack streams through a cache of the budget; the question comes behind it.
  kUnseen,
  /// 'question seen': the cache holds the whole prompt, the question included, and is cut back to the budget once,
  /// before the model answers.
  kSeen,
  /// A cache that keeps everything: both are the same.
  kEither,
};

/// "unseen", "seen", "either".
std::string_view mode_name(AskMode mode);

/// The most tokens of an answer.
inline constexpr std::size_t kAnswerTokens = 10;

/// Lengths of prompts: numbers of tokens between commas. @throws UsageError
std::vector<std::size_t> parse_lengths(const std::string& text);
/// @throws Error when the model's context has no room for a prompt of that length and an answer
void check_length(std::size_t length, const Config& model);

/// What a model said.
struct Answer {
  std::string text;
  bool right = false;
};

/// Feeds the prompt and lets the model answer: greedily, token by token, until the answer is in it, the model ends its
/// turn, or it has said `most` tokens.
///
/// @param store          empty
/// @param before_answer  called when all but the last token of the prompt are fed: every token of the answer comes from
///                       what is in the store then; may be empty
/// @throws Error when the store refuses
Answer ask_for_needle(Model& model, const Tokenizer& tokenizer, KvStore& store, const Prompt& prompt,
                      const Needle& needle, const std::function<void()>& before_answer,
                      std::size_t most = kAnswerTokens);

/// The store for 'question seen': its policy is that of `options`, except that no head gives anything up before `room`
/// tokens are in it.
/// @param options  whose tokens are the budget that the store will be cut back to
TileStore make_whole_store(const Config& model, const StoreOptions& options, std::size_t room);

/// A share of a number of trials with its 95 % interval by Wilson's score.
struct Proportion {
  double share = 0, low = 0, high = 1;
};
/// @param right  at most `of`
Proportion wilson(std::size_t right, std::size_t of);

}  // namespace nibkv::llm
