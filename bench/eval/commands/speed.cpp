#include "bench/eval/speed/speed.hpp"

#include <cstdio>
#include <string>
#include <vector>

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
  --media LIST         what policy recall would do with its log on memory, sd, emmc, ufs: a table.
                       The log is in memory here, and nothing waits: the time that the medium would
                       take for the pages is added to that of the run. Assumed is one request at a
                       time (queue depth 1) of whole blocks of 4,096 bytes, without a cache: SD card
                       of class A1, 1,500 blocks read and 500 written a second, 10 MB/s in a row;
                       eMMC 5.1, 7,000 and 13,000, 250 and 125 MB/s; UFS 3.1, 60,000 and 60,000,
                       2,100 and 1,200 MB/s. A data sheet's figures for UFS are of deep queues: take
                       it as the best case
)";

void append(std::string& line, const char* format, double value) {
  char text[48];
  std::snprintf(text, sizeof text, format, value);
  line += text;
}

struct SpeedJob {
  Measured measured;
  std::size_t context = 0;
  std::size_t decoded = 0;
  std::vector<const Medium*> media;

  explicit SpeedJob(const Arguments& arguments)
      : measured(arguments,
                 context_of(arguments, 4096) + static_cast<std::size_t>(arguments.integer("decode", 64, 1, 65536))),
        context(context_of(arguments, 4096)),
        decoded(static_cast<std::size_t>(arguments.integer("decode", 64, 1, 65536))) {
    measured.cache.store.turns = arguments.flag("turns");
    if (const auto names = arguments.text("media")) {
      if (measured.cache.store.policy != "recall") throw UsageError("--media is for --policy recall");
      if (!measured.cache.store.cold_file.empty()) throw UsageError("--media and --cold exclude each other");
      media = parse_media(*names);
    }
    check_settings(measured.cache.store.settings, measured.cache.store.policy);
  }
  void operator()();
  void add_media(const SpeedFigures& figures, Report& report, std::string& lines) const;
};

// A line for each medium, and its figures.
void SpeedJob::add_media(const SpeedFigures& figures, Report& report, std::string& lines) const {
  lines += "\nlog on             prefill/s  decode/s  pages read  written     bytes  hit rate   ms wait   longest\n";
  for (const Medium* medium : media) {
    const MediumFigures on = on_medium(figures, context, *medium);
    std::string line(medium->device);
    line.resize(18, ' ');
    append(line, "%10.2f", on.prefill_tokens_per_second);
    append(line, "%10.3f", on.decode_tokens_per_second);
    append(line, "%12.2f", on.pages_read);
    append(line, "%9.2f", on.pages_written);
    append(line, "%10.0f", on.bytes);
    append(line, "%10.3f", on.hit_rate);
    append(line, "%10.3f", on.wait * 1000);
    append(line, "%10.3f", on.longest_wait * 1000);
    lines += line + '\n';
    const std::string name = std::string(medium->name) + '_';
    report.emplace_back(name + "prefill_tokens_per_second", on.prefill_tokens_per_second);
    report.emplace_back(name + "decode_tokens_per_second", on.decode_tokens_per_second);
    report.emplace_back(name + "wait_seconds_a_token", on.wait);
    report.emplace_back(name + "longest_wait_seconds", on.longest_wait);
  }
  lines += "Pages, bytes, waits: of a decoded token. Waits are worked out and added; see nibkv-eval speed --help.\n";
  const MediumFigures any = on_medium(figures, context, *media.front());
  report.emplace_back("pages_read_a_token", any.pages_read);
  report.emplace_back("pages_written_a_token", any.pages_written);
  report.emplace_back("page_bytes_a_token", any.bytes);
  report.emplace_back("hit_rate", any.hit_rate);
}

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
  Report report = {{"context", std::uint64_t{context}},
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
                   {"peak_bytes", figures.peak_bytes}};
  std::string lines = as_lines(report);
  if (!media.empty()) add_media(figures, report, lines);
  publish(report, measured.json, lines);
}

}  // namespace

Command speed_command() {
  return {"speed",
          "tokens per second of the whole model",
          kHelp,
          {"model", "text", "context", "decode", "storage", "policy", "set", "tokens", "arena", "profile", "outliers",
           "port", "threads", "json", "cold", "media"},
          {"turns"},
          [](const Arguments& arguments) -> Job { return SpeedJob(arguments); }};
}

}  // namespace nibkv::llm
