#include <algorithm>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "bench/eval/commands/commands.hpp"
#include "bench/eval/metrics/attention_meter.hpp"
#include "bench/runner/profile/profile_maker.hpp"
#include "bench/runner/text/token_classes.hpp"

// nibkv-eval profile

namespace nibkv::llm {
namespace {

constexpr const char* kHelp =
    R"(nibkv-eval profile --text PATH -o PATH [options]
  Runs a text through the model and writes the profile of its keys and values.

  -o, --out PATH       the profile
  --header PATH        write it as a C++ header too
  --context N          tokens of a context (default 4096, at most the model's)
  --tokens N           tokens of the text that are used (default 12288)
  --attention          also measure how the attention of each head spreads over the first context,
                       for policies prefix_kv and fast_gen
  --align              also measure which orthogonal maps bring each layer to the basis of the layer
                       below, and add them
)";

struct ProfileJob {
  std::string model, text, out, header;
  std::size_t threads = 1;
  std::size_t context = 0;
  std::size_t tokens = 0;
  bool align = false;
  bool attention = false;

  explicit ProfileJob(const Arguments& arguments);
  void operator()() const;
};

ProfileJob::ProfileJob(const Arguments& arguments)
    : model(choose_model(arguments)),
      text(required(arguments, "text")),
      out(required(arguments, "out")),
      header(arguments.text("header", "")),
      threads(read_store_arguments(arguments, "full", "none").threads),
      context(static_cast<std::size_t>(arguments.integer("context", 0, 1, kMaxTokens))),
      tokens(static_cast<std::size_t>(arguments.integer("tokens", 12288, 1, kMaxTokens))),
      align(arguments.flag("align")),
      attention(arguments.flag("attention")) {}

void ProfileJob::operator()() const {
  check_place(out);
  if (!header.empty()) check_place(header);
  Subject subject(model, text, threads);
  const std::size_t largest = subject.model->config().context;
  if (context > largest) {
    throw Error("a context of " + std::to_string(context) + " tokens is larger than the model's " +
                std::to_string(largest));
  }
  const std::size_t used = std::min(tokens, subject.tokens.size());
  if (used < tokens) {
    say("note: the text has " + std::to_string(used) + " tokens, less than the " + std::to_string(tokens) +
        " asked for");
  }
  const std::size_t of_context = context != 0 ? context : std::min<std::size_t>(largest, 4096);
  std::vector<std::byte> profile;
  std::optional<AttentionMeter> meter;
  if (attention) {
    const std::vector<TokenClass> vocabulary = token_classes(Tokenizer::from(subject.file));
    const auto first = std::span(subject.tokens).first(std::min(used, of_context));
    meter.emplace(subject.model->config(), classes_of(vocabulary, first));
  }
  {
    Progress line(kProgram);
    profile = make_profile(
        *subject.model, subject.pool, std::span(subject.tokens).first(used), of_context,
        [&](std::size_t done) { line.show("profile", done, used); }, align, meter ? &*meter : nullptr);
  }
  if (meter) {
    const Shape shape = shape_of(subject.model->config(), {});
    std::vector<std::byte> more(profile_bytes(shape, align, true));
    require(add_attention(profile, shape, meter->measure(subject.pool), more), "attention");
    profile = std::move(more);
  }
  write_file(out, profile);
  if (!header.empty()) write_profile_header(header, profile);
  say("profile kept in " + out + (header.empty() ? "" : " and " + header));
}

}  // namespace

Command profile_command() {
  return {"profile",
          "the profile of a model's keys and values, from a text",
          kHelp,
          {"model", "text", "out", "header", "context", "tokens", "threads"},
          {"align", "attention"},
          [](const Arguments& arguments) -> Job { return ProfileJob(arguments); }};
}

}  // namespace nibkv::llm
