// append and attend on every built port that this CPU runs, with cold caches, and two baselines
// in the same run: reading the same bytes once, and plain attention over f32 rows. Snapshots,
// on the fastest port.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "bench/kernels/benchmarks.hpp"
#include "bench/kernels/cold_cache.hpp"
#include "ports/kernels.hpp"

namespace nibkv::bench {
namespace {

constexpr std::uint32_t kTokens[] = {1024, 4096, 16384, 32768};
constexpr std::uint16_t kOutliers[] = {0, 8};
constexpr std::uint32_t kScalarTokens = 1024;  // the maximum for the scalar port
constexpr std::uint32_t kAppendTokens = 1024;
constexpr std::uint32_t kRecallSlots = 512;    // of a head whose log has the tokens
constexpr std::uint32_t kFoldedTokens = 4096;  // shorter caches fold little, and have few far slots

struct Case {
  const Model* model;
  std::uint16_t outliers;
  std::uint32_t tokens;
  bool scored = false;  // under ems, which scores and merges, instead of full
  bool folded = false;  // under minicache, all layers in pairs
  bool logged = false;  // under recall_window, all heads with an index
  std::uint32_t reach = 0;
  Storage storage = Storage::kQ4;

  bool operator==(const Case&) const = default;
  std::string name(const char* verb, std::string_view port) const {
    return std::string(verb) + "/" + model->name + "/" + std::to_string(outliers) + "/" + std::to_string(tokens) + "/" +
           std::string(port);
  }
};

// What the benchmarks of a case share is kept until another case needs the memory.
template <typename T, typename... Arguments>
T& shared(const Case& wanted, const Arguments&... arguments) {
  static Case held{};
  static std::unique_ptr<T> made;
  if (!made || held != wanted) {
    made.reset();
    made = std::make_unique<T>(*wanted.model, arguments...);
    held = wanted;
  }
  return *made;
}

Policy with_index(Policy policy) {
  policy.indexed = 256;
  return policy;
}

ColdCache& filled_cache(const Case& at) {
  const Policy policy = at.scored   ? ems(at.tokens)
                        : at.folded ? minicache(at.tokens, pairs_from(0, 2))
                        : at.logged ? with_index(recall_window(kRecallSlots, at.tokens))
                                    : full(at.tokens);
  return shared<ColdCache>(at, at.outliers, policy, true, at.reach, at.storage);
}

// `count` queries per call: 1 is decoding, more is prefill.
// @param drafts  whether no score counts them
void attend_tiles(benchmark::State& state, const Case& at, std::string_view port, std::uint32_t count,
                  bool drafts = false) {
  ColdCache& cold = filled_cache(at);
  Cache& cache = cold.cache(port);
  const std::size_t floats = std::size_t{count} * cold.shape().query_heads * cold.shape().head_dim;
  const auto queries = cold.queries().first(floats);
  std::vector<float> out(floats);
  for (auto _ : state) {
    must(attend(cache, cold.next_layer(), queries, out, {.drafts = drafts}));
    benchmark::DoNotOptimize(out.data());
  }
  state.counters["ns/token/head"] = nanoseconds_per(double{1} * at.tokens * count * cold.shape().query_heads);
  if (count == 1) state.counters["GB/s"] = gigabytes_per_second(static_cast<double>(cold.tile_bytes()));
}

// Dense f32 as halves of f16, heads outermost, with space for twice as many tokens.
struct StridedHalves {
  StridedHalves(std::span<const float> dense, std::uint32_t count, std::uint32_t heads, std::uint32_t head_dim)
      : halves(std::size_t{2} * count * heads * head_dim), dim(head_dim), space(2 * count) {
    for (std::uint32_t i = 0; i < count * heads; ++i) {
      kScalarKernels.narrow(dense.data() + std::size_t{i} * dim, static_cast<int>(dim), Half::kF16,
                            halves.data() + std::size_t{i % heads * space + i / heads} * dim);
    }
  }
  ConstRows rows() const { return heads_first(halves.data(), Number::kF16, space, dim); }
  MutableRows out() { return heads_first(halves.data(), Number::kF16, space, dim); }

