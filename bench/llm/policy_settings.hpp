#pragma once

#include <string>

#include "bench/llm/tile_store.hpp"
#include "nibkv/policy.hpp"

// `--set key=value,...`: single fields of a policy, for trying what each of them does.

namespace nibkv::llm {

/// Splits and checks `key=value,...`.
/// @throws UsageError naming what is allowed: for an unknown key or a value that its field does not take
PolicySettings parse_settings(const std::string& text);

/// `key=value,...`; empty for none
std::string to_text(const PolicySettings& settings);

/// Sets the fields. Shares of the budget are those of `policy.tokens`, rounded down.
/// @throws UsageError as parse_settings does
void apply_settings(const PolicySettings& settings, Policy& policy);

/// Whether a policy of that kind reads a setting.
bool reads_setting(Keep keep, const std::string& key);

/// @param policy  a name that find_policy knows
/// @throws UsageError for a setting that the policy does not read
void check_settings(const PolicySettings& settings, const std::string& policy);

/// The policy's name, and behind it what was set.
std::string policy_text(const StoreOptions& options);

}  // namespace nibkv::llm
