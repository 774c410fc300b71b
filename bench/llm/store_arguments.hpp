#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "bench/llm/arguments.hpp"
#include "bench/llm/tile_store.hpp"

namespace nibkv::llm {

/// The options that the programs have in common: --policy, --set, --tokens
/// or --arena, --port, --profile, --outliers, --threads.
struct StoreArguments {
  std::string profile;                    ///< a path or "none"
  std::optional<std::uint16_t> outliers;  ///< if given
  std::size_t threads = 1;
  StoreOptions store;  ///< policy, settings, tokens (0: not given), arena_bytes, port
};

/// @throws UsageError, or Error for a number out of its range
StoreArguments read_store_arguments(const Arguments& arguments, const std::string& default_policy,
                                    const std::string& default_profile);

/// --model, or otherwise NIBKV_MODEL of the environment, or otherwise the tiny built-in model.
std::string choose_model(const Arguments& arguments);

}  // namespace nibkv::llm
