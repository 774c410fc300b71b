#include "bench/eval/metrics/speed.hpp"

#include <chrono>
#include <functional>
#include <vector>

namespace nibkv::llm {
namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// A store that measures how long the wrapped one takes.
class TimedStore : public KvStore {
 public:
  /// @param appended  gets the tokens of each chunk once
  TimedStore(KvStore& store, const std::function<void(std::size_t)>& appended) : store_(store), appended_(appended) {}

  std::size_t max_chunk() const override { return store_.max_chunk(); }
  std::size_t max_batch() const override { return store_.max_batch(); }
  void append(int layer, std::size_t count, const float* keys, const float* values, ThreadPool& pool) override {
    const double start = now();
    store_.append(layer, count, keys, values, pool);
    append_seconds += now() - start;
    if (layer == 0) appended_(count);
  }
  void attend(int layer, std::size_t count, const float* queries, float* out, ThreadPool& pool) override {
    const double start = now();
    store_.attend(layer, count, queries, out, pool);
    attend_seconds += now() - start;
  }

  double append_seconds = 0;
  double attend_seconds = 0;

 private:
  KvStore& store_;
  const std::function<void(std::size_t)>& appended_;
};

}  // namespace

SpeedFigures measure_speed(Model& model, std::span<const std::int32_t> tokens, std::size_t context, std::size_t decoded,
                           const StoreOptions& options, const TokensDone& progress) {
  if (tokens.size() < context + decoded) {
    throw Error("the text has " + std::to_string(tokens.size()) + " tokens; " + std::to_string(context + decoded) +
                " are needed");
  }
  TileStore store(model.config(), options);
  std::vector<float> logits(model.config().vocabulary);

  std::size_t done = 0;
  const std::function<void(std::size_t)> note = [&](std::size_t count) {
    done += count;
    if (progress) progress(done, context + decoded);
  };
  TimedStore prefill(store, note);
  const double start = now();
  model.forward(tokens.first(context), 0, prefill, logits.data(), 1);
  const double middle = now();
  TimedStore decode(store, note);
  for (std::size_t i = 0; i < decoded; ++i)
    model.forward(tokens.subspan(context + i, 1), context + i, decode, logits.data(), 1);
  const double end = now();

  SpeedFigures figures;
  figures.prefill_tokens_per_second = static_cast<double>(context) / (middle - start);
  figures.decode_tokens_per_second = static_cast<double>(decoded) / (end - middle);
  figures.append_share = prefill.append_seconds / (middle - start);
  figures.prefill_attend_share = prefill.attend_seconds / (middle - start);
  figures.attend_share = decode.attend_seconds / (end - middle);
  figures.arena_bytes = store.cache().usage().arena_bytes;
  figures.peak_bytes = store.cache().usage().peak_bytes;
  figures.port = std::string(store.cache().port());
  return figures;
}

}  // namespace nibkv::llm
