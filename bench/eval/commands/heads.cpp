#include <algorithm>

#include "bench/eval/commands/commands.hpp"
#include "bench/runner/stores/kept_map.hpp"
#include "bench/runner/stores/policy_settings.hpp"

// nibkv-eval heads

namespace nibkv::llm {
namespace {

constexpr const char* kHelp =
    R"(nibkv-eval heads --text PATH --svg PATH [options]
  Draws which tokens of a text each KV head holds once it has gone through the cache.

  --context N          tokens of the text (default 1024)
  --svg PATH           the picture: a row a head, a mark where a token is held, a darker one where
                       others joined it
)";

struct HeadsJob {
  Measured measured;
  std::size_t context = 0;
  std::string svg;

  explicit HeadsJob(const Arguments& arguments)
      : measured(arguments, context_of(arguments, 1024)),
        context(context_of(arguments, 1024)),
        svg(required(arguments, "svg")) {}
  void operator()();
};

void HeadsJob::operator()() {
  check_place(svg);
  if (!measured.json.empty() && measured.json != "-") check_place(measured.json);
  Subject subject(measured.model, measured.text, measured.cache.threads);
  if (subject.tokens.size() < context) {
    throw Error("the text has " + std::to_string(subject.tokens.size()) + " tokens, less than the " +
                std::to_string(context) + " asked for");
  }
  const StoreOptions options = measured.store(subject.model->config());
  say_notes(subject.model->config(), options);
  TileStore store(subject.model->config(), options);
  {
    Progress line(kProgram);
    const std::span<const std::int32_t> tokens(subject.tokens);
    for (std::size_t at = 0; at < context; at += store.max_batch()) {
      const std::size_t count = std::min(store.max_batch(), context - at);
      subject.model->forward(tokens.subspan(at, count), at, store, nullptr, 0);
      line.show("prefill", at + count, context);
    }
  }
  const std::string policy = policy_text(options);
  const std::uint32_t budget = store.cache().policy().tokens;
  const KeptMap map = kept_map_of(store.cache(), policy + ", " + std::to_string(budget) + " tokens a head, after " +
                                                     std::to_string(context) + " tokens");
  std::uint64_t held = 0, least = ~std::uint64_t{0}, most = 0, merged = 0;
  for (const std::vector<SlotInfo>& row : map.rows) {
    held += row.size();
    least = std::min<std::uint64_t>(least, row.size());
    most = std::max<std::uint64_t>(most, row.size());
    for (const SlotInfo& slot : row) merged += slot.merged != 0 ? 1 : 0;
  }
  write_file(svg, as_svg(map));
  publish({{"policy", policy},
           {"tokens", std::uint64_t{budget}},
           {"context", std::uint64_t{context}},
           {"heads", std::uint64_t{map.rows.size()}},
           {"held_mean", static_cast<double>(held) / static_cast<double>(map.rows.size())},
           {"held_least", least},
           {"held_most", most},
           {"held_with_others_merged", merged},
           {"arena_bytes", std::uint64_t{store.cache().usage().arena_bytes}}},
          measured.json);
}

}  // namespace

Command heads_command() {
  return {"heads",
          "a picture of which tokens each KV head holds",
          kHelp,
          {"model", "text", "context", "svg", "storage", "policy", "tokens", "arena", "set", "profile", "outliers",
           "port", "threads", "json"},
          {},
          [](const Arguments& arguments) -> Job { return HeadsJob(arguments); }};
}

}  // namespace nibkv::llm
