#include "codec/far_queries.hpp"

#include "codec/rotation.hpp"

namespace nibkv {
namespace {

// A query's norm in its units. No channel of a row of that norm exceeds it, however the row is turned and
// rotated, so an int8 code stands for at most 8 units.
constexpr float kUnits = 127.0f * 8;
constexpr float kMostDot = 0x1p24f;  // exact as f32

// The nearest integer; halves away from 0.
std::int32_t rounded(float x) {
  x = x < kMostDot ? x : kMostDot;
  x = x > -kMostDot ? x : -kMostDot;
  return static_cast<std::int32_t>(x + (x < 0 ? -0.5f : 0.5f));
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

}  // namespace

FarQueries::FarQueries(const ArenaView& to, const Basis& basis, const Chain& chain, const ConstRows& queries,
                       std::uint32_t kv_head, std::uint32_t first, float* space)
    : to_(to),
      basis_(basis),
      chain_(chain),
      queries_(queries),
      kv_head_(kv_head),
      first_(first),
      row_(space),
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
  measured_ = true;
}

// The dots of one row, turned as was set, with some slots of a tile.
void FarQueries::meet_turned(std::int32_t i, std::uint32_t lanes, std::uint32_t tile, const FarDots& to) {
  const std::uint32_t head_dim = to_.shape().head_dim;
  const std::uint32_t channels = to_.shape().outlier_channels;
  const Kernels& kernels = to_.kernels();
  const float unit = bounded_query_scale(units_[i]);
  read(i);
  turner_.turn(row_);
  // Its product with the mean key is not that of the wrapped row, so it does not fall out of softmax.
  const float apart = channels != 0 ? basis_.mean_product(row_) / units_[i] - products_[i] : 0;
  float outliers[kMaxOutlierChannels];
  basis_.split_query(row_, outliers);
  rotate_in(kernels, row_, head_dim, row_);
  std::int8_t codes[kMaxHeadDim];
  std::int32_t found[kTileSlots];
  const auto put = [&](std::int32_t* dots, float scale, float more) {
    dots += static_cast<std::size_t>(i) * kTileSlots;
    for (std::uint32_t t = 0; t < kTileSlots; ++t) {
      if ((lanes >> t & 1) != 0) dots[t] = rounded(static_cast<float>(found[t]) * scale + more);
    }
  };
  const float scale = bounded_query_scale(kernels.quantise_query(row_, static_cast<int>(head_dim), codes)) / unit;
  std::int32_t sum = sum_of_codes(codes, head_dim);
  kernels.key_dots(to.codes, static_cast<int>(head_dim), codes, &sum, 1, found);
  put(to.dots, scale, 0);
  if (channels == 0) return;
  const float outlier_scale =
      bounded_query_scale(kernels.quantise_query(outliers, static_cast<int>(channels), codes)) / unit;
  sum = sum_of_codes(codes, channels);
  kernels.outlier_dots(to_.outliers(tile), static_cast<int>(channels), codes, &sum, 1, found);
  put(to.outlier_dots, outlier_scale / outlier_unit_, apart / outlier_unit_);
}

void FarQueries::meet(std::uint32_t tile, std::uint32_t slot, const FarDots& to) {
  if (!measured_) measure();
  const Rotary& rotary = to_.shape().rotary;
  std::uint32_t some = 0;
  for (std::int32_t i = 0; i < count_; ++i) some |= to.seen[i];
  std::uint32_t positions[kTileSlots];
  for (std::uint32_t t = 0; t < kTileSlots; ++t)
    positions[t] = (some >> t & 1) != 0 ? to_.position_of(chain_, slot + t, {tile, t}) : 0;
  const auto turn_at = [&](std::int32_t i, std::uint32_t t) {
    return rotary.wrap_of(positions[t]) + shift_between(rotary, position_of_row(i), positions[t]);
  };
  std::uint32_t left[kMaxRows];  // slots whose dots are not computed yet
  for (std::int32_t i = 0; i < count_; ++i) {
    const std::uint32_t wrapped = rotary.wrap_of(position_of_row(i));
    bool far = false;
    for (std::uint32_t t = 0; t < kTileSlots; ++t)
      far = far || ((to.seen[i] >> t & 1) != 0 && turn_at(i, t) != wrapped);
    left[i] = far ? to.seen[i] : 0;
    if (!far) continue;
    to.scales[i] = bounded_query_scale(units_[i]) * octaves_per_logit(to_.shape().head_dim);
    to.ratios[i] = outlier_unit_;
  }
  for (;;) {
    constexpr std::uint32_t kNone = 0xffffffff;
    std::uint32_t turn = kNone;  // the smallest that is left
    for (std::int32_t i = 0; i < count_; ++i) {
      for (std::uint32_t t = 0; left[i] != 0 && t < kTileSlots; ++t) {
        if ((left[i] >> t & 1) != 0 && turn_at(i, t) < turn) turn = turn_at(i, t);
      }
    }
    if (turn == kNone) return;
    turner_.set_back(turn);
    for (std::int32_t i = 0; i < count_; ++i) {
      std::uint32_t lanes = 0;
      for (std::uint32_t t = 0; left[i] != 0 && t < kTileSlots; ++t) {
        if ((left[i] >> t & 1) != 0 && turn_at(i, t) == turn) lanes |= 1u << t;
      }
      if (lanes != 0) meet_turned(i, lanes, tile, to);
      left[i] &= ~lanes;
    }
  }
}

}  // namespace nibkv
