#include "bench/eval/metrics/retrieval.hpp"

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "bench/runner/programs/arguments.hpp"
#include "bench/runner/stores/policy_settings.hpp"

namespace nibkv::llm {

std::string_view mode_name(AskMode mode) {
  return mode == AskMode::kUnseen ? "unseen" : mode == AskMode::kSeen ? "seen" : "either";
}

std::vector<std::size_t> parse_lengths(const std::string& text) {
  std::vector<std::size_t> lengths;
  for (const std::string& part : split_list(text)) {
    const auto length = parse_whole(part);
    if (!length || *length < 16 || *length > kMaxTokens) {
      throw UsageError("--lengths takes numbers of tokens from 16, not '" + part + "'");
    }
    lengths.push_back(static_cast<std::size_t>(*length));
  }
  return lengths;
}

std::size_t prompt_length(std::size_t length, const Config& model) {
  if (length > model.context) {
    throw Error("a length of " + std::to_string(length) + " tokens is larger than the model's context of " +
                std::to_string(model.context));
  }
  return std::min(length, model.context - std::min(model.context, kAnswerTokens));
}

double depth_of(std::size_t place, std::size_t places) {
  return places == 1 ? 0.5 : static_cast<double>(place) / static_cast<double>(places - 1);
}

Answer hide_and_ask(Model& model, const Tokenizer& tokenizer, const Haystack& haystack, KvStore& store, Hiding hiding,
                    std::uint64_t which, const std::function<void()>& before_answer) {
  hiding.seed = which * 1000003 + static_cast<std::uint64_t>(hiding.depth * 4096);
  const Needle needle = make_needle(hiding.kind, hiding.seed);
  return ask_for_needle(model, tokenizer, store, haystack.hide(needle, hiding), needle, before_answer);
}

TileStore make_whole_store(const Config& model, const StoreOptions& options, std::size_t room) {
  // What is always kept depends on the budget, not on the space.
  Policy wanted;
  require(find_policy(options.policy, options.tokens, wanted), "policy '" + options.policy + "'");
  apply_settings(options.settings, wanted);
  StoreOptions whole = options;
  whole.settings.emplace_back("sinks", std::to_string(wanted.sinks));
  whole.settings.emplace_back("recent", std::to_string(wanted.recent));
  whole.compacted_by = wanted.budget;
  if (wanted.keep == Keep::kScore) whole.settings.emplace_back("budget", "uniform");
  whole.tokens = static_cast<std::uint32_t>(room + kTileSlots);
  return TileStore(model, whole);
}

Proportion wilson(double right, std::size_t of) {
  if (of == 0) return {};
  constexpr double kZ = 1.959964;  // of a normal distribution, 97.5 % lie below
  const double n = static_cast<double>(of);
  const double share = right / n;
  const double scale = 1 / (1 + kZ * kZ / n);
  const double middle = (share + kZ * kZ / (2 * n)) * scale;
  const double reach = kZ * std::sqrt(share * (1 - share) / n + kZ * kZ / (4 * n * n)) * scale;
  return {share, std::max(0.0, middle - reach), std::min(1.0, middle + reach)};
}

}  // namespace nibkv::llm
