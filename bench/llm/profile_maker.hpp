#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "bench/llm/model.hpp"

namespace nibkv::llm {

/// Runs `tokens` through the model in contexts of `context` tokens and returns the profile of its keys and values.
/// @param progress  called with the tokens done so far; may be empty
/// @param align     also measures how alike neighbouring layers are once aligned, and adds the maps
/// @throws Error when there is no token, or the model's shape is none that nibkv takes
std::vector<std::byte> make_profile(Model& model, ThreadPool& pool, std::span<const std::int32_t> tokens,
                                    std::size_t context, const std::function<void(std::size_t)>& progress,
                                    bool align = false);

/// @throws Error when the file cannot be read or is no profile for this model
std::vector<std::byte> read_profile(const std::string& path, const Config& model);

/// Writes a C++ header with the same constants, for firmware that links its profile.
void write_profile_header(const std::string& path, std::span<const std::byte> profile);

}  // namespace nibkv::llm
