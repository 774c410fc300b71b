#include <algorithm>
#include <cstdio>
#include <numeric>
#include <string>
#include <vector>

#include "bench/eval/commands/commands.hpp"
#include "bench/eval/commands/common.hpp"
#include "bench/runner/profile/wide_layers.hpp"

// nibkv-eval widths

namespace nibkv::llm {
namespace {

constexpr const char* kHelp =
    R"(nibkv-eval widths --text PATH [options]
  Where codes of few bits cannot hold what a model attends to. A text is read into a cache that
  keeps everything; then, for each layer, the expected error of its logits from the codes of its
  keys (nibkv::logit_errors), as the root mean square over the query heads, in nats. Below 0.3
  attention hardly changes; from 2 on it goes astray. And which layers should have wider codes
  (--set wide=..., wide_storage=...) for a mean of bits.

  --context N          tokens that are read (default 512)
  --bits B             the mean of bits a channel that may be spent on codes, scales and outlier
                       channels (default: 0.1 more than without wide layers)
  --set wide_storage=S of the wide layers: q8q4 (default), q8 or q4
  --json PATH          write the figures as JSON too; - prints JSON instead of lines
)";

class WidthsJob {
 public:
  explicit WidthsJob(const Arguments& arguments)
      : context_(context_of(arguments, 512)),
        bits_(arguments.text("bits") ? arguments.number("bits", 0, 1, 32) : 0),
        measured_(arguments, context_) {
    if (!has_codes(measured_.cache.store.storage)) throw UsageError("--storage f32 has no codes");
    for (const auto& [key, value] : measured_.cache.store.settings) {
      if (key != "wide_storage") throw UsageError("widths reads wide_storage alone of --set, not '" + key + "'");
    }
  }
  void operator()();

 private:
  std::size_t context_;
  double bits_;
  Measured measured_;
};

// Bits a channel of tiles that are not wide, and what a wide layer adds to the mean.
double bits_of(const CachePlan& plan) {
  const Layout layout = layout_of(plan.shape, plan.policy);
  return 8.0 * (layout.code_bytes + layout.side_bytes) / (2.0 * kTileSlots * plan.shape.head_dim);
}

double bits_of_wide_layer(const CachePlan& plan) {
  const TileFormat wide = format_of(plan.policy.wide_storage);
  const TileFormat format = format_of(plan.shape.storage);
  const int more = wide.key_bits + wide.value_bits - format.key_bits - format.value_bits;
  return more / 2.0 / plan.shape.layers;
}

void WidthsJob::operator()() {
  if (!measured_.json.empty() && measured_.json != "-") check_place(measured_.json);
  Subject subject(measured_.model, measured_.text, measured_.cache.threads);
  const StoreOptions options = measured_.store(subject.model->config());
  const std::size_t count = std::min(context_, subject.tokens.size());
  const std::vector<float> errors =
      measure_logit_errors(*subject.model, std::span(subject.tokens).first(count), options);
  std::vector<std::size_t> order(errors.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return errors[a] > errors[b]; });
  const CachePlan plan = plan_cache(subject.model->config(), options);
  const double now = bits_of(plan);
  const double more = bits_of_wide_layer(plan);
  const double most = bits_ != 0 ? bits_ : now + 0.1;
  const auto wide = more > 0 ? static_cast<std::size_t>(std::max(0.0, (most - now) / more + 1e-9)) : 0;
  order.resize(std::min(wide, order.size()));
  std::sort(order.begin(), order.end());
  Report report;
  for (std::size_t i = 0; i < errors.size(); ++i)
    report.emplace_back("layer_" + std::to_string(i), static_cast<double>(errors[i]));
  report.emplace_back("bits_per_channel", now + more * static_cast<double>(order.size()));
  report.emplace_back("wide", order.empty() ? std::string("none") : wide_setting(order));
  publish(report, measured_.json);
}

}  // namespace

Command widths_command() {
  return {"widths",
          "which layers need codes of more bits",
          kHelp,
          {"model", "text", "context", "bits", "storage", "set", "profile", "outliers", "port", "threads", "json"},
          {},
          [](const Arguments& arguments) -> Job { return WidthsJob(arguments); }};
}

}  // namespace nibkv::llm
