#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "bench/runner/model/model.hpp"
#include "bench/runner/stores/tile_store.hpp"

namespace nibkv::llm {

/// nibkv::logit_errors of each layer, the root mean square over its query heads, after tokens were read into a cache
/// that keeps everything.
/// @param tokens   kErrorTokens or more
/// @param options  of the cache; its policy may be any, only `wide` settings are read
/// @throws Error for fewer tokens, and as TileStore does
std::vector<float> measure_logit_errors(Model& model, std::span<const std::int32_t> tokens,
                                        const StoreOptions& options);

/// Layers as the setting `wide` takes them: "0:8", of one "0:0".
/// @param layers  at least one
std::string wide_setting(std::span<const std::size_t> layers);

}  // namespace nibkv::llm
