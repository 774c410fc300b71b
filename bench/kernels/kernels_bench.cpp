// Every kernel of every built port that this CPU runs, on data that stays in the first-level cache.
// It goes through the list of ports, so a new port needs no new benchmark.
#include <cstdint>
#include <sstream>
#include <string>
#include <vector>

#include "bench/kernels/benchmarks.hpp"
#include "bench/kernels/cold_cache.hpp"
#include "ports/ports.hpp"
#include "tests/support/random.hpp"

namespace nibkv::bench {
namespace {

constexpr int kHeadDims[] = {64, 128};
constexpr int kRows[] = {3, 4, 16};
constexpr int kMostRows = kMaxRows;
constexpr int kSlots = 32;
constexpr int kTiles = 4;  // that a kernel processes: enough that nothing is forwarded from the previous call
constexpr int kChannels = 8;

// Arguments for every kernel. Codes need an alignment of 32 bytes.
struct Arguments {
  Arguments(int head_dim, int row_count)
      : dim(head_dim),
        rows(row_count),
        codes(static_cast<std::size_t>(kTiles * kSlots * dim)),
        row(bells(static_cast<std::size_t>(dim), 1)),
        row_codes(row.size()),
        queries(static_cast<std::size_t>(kMostRows * dim)),
        query_sums(kMostRows, 100),
        dots(kMostRows * kSlots),
        outlier_dots(dots.size()),
        weights(kMostRows * kSlots),
        softmax(kMostRows * kSlots),
        sums(static_cast<std::size_t>(kMostRows * dim)) {
    test::Random random(2);
    for (std::byte& code : codes.bytes()) code = static_cast<std::byte>(random.below(256));
    for (std::int8_t& query : queries) query = static_cast<std::int8_t>(random.within(0, 254) - 127);
    for (std::int32_t& dot : dots) dot = static_cast<std::int32_t>(random.below(200000)) - 100000;
    for (std::int32_t& dot : outlier_dots) dot = static_cast<std::int32_t>(random.below(40000)) - 20000;
    for (std::uint8_t& weight : weights) weight = static_cast<std::uint8_t>(random.below(128));
    for (std::uint16_t& weight : softmax) weight = static_cast<std::uint16_t>(random.below(32768));
  }

  // The first half of a tile's codes are keys, the other values.
  const std::uint8_t* tile(int number) {
    return reinterpret_cast<const std::uint8_t*>(codes.bytes().data()) + number * kSlots / 2 * dim;
  }

