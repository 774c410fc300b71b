#include "snapshot/side_checks.hpp"

#include "codec/slot.hpp"
#include "numbers/numbers.hpp"
#include "pipeline/compact_chain.hpp"

namespace nibkv {
namespace {

bool sound_scale(std::uint16_t scale, std::uint16_t most) {
  return scale == 0 || (scale >= 256 && scale <= most);
}

template <typename T>
T entry(const std::byte* side, std::uint32_t offset, std::size_t index) {
  T value;
  std::memcpy(&value, side + offset + index * sizeof(T), sizeof value);
  return value;
}

}  // namespace

bool SideChecks::sound_slot(const std::byte* side, std::uint32_t base, std::uint32_t lane) {
  if (!sound_scale(entry<std::uint16_t>(side, side_.key_scales, lane), kMostKeyScale16)) return false;
  if (!sound_scale(entry<std::uint16_t>(side, side_.value_scales, lane), kMostValueScale16)) return false;
  for (std::uint32_t n = 0; n < shape_.outlier_channels; ++n) {
    if (entry<std::int8_t>(side, side_.outliers, outlier_byte(lane, n)) == -128) return false;
  }
  if (policy_.keep != Keep::kScore) return true;
  const std::uint32_t offset = entry<std::uint16_t>(side, side_.positions, lane);
  const std::uint64_t position = std::uint64_t{base} + offset;
  if (position >= chain_.seen) return false;
  const bool folded = slot_ < folded_;
  if (!folded) {
    if (position < least_ || (lane == 0 && offset != 0)) return false;
    // Positions far from their tile's first were stored as 65535 after it, and may be equal,
    // wherever the slots have moved since.
    least_ = position < 65535 ? position + 1 : position;
  }
  const bool sink = !folded && slot_ - folded_ < policy_.sinks;
  if (keeps_global(policy_) && !sink && entry<std::uint32_t>(side, side_.global, lane) > chain_.heaviest) return false;
  return !merges(policy_) || entry<std::uint8_t>(side, side_.bias, lane) <= kMostBias;
}

bool SideChecks::next(const std::byte* side, std::uint32_t base) {
  const std::uint32_t end = slot_ < folded_ ? folded_ : chain_.used;
  for (std::uint32_t lane = 0; lane < kTileSlots && slot_ < end; ++lane, ++slot_) {
    if (!sound_slot(side, base, lane)) return false;
  }
  return true;
}

}  // namespace nibkv
