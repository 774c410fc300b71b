#include "bench/eval/speed/speed.hpp"

#include <algorithm>
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
  bool reads_classes() const override { return store_.reads_classes(); }
  void expect(std::span<const TokenClass> classes) override { store_.expect(classes); }
  void reads_only(std::size_t count) override { store_.reads_only(count); }
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

RecallUsage difference(const RecallUsage& later, const RecallUsage& earlier) {
  RecallUsage more;
  more.written_pages = later.written_pages - earlier.written_pages;
  more.read_pages = later.read_pages - earlier.read_pages;
  more.lost_pages = later.lost_pages - earlier.lost_pages;
  more.forgotten_pages = later.forgotten_pages - earlier.forgotten_pages;
  more.chosen_tokens = later.chosen_tokens - earlier.chosen_tokens;
  more.found_tokens = later.found_tokens - earlier.found_tokens;
  return more;
}

}  // namespace

SpeedFigures measure_speed(Model& model, std::span<const std::int32_t> tokens, std::size_t context, std::size_t decoded,
                           const StoreOptions& options, const TokensDone& progress) {
  if (tokens.size() < context + decoded) {
    throw Error("the text has " + std::to_string(tokens.size()) + " tokens; " + std::to_string(context + decoded) +
                " are needed");
  }
  PageMeter meter;
  StoreOptions metered = options;
  metered.cold_over = [&meter](const ColdStore& store) { return meter.over(store); };
  TileStore store(model.config(), metered);
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
  SpeedFigures figures;
  figures.prefill_pages = meter.traffic();
  figures.decode_pages.reserve(decoded);
  const RecallUsage before = recall_usage(store.cache());
  PageTraffic earlier = figures.prefill_pages;
  const double decode_start = now();
  TimedStore decode(store, note);
  for (std::size_t i = 0; i < decoded; ++i) {
    model.forward(tokens.subspan(context + i, 1), context + i, decode, logits.data(), 1);
    const PageTraffic later = meter.traffic();
    figures.decode_pages.push_back(later - earlier);
    earlier = later;
  }
  const double end = now();

  figures.prefill_tokens_per_second = static_cast<double>(context) / (middle - start);
  figures.decode_tokens_per_second = static_cast<double>(decoded) / (end - decode_start);
  figures.append_share = prefill.append_seconds / (middle - start);
  figures.prefill_attend_share = prefill.attend_seconds / (middle - start);
  figures.attend_share = decode.attend_seconds / (end - decode_start);
  figures.arena_bytes = store.cache().usage().arena_bytes;
  figures.peak_bytes = store.cache().usage().peak_bytes;
  figures.port = std::string(store.cache().port());
  figures.decode_recall = difference(recall_usage(store.cache()), before);
  return figures;
}

MediumFigures on_medium(const SpeedFigures& figures, std::size_t context, const Medium& medium) {
  MediumFigures on;
  const auto tokens = static_cast<double>(figures.decode_pages.size());
  double bytes = 0, wait = 0;
  for (const PageTraffic& pages : figures.decode_pages) {
    const double here = seconds_of(pages, medium);
    bytes += static_cast<double>(pages.read_bytes + pages.written_bytes);
    wait += here;
    on.longest_wait = std::max(on.longest_wait, here);
  }
  on.bytes = bytes / tokens;
  on.wait = wait / tokens;
  const RecallUsage& recall = figures.decode_recall;
  on.pages_read = recall.read_pages / tokens;
  on.pages_written = recall.written_pages / tokens;
  if (recall.chosen_tokens != 0)
    on.hit_rate = static_cast<double>(recall.found_tokens) / static_cast<double>(recall.chosen_tokens);
  on.decode_tokens_per_second = 1 / (1 / figures.decode_tokens_per_second + on.wait);
  const double prefill =
      static_cast<double>(context) / figures.prefill_tokens_per_second + seconds_of(figures.prefill_pages, medium);
  on.prefill_tokens_per_second = static_cast<double>(context) / prefill;
  return on;
}

}  // namespace nibkv::llm
