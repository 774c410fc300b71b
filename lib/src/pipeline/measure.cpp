#include "pipeline/measure.hpp"

#include "arena/history.hpp"
#include "codec/rotary.hpp"
#include "profile/format.hpp"

namespace nibkv {
namespace {

// Some tokens say little of how large channels become: ranges extend this far beyond the largest seen. The length of a
// rotary pair, which is the same at all positions, varies less than its channels.
constexpr float kBeyond = 2.0f;
constexpr float kPairBeyond = 1.5f;
// A rotary pair keeps its mean if it turns no further than a radian in 4,096 tokens: in 2^-64 of a turn a token.
constexpr auto kSlow = static_cast<std::uint64_t>(1.0 / 6.283185307179586 / 4096 * 0x1p64);
// What is larger counts as this, so that sums of squares are finite.
constexpr float kMost = 0x1p50f;

// Of each channel, over the tokens, f32[head_dim] each.
struct Sums {
  float* row;
  float* mean;           // first the sum
  float* square;         // of what is left, or of the pair, halved
  float* reach;          // the largest magnitude likewise
  std::uint64_t* steps;  // of rotary pairs
};

float limited(float channel) {
  return channel > kMost ? kMost : channel < -kMost ? -kMost : channel;
}

// Calls visit(row) for each token of a head.
template <typename Visit>
void each_row(const ArenaView& to, std::uint32_t head, std::uint32_t count, const ConstRows& keys, float* row,
              Visit visit) {
  for (std::uint32_t i = 0; i < count; ++i) {
    const float* const key = row_of(keys, i, head).widened(to.kernels(), to.shape().head_dim, row);
    visit(key);
  }
}

// The other channel of a rotary pair that turns too fast to have a mean; the channel itself if it does not.
std::uint32_t partner_of(const Rotary& rotary, const std::uint64_t* steps, std::uint32_t channel) {
  if (channel >= rotary.dims) return channel;
  const std::uint32_t half = rotary.dims / 2;
  const std::uint32_t pair = rotary.adjacent ? channel / 2 : channel % half;
  if (steps[pair] < kSlow) return channel;
  return rotary.adjacent ? channel ^ 1u : channel < half ? channel + half : channel - half;
}

void measure_head(const ArenaView& to, std::uint32_t head, std::uint32_t count, const ConstRows& keys, const Sums& sums,
                  std::uint8_t* record) {
  const std::uint32_t dim = to.shape().head_dim;
  const Rotary& rotary = to.shape().rotary;
  for (std::uint32_t c = 0; c < dim; ++c) sums.mean[c] = sums.square[c] = sums.reach[c] = 0;
  each_row(to, head, count, keys, sums.row, [&](const float* key) {
    for (std::uint32_t c = 0; c < dim; ++c) sums.mean[c] += limited(key[c]);
  });
  std::uint8_t* const channels = record + sizeof count;
  std::uint8_t* const scales = channels + kMaxOutlierChannels;
  std::uint8_t* const means = scales + 2 * kMaxOutlierChannels;
  for (std::uint32_t c = 0; c < dim; ++c) {
    const bool turns = partner_of(rotary, sums.steps, c) != c;
    const std::uint16_t mean = turns ? std::uint16_t{0} : to_bf16(sums.mean[c] / static_cast<float>(count));
    put_u16(means, c, mean);
    sums.mean[c] = from_bf16(mean);
  }
  each_row(to, head, count, keys, sums.row, [&](const float* key) {
    for (std::uint32_t c = 0; c < dim; ++c) {
      const std::uint32_t other = partner_of(rotary, sums.steps, c);
      const float channel = limited(key[c]) - sums.mean[c];
      float square = channel * channel;
      if (other != c) square = square + limited(key[other]) * limited(key[other]);
      sums.reach[c] = sums.reach[c] < square ? square : sums.reach[c];
      sums.square[c] += other != c ? square * 0.5f : square;
    }
  });
  for (std::uint32_t n = 0; n < kMaxOutlierChannels; ++n) {
    std::uint32_t worst = dim;
    for (std::uint32_t c = 0; c < dim; ++c) {
      if (sums.square[c] >= 0 && (worst == dim || sums.square[c] > sums.square[worst])) worst = c;
    }
    sums.square[worst] = -1;
    const bool turns = partner_of(rotary, sums.steps, worst) != worst;
    const float reach = square_root(sums.reach[worst]) * (turns ? kPairBeyond : kBeyond);
    channels[n] = static_cast<std::uint8_t>(worst);
    put_u16(scales, n, reach >= 0x1p-60f ? to_scale16(reach / 127.0f) : std::uint16_t{0});
  }
  std::memcpy(record, &count, sizeof count);
}

}  // namespace

void measure(const ArenaView& to, std::uint32_t layer, std::uint32_t count, const ConstRows& keys) {
  const std::uint32_t dim = to.shape().head_dim;
  float* const space = to.encoding();
  const Sums sums{space, space + dim, space + 2 * dim, space + 3 * dim, in_place<std::uint64_t>(space + 4 * dim)};
  static_assert(1 + kRefinerRows >= 5, "the workspace of rows has space for the sums");
  if (to.shape().rotary.known()) rotary_steps(to.shape().rotary, sums.steps);
  for (std::uint32_t head = 0; head < to.shape().kv_heads; ++head) {
    std::uint8_t* const record = to.measured(layer, head);
    if (count < kLeastMeasured) {
      std::memset(record, 0, measured_bytes(to.shape()));
    } else {
      measure_head(to, head, count, keys, sums, record);
    }
  }
  if (count >= kLeastMeasured) record_change(to, 0, to.chain(layer, 0).seen + count);
}

}  // namespace nibkv
