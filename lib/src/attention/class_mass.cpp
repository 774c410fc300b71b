#include "attention/class_mass.hpp"

namespace nibkv {

std::uint32_t mass_of_members(const ArenaView& to, const Chain& chain) {
  if (!has_masses(to.policy())) return 0;
  std::uint64_t mass = 0;  // below 2^24 * 2^10
  to.each_slot(chain,
               [&](std::uint32_t, const Place& at) { mass += kClassMasses.at[to.bias(at.tile)[at.lane]] - 256u; });
  return mass < 0xffffffff ? static_cast<std::uint32_t>(mass) : 0xffffffff;
}

void note_slots(const ArenaView& to, Chain& chain) {
  const Policy& policy = to.policy();
  chain.members_mass = mass_of_members(to, chain);
  if (!keeps_local(policy)) return;
  const std::uint32_t own = to.sinks_from(chain);
  std::uint64_t sum = 0;
  std::uint32_t count = 0;
  to.each_slot(chain, [&](std::uint32_t slot, const Place& at) {
    if (slot >= own && slot - own < policy.sinks) return;
    sum += own_share(to.local(at.tile)[at.lane], has_masses(policy) ? to.bias(at.tile)[at.lane] : 0);
    ++count;
  });
  chain.level = static_cast<std::uint16_t>(count != 0 ? sum / count : 0);
}

}  // namespace nibkv
