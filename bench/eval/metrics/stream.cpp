#include "bench/eval/metrics/stream.hpp"

#include <algorithm>

namespace nibkv::llm {
namespace {

constexpr std::size_t kStreamRows = 64;  // of logits at a time

}  // namespace

std::vector<ScoreTotals> measure_stream(Model& model, ThreadPool& pool, std::span<const std::int32_t> tokens,
                                        const StoreOptions& options, std::size_t bin,
                                        const std::function<void(std::size_t fed)>& progress) {
  if (tokens.size() < 2) throw Error("a text of less than 2 tokens has nothing to score");
  const std::size_t vocabulary = model.config().vocabulary;
  const std::size_t predicted = tokens.size() - 1;
  TileStore store(model.config(), options);
  std::vector<float> logits(kStreamRows * vocabulary);
  std::vector<ScoreTotals> bins((predicted + bin - 1) / bin);
  std::size_t end = 0;
  for (std::size_t at = 0; at < predicted; at = end) {
    end = std::min({at + kStreamRows, predicted, (at / bin + 1) * bin});
    model.forward(tokens.subspan(at, end - at), at, store, logits.data(), end - at);
    score_rows(pool, logits.data(), logits.data(), vocabulary, tokens.subspan(at + 1, end - at), bins[at / bin]);
    if (progress) progress(end);
  }
  return bins;
}

}  // namespace nibkv::llm
