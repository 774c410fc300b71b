// The smallest firmware with the library: an arena in a static object, tokens appended beyond its
// budget, attention over what was kept.
#include <array>

#include "nibkv/nibkv.hpp"
#include "tests/baremetal/semihosting.hpp"

#ifdef NIBKV_USE_VECTOR
#include <vector>
#endif
#if defined(NIBKV_USE_MALLOC) || defined(NIBKV_USE_FREE)
#include <cstdlib>
#endif

namespace {

constexpr nibkv::Shape kShape{.layers = 1, .query_heads = 2, .kv_heads = 1, .head_dim = 16};
constexpr nibkv::Policy kPolicy = nibkv::ems(64);
constexpr std::uint32_t kTokens = 300;

nibkv::StaticCache<kShape, kPolicy> cache;

using Row = std::array<float, 16>;

/// Numbers in [-1, 1], in a different order for every token.
Row row(std::uint32_t token) {
  Row row;
  for (std::uint32_t c = 0; c < 16; ++c)
    row[c] = static_cast<float>(static_cast<int>((c * 7 + token * 5) % 16 * 2) - 15) / 15.0f;
  return row;
}

[[noreturn]] void fail(const char* what) {
  nibkv::metal::say(what);
  nibkv::metal::say(": wrong\n");
  nibkv::metal::leave(1);
}

// What the linker must refuse, one at a time.
volatile int length = 3;
void* volatile memory;
void use_heap() {
#ifdef NIBKV_USE_MALLOC
  memory = std::malloc(static_cast<std::size_t>(length));
#endif
#ifdef NIBKV_USE_FREE
  std::free(memory);
#endif
#ifdef NIBKV_USE_NEW
  memory = new char;
#endif
#ifdef NIBKV_USE_DELETE
  delete static_cast<char*>(memory);
#endif
#ifdef NIBKV_USE_VECTOR
  memory = std::vector<char>(static_cast<std::size_t>(length)).data();
#endif
}

}  // namespace

int main(int, char**) {
  use_heap();
  if (cache.init() != nibkv::Status::kOk) fail("init");
  std::array<float, 32> queries{}, out{};
  for (std::uint32_t token = 0; token < kTokens; ++token) {
    // Both heads ask for the key of this token: nearly all of the weight is on values like its own.
    for (std::uint32_t c = 0; c < 32; ++c) queries[c] = 12.0f * row(token)[c % 16];
    if (nibkv::append(cache.cache(), 0, row(token), row(token + 8)) != nibkv::Status::kOk) fail("append");
    if (nibkv::attend(cache.cache(), 0, queries, out) != nibkv::Status::kOk) fail("attend");
  }
  if (cache.cache().seen(0) != kTokens || cache.cache().held(0, 0) > 96) fail("tokens");
  const Row expected = row(kTokens - 1 + 8);
  for (std::uint32_t c = 0; c < 32; ++c) {
    const float error = out[c] - expected[c % 16];
    if (!(error > -0.375f && error < 0.375f)) fail("attention");
  }
  nibkv::metal::say("right\n");
  return 0;
}
