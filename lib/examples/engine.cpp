// The attention of an inference engine over nibkv: a prompt read in chunks, then token after token, on several threads,
// in an arena whose size is known at run time only.
//
// An engine copies class Attention. There is no model here: numbers made from layer and position stand for its
// projections. Two runs, on one thread and on four, must give the same bytes.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <thread>
#include <vector>

#include "nibkv/nibkv.hpp"

namespace {

using nibkv::Status;

/// The attention of one conversation. init() takes the memory, all of it.
class Attention {
 public:
  /// @param shape  of the model; max_chunk: tokens of a prefill step; workers: threads that work at the same time
  /// @param bytes  what keys, values and workspace may take; the budget in tokens follows from it
  Status init(const nibkv::Shape& shape, std::size_t bytes) {
    const std::uint32_t tokens = nibkv::tokens_that_fit(shape, nibkv::ems, bytes);
    if (tokens == 0) return Status::kArenaTooSmall;
    memory_.resize(bytes + nibkv::kArenaAlignment - 1);
    return cache_.init(nibkv::aligned(memory_), shape, nibkv::ems(tokens));
  }

  const nibkv::Cache& cache() const { return cache_; }

  /// One layer's attention for the newest tokens, causal, over all that the cache holds.
  ///
  /// @param keys, values  f32[count][kv_heads][head_dim], count in [1, max_chunk]; keys after rotary embedding
  /// @param queries, out  f32[count][query_heads][head_dim]; queries after rotary embedding
  /// @param threads       [1, workers]
  Status forward(std::uint32_t layer, std::span<const float> keys, std::span<const float> values,
                 std::span<const float> queries, std::span<float> out, std::uint32_t threads) {
    const std::uint32_t heads = cache_.shape().kv_heads, head_dim = cache_.shape().head_dim;
    const auto count = static_cast<std::uint32_t>(keys.size() / (heads * head_dim));
    // Rows are encoded in shares, with a worker's scratch each.
    Status status = nibkv::reserve(cache_, layer, count);
    if (status != Status::kOk) return status;
    const auto key_rows = nibkv::tokens_first(keys.data(), nibkv::Number::kF32, heads, head_dim);
    const auto value_rows = nibkv::tokens_first(values.data(), nibkv::Number::kF32, heads, head_dim);
    status = on_threads(threads, [&](std::uint32_t i) {
      return nibkv::append_share(cache_, layer, count, key_rows, value_rows, {i, threads, i});
    });
    if (status != Status::kOk) return status;

    // Each thread takes some KV heads: under ems, which scores attention, a head stays whole.
    return on_threads(threads, [&](std::uint32_t i) {
      const std::uint32_t first = heads * i / threads, end = heads * (i + 1) / threads;
      if (first == end) return Status::kOk;  // more threads than heads; Part::heads = 0 would mean all of them
      return nibkv::attend(cache_, layer, queries, out, {.first_head = first, .heads = end - first, .worker = i});
    });
  }

 private:
  /// Calls part(i) on thread i of `threads` and waits for all. An engine has a thread pool for it.
  template <typename F>
  static Status on_threads(std::uint32_t threads, F part) {
    std::vector<Status> statuses(threads, Status::kOk);
    std::vector<std::thread> running;
    for (std::uint32_t i = 0; i < threads; ++i) running.emplace_back([&, i] { statuses[i] = part(i); });
    for (std::thread& thread : running) thread.join();
    const auto failed = std::find_if(statuses.begin(), statuses.end(), [](Status s) { return s != Status::kOk; });
    return failed == statuses.end() ? Status::kOk : *failed;
  }

