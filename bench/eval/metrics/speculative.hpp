#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "bench/eval/metrics/perplexity.hpp"
#include "bench/runner/programs/progress.hpp"

namespace nibkv::llm {

/// Speculative decoding (arXiv 2211.17192) of a text, by drafts that are right or wrong by chance.
struct SpeculativeOptions {
  std::size_t length = 2000;  ///< tokens of the text, at least 1
  std::size_t drafts = 4;     ///< a pass has a token of the text and so many drafts of those after it
  std::size_t right = 70;  ///< percent of the drafts that are right; the others are tokens from elsewhere in the text
  std::uint64_t seed = 1;
  /// Whether a pass has no more tokens than there is space for, if there is any: then space is made before the same
  /// tokens as without drafts.
  bool within_space = false;
  /// Whether the queries of a pass are drafts to the cache, all of which go back; then the rows of what was right go in
  /// one token after the other, without the model.
  bool replay = false;
  StoreOptions store;
};

struct SpeculativeFigures {
  std::size_t passes = 0;
  std::size_t drafted = 0;
  std::size_t accepted = 0;       ///< of the drafts
  ScoreTotals totals;             ///< of the run with drafts, those without them being the reference; over all tokens
  std::size_t same_rows = 0;      ///< rows of logits of which all bytes are the same in both
  double worst = 0;               ///< the largest divergence of a row
  double pass_seconds = 0;        ///< of all passes
  double replay_seconds = 0;      ///< of rows that went in again
  std::uint64_t arena_bytes = 0;  ///< of one store
  std::uint32_t outlier_channels = 0;
  std::string port;
};

/// Reads a text twice, side by side: token by token, and in passes of 1 + `drafts` tokens, after each of which the drafts
/// from the first wrong one on are taken back. A row of logits that both have follows the same tokens.
/// @param tokens    at least length + 1
/// @param progress  may be empty
/// @throws Error for a text that is too short or longer than the model's context, a store whose chunks are shorter than a
///         pass, and what the store refuses
SpeculativeFigures measure_speculative(Model& model, ThreadPool& pool, std::span<const std::int32_t> tokens,
                                       const SpeculativeOptions& options, const TokensDone& progress = {});

}  // namespace nibkv::llm
