// A separate program that uses the library: appends three tokens, attends with one query, prints
// and checks the result.
#include <array>
#include <cmath>
#include <cstdio>

#include "nibkv/nibkv.hpp"

namespace {

constexpr nibkv::Shape kShape{.layers = 1, .query_heads = 2, .kv_heads = 1, .head_dim = 16};
constexpr nibkv::Policy kPolicy = nibkv::full(32);

nibkv::StaticCache<kShape, kPolicy> cache;

using Row = std::array<float, 16>;

/// Numbers in [-1, 1], in a different order for every token.
Row row(int token) {
  Row row;
  for (int c = 0; c < 16; ++c) row[c] = static_cast<float>((c * 7 + token * 5) % 16 * 2 - 15) / 15.0f;
  return row;
}

}  // namespace

int main() {
  if (cache.init() != nibkv::Status::kOk) return 1;
  for (int token = 0; token < 3; ++token) {
    if (nibkv::append(cache.cache(), 0, row(token), row(token + 8)) != nibkv::Status::kOk) return 1;
  }
  // The queries of both heads ask for the last key: nearly all of the weight is on its value.
  std::array<float, 32> queries{}, out{};
  for (int c = 0; c < 32; ++c) queries[c] = 12.0f * row(2)[c % 16];
  if (nibkv::attend(cache.cache(), 0, queries, out) != nibkv::Status::kOk) return 1;

  float squares = 0.0f;
  for (int c = 0; c < 32; ++c) squares += std::pow(out[c] - row(10)[c % 16], 2.0f);
  const float error = std::sqrt(squares / 32.0f);
  const std::string_view port = cache.cache().port();
  std::printf("port %.*s, %zu bytes, %u tokens, out = %f %f %f ..., error %f\n", static_cast<int>(port.size()),
              port.data(), sizeof cache, cache.cache().seen(0), static_cast<double>(out[0]),
              static_cast<double>(out[1]), static_cast<double>(out[2]), static_cast<double>(error));
  return error < 0.1f && cache.cache().seen(0) == 3 ? 0 : 1;
}
