#include "fold/close_folded_gaps.hpp"

#include "codec/gaps.hpp"
#include "nibkv/plan.hpp"

namespace nibkv {
namespace {

// The number of slots that a plan keeps.
std::uint32_t count_kept(const std::uint32_t* target, std::uint32_t count) {
  std::uint32_t kept = 0;
  for (std::uint32_t slot = 0; slot < count; ++slot) kept += target[slot] < kMember ? 1 : 0;
  return kept;
}

// Moves the distances of retained slots along with the slots.
void move_distances(const ArenaView& to, std::uint32_t lower, std::uint32_t kv_head, std::uint32_t retained,
                    const std::uint32_t* target) {
  std::uint32_t* known = distances(to, lower, kv_head);
  const std::uint32_t sinks = to.policy().sinks;
  std::uint32_t kept = 0;
  for (std::uint32_t slot = 0; slot < retained; ++slot) {
    if (target[slot] >= kMember) continue;
    if (kept >= sinks) known[kept - sinks] = known[slot - sinks];
    ++kept;
  }
  for (std::uint32_t slot = kept > sinks ? kept : sinks; slot < retained; ++slot) {
    known[slot - sinks] = kUnknownDistance;
  }
}

}  // namespace

std::uint32_t close_folded_gaps(const ArenaView& to, std::uint32_t layer, std::uint32_t kv_head,
                                const std::uint32_t* target) {
  if (!is_paired(to, layer)) return 0;
  const Chain& chain = to.chain(layer, kv_head);
  FoldedPart& part = folded_part(to, chain);
  if (is_lower(to, layer)) move_distances(to, layer, kv_head, part.retained, target + part.used);
  const std::uint32_t own = chain.used - part.used;
  part.retained = count_kept(target + part.used, part.retained < own ? part.retained : own);
  part.used = close_gaps(to, part, part.used, target, 0);
  return part.used;
}

void forget_distance(const ArenaView& to, std::uint32_t layer, std::uint32_t kv_head, std::uint32_t slot) {
  if (!is_paired(to, layer)) return;
  const FoldedPart& part = folded_part(to, to.chain(layer, kv_head));
  const std::uint32_t first = part.used + to.policy().sinks;
  if (slot < first || slot >= part.used + part.retained) return;
  distances(to, band_of(to, layer).first, kv_head)[slot - first] = kUnknownDistance;
}

}  // namespace nibkv
