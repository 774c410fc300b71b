// What threads gain: append and attend in shares, beside the same work of threads that do not wait for one another.
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "bench/kernels/benchmarks.hpp"
#include "bench/kernels/cold_cache.hpp"
#include "bench/runner/model/threads.hpp"

namespace nibkv::bench {
namespace {

constexpr std::uint32_t kTokens = 4096;

ConstRows dense(std::span<const float> rows, std::uint32_t heads, std::uint32_t head_dim) {
  return tokens_first(rows.data(), Number::kF32, heads, head_dim);
}

struct Threads {
  Threads(const Model& model, std::uint32_t threads)
      : cold(model, 0, full(kTokens), true),
        pool(threads),
        cache(cold.cache(running_ports()[0])),
        heads(cold.shape().query_heads),
        dim(cold.shape().head_dim),
        width(std::size_t{heads} * dim),
        out(width * threads) {}

  MutableRows rows_of(std::size_t worker) {
    return tokens_first(out.data() + worker * width, Number::kF32, heads, dim);
  }

  ColdCache cold;
  llm::ThreadPool pool;
  Cache& cache;
  std::uint32_t heads;
  std::uint32_t dim;
  std::size_t width;
  std::vector<float> out;
};

// Layers that all threads together have attended to.
void count_layers(benchmark::State& state, std::uint32_t layers) {
  state.counters["layers/s"] = benchmark::Counter(layers, benchmark::Counter::kIsIterationInvariantRate);
}

// One layer after the other, each divided among the threads.
void attend_in_shares(benchmark::State& state, const Model& model, std::uint32_t threads) {
  Threads with(model, threads);
  const ConstRows query = dense(with.cold.queries(), with.heads, with.dim);
  for (auto _ : state) {
    const std::uint32_t layer = with.cold.next_layer();
    with.pool.run(threads, [&](std::size_t task, std::size_t) {
      const auto index = static_cast<std::uint32_t>(task);
      must(attend_share(with.cache, layer, query, {index, threads, index}));
    });
    must(combine_share(with.cache, layer, with.rows_of(0), {}));
  }
  count_layers(state, 1);
}

// The same with a KV head as the smallest part.
void attend_by_head(benchmark::State& state, const Model& model, std::uint32_t threads) {
  Threads with(model, threads);
  const ConstRows query = dense(with.cold.queries(), with.heads, with.dim);
  for (auto _ : state) {
    const std::uint32_t layer = with.cold.next_layer();
    with.pool.run(with.cold.shape().kv_heads, [&](std::size_t task, std::size_t worker) {
      const Part part{
          .first_head = static_cast<std::uint32_t>(task), .heads = 1, .worker = static_cast<std::uint32_t>(worker)};
      must(attend(with.cache, layer, 1, query, with.rows_of(0), part));
    });
  }
  count_layers(state, 1);
}

// A layer for each thread.
void attend_apart(benchmark::State& state, const Model& model, std::uint32_t threads) {
  Threads with(model, threads);
  const ConstRows query = dense(with.cold.queries(), with.heads, with.dim);
  for (auto _ : state) {
    std::vector<std::uint32_t> layers;
    for (std::uint32_t i = 0; i < threads; ++i) layers.push_back(with.cold.next_layer());
    with.pool.run(threads, [&](std::size_t task, std::size_t) {
      must(
          attend(with.cache, layers[task], 1, query, with.rows_of(task), {.worker = static_cast<std::uint32_t>(task)}));
    });
  }
  count_layers(state, threads);
}

// Chunks, from empty to full and again.
void append_in_shares(benchmark::State& state, const Model& model, std::uint32_t threads) {
  ColdCache cold(model, 0, full(kTokens), false);
  llm::ThreadPool pool(threads);
  Cache& cache = cold.cache(running_ports()[0]);
  const std::uint32_t heads = cold.shape().kv_heads, dim = cold.shape().head_dim;
  const ConstRows keys = dense(cold.keys(), heads, dim), values = dense(cold.values(), heads, dim);
  for (auto _ : state) {
    const std::uint32_t layer = cold.next_layer();
    if (cache.held(layer, 0) + kPrefillChunk > kTokens) {
      state.PauseTiming();
      must(cache.clear());
      state.ResumeTiming();
    }
    if (threads == 1) {
      must(append(cache, layer, kPrefillChunk, keys, values));
      continue;
    }
    must(reserve(cache, layer, kPrefillChunk));
    pool.run(threads, [&](std::size_t task, std::size_t) {
      const auto index = static_cast<std::uint32_t>(task);
      must(append_share(cache, layer, kPrefillChunk, keys, values, {index, threads, index}));
    });
  }
  state.counters["rows/s"] =
      benchmark::Counter(2.0 * kPrefillChunk * heads, benchmark::Counter::kIsIterationInvariantRate);
}

}  // namespace

void register_threads() {
  using Body = void (*)(benchmark::State&, const Model&, std::uint32_t);
  const struct {
    const char* name;
    Body body;
  } kAll[] = {{"attend_shares", attend_in_shares},
              {"attend_by_head", attend_by_head},
              {"attend_apart", attend_apart},
              {"append64_shares", append_in_shares}};
  for (const Model& model : kModels) {
    for (std::uint32_t threads = 1; threads <= kMostThreads; threads *= 2) {
      for (const auto& [name, body] : kAll) {
        const std::string full_name = std::string(name) + "/" + model.name + "/0/" + std::to_string(kTokens) +
                                      "/threads:" + std::to_string(threads);
        benchmark::RegisterBenchmark(full_name.c_str(), [&model, threads, body = body](benchmark::State& state) {
          body(state, model, threads);
        })->UseRealTime();
      }
    }
  }
}

}  // namespace nibkv::bench
