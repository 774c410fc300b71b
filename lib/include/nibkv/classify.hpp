#pragma once

#include <cstdint>
#include <span>

#include "nibkv/cache.hpp"

#include "nibkv/macros_push.hpp"

namespace nibkv {

/// What a token is, for policies that keep some kinds of tokens (Budget::kRules, FastGen, arXiv 2310.01801).
enum class TokenClass : std::uint8_t {
  kOrdinary = 0,     ///< every token that classify was not told of
  kPunctuation = 1,  ///< only punctuation and white space
  kSpecial = 2,      ///< of the model's own, such as those that begin a text or a turn
};

/// Says what the newest `classes.size()` tokens are, in all layers and heads: to be called after the layers have
/// appended them, and before the next append.
///
/// @param classes  u8[count], the newest token last; all of them must still be held (oldest_reachable)
/// @returns kNotReady; kBadPolicy under a policy that reads no classes; kBadArgument for a class out of range, for more
///          tokens than that, or when layers have not seen the same tokens. The cache is unchanged unless kOk.
/// Cost: O(layers * kv_heads * (count + tiles of a head)).
Status classify(Cache& cache, std::span<const TokenClass> classes);

}  // namespace nibkv

#include "nibkv/macros_pop.hpp"
