#include "bench/eval/metrics/speed.hpp"

#include <string>

#include "bench/eval/commands/commands.hpp"
#include "bench/runner/stores/policy_settings.hpp"
#include "bench/runner/stores/storage_name.hpp"

// nibkv-eval speed

namespace nibkv::llm {
namespace {

constexpr const char* kHelp =
    R"(nibkv-eval speed --text PATH [options]
  Tokens per second of the whole model: prefill of a context, then decoding after it, one token of
  the text at a time.

  --context N          tokens of the prefill (default 4096)
  --decode N           tokens decoded after it (default 64)
  --turns              heads take turns at making space (Options::turns)
)";

struct SpeedJob {
  Measured measured;
  std::size_t context = 0;
  std::size_t decoded = 0;

  explicit SpeedJob(const Arguments& arguments)
      : measured(arguments,
                 context_of(arguments, 4096) + static_cast<std::size_t>(arguments.integer("decode", 64, 1, 65536))),
        context(context_of(arguments, 4096)),
        decoded(static_cast<std::size_t>(arguments.integer("decode", 64, 1, 65536))) {
    measured.cache.store.turns = arguments.flag("turns");
    check_settings(measured.cache.store.settings, measured.cache.store.policy);
  }
  void operator()();
};

void SpeedJob::operator()() {
  if (!measured.json.empty() && measured.json != "-") check_place(measured.json);
  Subject subject(measured.model, measured.text, measured.cache.threads);
  const StoreOptions store = measured.store(subject.model->config());
  say_notes(subject.model->config(), store);
  SpeedFigures figures;
  {
    Progress line(kProgram);
    figures = measure_speed(*subject.model, subject.tokens, context, decoded, store,
                            [&](std::size_t done, std::size_t all) { line.show("prefill and decode", done, all); });
  }
  publish({{"context", std::uint64_t{context}},
           {"decoded", std::uint64_t{decoded}},
           {"storage", std::string(storage_name(store.storage))},
           {"policy", policy_text(store)},
           {"outlier_channels", std::uint64_t{shape_of(subject.model->config(), store).outlier_channels}},
           {"port", figures.port},
           {"threads", std::uint64_t{measured.cache.threads}},
           {"prefill_tokens_per_second", figures.prefill_tokens_per_second},
           {"decode_tokens_per_second", figures.decode_tokens_per_second},
           {"append_share_of_prefill", figures.append_share},
           {"attend_share_of_prefill", figures.prefill_attend_share},
           {"attend_share_of_decode", figures.attend_share},
           {"arena_bytes", figures.arena_bytes},
           {"peak_bytes", figures.peak_bytes}},
          measured.json);
}

}  // namespace

Command speed_command() {
  return {"speed",
          "tokens per second of the whole model",
          kHelp,
          {"model", "text", "context", "decode", "storage", "policy", "set", "tokens", "arena", "profile", "outliers",
           "port", "threads", "json", "cold"},
          {"turns"},
          [](const Arguments& arguments) -> Job { return SpeedJob(arguments); }};
}

}  // namespace nibkv::llm
