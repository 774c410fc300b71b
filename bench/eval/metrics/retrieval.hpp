#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "bench/runner/model/model.hpp"
#include "bench/runner/profile/needles.hpp"
#include "bench/runner/stores/tile_store.hpp"

namespace nibkv::llm {

/// When a cache sees the question.
enum class AskMode : std::uint8_t {
  /// 'question unseen': the haystack streams through a cache with the budget; the
  /// question comes after it.
  kUnseen,
  /// 'question seen': the cache holds the whole prompt, the question included, and is cut back
  /// to the budget once before the model answers.
  kSeen,
  /// A cache that keeps everything: both are the same.
  kEither,
};

/// "unseen", "seen", "either".
std::string_view mode_name(AskMode mode);

/// Lengths of prompts: numbers of tokens, separated by commas.
/// @throws UsageError
std::vector<std::size_t> parse_lengths(const std::string& text);
/// The tokens of the prompt for a requested length: fewer if otherwise no answer would fit
/// the model's context after it.
/// @throws Error for a length above the context
std::size_t prompt_length(std::size_t length, const Config& model);

/// The depth of the `place`-th of `places` needles at equal distances, from 0 to 1; that
/// of a single one is 0.5.
double depth_of(std::size_t place, std::size_t places);

/// Makes the needle that `hiding` describes, hides it in the haystack and asks for it.
/// @param which  of the needles at that place, from 1: each place has its own needles and parts
///               of the text, and every store gets the same; `hiding.seed` is not read
/// @param store  empty
Answer hide_and_ask(Model& model, const Tokenizer& tokenizer, const Haystack& haystack, KvStore& store, Hiding hiding,
                    std::uint64_t which, const std::function<void()>& before_answer);

/// The store for 'question seen': its policy is that of `options`, except that no head drops
/// anything before it holds `room` tokens.
/// @param options  whose tokens are the budget that the store will be cut back to
TileStore make_whole_store(const Config& model, const StoreOptions& options, std::size_t room);

/// A share of a number of trials with its 95 % interval by Wilson's score.
struct Proportion {
  double share = 0, low = 0, high = 1;
};
/// @param right  [0, of]; trials that are partly right may be in it with their part, which gives a wider interval than
///               they need
Proportion wilson(double right, std::size_t of);

}  // namespace nibkv::llm
