#include "tests/tiny/tiny_recall.hpp"

#include <cstddef>

namespace nibkv::metal {
namespace {

constexpr std::uint32_t kBegin = 1;  // the token before every text
constexpr std::uint32_t kBytes = 3;  // byte b is token b + 3

std::uint32_t most_likely(std::span<const float> logits) {
  std::uint32_t best = 0;
  for (std::uint32_t i = 1; i < logits.size(); ++i) best = logits[i] > logits[best] ? i : best;
  return best;
}

}  // namespace

Recall recall(TinyLlama& model, Cache& cache, std::span<std::byte> arena, std::string_view port) {
  Recall result;
  result.status = cache.init(arena, model.shape(), kTinyPolicy, {.port = port});
  const auto feed = [&](std::uint32_t token) {
    if (result.status == Status::kOk) result.status = model.feed(token, cache);
    ++result.tokens;
  };
  feed(kBegin);
  for (const char c : kTinyPrompt) feed(static_cast<unsigned char>(c) + kBytes);
  for (std::size_t i = 0; i + 1 < sizeof result.answer && result.status == Status::kOk; ++i) {
    const std::uint32_t token = most_likely(model.logits());
    if (token < kBytes || token == '\n' + kBytes) break;
    result.answer[i] = static_cast<char>(token - kBytes);
    feed(token);
  }
  result.word = 0xcbf29ce484222325u;
  const auto state = arena.first(static_cast<std::size_t>(layout_of(model.shape(), kTinyPolicy).plan));
  for (const std::byte byte : state) result.word = (result.word ^ static_cast<std::uint64_t>(byte)) * 0x100000001b3u;
  return result;
}

}  // namespace nibkv::metal
