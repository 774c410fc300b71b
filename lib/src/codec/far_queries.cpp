#include "codec/far_queries.hpp"

#include <bit>

#include "codec/rotation.hpp"

namespace nibkv {
namespace {

// A query's norm in its units. No channel of a row of that norm exceeds it, however the row is turned and
// rotated, so an int8 code stands for at most 8 units.
constexpr float kUnits = 127.0f * 8;
constexpr float kMostDot = 0x1p24f;  // exact as f32

// The nearest integer; halves away from 0. By bits, since comparisons of floats keep compilers from using vectors.
std::int32_t rounded(float x) {
  const auto bits = std::bit_cast<std::int32_t>(x);
  constexpr auto kMost = std::bit_cast<std::int32_t>(kMostDot);
  const std::int32_t size = bits & 0x7fffffff;
  const auto whole = static_cast<std::int32_t>(std::bit_cast<float>(size < kMost ? size : kMost) + 0.5f);
  const std::int32_t sign = bits >> 31;
  return (whole ^ sign) - sign;
}

// What a unit of a query is: its norm over kUnits; 1 for one that counts as zero.
float unit_of(const float* row, std::uint32_t head_dim) {
  float most = 0;
  for (std::uint32_t c = 0; c < head_dim; ++c) {
    const float size = row[c] < 0 ? -row[c] : row[c];
    most = most < size ? size : most;
  }
  if (most < ports::kSmallest) return 1;
  float sum = 0;  // in [1, head_dim]
  for (std::uint32_t c = 0; c < head_dim; ++c) sum += row[c] / most * (row[c] / most);
  return most / kUnits * square_root(sum);
}

constexpr std::uint32_t kFurther = 0xffffffff;  // wrapped further than the query
constexpr std::uint32_t kThese = 0xfffffffe;
constexpr std::uint32_t kDone = 0xfffffffd;

std::int32_t* dots_of(std::int32_t* dots, std::int32_t row) {
  return dots + static_cast<std::size_t>(row) * kTileSlots;
}

// Puts dots of another scale, plus a constant, where a slot's steps are these.
void put_dots(std::int32_t* to, const std::int32_t* dots, float scale, float more, const std::uint32_t* of_slots,
              std::uint32_t steps) {
  std::int32_t fresh[kTileSlots];
  for (std::uint32_t t = 0; t < kTileSlots; ++t) fresh[t] = rounded(static_cast<float>(dots[t]) * scale + more);
  for (std::uint32_t t = 0; t < kTileSlots; ++t) {
    const std::int32_t chosen = of_slots[t] == steps ? -1 : 0;
    to[t] = (fresh[t] & chosen) | (to[t] & ~chosen);
  }
}

}  // namespace

/// By how many steps a query is turned less far for each slot of a tile than it was wrapped; 0 for slots that it does
/// not see.
struct FarQueries::SlotSteps {
  std::uint32_t of[kTileSlots];

