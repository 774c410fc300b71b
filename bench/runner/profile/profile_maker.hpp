#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "bench/runner/model/model.hpp"

namespace nibkv::llm {

/// Runs `tokens` through the model in contexts of `context` tokens and returns the profile of its keys and values.
/// @param progress  called with the tokens done so far; may be empty
/// @param align     also measures how similar neighbouring layers are after alignment,
///                  and adds the maps
/// @param first     sees the first context too; may be null
/// @throws Error if there is no token, or nibkv does not support the model's shape
std::vector<std::byte> make_profile(Model& model, ThreadPool& pool, std::span<const std::int32_t> tokens,
                                    std::size_t context, const std::function<void(std::size_t)>& progress,
                                    bool align = false, AttentionObserver* first = nullptr);

/// @throws Error if the file cannot be read, or is not a profile for this model
std::vector<std::byte> read_profile(const std::string& path, const Config& model);

/// Writes a C++ header with the same constants, for firmware that links its profile.
void write_profile_header(const std::string& path, std::span<const std::byte> profile);

}  // namespace nibkv::llm