  int dim;
  int rows;
  AlignedMemory codes;
  std::vector<float> row;
  std::vector<std::uint8_t> row_codes;
  std::vector<std::int8_t> queries;
  std::vector<std::int32_t> query_sums;
  std::vector<std::int32_t> dots;
  std::vector<std::int32_t> outlier_dots;
  std::vector<std::uint8_t> weights;
  std::vector<std::uint16_t> softmax;
  std::vector<float> sums;
};

using Body = void (*)(benchmark::State&, const Kernels&, Arguments&);

// Of f16.
void widen(benchmark::State& state, const Kernels& kernels, Arguments& with) {
  kernels.narrow(with.row.data(), with.dim, Half::kF16, with.softmax.data());
  for (auto _ : state) {
    kernels.widen(with.softmax.data(), with.dim, Half::kF16, with.row.data());
    benchmark::ClobberMemory();
  }
  state.counters["ns/row"] = nanoseconds_per(1);
}

void narrow(benchmark::State& state, const Kernels& kernels, Arguments& with) {
  for (auto _ : state) {
    kernels.narrow(with.row.data(), with.dim, Half::kF16, with.softmax.data());
    benchmark::ClobberMemory();
  }
  state.counters["ns/row"] = nanoseconds_per(1);
}

void rotate(benchmark::State& state, const Kernels& kernels, Arguments& with) {
  for (auto _ : state) {
    kernels.rotate(with.row.data(), with.dim);
    benchmark::ClobberMemory();
  }
  state.counters["ns/row"] = nanoseconds_per(1);
}

template <std::uint32_t kBits>
void encode_row(benchmark::State& state, const Kernels& kernels, Arguments& with) {
  for (auto _ : state)
    benchmark::DoNotOptimize(kernels.of(kBits).encode_row(with.row.data(), with.dim, with.row_codes.data()));
  state.counters["ns/row"] = nanoseconds_per(1);
}

void quantise_query(benchmark::State& state, const Kernels& kernels, Arguments& with) {
  for (auto _ : state) benchmark::DoNotOptimize(kernels.quantise_query(with.row.data(), with.dim, with.queries.data()));
  state.counters["ns/row"] = nanoseconds_per(1);
}

benchmark::Counter per_slot_and_row(const Arguments& with, int tiles) {
  return nanoseconds_per(1.0 * tiles * kSlots * with.rows);
}

template <std::uint32_t kBits>
void key_dots(benchmark::State& state, const Kernels& kernels, Arguments& with) {
  for (auto _ : state) {
    for (int tile = 0; tile < kTiles; ++tile) {
      kernels.of(kBits).key_dots(with.tile(tile), with.dim, with.queries.data(), with.query_sums.data(), with.rows,
                                 with.dots.data());
    }
    benchmark::ClobberMemory();
  }
  state.counters["ns/token/head"] = per_slot_and_row(with, kTiles);
}

void outlier_dots(benchmark::State& state, const Kernels& kernels, Arguments& with) {
  for (auto _ : state) {
    for (int tile = 0; tile < kTiles; ++tile) {
      const auto* outliers = reinterpret_cast<const std::int8_t*>(with.tile(tile));
      kernels.outlier_dots(outliers, kChannels, with.queries.data(), with.query_sums.data(), with.rows,
                           with.outlier_dots.data());
    }
    benchmark::ClobberMemory();
  }
  state.counters["ns/token/head"] = per_slot_and_row(with, kTiles);
}

enum class Weights { kPlain, kOutliers, kSoftmax, kBiases };

void weights_of(benchmark::State& state, const Kernels& kernels, Arguments& with, Weights which) {
  const int tiles = kMostRows / with.rows;
  const std::vector<std::uint16_t> scales(kSlots, 0x7800);  // 2^-7
  const std::vector<float> query_scales(kMostRows, 0x1p-6f);
  const std::vector<std::uint32_t> seen(kMostRows, ports::kAllSeen);
  const std::vector<std::uint8_t> biases(kSlots, 16);
  float units[kMostRows];
  std::int32_t exponents[kMostRows];
  std::uint32_t masses[kMostRows];
  TileWeights of[kMostRows];
  for (int tile = 0; tile < tiles; ++tile) {
    const int at = tile * with.rows;
    of[tile] = {.dots = with.dots.data() + at * kSlots,
                .outlier_dots = which == Weights::kOutliers ? with.outlier_dots.data() + at * kSlots : nullptr,
                .key_scales = scales.data(),
                .value_scales = scales.data(),
                .query_scales = query_scales.data(),
                .outlier_ratios = query_scales.data(),
                .seen = seen.data(),
                .biases = which == Weights::kBiases ? biases.data() : nullptr,
                .weights = with.weights.data() + at * kSlots,
                .value_units = units + at,
                .exponents = exponents + at,
                .softmax = which == Weights::kSoftmax ? with.softmax.data() + at * kSlots : nullptr,
                .masses = masses + at};
  }
  for (auto _ : state) {
    kernels.tile_weights(of, tiles, with.rows);
    benchmark::ClobberMemory();
  }
  state.counters["ns/token/head"] = per_slot_and_row(with, tiles);
}

void tile_weights(benchmark::State& state, const Kernels& kernels, Arguments& with) {
  weights_of(state, kernels, with, Weights::kPlain);
}

void tile_weights_outliers(benchmark::State& state, const Kernels& kernels, Arguments& with) {
  weights_of(state, kernels, with, Weights::kOutliers);
}

void tile_weights_softmax(benchmark::State& state, const Kernels& kernels, Arguments& with) {
  weights_of(state, kernels, with, Weights::kSoftmax);
}

void tile_weights_biases(benchmark::State& state, const Kernels& kernels, Arguments& with) {
  weights_of(state, kernels, with, Weights::kBiases);
}

void scores_of(benchmark::State& state, const Kernels& kernels, Arguments& with, int group) {
  const std::vector<std::int16_t> factors(kMostRows, 32767 / kMostRows);
  std::vector<std::uint32_t> global(kTiles * kSlots);
  std::vector<std::uint16_t> local(global.size());
  for (auto _ : state) {
    for (int tile = 0; tile < kTiles; ++tile) {
      kernels.add_scores({.softmax = with.softmax.data(),
                          .factors = factors.data(),
                          .count = with.rows,
                          .group = group,
                          .global_shift = 6,
                          .local_shift = 16,
                          .fade = 2048,
                          .global = global.data() + tile * kSlots,
                          .local = local.data() + tile * kSlots});
    }
    benchmark::ClobberMemory();
  }
  state.counters["ns/token/head"] = per_slot_and_row(with, kTiles);
}

void add_scores(benchmark::State& state, const Kernels& kernels, Arguments& with) {
  scores_of(state, kernels, with, 1);
}

void add_scores_largest(benchmark::State& state, const Kernels& kernels, Arguments& with) {
  scores_of(state, kernels, with, with.rows);
}

template <std::uint32_t kBits>
void value_sums(benchmark::State& state, const Kernels& kernels, Arguments& with) {
  const std::vector<float> scales(kMostRows, 0x1p-20f);
  for (auto _ : state) {
    for (int tile = 0; tile < kTiles; ++tile) {
      kernels.of(kBits).value_sums(with.tile(tile), with.dim, with.weights.data(), scales.data(), with.rows,
                                   with.sums.data());
    }
    benchmark::ClobberMemory();
  }
  state.counters["ns/token/head"] = per_slot_and_row(with, kTiles);
}

void add(const char* kernel, Body body, const Port& port, int head_dim, int rows) {
  std::ostringstream words;
  words << "kernel/" << kernel << '/' << port.kernels->name << '/' << head_dim;
  if (rows != 0) words << '/' << rows;
  const std::string name = words.str();
  benchmark::RegisterBenchmark(name.c_str(), [body, &port, head_dim, rows](benchmark::State& state) {
    Arguments with(head_dim, rows);
    body(state, *port.kernels, with);
  });
}

}  // namespace

void register_kernels() {
  for (const int head_dim : kHeadDims) {
    for (const Port& port : kPorts) {
      if (!port.runs_here()) continue;
      add("widen", widen, port, head_dim, 0);
      add("narrow", narrow, port, head_dim, 0);
      add("rotate", rotate, port, head_dim, 0);
      add("encode_row", encode_row<4>, port, head_dim, 0);
      add("encode_row_q2", encode_row<2>, port, head_dim, 0);
      add("encode_row_q8", encode_row<8>, port, head_dim, 0);
      add("quantise_query", quantise_query, port, head_dim, 0);
      for (const int rows : kRows) {
        add("key_dots", key_dots<4>, port, head_dim, rows);
        add("key_dots_q2", key_dots<2>, port, head_dim, rows);
        add("key_dots_q8", key_dots<8>, port, head_dim, rows);
        add("outlier_dots", outlier_dots, port, head_dim, rows);
        add("tile_weights", tile_weights, port, head_dim, rows);
        add("tile_weights_outliers", tile_weights_outliers, port, head_dim, rows);
        add("tile_weights_softmax", tile_weights_softmax, port, head_dim, rows);
        add("tile_weights_biases", tile_weights_biases, port, head_dim, rows);
        add("add_scores", add_scores, port, head_dim, rows);
        add("add_scores_largest", add_scores_largest, port, head_dim, rows);
        add("value_sums", value_sums<4>, port, head_dim, rows);
        add("value_sums_q2", value_sums<2>, port, head_dim, rows);
        add("value_sums_q8", value_sums<8>, port, head_dim, rows);
      }
    }
  }
}

}  // namespace nibkv::bench
