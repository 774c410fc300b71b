#pragma once

#include <cstdint>
#include <string_view>

#include "nibkv/shape.hpp"
#include "nibkv/status.hpp"

namespace nibkv {

/// What may be given up when a chain outgrows its budget.
enum class Keep : std::uint8_t {
  kAll = 0,     ///< nothing: append answers kFull
  kRecent = 1,  ///< all but the sinks and the most recent tokens
};

/// What to keep, as plain data. The presets below are the usual way to make one.
struct Policy {
  Keep keep = Keep::kAll;
  std::uint32_t tokens = 0;  ///< budget of a head in tokens, [1, 2^24]; sizes the arena
  /// First tokens that are never dropped: [0, tokens - max_chunk] under kRecent, 0 under kAll.
  std::uint32_t sinks = 0;

  constexpr bool operator==(const Policy&) const = default;
};

inline constexpr std::uint32_t kMaxTokens = 1u << 24;

/// Keeps every token; append answers kFull when the pool is used up.
constexpr Policy full(std::uint32_t tokens) {
  return {Keep::kAll, tokens, 0};
}

/// Keeps the first `sinks` tokens and the most recent ones, `tokens` in all (StreamingLLM, arXiv 2309.17453, with the
/// original positions kept). A chain is cut back when it is one tile over `tokens`, by whole tiles of 32 tokens.
constexpr Policy streaming_llm(std::uint32_t tokens, std::uint32_t sinks = 4) {
  return {Keep::kRecent, tokens, sinks};
}

/// True when the policy fits the shape: see the ranges of the fields.
constexpr bool valid(const Policy& policy, const Shape& shape) {
  if (policy.tokens < 1 || policy.tokens > kMaxTokens) return false;
  if (policy.keep == Keep::kAll) return policy.sinks == 0;
  if (policy.keep != Keep::kRecent) return false;
  return policy.sinks < policy.tokens && shape.max_chunk <= policy.tokens - policy.sinks;
}

/// Finds a preset by name ("full", "streaming_llm") with its default parameters.
/// @param tokens  budget of a head in tokens
/// @returns kBadPolicy for an unknown name; `policy` is unchanged then.
Status find_policy(std::string_view name, std::uint32_t tokens, Policy& policy);

/// The names that find_policy knows: index 0, 1, ...; an empty view past the end.
std::string_view policy_name(std::uint32_t index);

}  // namespace nibkv
