#pragma once

#include <string>
#include <string_view>

#include "nibkv/shape.hpp"

namespace nibkv::llm {

/// "q4", "q8", "q8q4" (keys q8, values q4), "q4q2", "q2" or "f32".
std::string_view storage_name(Storage storage);

/// @throws UsageError for any other name
Storage parse_storage(const std::string& name);

}  // namespace nibkv::llm
