#pragma once

#include <span>
#include <string_view>

namespace nibkv::llm {

/// A short text of mixed English for measuring a model's keys and values if no better one is
/// available: messages at even indices, answers to them at odd ones. ASCII.
std::span<const std::string_view> builtin_text();

}  // namespace nibkv::llm
