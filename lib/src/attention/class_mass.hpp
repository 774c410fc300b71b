#pragma once

#include <cstdint>

#include "arena/view.hpp"

namespace nibkv {

/// The largest bias, 2 octaves: without a limit, a slot that absorbs many others would drown
/// the rest (lib/DESIGN.md).
inline constexpr std::uint32_t kMostBias = 2 * 16;

/// By the bias of a slot, how many slots its class attracts attention for: 2^(bias / 16) in 1/256.
struct ClassMasses {
  std::uint16_t at[kMostBias + 1];
};
constexpr ClassMasses make_class_masses() {
  ClassMasses masses{};
  std::uint64_t mass = std::uint64_t{1} << 30;
  for (std::uint16_t& each : masses.at) {
    each = static_cast<std::uint16_t>((mass + (1u << 21)) >> 22);
    mass = (mass * 1121280437 + (1u << 29)) >> 30;  // 2^(1 / 16)
  }
  return masses;
}
inline constexpr ClassMasses kClassMasses = make_class_masses();

/// What a centre is worth by itself, of the score of its class.
inline std::uint64_t own_share(std::uint64_t score, std::uint32_t bias) {
  return bias == 0 ? score : score * 256 / kClassMasses.at[bias];
}

/// Whether slots have biases.
inline bool has_masses(const Policy& policy) {
  return merges(policy) && policy.mass != Mass::kNone;
}

/// What the biases of a chain add to the number of its slots, in 1/256.
std::uint32_t mass_of_members(const ArenaView& to, const Chain& chain);

/// Records what the slots of a chain are now: to be called when they have changed other than by append.
void note_slots(const ArenaView& to, Chain& chain);

}  // namespace nibkv