  std::vector<std::byte> memory_;
  nibkv::Cache cache_;
};

constexpr nibkv::Shape kShape{
    .layers = 2, .query_heads = 8, .kv_heads = 4, .head_dim = 64, .max_chunk = 32, .workers = 4};
constexpr std::size_t kArenaBytes = 256 * 1024;
constexpr std::uint32_t kPrompt = 600;
constexpr std::uint32_t kAnswer = 40;

/// In place of a projection: rows [count][heads][head_dim], numbers in [-1, 1), others for every layer and position.
std::vector<float> project(std::uint32_t seed, std::uint32_t position, std::uint32_t count, std::uint32_t heads) {
  std::vector<float> rows(std::size_t{count} * heads * kShape.head_dim);
  std::uint32_t state = seed * 0x9e3779b9u + position;
  for (float& number : rows) {
    state = state * 1664525u + 1013904223u;
    number = static_cast<float>(state >> 8) * 0x1p-23f - 1.0f;
  }
  return rows;
}

/// Rotary embedding, the engine's own work: pair (2i, 2i + 1) of a head turns by position * 10000^(-2i / head_dim).
void rotate(std::vector<float>& rows, std::uint32_t position, std::uint32_t heads) {
  for (std::size_t at = 0; at < rows.size(); at += 2) {
    const auto channel = static_cast<float>(at % kShape.head_dim);
    const std::size_t token = at / (std::size_t{heads} * kShape.head_dim);
    const float angle = static_cast<float>(position + token) * std::pow(10000.0f, -channel / kShape.head_dim);
    const float x = rows[at], y = rows[at + 1], c = std::cos(angle), s = std::sin(angle);
    rows[at] = x * c - y * s;
    rows[at + 1] = x * s + y * c;
  }
}

/// The engine's loop. `all` gets what every layer puts out for every token.
Status converse(Attention& attention, std::uint32_t threads, std::vector<float>& all) {
  std::vector<float> out(std::size_t{kShape.max_chunk} * kShape.query_heads * kShape.head_dim);
  while (attention.cache().seen(0) < kPrompt + kAnswer) {
    // Between passes all layers have seen the same tokens: the position of the next one.
    const std::uint32_t position = attention.cache().seen(0);
    const bool prefill = position < kPrompt;
    const std::uint32_t count = prefill ? std::min<std::uint32_t>(kShape.max_chunk, kPrompt - position) : 1;
    for (std::uint32_t layer = 0; layer < kShape.layers; ++layer) {
      std::vector<float> keys = project(3 * layer, position, count, kShape.kv_heads);
      const std::vector<float> values = project(3 * layer + 1, position, count, kShape.kv_heads);
      std::vector<float> queries = project(3 * layer + 2, position, count, kShape.query_heads);
      rotate(keys, position, kShape.kv_heads);
      rotate(queries, position, kShape.query_heads);
      const std::span<float> rows = std::span(out).first(queries.size());
      const Status status = attention.forward(layer, keys, values, queries, rows, threads);
      if (status != Status::kOk) return status;
      all.insert(all.end(), rows.begin(), rows.end());
    }
  }
  return Status::kOk;
}

}  // namespace

int main() {
  Attention attentions[2];
  std::vector<float> outputs[2];
  for (int run = 0; run < 2; ++run) {
    Status status = attentions[run].init(kShape, kArenaBytes);
    if (status == Status::kOk) status = converse(attentions[run], run == 0 ? 1 : kShape.workers, outputs[run]);
    if (status != Status::kOk) {
      std::printf("failed: %s\n", nibkv::text(status).data());
      return 1;
    }
  }
  const nibkv::Cache& cache = attentions[0].cache();
  const std::uint32_t seen = cache.seen(0), held = cache.held(0, 0);
  const std::size_t floats = outputs[0].size();
  const bool same =
      floats == outputs[1].size() && std::memcmp(outputs[0].data(), outputs[1].data(), floats * sizeof(float)) == 0;
  std::printf("an arena of %zu bytes pays for %u tokens a head under the policy ems, and a chunk of %u\n", kArenaBytes,
              cache.policy().tokens, static_cast<unsigned>(kShape.max_chunk));
  std::printf("%u tokens seen, %u held by each head; the next one's position is %u\n", seen, held, seen);
  std::printf("1 thread and %u threads: %zu outputs, %s\n", static_cast<unsigned>(kShape.workers), floats,
              same ? "the same bytes" : "DIFFERENT BYTES");
  return same && seen == kPrompt + kAnswer && held < seen && held >= cache.policy().tokens - 1 ? 0 : 1;
}