  SlotSteps(const Rotary& rotary, std::uint32_t query, const std::uint32_t* positions, std::uint32_t seen) {
    const std::uint32_t wrapped = rotary.wrap_of(query);
    const auto bits = static_cast<std::uint32_t>(std::countr_zero(rotary.step()));
    for (std::uint32_t t = 0; t < kTileSlots; ++t) {
      const std::uint32_t turn = rotary.wrap_of(positions[t]) + shift_between(rotary, query, positions[t]);
      of[t] = turn > wrapped ? kFurther : (wrapped - turn) >> bits;
    }
    for (std::uint32_t t = 0; seen != ports::kAllSeen && t < kTileSlots; ++t) {
      if ((seen >> t & 1) == 0) of[t] = 0;
    }
  }
  bool has(std::uint32_t steps) const {
    std::uint32_t found = 0;
    for (const std::uint32_t of_slot : of) found |= of_slot == steps ? 1u : 0u;
    return found != 0;
  }
  bool none() const {
    std::uint32_t all = 0;
    for (const std::uint32_t steps : of) all |= steps;
    return all == 0;
  }
};

FarQueries::FarQueries(const ArenaView& to, const Basis& basis, const Chain& chain, const ConstRows& queries,
                       std::uint32_t kv_head, std::uint32_t first, std::byte* scratch)
    : to_(to),
      basis_(basis),
      chain_(chain),
      queries_(queries),
      kv_head_(kv_head),
      first_(first),
      row_(in_place<float>(scratch + to.scratch_layout().row)),
      turned_(scratch + to.scratch_layout().turned),
      outlier_unit_(to.shape().outlier_channels != 0 ? basis.outlier_unit() : 0),
      turner_(to.shape().rotary) {}

void FarQueries::start(std::uint32_t first_row, std::int32_t count) {
  first_row_ = first_row;
  count_ = count;
  measured_ = false;
}

// Reads a query as it was given.
void FarQueries::read(std::int32_t i) {
  const std::uint32_t group = to_.shape().group();
  const std::uint32_t row = first_row_ + static_cast<std::uint32_t>(i);
  row_of(queries_, row / group, kv_head_ * group + row % group).copy(to_.kernels(), to_.shape().head_dim, row_);
}

void FarQueries::measure() {
  for (std::int32_t i = 0; i < count_; ++i) {
    read(i);
    units_[i] = unit_of(row_, to_.shape().head_dim);
    wrap(row_, position_of_row(i));
    products_[i] = basis_.mean_product(row_) / units_[i];
  }
  for (std::uint16_t& rows : encoded_) rows = 0;
  measured_ = true;
}

// Where rows from the first on are kept that are turned by so many steps less than they were wrapped.
FarQueries::Turned FarQueries::turned(std::uint32_t steps, std::int32_t first) const {
  const std::uint32_t rows = to_.shape().rows();
  const auto before = static_cast<std::uint32_t>(first);
  std::byte* at = turned_ + std::size_t{steps - 1} * turned_bytes(to_.shape());
  const auto take = [&](std::uint32_t row_bytes) {
    std::byte* const array = at;
    at += rows * row_bytes;
    return array + before * row_bytes;
  };
  Turned to{};
  to.codes = in_place<std::int8_t>(take(to_.shape().head_dim));
  to.rows = in_place<TurnedRow>(take(sizeof(TurnedRow)));
  to.sums = in_place<std::int32_t>(take(sizeof(std::int32_t)));
  to.outlier_sums = in_place<std::int32_t>(take(sizeof(std::int32_t)));
  to.outlier_codes = in_place<std::int8_t>(take(to_.shape().outlier_channels));
  return to;
}

// Turns a query back by so many positions, and encodes it as row `at`.
void FarQueries::encode(std::int32_t i, std::uint32_t back, const Turned& to, std::int32_t at) {
  const std::uint32_t head_dim = to_.shape().head_dim;
  const std::uint32_t channels = to_.shape().outlier_channels;
  const Kernels& kernels = to_.kernels();
  std::int8_t* const codes = to.codes + static_cast<std::uint32_t>(at) * head_dim;
  std::int8_t* const outlier_codes = to.outlier_codes + static_cast<std::uint32_t>(at) * channels;
  const float unit = bounded_query_scale(units_[i]);
  TurnedRow& row = to.rows[at];
  read(i);
  turner_.set_back(back);
  turner_.turn(row_);
  // Its product with the mean key is not that of the wrapped row, so it does not fall out of softmax.
  row.apart = channels != 0 ? basis_.mean_product(row_) / units_[i] - products_[i] : 0;
  float outliers[kMaxOutlierChannels];
  basis_.split_query(row_, outliers);
  rotate_in(kernels, row_, head_dim, row_);
  row.scale = bounded_query_scale(kernels.quantise_query(row_, static_cast<int>(head_dim), codes)) / unit;
  to.sums[at] = sum_of_codes(codes, head_dim);
  if (channels == 0) return;
  row.outlier_scale =
      bounded_query_scale(kernels.quantise_query(outliers, static_cast<int>(channels), outlier_codes)) / unit;
  to.outlier_sums[at] = sum_of_codes(outlier_codes, channels);
}

// The dots of rows that are turned by so many steps less, with the slots that want that. `rows` begin with the range.
void FarQueries::meet_turned(const Range& range, const Turned& rows, const SlotSteps& slots, std::uint32_t steps,
                             std::uint32_t tile, const FarDots& to) {
  constexpr std::int32_t kMost = 4;
  const std::uint32_t channels = to_.shape().outlier_channels;
  const auto dim = static_cast<int>(to_.shape().head_dim);
  std::int32_t found[kMost * kTileSlots];
  for (std::int32_t first = 0; first < range.end - range.from; first += kMost) {
    const std::int32_t left = range.end - range.from - first;
    const std::int32_t count = left < kMost ? left : kMost;
    to_.key_kernels(tile).key_dots(to.codes, dim, rows.codes + first * dim, rows.sums + first, count, found);
    for (std::int32_t j = 0; j < count; ++j)
      put_dots(dots_of(to.dots, range.from + first + j), dots_of(found, j), rows.rows[first + j].scale, 0, slots.of,
               steps);
    if (channels == 0) continue;
    to_.kernels().outlier_dots(to_.outliers(tile), static_cast<int>(channels),
                               rows.outlier_codes + first * static_cast<std::int32_t>(channels),
                               rows.outlier_sums + first, count, found);
    for (std::int32_t j = 0; j < count; ++j) {
      const TurnedRow& row = rows.rows[first + j];
      put_dots(dots_of(to.outlier_dots, range.from + first + j), dots_of(found, j), row.outlier_scale / outlier_unit_,
               row.apart / outlier_unit_, slots.of, steps);
    }
  }
}

// The dots of the rows as they were wrapped, in the unit that turned rows are in. Of rows at whose scale
// what is no outlier channel is negligible, it is 0.
void FarQueries::rescale(const Range& range, const SlotSteps& slots, const FarDots& to) {
  const float octaves = octaves_per_logit(to_.shape().head_dim);
  const bool some = slots.has(0);
  for (std::int32_t i = range.from; i < range.end; ++i) {
    const float unit = bounded_query_scale(units_[i]) * octaves;
    const float scale = to.scales[i] / unit;
    std::int32_t* dots = dots_of(to.dots, i);
    if (some) put_dots(dots, dots, scale, 0, slots.of, 0);
    if (some && to.outlier_dots != nullptr) {
      dots = dots_of(to.outlier_dots, i);
      put_dots(dots, dots, scale * to.ratios[i] / outlier_unit_, 0, slots.of, 0);
    }
    to.scales[i] = unit;
    to.ratios[i] = outlier_unit_;
  }
}

// The rows of one query.
void FarQueries::meet_query(const Range& range, const SlotSteps& slots, const std::uint32_t* positions,
                            std::uint32_t tile, const FarDots& to) {
  const Rotary& rotary = to_.shape().rotary;
  const std::uint32_t wrapped = rotary.wrap_of(position_of_row(range.from));
  rescale(range, slots, to);
  for (std::uint32_t steps = 1; steps <= rotary.turns(); ++steps) {
    if (!slots.has(steps)) continue;
    const Turned rows = turned(steps, range.from);
    for (std::int32_t i = range.from; i < range.end; ++i) {
      if ((encoded_[steps - 1] >> i & 1) == 0) encode(i, wrapped - steps * rotary.step(), rows, i - range.from);
      encoded_[steps - 1] = static_cast<std::uint16_t>(encoded_[steps - 1] | 1u << i);
    }
    meet_turned(range, rows, slots, steps, tile, to);
  }
  if (slots.has(kFurther)) meet_later(range, slots, positions, tile, to);
}

// Slots that a query sees although they are after it, and wrapped further: by a mask, in the tokens that cross a step.
void FarQueries::meet_later(const Range& range, SlotSteps slots, const std::uint32_t* positions, std::uint32_t tile,
                            const FarDots& to) {
  std::int8_t codes[kMaxHeadDim];
  std::int8_t outlier_codes[kMaxOutlierChannels];
  TurnedRow row;
  std::int32_t sum = 0;
  std::int32_t outlier_sum = 0;
  const Turned rows{codes, &row, &sum, &outlier_sum, outlier_codes};
  for (std::uint32_t t = 0; t < kTileSlots; ++t) {
    if (slots.of[t] != kFurther) continue;
    // This slot and those that are wrapped as it is.
    const std::uint32_t back = to_.shape().rotary.wrap_of(positions[t]);
    for (std::uint32_t u = t; u < kTileSlots; ++u) {
      if (slots.of[u] == kFurther && to_.shape().rotary.wrap_of(positions[u]) == back) slots.of[u] = kThese;
    }
    for (std::int32_t i = range.from; i < range.end; ++i) {
      encode(i, back, rows, 0);
      meet_turned({i, i + 1}, rows, slots, kThese, tile, to);
    }
    for (std::uint32_t& steps : slots.of) steps = steps == kThese ? kDone : steps;
  }
}

void FarQueries::meet(std::uint32_t tile, std::uint32_t slot, const FarDots& to) {
  if (!measured_) measure();
  const auto group = static_cast<std::int32_t>(to_.shape().group());
  std::uint32_t positions[kTileSlots];
  for (std::uint32_t t = 0; t < kTileSlots; ++t) positions[t] = to_.position_of(chain_, slot + t, {tile, t});
  Range range{0, group - static_cast<std::int32_t>(first_row_) % group};
  for (; range.from < count_; range = {range.end, range.end + group}) {
    if (range.end > count_) range.end = count_;
    const SlotSteps slots(to_.shape().rotary, position_of_row(range.from), positions, to.seen[range.from]);
    if (!slots.none()) meet_query(range, slots, positions, tile, to);
  }
}

}  // namespace nibkv
