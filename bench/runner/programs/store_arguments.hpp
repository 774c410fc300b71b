#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "bench/runner/programs/arguments.hpp"
#include "bench/runner/stores/tile_store.hpp"

namespace nibkv::llm {

/// The options that the programs have in common: --policy, --set, --tokens
/// or --arena, --port, --profile, --outliers, --threads.
struct StoreArguments {
  std::string profile;                    ///< a path, "none" or "measured"
  std::optional<std::uint16_t> outliers;  ///< if given
  std::size_t threads = 1;
  StoreOptions store;  ///< policy, settings, tokens (0: not given), arena_bytes, port
};

/// @throws UsageError, or Error for a number out of its range
StoreArguments read_store_arguments(const Arguments& arguments, const std::string& default_policy,
                                    const std::string& default_profile);

/// The tiny model that comes with the programs: beside the program, or else in the data folder that it is installed
/// with, or else in the sources that it was built from. Empty where it is in none of them.
/// @param folder   of the program; empty where it is not known
/// @param sources  the model's path there
std::string find_tiny_model(const std::string& folder, const std::string& sources);

/// That of this program.
std::string tiny_model();

/// --model, or otherwise NIBKV_MODEL of the environment, or otherwise the tiny model.
/// @throws UsageError where there is none
std::string choose_model(const Arguments& arguments);

}  // namespace nibkv::llm
