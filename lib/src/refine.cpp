#include "refine.hpp"

namespace nibkv {
namespace {

constexpr int kSweeps = 3;

struct NearestTable {
  std::uint8_t code[129];  // [level + 64]
};
constexpr NearestTable make_nearest_table() {
  NearestTable table{};
  for (int level = -64; level <= 64; ++level) {
    int best = 0;
    for (int code = 1; code < 16; ++code) {
      const int far = level < ports::kLevels[best] ? ports::kLevels[best] - level : level - ports::kLevels[best];
      const int near = level < ports::kLevels[code] ? ports::kLevels[code] - level : level - ports::kLevels[code];
      if (near < far) best = code;
    }
    table.code[level + 64] = static_cast<std::uint8_t>(best);
  }
  return table;
}
constexpr NearestTable kNearest = make_nearest_table();

std::uint8_t nearest_code(float level) {
  level = level < 64.0f ? level : 64.0f;
  level = level > -64.0f ? level : -64.0f;
  return kNearest.code[static_cast<std::int32_t>(level + 64.5f)];
}

// A sum in eight parts, so that compilers can keep them in one vector; the order is fixed all the same.
float dot(const float* a, const float* b, std::uint32_t count) {
  float parts[8] = {};
  for (std::uint32_t c = 0; c < count; c += 8) {
    for (std::uint32_t i = 0; i < 8; ++i) parts[i] += a[c + i] * b[c + i];
  }
  return ((parts[0] + parts[4]) + (parts[2] + parts[6])) + ((parts[1] + parts[5]) + (parts[3] + parts[7]));
}

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

KeyRefiner::KeyRefiner(const Kernels& kernels, const Basis& basis, std::uint32_t head_dim, float* buffers)
    : kernels_(kernels),
      head_dim_(head_dim),
      weights_(buffers),
      moments_(buffers + head_dim),
      levels_(buffers + 2 * head_dim),
      weighed_row_(buffers + 3 * head_dim),
      weighed_(buffers + 4 * head_dim) {
  known_ = basis.weigh_errors(weights_);
  if (!known_) return;
  std::memcpy(moments_, weights_, head_dim * sizeof(float));
  kernels.rotate(moments_, static_cast<int>(head_dim));
  // Orthonormal so far; M's row is the plain transform over the block's length.
  for (std::uint32_t start = 0; start < head_dim;) {
    const std::uint32_t block = block_at(head_dim, start);
    float sum = 0;
    for (std::uint32_t i = 0; i < block; ++i) sum += weights_[start + i];
    const float norm = sum / static_cast<float>(block) / moments_[start];
    for (std::uint32_t i = 0; i < block; ++i) moments_[start + i] *= norm;
    start += block;
  }
}

void KeyRefiner::apply(float* row) const {
  kernels_.rotate(row, static_cast<int>(head_dim_));
  for (std::uint32_t c = 0; c < head_dim_; ++c) row[c] *= weights_[c];
  kernels_.rotate(row, static_cast<int>(head_dim_));
}

// The least-squares scale under M; 0 when there is none.
float KeyRefiner::fit(const float* row, const float* levels, const float* weighed) const {
  const float product = dot(row, weighed, head_dim_);
  const float energy = dot(levels, weighed, head_dim_);
  return product > 0 && energy > 0 ? product / energy : 0.0f;
}

std::uint16_t KeyRefiner::refine(const float* row, std::uint8_t* codes, std::uint16_t scale) const {
  if (!known_) return scale;
  for (std::uint32_t c = 0; c < head_dim_; ++c) levels_[c] = static_cast<float>(ports::kLevels[codes[c]]);
  std::memcpy(weighed_row_, row, head_dim_ * sizeof(float));
  apply(weighed_row_);
  std::memcpy(weighed_, levels_, head_dim_ * sizeof(float));
  apply(weighed_);

  float step = fit(row, levels_, weighed_);
  for (int sweep = 0; sweep < kSweeps && step > 0; ++sweep) {
    bool changed = false;
    for (std::uint32_t start = 0; start < head_dim_;) {
      const std::uint32_t block = block_at(head_dim_, start);
      const float per_step = 1.0f / (step * moments_[start]);
      for (std::uint32_t i = 0; i < block; ++i) {
        const std::uint32_t c = start + i;
        const std::uint8_t code = nearest_code(levels_[c] + (weighed_row_[c] - step * weighed_[c]) * per_step);
        if (code == codes[c]) continue;
        changed = true;
        codes[c] = code;
        const float level = static_cast<float>(ports::kLevels[code]);
        const float move = level - levels_[c];
        levels_[c] = level;
        for (std::uint32_t j = 0; j < block; ++j) weighed_[start + j] += move * moments_[start + (i ^ j)];
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
