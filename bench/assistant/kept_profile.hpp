#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "bench/runner/model/model.hpp"
#include "bench/runner/text/chat.hpp"
#include "bench/runner/text/tokenizer.hpp"

namespace nibkv::llm {

/// The built-in text as a conversation in the model's own format.
std::vector<std::int32_t> calibration_tokens(const Tokenizer& tokenizer, const Chat& chat);

/// Where the profile of a model may be, best place first: next to the model; in the cache folder
/// $NIBKV_CACHE, or else nibkv/ under $XDG_CACHE_HOME or ~/.cache, if there is any.
std::vector<std::string> profile_places(const std::string& model_path);

/// The first profile in `places` that fits. If there is none, makes one and keeps it at the first
/// place that can be written, or only in memory.
///
/// @param make  makes a profile
/// @param say   gets a line for each thing that the user should know
std::vector<std::byte> find_or_make_profile(std::span<const std::string> places, const Config& model,
                                            const std::function<std::vector<std::byte>()>& make,
                                            const std::function<void(const std::string&)>& say);

}  // namespace nibkv::llm
