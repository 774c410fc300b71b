#include "arena/band.hpp"
#include "cold/log.hpp"
#include "nibkv/tidy.hpp"
#include "pipeline/compact_chain.hpp"
#include "pipeline/lower_slots.hpp"
#include "pipeline/share_layer.hpp"

namespace nibkv {
namespace {

bool too_long(const ArenaView& to, std::uint32_t layer, std::uint32_t head, std::uint32_t count) {
  const Chain& chain = to.chain(layer, head);
  if (to.policy().keep == Keep::kAll && fitting_ripe(to, chain) == 0) return false;  // nothing can be done
  return is_too_long(to, chain, layer, head, count);
}

// The first head of a layer that is too long; kv_heads if there is none.
std::uint32_t first_too_long(const ArenaView& to, std::uint32_t layer, std::uint32_t count) {
  std::uint32_t head = 0;
  while (head < to.shape().kv_heads && !too_long(to, layer, head, count)) ++head;
  return head;
}

void cut_all(const ArenaView& to, std::uint32_t layer, std::uint32_t count, std::uint32_t incoming) {
  std::uint32_t head = first_too_long(to, layer, count);
  if (head == to.shape().kv_heads) return;
  if (to.policy().budget == Budget::kAdaptive) share_layer(to, layer, to.policy().tokens);
  // Those that grow come last: they take tiles that others give back.
  const bool tiers = has_tiers(to.policy());
  const auto grows = [&](const Chain& chain) { return tiers && kept_tier(to, chain).used < kept_budget(to, chain); };
  for (const bool last : {false, true}) {
    for (head = 0; head < to.shape().kv_heads && (tiers || !last); ++head) {
      if (grows(to.chain(layer, head)) == last && too_long(to, layer, head, count))
        make_room_in(to, layer, head, count, incoming);
    }
  }
}

}  // namespace

void make_room_in(const ArenaView& to, std::uint32_t layer, std::uint32_t kv_head, std::uint32_t count,
                  std::uint32_t incoming) {
  const Chain& chain = to.chain(layer, kv_head);
  if (keeps_log(to.policy())) write_pages(to, layer, kv_head, oldest_dropped(to, chain, count));
  if (to.policy().keep == Keep::kAll) return lower_ripe(to, layer, kv_head, fitting_ripe(to, chain), incoming);
  const std::uint32_t ripe = ripe_slots(to, chain);
  if (!exceeds_budget(to, chain)) return lower_ripe(to, layer, kv_head, ripe, incoming);
  const PlanArrays arrays(to);
  plan_chain(to, chain, layer, kv_head, count, arrays, arrays.target);
  carry_out(to, layer, kv_head, arrays.target, incoming, arrays, ripe);
}

void make_room(const ArenaView& to, std::uint32_t layer, std::uint32_t count) {
  cut_all(to, layer, count, count);
}

Status tidy(Cache& cache, std::uint32_t tokens, bool& done) {
  if (!cache.ready()) return Status::kNotReady;
  const ArenaView to{cache};
  if (tokens == 0 || tokens > to.shape().max_chunk) return Status::kBadArgument;
  for (std::uint32_t layer = 0; layer < to.shape().layers; ++layer) {
    if (!in_step(to, band_of(to, layer))) return Status::kBadArgument;
  }
  const bool all = to.policy().keep == Keep::kAll;
  done = all && !has_tiers(to.policy());
  if (done) return Status::kOk;
  for (std::uint32_t layer = 0; layer < to.shape().layers; layer = band_of(to, layer).end()) {
    const std::uint32_t head = first_too_long(to, layer, tokens);
    if (head == to.shape().kv_heads) continue;
    if (to.policy().budget == Budget::kAdaptive) {
      cut_all(to, layer, tokens, 0);
    } else {
      make_room_in(to, layer, head, tokens, 0);
    }
    return Status::kOk;
  }
  done = true;
  return Status::kOk;
}

}  // namespace nibkv
