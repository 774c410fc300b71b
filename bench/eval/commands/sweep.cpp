#include <algorithm>
#include <string>
#include <vector>

#include "bench/eval/commands/commands.hpp"
#include "bench/eval/commands/sweep_job.hpp"
#include "bench/runner/stores/policy_settings.hpp"
#include "bench/runner/stores/storage_name.hpp"

// nibkv-eval sweep

namespace nibkv::llm {
namespace {

constexpr const char* kHelp =
    R"(nibkv-eval sweep --text PATH [options]
  What policies make of budgets: a text is read as a stream, each cache keeps what its policy
  chooses without knowing what comes, and what the model predicts is scored against an f32 cache
  that keeps everything.

  --policies LIST      of nibkv's (nibkv-eval perplexity --help), and what there is without nibkv,
                       in the bytes that the tiles of streaming_llm take at the budget: f16_last,
                       the last tokens in f16, and f16_sinks, the first 4 and the last; and all
                       tokens in f16 with the layers folded that minicache folds: f16_fold, where
                       each head retains tokens of its own, and f16_fold_tokens, where all retain
                       the same
                       (default: all but head_kv, duo, prefix_kv and fast_gen, whose profile needs
                       head scores or attention, and those that fold)
  --budgets LIST       of a head: tokens such as 410, shares of the context such as 10%, or bytes of
                       arena such as 1M (default 2%,5%,10%,25%)
  --set KEY=VALUE,...  fields of the policies that have them (nibkv-eval perplexity --help);
                       f16_fold reads what minicache does of folding, but fold_centred and
                       fold=aligned
  --storages LIST      of the codes: q4 (default), q8, q2, q8q4 (keys q8, values q4), q4q2
  --json PATH          write the rows as JSON, anew whenever there are more; - prints JSON instead
                       of a table
)";

std::vector<std::string> all_policies() {
  std::vector<std::string> all;
  for (std::uint32_t i = 0; !policy_name(i).empty(); ++i) all.emplace_back(policy_name(i));
  all.insert(all.end(), {kF16Last, kF16Sinks, kF16Fold, kF16FoldTokens});
  return all;
}

// Whether a cache of that name needs a profile that knows more than others do.
bool needs_more(const std::string& name) {
  Policy policy;
  return find_policy(name, 1, policy) == Status::kOk && !read_in_profile(policy.budget).empty();
}

std::vector<std::string> chosen_policies(const Arguments& arguments) {
  std::vector<std::string> all = all_policies();
  if (!arguments.text("policies")) {
    std::erase_if(all, needs_more);
    std::erase_if(all, may_fold);  // they are for models whose layers are similar
    return all;
  }
  const std::vector<std::string> chosen = split_list(*arguments.text("policies"));
  for (const std::string& name : chosen) {
    if (std::find(all.begin(), all.end(), name) != all.end()) continue;
    std::string names;
    for (const std::string& known : all) names += (names.empty() ? "" : ", ") + known;
    throw UsageError("unknown policy '" + name + "'; there are " + names);
  }
  return chosen;
}

std::vector<Storage> chosen_storages(const Arguments& arguments) {
  std::vector<Storage> all;
  for (const std::string& name : split_list(arguments.text("storages", "q4"))) {
    all.push_back(parse_storage(name));
    if (all.back() == Storage::kF32) throw UsageError("--storages: f32 is what all caches are compared with");
  }
  return all;
}

// The name of the case's settings in a report.
std::string setting_text(const PolicySettings& settings, Storage storage) {
  std::string text = to_text(settings);
  if (storage != Storage::kQ4) text.append(text.empty() ? "" : ",").append("storage=").append(storage_name(storage));
  return text;
}

// The settings that the policy reads.
PolicySettings settings_of(const std::string& policy, const PolicySettings& settings) {
  PolicySettings read;
  for (const auto& setting : settings) {
    if (!is_f16(policy) && reads_setting(policy, setting.first)) read.push_back(setting);
  }
  return read;
}

Job prepare(const Arguments& arguments) {
  SweepJob job(arguments, "2%,5%,10%,25%");
  const auto given = arguments.text("set");
  PolicySettings settings = given ? parse_settings(*given) : PolicySettings{};
  if (arguments.flag("force-fold")) force_fold(settings);
  std::vector<SweepCase> cases;
  const std::vector<Storage> storages = chosen_storages(arguments);
  bool is_read = settings.empty();
  for (const std::string& policy : chosen_policies(arguments)) {
    const PolicySettings read = settings_of(policy, settings);
    is_read = is_read || !read.empty();
    // A cache that keeps everything has one size.
    const bool whole = policy == "full" || policy == "minicache" || is_f16_fold(policy);
    const std::vector<std::string> budgets = whole ? std::vector<std::string>{"100%"} : job.budgets();
    for (const Storage storage : storages) {
      if (storage != Storage::kQ4 && (is_f16(policy) || is_f16_fold(policy))) continue;
      for (const std::string& budget : budgets)
        cases.push_back({policy, budget, read, setting_text(read, storage), storage});
    }
  }
  if (!is_read) throw UsageError("--set: none of the policies has that");
  job.set_cases(cases);
  return job;
}

}  // namespace

Command sweep_command() {
  std::set<std::string> options = SweepJob::option_names();
  options.insert({"policies", "set", "storages"});
  return {"sweep", "policies against budgets", kHelp, options, {"resume", "force-fold"}, prepare};
}

}  // namespace nibkv::llm
