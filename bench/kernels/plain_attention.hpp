#pragma once

#include <cstddef>
#include <cstdint>

#include "nibkv/shape.hpp"

namespace nibkv::bench {

/// The sum of `count` bytes as 64-bit words, to read each byte once. `bytes` and
/// `count` are multiples of 8.
std::uint64_t sum_of_words(const std::byte* bytes, std::size_t count);

/// The attention of one query in f32 over one layer, implemented plainly: all dot products, softmax
/// with expf, the weighted values. Plain C++ that the compiler vectorises; each row that is read
/// serves all query heads of a group.
///
/// @param keys, values  f32[kv_heads][tokens][head_dim]
/// @param query, out    f32[query_heads][head_dim]
/// @param weights       f32[group][tokens], working memory
void plain_attention(const Shape& shape, std::size_t tokens, const float* keys, const float* values, const float* query,
                     float* weights, float* out);

}  // namespace nibkv::bench
