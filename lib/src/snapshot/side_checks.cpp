#include "snapshot/side_checks.hpp"

#include "nibkv/classify.hpp"
#include "numbers/numbers.hpp"
#include "pipeline/compact_chain.hpp"

namespace nibkv {
namespace {

template <typename T>
T read(const std::byte* element) {
  T value;
  std::memcpy(&value, element, sizeof value);
  return value;
}

}  // namespace

bool SideChecks::sound_position(std::uint32_t base, std::uint32_t offset, std::uint32_t lane) {
  const std::uint64_t position = std::uint64_t{base} + offset;
  if (position >= chain_.seen) return false;
  if (slot_ < folded_) return true;
  if (lane == 0 && offset != 0) return false;
  if (positions_by_step(shape_.rotary)) return true;  // what is old may come after what is less old
  if (position < least_) return false;
  // Positions far from their tile's first were stored as 65535 after it, and may be equal,
  // wherever the slots have moved since.
  least_ = position < 65535 ? position + 1 : position;
  return true;
}

// Whether an element of a slot is one that the verbs write.
bool SideChecks::sound_element(const SideField& field, const std::byte* element, std::uint32_t base,
                               std::uint32_t lane) {
  using Rule = SideField::Rule;
  switch (field.rule) {
    case Rule::kKeyScale:
      return sound_scale(read<std::uint16_t>(element), kMostKeyScale16);
    case Rule::kValueScale:
      return sound_scale(read<std::uint16_t>(element), kMostValueScale16);
    case Rule::kOutliers:
      for (std::uint32_t n = 0; n < field.bytes; ++n) {
        if (read<std::int8_t>(element + n) == -128) return false;
      }
      return true;
    case Rule::kGlobal: {
      const bool sink = slot_ >= folded_ && slot_ - folded_ < policy_.sinks;
      return sink || read<std::uint32_t>(element) <= chain_.heaviest;
    }
    case Rule::kPosition:
      return sound_position(base, read<std::uint16_t>(element), lane);
    case Rule::kBias:
      return read<std::uint8_t>(element) <= kMostBias;
    case Rule::kClass:
      return read<std::uint8_t>(element) <= static_cast<std::uint8_t>(TokenClass::kSpecial);
    case Rule::kLocal:
    case Rule::kMerged:
      return true;
  }
  return false;
}

bool SideChecks::sound_slot(const std::byte* side, std::uint32_t base, std::uint32_t lane) {
  for (const SideField& field : kSideFields) {
    for (std::uint32_t n = 0; n < field.arrays(shape_, policy_); ++n) {
      const std::byte* element = side + side_.*field.offset + (n * kTileSlots + lane) * field.bytes;
      if (!sound_element(field, element, base, lane)) return false;
    }
  }
  return true;
}

bool SideChecks::next(const std::byte* side, std::uint32_t base) {
  for (std::uint32_t lane = 0; lane < kTileSlots && slot_ < end_; ++lane, ++slot_) {
    if (!sound_slot(side, base, lane)) return false;
  }
  return true;
}

}  // namespace nibkv
