// Counts the instructions that each kernel of each port takes. The board's timer counts them
// when qemu runs with -icount shift=0, which makes an instruction take a nanosecond. They are not
// cycles, which no emulator knows.
#include <cstdint>

#include "ports/ports.hpp"
#include "tests/baremetal/print.hpp"
#include "tests/support/random.hpp"

namespace {

using nibkv::Kernels;

constexpr int kDim = 64;
constexpr int kTurns = 16;

volatile std::uint32_t* timer_register(std::uint32_t offset) {
  return reinterpret_cast<volatile std::uint32_t*>(0xe000e010 + offset);
}

std::uint32_t ticks_left() {
  return *timer_register(8);
}

// Takes that many instructions, plus a few.
void spend(std::uint32_t instructions) {
  std::uint32_t turns = instructions / 2;
  asm volatile("1: subs %0, #1\n bne 1b" : "+l"(turns)::"cc");
}

template <typename F>
std::uint32_t ticks_of(F&& fn) {
  const std::uint32_t before = ticks_left();
  fn();
  return (before - ticks_left()) & 0xffffff;
}

std::uint32_t ticks_of_million;

template <typename F>
std::uint32_t instructions_of(F&& fn) {
  const std::uint32_t ticks = ticks_of([&] {
    for (int i = 0; i < kTurns; ++i) fn();
  });
  return static_cast<std::uint32_t>(std::uint64_t{ticks} * 1000000 / ticks_of_million / kTurns);
}

// A head of 64 channels, a group of three query heads, 8 outlier channels.
constexpr int kRows = 3;
constexpr int kOutliers = 8;
constexpr std::uint32_t kWidths[] = {4, 2, 8};

struct Data {
  alignas(32) std::uint8_t codes[32 * kDim];
  alignas(32) std::int8_t outliers[32 * kOutliers];
  std::int8_t queries[kRows * kDim];
  std::int32_t query_sums[kRows];
  std::int32_t dots[kRows * 32], outlier_dots[kRows * 32];
  std::uint16_t key_scales[32], value_scales[32];
  float query_scales[kRows], outlier_ratios[kRows], value_units[kRows];
  std::uint32_t seen[kRows];
  std::int32_t exponents[kRows];
  std::uint8_t weights[kRows * 32];
  std::uint16_t softmax[kRows * 32];
  std::uint32_t masses[kRows];
  std::int16_t factors[kRows];
  std::uint32_t global[32];
  std::uint16_t local[32];
  float row[kDim], sums[kRows * kDim];
  std::uint8_t row_codes[kDim];
  std::int8_t query_codes[kDim];
};
Data data;

void fill() {
  nibkv::test::Random random(1);
  for (auto& x : data.codes) x = static_cast<std::uint8_t>(random.below(256));
  for (auto& x : data.outliers) x = static_cast<std::int8_t>(random.within(0, 254) - 127);
  for (auto& x : data.queries) x = static_cast<std::int8_t>(random.within(0, 254) - 127);
  for (int t = 0; t < 32; ++t) {
    data.key_scales[t] = static_cast<std::uint16_t>(0x7a00 + random.below(256));
    data.value_scales[t] = static_cast<std::uint16_t>(0x7a00 + random.below(256));
  }
  for (int i = 0; i < kRows; ++i) {
    for (int c = 0; c < kDim; ++c) data.query_sums[i] += data.queries[i * kDim + c];
    data.query_scales[i] = 0x1p-12f;
    data.outlier_ratios[i] = 0x1p-6f;
    data.seen[i] = nibkv::ports::kAllSeen;
    data.factors[i] = 20000;
  }
  for (float& x : data.row) x = random.bell();
}

void count(const Kernels& port) {
  using nibkv::metal::say;
  const auto line = [&](const char* kernel, int rows, std::uint32_t bits, std::uint32_t instructions) {
    say("| `");
    say(port.name);
    say("` | ");
    say(kernel);
    if (bits != 0) {
      say(", ");
      nibkv::metal::say_number(bits);
      say(" bits");
    }
    if (rows != 0) say(rows == 1 ? ", 1 row" : ", 3 rows");
    say(" | ");
    nibkv::metal::say_number(instructions);
    say(" |\n");
  };
  Data& d = data;
  line("rotate", 0, 0, instructions_of([&] { port.rotate(d.row, kDim); }));
  for (const std::uint32_t bits : kWidths)
    line("encode_row", 0, bits, instructions_of([&] { port.of(bits).encode_row(d.row, kDim, d.row_codes); }));
  line("quantise_query", 0, 0, instructions_of([&] { port.quantise_query(d.row, kDim, d.query_codes); }));
  for (const int rows : {1, kRows}) {
    for (const std::uint32_t bits : kWidths) {
      line("key_dots", rows, bits,
           instructions_of([&] { port.of(bits).key_dots(d.codes, kDim, d.queries, d.query_sums, rows, d.dots); }));
    }
    line("outlier_dots", rows, 0, instructions_of([&] {
           port.outlier_dots(d.outliers, kOutliers, d.queries, d.query_sums, rows, d.outlier_dots);
         }));
    const nibkv::TileWeights tile = {.dots = d.dots,
                                     .outlier_dots = d.outlier_dots,
                                     .key_scales = d.key_scales,
                                     .value_scales = d.value_scales,
                                     .query_scales = d.query_scales,
                                     .outlier_ratios = d.outlier_ratios,
                                     .seen = d.seen,
                                     .biases = nullptr,
                                     .weights = d.weights,
                                     .value_units = d.value_units,
                                     .exponents = d.exponents,
                                     .softmax = d.softmax,
                                     .masses = d.masses};
    line("tile_weights", rows, 0, instructions_of([&] { port.tile_weights(&tile, 1, rows); }));
    const nibkv::TileScores scores = {.softmax = d.softmax,
                                      .factors = d.factors,
                                      .count = rows,
                                      .group = 1,
                                      .global_shift = 4,
                                      .local_shift = 4,
                                      .fade = 100,
                                      .global = d.global,
                                      .local = d.local};
    line("add_scores", rows, 0, instructions_of([&] { port.add_scores(scores); }));
    for (const std::uint32_t bits : kWidths) {
      line("value_sums", rows, bits,
           instructions_of([&] { port.of(bits).value_sums(d.codes, kDim, d.weights, d.query_scales, rows, d.sums); }));
    }
  }
}

}  // namespace

int main(int, char**) {
  *timer_register(4) = 0xffffff;
  *timer_register(8) = 0;
  *timer_register(0) = 5;  // enabled, with the processor's clock, without interrupts
  ticks_of_million = ticks_of([] { spend(1000000); });
  if (ticks_of_million < 1000) {
    nibkv::metal::say("the timer stands still\n");
    return 1;
  }
  fill();
  for (const nibkv::Port& port : nibkv::kPorts) count(*port.kernels);
  return 0;
}
