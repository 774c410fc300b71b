#include "bench/eval/metrics/stream.hpp"

#include <algorithm>
#include <utility>

namespace nibkv::llm {
namespace {

constexpr std::size_t kStreamRows = 64;  // of logits at a time

std::vector<double> held_by_bin(const Cache& cache, std::size_t bin, std::size_t bins) {
  const Policy& policy = cache.policy();
  if (policy.keep != Keep::kScore || has_pairs(policy)) return {};
  std::vector<double> held(bins);
  double all = 0;
  for (std::uint32_t layer = 0; layer < cache.shape().layers; ++layer) {
    for (std::uint32_t head = 0; head < cache.shape().kv_heads; ++head) {
      std::vector<SlotInfo> slots(cache.held(layer, head));
      require(explain(cache, layer, head, slots), "explain");
      const std::size_t end = slots.size() - std::min<std::size_t>(recent_of(policy, cache.seen(0)), slots.size());
      for (std::size_t i = policy.sinks; i < end; ++i, ++all) held[std::min(slots[i].position / bin, bins - 1)] += 1;
    }
  }
  for (double& share : held) share /= std::max(all, 1.0);
  return all == 0 ? std::vector<double>() : held;
}

}  // namespace

StreamFigures measure_stream(Model& model, ThreadPool& pool, std::span<const std::int32_t> tokens,
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
  const std::size_t count = bins.size();
  return {std::move(bins), held_by_bin(store.cache(), bin, count)};
}

}  // namespace nibkv::llm
