// A program of its own with the library: appends three tokens, attends with one query, prints and checks the result.
#include <array>
#include <cmath>
#include <cstdio>

#include "nibkv/nibkv.hpp"

namespace {

constexpr nibkv::Shape kShape{.layers = 1, .query_heads = 2, .kv_heads = 1, .head_dim = 16, .workers = 1};
constexpr nibkv::Policy kPolicy = nibkv::full(32);

nibkv::StaticCache<kShape, kPolicy> cache;

}  // namespace

int main() {
  if (cache.init() != nibkv::Status::kOk) return 1;
  std::array<float, 16> key{}, value{};
  // The third key is the one that the queries ask for: nearly all of the weight is on its value.
  for (int token = 0; token < 3; ++token) {
    for (int c = 0; c < 16; ++c) {
      key[c] = token == 2 ? 4.0f : -4.0f;
      value[c] = token == 2 ? 1.0f : -1.0f;
    }
    if (nibkv::append(cache.cache(), 0, key, value) != nibkv::Status::kOk) return 1;
  }
  std::array<float, 32> queries{}, out{};
  queries.fill(1.0f);
  if (nibkv::attend(cache.cache(), 0, queries, out) != nibkv::Status::kOk) return 1;
  float worst = 0.0f;
  for (const float x : out) worst = std::fmax(worst, std::fabs(x - 1.0f));
  const std::string_view port = cache.cache().port();
  std::printf("port %.*s, %zu bytes, %u tokens, out[0] = %f, largest error %f\n", static_cast<int>(port.size()), port.data(),
              sizeof cache, cache.cache().seen(0), static_cast<double>(out[0]), static_cast<double>(worst));
  return worst < 0.05f && cache.cache().seen(0) == 3 ? 0 : 1;
}
