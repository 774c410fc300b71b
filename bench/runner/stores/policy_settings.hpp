#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "bench/runner/stores/tile_store.hpp"
#include "nibkv/policy.hpp"

// `--set key=value,...`: single fields of a policy, to try the effect of each of them.

namespace nibkv::llm {

/// Splits and checks `key=value,...`.
/// @throws UsageError naming what is allowed, for an unknown key or a value that its
///         field does not accept
PolicySettings parse_settings(const std::string& text);

/// `key=value,...`; empty for none
std::string to_text(const PolicySettings& settings);

/// Sets the fields. Shares of the budget are shares of `policy.tokens`, rounded down.
/// @throws UsageError as parse_settings does
void apply_settings(const PolicySettings& settings, Policy& policy);

/// Whether a policy reads a setting. Settings of folding are read by the policies that fold.
/// @param policy  a name that find_policy knows, or one for which is_f16_fold
bool reads_setting(const std::string& policy, const std::string& key);

/// Whether layers may share codes under a policy, or f16 cache, of that name: minicache, ems_fold,
/// f16_fold and f16_fold_tokens.
bool may_fold(const std::string& policy);

/// What such budgets read in a profile beyond what every profile has, and how it gets there, in words; empty for nothing.
std::string_view read_in_profile(Budget budget);

/// How the pairs of layers that share codes are chosen, if fold_keys and fold_values name none.
struct FoldChoice {
  enum class How { kGate, kDirect, kAligned };
  How how = How::kGate;                ///< by what the profile measured; or all, as they are or through its maps
  bool keys = true;                    ///< whether keys may be shared,
  bool values = true;                  ///< and values
  std::optional<std::uint32_t> start;  ///< first layer that may share; none: half of the layers
};

/// What the settings say about that.
FoldChoice fold_choice(const PolicySettings& settings);

/// --force-fold: pairs share whatever the profile says, unless the settings name
/// how they are chosen.
void force_fold(PolicySettings& settings);

/// Sets the pairs of a policy that has none, if it is one that folds.
/// @param profile  of the model, or empty
void choose_pairs(const StoreOptions& options, const Shape& shape, Policy& policy);

/// Which layers should share what, in words; "none" if no layers do.
std::string pairs_text(const Fold& fold);

/// Which layers share what.
std::string fold_text(const Shape& shape, const Policy& policy);

/// @param policy  a name that find_policy knows
/// @throws UsageError for a setting that the policy does not read
void check_settings(const PolicySettings& settings, const std::string& policy);

/// The policy's name, followed by what was set, and the storage if it has codes of other widths than 4 bits.
std::string policy_text(const StoreOptions& options);

}  // namespace nibkv::llm
