// Speculative decoding (arXiv 2211.17192) over nibkv: a cheap model drafts some tokens, one pass of the model reads
// them all, and truncate takes back those that were not what it says itself.
//
// An engine copies verify(). There is no model here: numbers made from layer, position and token stand for its
// projections, the sign of an output for its next token, one or zero. Under the policy full, drafts must not change a
// byte of any output.
#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <span>
#include <vector>

#include "nibkv/nibkv.hpp"

namespace {

using nibkv::Status;

constexpr std::uint32_t kDrafts = 4;
constexpr std::uint32_t kAnswer = 200;
constexpr nibkv::Shape kShape{.layers = 2, .query_heads = 4, .kv_heads = 2, .head_dim = 64, .max_chunk = kDrafts + 1};
constexpr std::size_t kWidth = kShape.query_heads * kShape.head_dim;  // of an output
using Conversation = nibkv::StaticCache<kShape, nibkv::full(kAnswer + kDrafts)>;

/// In place of a projection of `tokens`, the first of which has this position: rows [count][heads][head_dim], numbers
/// in [-1, 1). Keys and queries would be turned by the rotary embedding next.
std::vector<float> project(std::uint32_t seed, std::uint32_t position, std::span<const int> tokens,
                           std::uint32_t heads) {
  std::vector<float> rows;
  for (const int token : tokens) {
    std::uint32_t state = (seed * 0x9e3779b9u + position++) * 2 + static_cast<std::uint32_t>(token);
    for (std::uint32_t i = 0; i < heads * kShape.head_dim; ++i) {
      state = state * 1664525u + 1013904223u;
      rows.push_back(static_cast<float>(state >> 8) * 0x1p-23f - 1.0f);
    }
  }
  return rows;
}

/// A pass of the model over new tokens. `out` gets the last layer's outputs, [count][query_heads][head_dim].
Status forward(nibkv::Cache& cache, std::span<const int> tokens, std::vector<float>& out) {
  const std::uint32_t position = cache.seen(0);
  out.resize(tokens.size() * kWidth);
  for (std::uint32_t layer = 0; layer < kShape.layers; ++layer) {
    const std::vector<float> keys = project(3 * layer, position, tokens, kShape.kv_heads);
    const std::vector<float> values = project(3 * layer + 1, position, tokens, kShape.kv_heads);
    const std::vector<float> queries = project(3 * layer + 2, position, tokens, kShape.query_heads);
    Status status = nibkv::append(cache, layer, keys, values);
    if (status == Status::kOk) status = nibkv::attend(cache, layer, queries, out);
    if (status != Status::kOk) return status;
  }
  return Status::kOk;
}

/// The token that an output stands for.
int next_token(std::span<const float> out) {
  return out[0] > out[1] ? 1 : 0;
}

/// Reads a token and its drafts in one pass, and takes back the drafts from the first wrong one on.
///
/// @param tokens  the token that is due, then drafts of those after it
/// @param out     outputs of the token that was due and of the right drafts; the last one says the next token
Status verify(nibkv::Cache& cache, std::span<const int> tokens, std::vector<float>& out) {
  const std::uint32_t position = cache.seen(0);
  if (const Status status = forward(cache, tokens, out); status != Status::kOk) return status;
  std::uint32_t right = 1;
  while (right < tokens.size() && tokens[right] == next_token(std::span(out).subspan((right - 1) * kWidth))) ++right;
  out.resize(right * kWidth);
  return nibkv::truncate(cache, position + right);
}

struct Decoded {
  std::vector<float> outputs;
  std::uint32_t passes = 0;
};

/// Decodes kAnswer tokens, each pass with so many drafts.
Status decode(nibkv::Cache& cache, std::uint32_t drafts, Decoded& decoded) {
  std::vector<float> out;
  int due = 1;
  while (cache.seen(0) < kAnswer) {
    // In place of the cheap model: what was said last, again.
    std::array<int, kDrafts + 1> tokens = {due};
    for (std::uint32_t i = 1; i <= drafts; ++i) tokens[i] = tokens[i - 1];
    const std::size_t count = 1 + std::min(drafts, kAnswer - cache.seen(0) - 1);
    const Status status = verify(cache, std::span(tokens).first(count), out);
    if (status != Status::kOk) return status;
    decoded.outputs.insert(decoded.outputs.end(), out.begin(), out.end());
    due = next_token(std::span(out).last(kWidth));
    ++decoded.passes;
  }
  return Status::kOk;
}

Conversation plain, drafted;

}  // namespace

int main() {
  Decoded decoded[2];
  Status status = plain.init();
  if (status == Status::kOk) status = drafted.init();
  if (status == Status::kOk) status = decode(plain.cache(), 0, decoded[0]);
  if (status == Status::kOk) status = decode(drafted.cache(), kDrafts, decoded[1]);
  if (status != Status::kOk) {
    std::printf("failed: %s\n", nibkv::text(status).data());
    return 1;
  }
  const std::vector<float>&first = decoded[0].outputs, &second = decoded[1].outputs;
  const bool same = first.size() == kAnswer * kWidth && first.size() == second.size() &&
                    std::memcmp(first.data(), second.data(), first.size() * sizeof(float)) == 0;
  std::printf("%u tokens in %u passes, and in %u with %u drafts each: %s\n", kAnswer, decoded[0].passes,
              decoded[1].passes, kDrafts, same ? "the same outputs" : "DIFFERENT OUTPUTS");
  // Some drafts were right, some wrong: otherwise this shows nothing.
  const bool both = decoded[1].passes < kAnswer && decoded[1].passes > (kAnswer + kDrafts) / (kDrafts + 1);
  return same && both ? 0 : 1;
}
