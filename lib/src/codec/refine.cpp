#include "codec/refine.hpp"

namespace nibkv {
namespace {

constexpr int kSweeps = 3;

// Halfway between the levels of codes k - 1 and k, with sentinels at both ends.
template <int kCodes>
struct Midpoints {
  float at[kCodes + 1];
};
template <int kCodes>
constexpr Midpoints<kCodes> make_midpoints(const std::int8_t (&levels)[kCodes]) {
  Midpoints<kCodes> table{};
  table.at[0] = -1e30f;
  for (int k = 1; k < kCodes; ++k) table.at[k] = static_cast<float>(levels[k - 1] + levels[k]) / 2;
  table.at[kCodes] = 1e30f;
  return table;
}
constexpr Midpoints<16> kMidpoints = make_midpoints(ports::kLevels);
constexpr Midpoints<4> kMidpoints2 = make_midpoints(ports::kLevels2);

// The code whose level is nearest to `level`, searched from `code`.
std::uint8_t nearest_code(const float* midpoints, std::uint32_t last, float level, std::uint8_t code) {
  while (code < last && level > midpoints[code + 1]) ++code;
  while (code > 0 && level < midpoints[code]) --code;
  return code;
}

#ifdef __OPTIMIZE_SIZE__
float dot(const float* a, const float* b, std::uint32_t count) {
  float parts[8] = {};
  for (std::uint32_t c = 0; c < count; c += 8) {
    for (std::uint32_t i = 0; i < 8; ++i) parts[i] += a[c + i] * b[c + i];
  }
  return ((parts[0] + parts[4]) + (parts[2] + parts[6])) + ((parts[1] + parts[5]) + (parts[3] + parts[7]));
}

void add_product(float* to, float factor, const float* from) {
  for (std::uint32_t k = 0; k < 4; ++k) to[k] += factor * from[k];
}
#else
// Four floats in a vector, where the CPU has any: compilers do not find these by themselves.
using Four [[gnu::vector_size(16)]] = float;
Four four_at(const float* at) {
  Four four;
  std::memcpy(&four, at, sizeof four);
  return four;
}

// A sum in eight parts, whose order is fixed.
float dot(const float* a, const float* b, std::uint32_t count) {
  Four low{}, high{};
  for (std::uint32_t c = 0; c < count; c += 8) {
    low += four_at(a + c) * four_at(b + c);
    high += four_at(a + c + 4) * four_at(b + c + 4);
  }
  const Four sums = low + high;
  return (sums[0] + sums[2]) + (sums[1] + sums[3]);
}

// To four floats.
void add_product(float* to, float factor, const float* from) {
  const Four sum = four_at(to) + factor * four_at(from);
  std::memcpy(to, &sum, sizeof sum);
}
#endif

// The blocks of the transform: the largest power of two first.
std::uint32_t block_at(std::uint32_t head_dim, std::uint32_t start) {
  std::uint32_t block = kMaxHeadDim;
  for (std::uint32_t at = 0;; block /= 2) {
    if ((head_dim & block) == 0) continue;
    if (at == start) return block;
    at += block;
  }
}

}  // namespace

KeyRefiner::KeyRefiner(const ArenaView& to, const Basis& basis, float* buffers)
    : kernels_(to.kernels()), head_dim_(to.shape().head_dim), weights_(buffers) {
  const std::uint32_t head_dim = head_dim_;
  moments_ = buffers + head_dim;
  levels_ = buffers + 5 * head_dim;
  weighed_row_ = buffers + 6 * head_dim;
  weighed_ = buffers + 7 * head_dim;
  known_ = basis.weigh_errors(weights_);
  if (!known_) return;
  std::memcpy(moments_, weights_, head_dim * sizeof(float));
  kernels_.rotate(moments_, static_cast<int>(head_dim));
  // The transform so far is orthonormal; M's row is the plain transform divided by
  // the block's length.
  for (std::uint32_t start = 0; start < head_dim;) {
    const std::uint32_t block = block_at(head_dim, start);
    float sum = 0;
    for (std::uint32_t i = 0; i < block; ++i) sum += weights_[start + i];
    const float norm = sum / static_cast<float>(block) / moments_[start];
    for (std::uint32_t i = 0; i < block; ++i) moments_[start + i] *= norm;
    start += block;
  }
  for (std::uint32_t turn = 1; turn < 4; ++turn) {
    for (std::uint32_t c = 0; c < head_dim; ++c) moments_[turn * head_dim + c] = moments_[c ^ turn];
  }
}

// Adds `move` times row `i` of M to the weighted levels of i's block: M[i][j] is moment i xor j.
// Groups of four channels lie side by side in the copy for i % 4.
void KeyRefiner::add_row(std::uint32_t start, std::uint32_t block, std::uint32_t i, float move) const {
  const float* moments = moments_ + i % 4 * head_dim_ + start;
  float* sums = weighed_ + start;
  for (std::uint32_t j = 0; j < block; j += 4) add_product(sums + j, move, moments + (j ^ (i & ~3u)));
}

void KeyRefiner::apply(float* row) const {
  kernels_.rotate(row, static_cast<int>(head_dim_));
  for (std::uint32_t c = 0; c < head_dim_; ++c) row[c] *= weights_[c];
  kernels_.rotate(row, static_cast<int>(head_dim_));
}

// The least-squares scale under M; 0 if there is none.
float KeyRefiner::fit(const float* row, const float* levels, const float* weighed) const {
  const float product = dot(row, weighed, head_dim_);
  const float energy = dot(levels, weighed, head_dim_);
  return product > 0 && energy > 0 ? product / energy : 0.0f;
}

std::uint16_t KeyRefiner::refine(std::uint32_t bits, const float* row, std::uint8_t* codes, std::uint16_t scale) const {
  if (!known_ || bits == 8) return scale;
  const std::int8_t* const level_of = ports::levels_of(bits);
  const float* const midpoints = bits == 2 ? kMidpoints2.at : kMidpoints.at;
  for (std::uint32_t c = 0; c < head_dim_; ++c) levels_[c] = static_cast<float>(level_of[codes[c]]);
  std::memcpy(weighed_row_, row, head_dim_ * sizeof(float));
  apply(weighed_row_);
  std::memcpy(weighed_, levels_, head_dim_ * sizeof(float));
  apply(weighed_);

  // The buffers do not overlap. This way the compiler need not check.
  float* __restrict levels = levels_;
  const float* __restrict weighed_row = weighed_row_;
  float step = fit(row, levels_, weighed_);
  for (int sweep = 0; sweep < kSweeps && step > 0; ++sweep) {
    bool changed = false;
    for (std::uint32_t start = 0; start < head_dim_;) {
      const std::uint32_t block = block_at(head_dim_, start);
      const float per_step = 1.0f / (step * moments_[start]);
      for (std::uint32_t i = 0; i < block; ++i) {
        const std::uint32_t c = start + i;
        const float wanted = levels[c] + (weighed_row[c] - step * weighed_[c]) * per_step;
        if (!(wanted > midpoints[codes[c] + 1]) && !(wanted < midpoints[codes[c]])) continue;
        changed = true;
        codes[c] = nearest_code(midpoints, (1u << bits) - 1, wanted, codes[c]);
        const float level = static_cast<float>(level_of[codes[c]]);
        add_row(start, block, i, level - levels[c]);
        levels[c] = level;
      }
      start += block;
    }
    const float fitted = fit(row, levels_, weighed_);
    if (!(fitted > 0)) break;
    step = fitted;
    if (!changed) break;
  }
  return step >= ports::kSmallest && step <= 0x1p100f ? to_scale16(step) : scale;
}

}  // namespace nibkv
