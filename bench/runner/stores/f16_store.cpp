#include "bench/runner/stores/f16_store.hpp"

#include <algorithm>
#include <cstddef>

namespace nibkv::llm {
namespace {

constexpr std::size_t kSinks = 4;  // the same number as streaming_llm
constexpr std::size_t kF16Chunk = 64;

std::uint64_t token_bytes(const Config& model) {
  return std::uint64_t{4} * model.layers * model.kv_heads * model.head_dim;
}

}  // namespace

bool is_f16(std::string_view name) {
  return name == kF16Last || name == kF16Sinks;
}

F16Store::F16Store(const Config& model, std::string_view name, std::uint64_t room)
    : tokens(std::max<std::uint64_t>(1, room / token_bytes(model))),
      bytes(tokens * token_bytes(model)),
      store(model.layers, model.query_heads, model.kv_heads, model.head_dim, kF16Chunk) {
  const auto kept = static_cast<std::size_t>(tokens);
  // Even in the smallest cache, a token attends to itself.
  store.keep_f16(name == kF16Sinks ? std::min(kSinks, kept - 1) : 0, kept);
}

}  // namespace nibkv::llm
