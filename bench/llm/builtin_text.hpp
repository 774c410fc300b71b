#pragma once

#include <span>
#include <string_view>

namespace nibkv::llm {

/// A short text of mixed English to look at a model's keys and values with, where no better one is at hand: messages at
/// even places, answers to them at odd ones. ASCII.
std::span<const std::string_view> builtin_text();

}  // namespace nibkv::llm