  std::vector<std::uint16_t> halves;
  std::uint32_t dim;
  std::uint32_t space;
};

// attend_tiles from and to such rows.
void attend_halves(benchmark::State& state, const Case& at, std::string_view port, std::uint32_t count) {
  ColdCache& cold = filled_cache(at);
  Cache& cache = cold.cache(port);
  const std::uint32_t heads = cold.shape().query_heads, dim = cold.shape().head_dim;
  const StridedHalves queries(cold.queries(), count, heads, dim);
  StridedHalves out(cold.queries(), count, heads, dim);
  for (auto _ : state) {
    must(attend(cache, cold.next_layer(), count, queries.rows(), out.out()));
    benchmark::ClobberMemory();
  }
  state.counters["ns/token/head"] = nanoseconds_per(double{1} * at.tokens * count * heads);
}

// One query looks for tokens in the log. Each layer is asked the same again, so that what was chosen is there, and no
// page is read.
void recall_tokens(benchmark::State& state, const Case& at, std::string_view port) {
  ColdCache& cold = filled_cache(at);
  Cache& cache = cold.cache(port);
  const auto query = cold.queries().first(std::size_t{cold.shape().query_heads} * cold.shape().head_dim);
  for (std::uint32_t layer = 0; layer < cold.shape().layers; ++layer) must(recall(cache, layer, query));
  for (auto _ : state) must(recall(cache, cold.next_layer(), query));
  state.counters["ns/token/head"] = nanoseconds_per(double{1} * at.tokens * cold.shape().query_heads);
}

constexpr std::uint32_t kDrafts = 8;
constexpr std::uint32_t kDraftTokens = 1024;  // held, drafts included

// What each token of a tree of drafts sees: itself, and what it goes on from, which is a binary tree here.
std::vector<std::uint32_t> tree_mask() {
  std::vector<std::uint32_t> mask(kDrafts);
  for (std::uint32_t i = 0; i < kDrafts; ++i) mask[i] = 1u << i | (i != 0 ? mask[(i - 1) / 2] : 0);
  return mask;
}

// Drafts in one pass: a row of tokens, or a tree with its mask.
void attend_drafts(benchmark::State& state, const Case& at, std::string_view port, bool tree) {
  ColdCache& cold = filled_cache(at);
  Cache& cache = cold.cache(port);
  const std::uint32_t heads = cold.shape().query_heads, dim = cold.shape().head_dim;
  std::vector<float> out(std::size_t{kDrafts} * heads * dim);
  const ConstRows queries = tokens_first(cold.queries().data(), Number::kF32, heads, dim);
  const MutableRows to = tokens_first(out.data(), Number::kF32, heads, dim);
  const std::vector<std::uint32_t> mask = tree_mask();
  for (auto _ : state) {
    const std::uint32_t layer = cold.next_layer();
    must(tree ? attend(cache, layer, kDrafts, queries, mask, to) : attend(cache, layer, kDrafts, queries, to));
    benchmark::DoNotOptimize(out.data());
  }
  state.counters["ns/token/head"] = nanoseconds_per(double{kDrafts} * at.tokens * heads);
}

void read_tiles(benchmark::State& state, const Case& at) {
  ColdCache& cold = filled_cache(at);
  for (auto _ : state) benchmark::DoNotOptimize(cold.read_layer(cold.next_layer()));
  state.counters["ns/token/head"] = nanoseconds_per(double{1} * at.tokens * cold.shape().query_heads);
  state.counters["GB/s"] = gigabytes_per_second(static_cast<double>(cold.tile_bytes()));
}

void attend_plain(benchmark::State& state, const Case& at) {
  ColdRows& rows = shared<ColdRows>({at.model, 0, at.tokens}, at.tokens);
  const std::vector<float> query = bells(std::size_t{rows.shape().query_heads} * rows.shape().head_dim, 3);
  std::vector<float> out(query.size());
  for (auto _ : state) {
    rows.attend(rows.next_layer(), query, out);
    benchmark::DoNotOptimize(out.data());
  }
  state.counters["ns/token/head"] = nanoseconds_per(double{1} * at.tokens * rows.shape().query_heads);
  state.counters["GB/s"] = gigabytes_per_second(static_cast<double>(rows.layer_bytes()));
}

// append_rows of f16, under `full`.
void append_halves(benchmark::State& state, const Case& at, std::string_view port, std::uint32_t count) {
  ColdCache cold(*at.model, at.outliers, full(at.tokens), false);
  Cache& cache = cold.cache(port);
  const std::uint32_t heads = cold.shape().kv_heads, dim = cold.shape().head_dim;
  const StridedHalves keys(cold.keys(), count, heads, dim), values(cold.values(), count, heads, dim);
  for (auto _ : state) {
    const std::uint32_t layer = cold.next_layer();
    if (cache.held(layer, 0) + count > at.tokens) {
      state.PauseTiming();
      must(cache.clear());
      state.ResumeTiming();
    }
    must(append(cache, layer, count, keys.rows(), values.rows()));
  }
  state.counters["ns/row"] = nanoseconds_per(2.0 * count * heads);
}

// `count` tokens per call, layer after layer, from empty to full and again. The policy `full` only
// fills tiles; minicache also folds, and streaming_llm and ems evict.
void append_rows(benchmark::State& state, const Case& at, const Policy& policy, std::string_view port,
                 std::uint32_t count) {
  ColdCache cold(*at.model, at.outliers, policy, false);
  Cache& cache = cold.cache(port);
  const std::size_t floats = std::size_t{count} * cold.shape().kv_heads * cold.shape().head_dim;
  const auto keys = cold.keys().first(floats);
  const auto values = cold.values().first(floats);
  // A bounded cache must be full from the start, so that the steady state is measured.
  if (policy.keep != Keep::kAll) {
    const std::size_t chunk = std::size_t{kPrefillChunk} * cold.shape().kv_heads * cold.shape().head_dim;
    Cache& best = cold.cache(running_ports()[0]);
    for (std::uint32_t layer = 0; layer < cold.shape().layers; ++layer) {
      for (std::uint32_t token = 0; token < policy.tokens; token += kPrefillChunk) {
        must(append(best, layer, cold.keys().first(chunk), cold.values().first(chunk)));
      }
    }
  }
  for (auto _ : state) {
    const std::uint32_t layer = cold.next_layer();
    if (policy.keep == Keep::kAll && cache.held(layer, 0) + count > policy.tokens) {
      state.PauseTiming();
      must(cache.clear());
      state.ResumeTiming();
    }
    must(append(cache, layer, keys, values));
  }
  state.counters["ns/row"] = nanoseconds_per(2.0 * count * cold.shape().kv_heads);  // a key and a value
}

// A snapshot of the whole cache to memory and back. The cost is mostly that of its checksums: over
// everything once to save; over side data three times, and over codes twice, to restore.
void save_cache(benchmark::State& state, const Case& at, std::string_view port) {
  Cache& cache = filled_cache(at).cache(port);
  std::vector<std::byte> bytes(static_cast<std::size_t>(snapshot_bytes(cache)));
  for (auto _ : state) {
    must(save(cache, bytes));
    benchmark::DoNotOptimize(bytes.data());
  }
  state.counters["GB/s"] = gigabytes_per_second(static_cast<double>(bytes.size()));
}

void restore_cache(benchmark::State& state, const Case& at, std::string_view port) {
  Cache& cache = filled_cache(at).cache(port);
  std::vector<std::byte> bytes(static_cast<std::size_t>(snapshot_bytes(cache)));
  must(save(cache, bytes));
  for (auto _ : state) must(restore(cache, bytes));
  state.counters["GB/s"] = gigabytes_per_second(static_cast<double>(bytes.size()));
}

void register_attend(const Case& at) {
  using benchmark::RegisterBenchmark;
  RegisterBenchmark(at.name("read", "once").c_str(), [at](benchmark::State& state) { read_tiles(state, at); });
  RegisterBenchmark(at.name("plain", "f32").c_str(), [at](benchmark::State& state) { attend_plain(state, at); });
  for (const std::string_view port : running_ports()) {
    if (port == "scalar" && at.tokens > kScalarTokens) continue;
    RegisterBenchmark(at.name("attend", port).c_str(),
                      [at, port](benchmark::State& state) { attend_tiles(state, at, port, 1); });
    RegisterBenchmark(at.name("prefill", port).c_str(),
                      [at, port](benchmark::State& state) { attend_tiles(state, at, port, kPrefillChunk); });
    RegisterBenchmark(at.name("attend_f16", port).c_str(),
                      [at, port](benchmark::State& state) { attend_halves(state, at, port, 1); });
    RegisterBenchmark(at.name("prefill_f16", port).c_str(),
                      [at, port](benchmark::State& state) { attend_halves(state, at, port, kPrefillChunk); });
  }
  // What scores cost, on the same bytes plus the scores.
  Case scored = at;
  scored.scored = true;
  for (const std::string_view port : running_ports()) {
    if (port == "scalar" && at.tokens > kScalarTokens) continue;
    RegisterBenchmark(at.name("attend_scored", port).c_str(),
                      [scored, port](benchmark::State& state) { attend_tiles(state, scored, port, 1); });
    RegisterBenchmark(at.name("prefill_scored", port).c_str(),
                      [scored, port](benchmark::State& state) { attend_tiles(state, scored, port, kPrefillChunk); });
    // On the same cache, so that both may take turns in one run.
    RegisterBenchmark(at.name("attend_unscored", port).c_str(),
                      [scored, port](benchmark::State& state) { attend_tiles(state, scored, port, 1, true); });
  }
}

void register_drafts(const Case& at, std::string_view port) {
  using benchmark::RegisterBenchmark;
  Case scored = at;
  scored.scored = true;
  const auto add = [port](const char* verb, const Case& with, bool tree) {
    RegisterBenchmark(with.name(verb, port).c_str(),
                      [=](benchmark::State& state) { attend_drafts(state, with, port, tree); });
  };
  add("attend_drafts", at, false);
  add("attend_tree", at, true);
  add("attend_drafts_scored", scored, false);
  add("attend_tree_scored", scored, true);
}

// Three quarters of the slots are beyond the reach.
void register_far(const Case& at) {
  using benchmark::RegisterBenchmark;
  Case far = at;
  far.reach = at.tokens / 4;
  for (const std::string_view port : running_ports()) {
    if (port == "scalar") continue;
    RegisterBenchmark(at.name("attend_far", port).c_str(),
                      [far, port](benchmark::State& state) { attend_tiles(state, far, port, 1); });
    RegisterBenchmark(at.name("prefill_far", port).c_str(),
                      [far, port](benchmark::State& state) { attend_tiles(state, far, port, kPrefillChunk); });
  }
}

// Codes of 2 and 8 bits, next to those of 4 in attend and read.
void register_widths(const Case& at) {
  using benchmark::RegisterBenchmark;
  for (const Storage storage : {Storage::kQ2, Storage::kQ8}) {
    const std::string width = storage == Storage::kQ2 ? "_q2" : "_q8";
    Case of = at;
    of.storage = storage;
    RegisterBenchmark(at.name(("read" + width).c_str(), "memory").c_str(),
                      [of](benchmark::State& state) { read_tiles(state, of); });
    for (const std::string_view port : running_ports()) {
      if (port == "scalar") continue;
      RegisterBenchmark(at.name(("attend" + width).c_str(), port).c_str(),
                        [of, port](benchmark::State& state) { attend_tiles(state, of, port, 1); });
      RegisterBenchmark(at.name(("prefill" + width).c_str(), port).c_str(),
                        [of, port](benchmark::State& state) { attend_tiles(state, of, port, kPrefillChunk); });
    }
  }
}

// Tiles whose codes two layers share, next to the plain ones of attend.
void register_folded(const Case& at) {
  using benchmark::RegisterBenchmark;
  Case folded = at;
  folded.folded = true;
  for (const std::string_view port : running_ports()) {
    if (port == "scalar") continue;
    RegisterBenchmark(at.name("attend_folded", port).c_str(),
                      [folded, port](benchmark::State& state) { attend_tiles(state, folded, port, 1); });
    RegisterBenchmark(at.name("prefill_folded", port).c_str(),
                      [folded, port](benchmark::State& state) { attend_tiles(state, folded, port, kPrefillChunk); });
    // Includes all angles and folding, which the calls for upper layers do.
    RegisterBenchmark(at.name("append_folded", port).c_str(), [folded, port](benchmark::State& state) {
      append_rows(state, folded, minicache(folded.tokens, pairs_from(0, 2)), port, 1);
    });
  }
}

void register_recall(const Case& at) {
  Case logged = at;
  logged.logged = true;
  for (const std::string_view port : running_ports()) {
    benchmark::RegisterBenchmark(at.name("recall", port).c_str(),
                                 [=](benchmark::State& state) { recall_tokens(state, logged, port); });
  }
}

void register_append(const Case& at, std::string_view port) {
  using benchmark::RegisterBenchmark;
  RegisterBenchmark(at.name("append", port).c_str(),
                    [at, port](benchmark::State& state) { append_rows(state, at, full(at.tokens), port, 1); });
  RegisterBenchmark(at.name("append_f16", port).c_str(),
                    [at, port](benchmark::State& state) { append_halves(state, at, port, 1); });
  RegisterBenchmark(at.name("append64", port).c_str(), [at, port](benchmark::State& state) {
    append_rows(state, at, full(at.tokens), port, kPrefillChunk);
  });
  RegisterBenchmark(at.name("append_streaming", port).c_str(),
                    [at, port](benchmark::State& state) { append_rows(state, at, streaming_llm(at.tokens), port, 1); });
  RegisterBenchmark(at.name("append_ems", port).c_str(),
                    [at, port](benchmark::State& state) { append_rows(state, at, ems(at.tokens), port, 1); });
}

// Four draft tokens come in all layers, and three of them go back, under ems.
void take_back_drafts(benchmark::State& state, const Case& at, std::string_view port) {
  Cache& cache = filled_cache(at).cache(port);
  const std::size_t token = std::size_t{cache.shape().kv_heads} * cache.shape().head_dim;
  const std::vector<float> rows(4 * token, 0.5f);
  for (auto _ : state) {
    const std::uint32_t seen = cache.seen(0);
    state.PauseTiming();
    for (std::uint32_t layer = 0; layer < cache.shape().layers; ++layer) must(append(cache, layer, rows, rows));
    state.ResumeTiming();
    must(truncate(cache, seen + 1));
  }
}

void clone_cache(benchmark::State& state, const Case& at, std::string_view port) {
  const Cache& cache = filled_cache(at).cache(port);
  const std::size_t bytes = cache.usage().arena_bytes;
  std::vector<std::byte> memory(bytes + kArenaAlignment - 1);
  for (auto _ : state) {
    Cache copy;
    must(clone(cache, aligned(memory), copy));
    benchmark::DoNotOptimize(copy);
  }
  state.counters["GB/s"] = gigabytes_per_second(static_cast<double>(bytes));
}

// To half of the budget.
void move_cache(benchmark::State& state, const Case& at, std::string_view port) {
  ColdCache& cold = filled_cache(at);
  const Cache& cache = cold.cache(port);
  const Policy policy = ems(at.tokens / 2);
  std::vector<std::byte> memory(footprint(cache.shape(), policy) + kArenaAlignment - 1);
  Cache half;
  must(half.init(aligned(memory), cache.shape(), policy, {port, cold.profile()}));
  for (auto _ : state) must(move_to(cache, half));
  state.counters["ns/slot"] =
      nanoseconds_per(static_cast<double>(at.tokens) * cache.shape().layers * cache.shape().kv_heads);
}

// The same from a snapshot in memory: its checksums, and the move.
void import_cache(benchmark::State& state, const Case& at, std::string_view port) {
  ColdCache& cold = filled_cache(at);
  const Cache& cache = cold.cache(port);
  const Policy policy = ems(at.tokens / 2);
  std::vector<std::byte> memory(footprint(cache.shape(), policy) + kArenaAlignment - 1);
  Cache half;
  must(half.init(aligned(memory), cache.shape(), policy, {port, cold.profile()}));
  std::vector<std::byte> bytes(static_cast<std::size_t>(snapshot_bytes(cache)));
  must(save(cache, bytes));
  for (auto _ : state) must(import_snapshot(half, cache.shape(), cache.policy(), bytes));
  state.counters["ns/slot"] =
      nanoseconds_per(static_cast<double>(at.tokens) * cache.shape().layers * cache.shape().kv_heads);
}

}  // namespace

void register_stages() {
  for (const Model& model : kModels) {
    for (const std::uint16_t outliers : kOutliers) {
      for (const std::uint32_t tokens : kTokens) register_attend({&model, outliers, tokens});
      register_folded({&model, outliers, kFoldedTokens});
      register_far({&model, outliers, kFoldedTokens});
      register_widths({&model, outliers, kFoldedTokens});
      register_recall({&model, outliers, kFoldedTokens});
      for (const std::string_view port : running_ports()) register_drafts({&model, outliers, kDraftTokens}, port);
      // The cost of append does not depend on how much the cache holds.
      for (const std::string_view port : running_ports()) register_append({&model, outliers, kAppendTokens}, port);
      // Nor does the cost of a snapshot depend on the port.
      const Case at{&model, outliers, kAppendTokens};
      const std::string_view port = running_ports()[0];
      benchmark::RegisterBenchmark(at.name("save", port).c_str(),
                                   [at, port](benchmark::State& state) { save_cache(state, at, port); });
      benchmark::RegisterBenchmark(at.name("restore", port).c_str(),
                                   [at, port](benchmark::State& state) { restore_cache(state, at, port); });
      Case scored = at;
      scored.scored = true;
      const auto add = [&](const char* verb, void (*run)(benchmark::State&, const Case&, std::string_view),
                           int iterations) {
        auto* const made = benchmark::RegisterBenchmark(at.name(verb, port).c_str(),
                                                        [=](benchmark::State& state) { run(state, scored, port); });
        if (iterations != 0) made->Iterations(iterations);
      };
      add("truncate", take_back_drafts, 100);  // each waits for its drafts
      add("clone", clone_cache, 0);
      add("move_to", move_cache, 0);
      add("import_snapshot", import_cache, 0);
    }
  }
}

}  // namespace nibkv::bench
