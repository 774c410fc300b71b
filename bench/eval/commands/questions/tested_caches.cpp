#include "bench/eval/commands/questions/tested_caches.hpp"

#include <memory>
#include <utility>

#include "bench/runner/stores/policy_settings.hpp"

namespace nibkv::llm {
namespace {

constexpr const char* kExact = "f32";

}  // namespace

// --policy is read by read_store_arguments, too; no budget is needed if everything is kept.
TestedCaches::TestedCaches(const Arguments& arguments, Storage storage)
    : tokens_(static_cast<std::uint32_t>(arguments.integer("tokens", 0, 1, kMaxTokens))) {
  if (arguments.text("policy") && arguments.text("policies")) {
    throw UsageError("--policy and --policies exclude each other");
  }
  const std::string mode = arguments.text("mode", "both");
  if (mode != "unseen" && mode != "seen" && mode != "both") {
    throw UsageError("--mode takes unseen, seen or both, not '" + mode + "'");
  }
  unseen_ = mode != "seen";
  seen_ = mode != "unseen";
  PolicySettings settings;
  if (const auto set = arguments.text("set")) settings = parse_settings(*set);
  if (arguments.flag("force-fold")) force_fold(settings);
  for (const std::string& policy : split_list(arguments.text("policies", arguments.text("policy", kExact)))) {
    add(policy, settings, storage);
  }
  if (caches_.empty()) throw UsageError("--mode seen is for policies that keep scores");
}

void TestedCaches::add(const std::string& policy, const PolicySettings& settings, Storage storage) {
  Tested cache;
  cache.name = policy;
  if (is_f16(policy)) {
    add_bounded(cache, false);
    return;
  }
  cache.options.storage = policy == kExact ? Storage::kF32 : storage;
  cache.options.policy = policy == kExact ? "full" : policy;
  Policy found;
  if (find_policy(cache.options.policy, 0, found) != Status::kOk) {
    std::string names = kExact;
    for (std::uint32_t i = 0; !policy_name(i).empty(); ++i) names += ", " + std::string(policy_name(i));
    names.append(", ").append(kF16Last).append(", ").append(kF16Sinks);
    throw UsageError("unknown policy '" + policy + "'; there are " + names);
  }
  for (const auto& setting : settings) {
    if (reads_setting(cache.options.policy, setting.first)) cache.options.settings.push_back(setting);
  }
  if (policy != kExact) cache.name = policy_text(cache.options);
  if (found.keep == Keep::kAll) {
    caches_.push_back(cache);
    return;
  }
  add_bounded(cache, found.keep == Keep::kScore);
}

void TestedCaches::add_bounded(Tested cache, bool has_scores) {
  if (tokens_ == 0) throw UsageError("policy '" + cache.name + "' needs --tokens");
  cache.options.tokens = tokens_;
  cache.mode = AskMode::kUnseen;
  if (unseen_) caches_.push_back(cache);
  cache.mode = AskMode::kSeen;
  if (seen_ && has_scores) caches_.push_back(cache);
  if (seen_ && !has_scores) without_scores_.push_back(cache.name);
}

void TestedCaches::begin(const Config& model, const StoreOptions& common, std::size_t room) {
  for (const std::string& name : without_scores_) {
    say("note: " + name + " keeps no scores and is left out where the question is seen");
  }
  for (Tested& cache : caches_) {
    if (is_f16(cache.name)) {
      StoreOptions same = common;
      same.policy = "ems";
      same.settings.clear();
      same.tokens = tokens_;
      same.workers = 1;  // the number of threads must not change any result
      cache.f16_bytes = TileStore(model, same).cache().usage().arena_bytes;
      cache.options.tokens = static_cast<std::uint32_t>(F16Store(model, cache.name, cache.f16_bytes).tokens);
      continue;
    }
    cache.options.workers = common.workers;
    cache.options.port = common.port;
    cache.options.warn = common.warn;
    if (cache.options.storage == Storage::kF32) continue;
    cache.options.profile = common.profile;
    cache.options.basis = common.basis;
    cache.options.outlier_channels = common.outlier_channels;
    StoreOptions sized = cache.options;
    if (sized.tokens == 0) sized.tokens = static_cast<std::uint32_t>(room);
    say_notes(model, sized);
  }
}

SweepStore TestedCaches::store(const Config& model, const Tested& cache, std::size_t room) const {
  if (is_f16(cache.name)) return SweepStore(std::make_unique<F16Store>(model, cache.name, cache.f16_bytes));
  if (cache.mode == AskMode::kSeen) {
    // The returned object is made in place, because a store cannot be moved.
    return SweepStore(std::unique_ptr<TileStore>(new TileStore(make_whole_store(model, cache.options, room))));
  }
  StoreOptions options = cache.options;
  if (cache.mode == AskMode::kEither) options.tokens = static_cast<std::uint32_t>(room);
  return SweepStore(std::make_unique<TileStore>(model, options));
}

}  // namespace nibkv::llm
