#include "bench/runner/stores/policy_settings.hpp"

#include <bit>
#include <optional>
#include <span>
#include <string_view>

#include "bench/runner/programs/arguments.hpp"
#include "bench/runner/stores/f16_fold.hpp"
#include "bench/runner/stores/storage_name.hpp"

namespace nibkv::llm {
namespace {

/// A field of a Policy that has a name on the command line.
struct Field {
  std::string_view key;
  std::string_view values;  // its allowed values, in words
  /// Returns false if the field does not accept the value; the policy may have changed then.
  bool (*set)(std::string_view value, Policy& policy);
};

// The enumerators of E in order, by name.
template <typename E>
bool choose(std::string_view value, E& field, std::initializer_list<std::string_view> names) {
  std::uint8_t index = 0;
  for (const std::string_view name : names) {
    if (name == value && !name.empty()) {
      field = static_cast<E>(index);
      return true;
    }
    ++index;
  }
  return false;
}

template <typename T>
bool number(std::string_view value, T& field, std::uint64_t least, std::uint64_t most) {
  const auto read = parse_whole(value);
  if (!read || *read < least || *read > most) return false;
  field = static_cast<T>(*read);
  return true;
}

// Tokens, or a share of the budget.
bool tokens(std::string_view value, std::uint32_t& field, std::uint32_t budget) {
  if (!value.ends_with('%')) return number(value, field, 0, kMaxTokens);
  std::uint64_t share = 0;
  if (!number(value.substr(0, value.size() - 1), share, 0, 100)) return false;
  field = static_cast<std::uint32_t>(budget * share / 100);
  return true;
}

// Layers such as 0:8:23 or, for one, 8:8; or how many of the first ones.
bool set_wide(std::string_view value, Policy& policy) {
  policy.wide = {};
  std::uint32_t layer = 0;
  if (number(value, layer, 0, kMaxPairedLayers)) {
    while (layer-- != 0) policy.wide.add(layer);
    return true;
  }
  while (true) {
    const std::size_t end = value.find(':');
    if (!number(value.substr(0, end), layer, 0, kMaxPairedLayers - 1)) return false;
    policy.wide.add(layer);
    if (end == std::string_view::npos) return true;
    value.remove_prefix(end + 1);
  }
}

bool set_wide_storage(std::string_view value, Policy& policy) {
  return choose(value, policy.wide_storage, {"q4", "", "q8", "q8q4"});
}

// Whole tiles of tokens, or a share of the budget, rounded down to them.
bool whole_tiles(std::string_view value, std::uint32_t& field, std::uint32_t budget) {
  if (!tokens(value, field, budget)) return false;
  if (value.ends_with('%')) field -= field % kTileSlots;
  return field % kTileSlots == 0;
}

bool set_window(std::string_view value, Policy& policy) {
  return number(value, policy.window, 1, 4096) && std::has_single_bit(policy.window);
}

bool set_pool(std::string_view value, Policy& policy) {
  return number(value, policy.pool, 1, 15) && policy.pool % 2 == 1;
}

bool set_threshold(std::string_view value, Policy& policy) {
  policy.mean_threshold = value == "mean";
  if (policy.mean_threshold) policy.threshold = 0;
  return policy.mean_threshold || number(value, policy.threshold, 0, 255);
}

// FIRST-END: pairs of neighbouring layers, from FIRST on and below END.
bool set_pairs(std::string_view value, LayerSet& pairs) {
  const std::size_t middle = value.find('-');
  std::uint32_t first = 0;
  std::uint32_t end = 0;
  if (middle == std::string_view::npos || !number(value.substr(0, middle), first, 0, kMaxPairedLayers) ||
      !number(value.substr(middle + 1), end, 0, kMaxPairedLayers))
    return false;
  pairs = pairs_from(first, end);
  return !pairs.empty();
}

bool set_how(std::string_view value, FoldChoice& choice) {
  return choose(value, choice.how, {"gate", "direct", "aligned"});
}

bool set_rows(std::string_view value, FoldChoice& choice) {
  choice.keys = value != "values";
  choice.values = value != "keys";
  return value == "both" || value == "keys" || value == "values";
}

bool set_start(std::string_view value, FoldChoice& choice) {
  std::uint32_t layer = 0;
  if (!number(value, layer, 0, kMaxPairedLayers)) return false;
  choice.start = layer;
  return true;
}

// A setting of a FoldChoice, not a field of a Policy.
template <bool (*kSet)(std::string_view, FoldChoice&)>
bool check_choice(std::string_view value, Policy&) {
  FoldChoice choice;
  return kSet(value, choice);
}

std::span<const Field> fields() {
  using View = std::string_view;
  static constexpr Field all[] = {
      {"sinks", "tokens, or a share of the budget such as 5%",
       [](View value, Policy& policy) { return tokens(value, policy.sinks, policy.tokens); }},
      {"recent", "tokens, or a share of the budget such as 50%",
       [](View value, Policy& policy) { return tokens(value, policy.recent, policy.tokens); }},
      {"recent_share", "a number from 0 to 255",
       [](View value, Policy& policy) { return number(value, policy.recent_share, 0, 255); }},
      {"score", "global_local, global, local or key_norm",
       [](View value, Policy& policy) {
         return choose(value, policy.score, {"global_local", "global", "local", "key_norm"});
       }},
      {"group", "mean or max",
       [](View value, Policy& policy) {
         return choose(value, policy.group, {"mean", "max"});
       }},
      {"combine", "sum or max",
       [](View value, Policy& policy) {
         return choose(value, policy.combine, {"sum", "max"});
       }},
      {"per_query", "0 or 1", [](View value, Policy& policy) { return number(value, policy.per_query, 0, 1); }},
      {"window", "a power of two from 1 to 4096", set_window},
      {"pool", "an odd number from 1 to 15", set_pool},
      {"value_norms", "0 or 1", [](View value, Policy& policy) { return number(value, policy.value_norms, 0, 1); }},
      {"wide", "a number of layers, the first ones, or layers such as 0:8:23, with a colon", set_wide},
      {"wide_storage", "q8q4, q8 or q4", set_wide_storage},
      {"wide_first", "0 or 1", [](View value, Policy& policy) { return number(value, policy.wide_first, 0, 1); }},
      {"tail", "tokens, or a share of the budget such as 10%",
       [](View value, Policy& policy) { return tokens(value, policy.tail, policy.tokens); }},
      {"tail_storage", "q8, q8q4 or q4",
       [](View value, Policy& policy) {
         return choose(value, policy.tail_storage, {"q4", "", "q8", "q8q4"});
       }},
      {"faint", "a multiple of 32, or a share of the budget such as 50%",
       [](View value, Policy& policy) { return whole_tiles(value, policy.faint, policy.tokens); }},
      {"faint_storage", "q2, q4q2, q4 or q8q4",
       [](View value, Policy& policy) {
         return choose(value, policy.faint_storage, {"q4", "", "", "q8q4", "q4q2", "q2"});
       }},
      {"log", "tokens, a multiple of 32", [](View value, Policy& policy) { return whole_tiles(value, policy.log, 0); }},
      {"recall", "a multiple of 32, or a share of the budget such as 50%",
       [](View value, Policy& policy) { return whole_tiles(value, policy.recall, policy.tokens); }},
      {"indexed", "heads with an index in 256 of all, from 1 to 256",
       [](View value, Policy& policy) { return number(value, policy.indexed, 1, 256); }},
      {"merge", "none, values or both",
       [](View value, Policy& policy) {
         return choose(value, policy.merge, {"none", "values", "both"});
       }},
      {"rephase", "0 or 1", [](View value, Policy& policy) { return number(value, policy.rephase, 0, 1); }},
      {"similarity", "key, value or key_value",
       [](View value, Policy& policy) {
         return choose(value, policy.similarity, {"key", "value", "key_value"});
       }},
      {"position_free", "0 or 1", [](View value, Policy& policy) { return number(value, policy.position_free, 0, 1); }},
      {"mass", "none, share or count",
       [](View value, Policy& policy) {
         return choose(value, policy.mass, {"none", "share", "count"});
       }},
      {"threshold", "mean, or a number from 0 to 255", set_threshold},
      {"candidate_mass", "a number from 0 to 255",
       [](View value, Policy& policy) { return number(value, policy.candidate_mass, 0, 255); }},
      {"budget", "uniform, pyramid, scores, adaptive, prefix, retrieval, rules or any_scores",
       [](View value, Policy& policy) {
         // In the order of the enumeration; a table has no name here.
         return choose(value, policy.budget,
                       {"uniform", "pyramid", "scores", "adaptive", "", "prefix", "retrieval", "rules", "any_scores"});
       }},
      {"most", "a number from 1 to 64", [](View value, Policy& policy) { return number(value, policy.most, 1, 64); }},
      {"recovered", "a number from 1 to 255",
       [](View value, Policy& policy) { return number(value, policy.recovered, 1, 255); }},
      {"fold", "gate, direct or aligned", check_choice<set_how>},
      {"fold_rows", "both, keys or values", check_choice<set_rows>},
      {"fold_start", "a layer", check_choice<set_start>},
      {"fold_centred", "0 or 1", [](View value, Policy& policy) { return number(value, policy.fold.centred, 0, 1); }},
      {"fold_min_cosine", "a number from 0 to 255",
       [](View value, Policy& policy) { return number(value, policy.fold.min_cosine, 0, 255); }},
      {"fold_keys", "layers FIRST-END whose neighbours share keys, such as 16-30",
       [](View value, Policy& policy) { return set_pairs(value, policy.fold.keys); }},
      {"fold_values", "layers FIRST-END whose neighbours share values, such as 16-30",
       [](View value, Policy& policy) { return set_pairs(value, policy.fold.values); }},
      {"fold_recent", "tokens, or a share of the budget such as 5%",
       [](View value, Policy& policy) { return tokens(value, policy.fold.recent, policy.tokens); }},
      {"fold_t", "a number from 0 to 255",
       [](View value, Policy& policy) { return number(value, policy.fold.t, 0, 255); }},
      {"fold_retained", "a number from 0 to 128",
       [](View value, Policy& policy) { return number(value, policy.fold.retained, 0, 128); }},
      {"fold_retain", "far, near or far_range",
       [](View value, Policy& policy) {
         return choose(value, policy.fold.retain, {"far", "near", "far_range"});
       }},
  };
  return all;
}

const Field& find(const std::string& key) {
  std::string keys;
  for (const Field& field : fields()) {
    if (field.key == key) return field;
    keys.append(keys.empty() ? "" : ", ").append(field.key);
  }
  throw UsageError("--set knows no '" + key + "'; there are " + keys);
}

void apply(const std::string& key, const std::string& value, Policy& policy) {
  const Field& field = find(key);
  if (field.set(value, policy)) return;
  throw UsageError("--set " + key + " takes " + std::string(field.values) + ", not '" + value + "'");
}

}  // namespace

PolicySettings parse_settings(const std::string& text) {
  PolicySettings settings;
  Policy scratch;
  for (const std::string& part : split_list(text)) {
    const std::size_t middle = part.find('=');
    if (middle == std::string::npos) throw UsageError("--set takes key=value,..., not '" + part + "'");
    const std::string key = part.substr(0, middle);
    apply(key, part.substr(middle + 1), scratch);
    for (const auto& [other, value] : settings) {
      if (other == key) throw UsageError("--set has '" + key + "' twice");
    }
    settings.emplace_back(key, part.substr(middle + 1));
  }
  return settings;
}

std::string to_text(const PolicySettings& settings) {
  std::string text;
  for (const auto& [key, value] : settings) {
    if (!text.empty()) text += ',';
    text.append(key).append("=").append(value);
  }
  return text;
}

void apply_settings(const PolicySettings& settings, Policy& policy) {
  for (const auto& [key, value] : settings) apply(key, value, policy);
}

std::string_view read_in_profile(Budget budget) {
  if (budget == Budget::kScores || budget == Budget::kRetrieval) {
    return "head scores (nibkv-eval profile, then head-scores)";
  }
  if (budget == Budget::kPrefix || budget == Budget::kRules) return "attention (nibkv-eval profile --attention)";
  return "";
}

bool may_fold(const std::string& policy) {
  return policy == "minicache" || policy == "ems_fold" || is_f16_fold(policy);
}

bool reads_setting(const std::string& policy, const std::string& key) {
  if (is_f16_fold(policy) && key == "fold_centred") return false;
  if (key.starts_with("fold")) return may_fold(policy);
  if (key.starts_with("wide")) return !may_fold(policy);
  Policy found;
  if (find_policy(policy, 0, found) != Status::kOk) return false;
  if (key.starts_with("tail")) return found.keep != Keep::kRecent && !may_fold(policy);
  if (key.starts_with("faint")) return found.keep == Keep::kScore && !may_fold(policy);
  if (key == "log" || key == "recall" || key == "indexed") return policy == "recall";
  if (policy == "recall") return key == "sinks";
  const bool of_all = key == "sinks" || key == "budget" || key == "most";
  return found.keep == Keep::kScore || (found.keep == Keep::kRecent && of_all);
}

FoldChoice fold_choice(const PolicySettings& settings) {
  FoldChoice choice;
  for (const auto& [key, value] : settings) {
    if (key == "fold") set_how(value, choice);
    if (key == "fold_rows") set_rows(value, choice);
    if (key == "fold_start") set_start(value, choice);
  }
  return choice;
}

void force_fold(PolicySettings& settings) {
  for (const auto& [key, value] : settings) {
    if (key == "fold") return;
  }
  settings.emplace_back("fold", "direct");
}

void choose_pairs(const StoreOptions& options, const Shape& shape, Policy& policy) {
  if (!may_fold(options.policy) || has_pairs(policy)) return;
  const FoldChoice choice = fold_choice(options.settings);
  const std::uint32_t start = choice.start.value_or(shape.layers / 2);
  if (choice.how != FoldChoice::How::kGate) {
    policy.fold.keys = policy.fold.values = pairs_from(start, shape.layers);
    if (choice.how == FoldChoice::How::kAligned) {
      policy.fold.aligned_keys = policy.fold.aligned_values = policy.fold.keys;
      policy.fold.centred = true;  // because rotated keys were measured like this
    }
  } else if (!options.profile.empty()) {
    ProfileView profile;
    require(profile.open(options.profile, shape), "profile");
    policy = fold_pairs(shape, policy, profile, start);
  }
  if (!choice.keys) policy.fold.keys = policy.fold.aligned_keys = {};
  if (!choice.values) policy.fold.values = policy.fold.aligned_values = {};
}

std::string pairs_text(const Fold& fold) {
  std::string text;
  for (std::uint32_t lower = 0; lower < kMaxPairedLayers; ++lower) {
    const bool keys = fold.keys.has(lower);
    const bool values = fold.values.has(lower);
    if (!keys && !values) continue;
    text += (text.empty() ? "" : ", ") + std::to_string(lower) + "+" + std::to_string(lower + 1);
    if (keys != values) text += keys ? " keys" : " values";
    const bool turned = fold.aligned_keys.has(lower);
    const bool mapped = fold.aligned_values.has(lower);
    if (turned || mapped)
      text += turned == mapped || keys != values ? " aligned" : mapped ? " values aligned" : " keys aligned";
  }
  return text.empty() ? "none" : text;
}

std::string fold_text(const Shape& shape, const Policy& policy) {
  const std::string text = pairs_text(policy.fold);
  return !has_pairs(policy) || layout_of(shape, policy).views != 0 ? text
                                                                   : "none, since " + text + " would save no bytes";
}

void check_settings(const PolicySettings& settings, const std::string& policy) {
  Policy found;
  require(find_policy(policy, 0, found), "policy '" + policy + "'");
  for (const auto& [key, value] : settings) {
    if (!reads_setting(policy, key)) throw UsageError("policy '" + policy + "' has no '" + key + "' to set");
  }
}

std::string policy_text(const StoreOptions& options) {
  std::string text = options.policy;
  if (!options.settings.empty()) text.append(" ").append(to_text(options.settings));
  if (has_codes(options.storage) && options.storage != Storage::kQ4)
    text.append(" storage=").append(storage_name(options.storage));
  return text;
}

}  // namespace nibkv::llm
