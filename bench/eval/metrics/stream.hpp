#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <vector>

#include "bench/eval/metrics/perplexity.hpp"

namespace nibkv::llm {

struct StreamFigures {
  std::vector<ScoreTotals> bins;  ///< for each `bin` tokens that are predicted, the last one perhaps shorter
  /// Under Keep::kScore: of the slots that all heads hold at the end, sinks and recent ones apart, the share that is of
  /// tokens in each bin. Otherwise, and where there are none, empty.
  std::vector<double> held;
};

/// Feeds a text into an empty store from position 0 on, and scores every token but the first: by how many nats the
/// model misses it, in bins of positions. The text may be longer than the model was trained for.
///
/// @param tokens    of the text, at least 2
/// @param bin       positions of a bin, at least 1
/// @param progress  called with the tokens fed so far; may be empty
/// @throws Error when the store refuses
StreamFigures measure_stream(Model& model, ThreadPool& pool, std::span<const std::int32_t> tokens,
                             const StoreOptions& options, std::size_t bin,
                             const std::function<void(std::size_t fed)>& progress);

}  // namespace nibkv::llm
