#include "pipeline/share_layer.hpp"

#include "arena/budget.hpp"
#include "pipeline/plan_chain.hpp"

namespace nibkv {

void share_layer(const ArenaView& to, std::uint32_t layer, std::uint32_t tokens) {
  const Shape& shape = to.shape();
  const Policy& policy = to.policy();
  const std::uint32_t always = policy.sinks + recent_of(policy, to.chain(layer, 0).seen);
  const auto score_of = [&](const Chain& chain, const Place& at) -> std::uint32_t {
    if (keeps_local(policy)) return to.local(at.tile)[at.lane];
    if (!keeps_global(policy)) return 0;
    const std::uint32_t queries = chain.seen - to.position(at.tile, at.lane);
    // Heads may have halved their scores a different number of times. A mean is at most 2^24; a sum
    // is scaled to reach that after 2^8 queries.
    const std::uint64_t score = std::uint64_t{to.global(at.tile)[at.lane]}
                                << (chain.exponent < 31 ? chain.exponent : 31);
    const std::uint64_t share = policy.per_query ? score / (queries != 0 ? queries : 1) : score >> 8;
    return share < 0xffffffff ? static_cast<std::uint32_t>(share) : 0xffffffff;
  };
  // The number of slots of a head that may be dropped and score at least `limit`.
  const auto reach = [&](std::uint32_t head, std::uint32_t limit) {
    const Chain& chain = to.chain(layer, head);
    const Droppable inner(to, chain);
    std::uint32_t count = 0;
    to.each_slot(chain, [&](std::uint32_t i, const Place& at) {
      if (inner.has(i) && score_of(chain, at) >= limit) ++count;
    });
    return count;
  };
  const std::uint64_t wanted = std::uint64_t{shape.kv_heads} * (tokens - always);
  const std::uint32_t limit = largest_that([&](std::uint32_t least_score) {
    std::uint64_t count = 0;
    for (std::uint32_t head = 0; head < shape.kv_heads; ++head) count += reach(head, least_score);
    return count >= wanted;
  });
  const auto [least, most, mean, rest] = layer_shares(policy, tokens);
  std::int64_t left = std::int64_t{mean} * shape.kv_heads;
  for (std::uint32_t head = 0; head < shape.kv_heads; ++head) {
    const std::uint32_t slots = always + reach(head, limit);
    std::uint32_t tiles = slots > rest ? (slots - rest) / kTileSlots : 0;
    tiles = tiles < least ? least : tiles > most ? most : tiles;
    to.chain(layer, head).budget = tiles * kTileSlots + rest;
    left -= tiles;
  }
  // Corrects for rounding and the limits: takes a tile from, or gives one to, one
  // head after the other.
  for (std::uint32_t head = 0; left != 0; head = head + 1 < shape.kv_heads ? head + 1 : 0) {
    std::uint32_t& budget = to.chain(layer, head).budget;
    if (left > 0 && budget / kTileSlots < most) {
      budget += kTileSlots;
      --left;
    } else if (left < 0 && budget / kTileSlots > least) {
      budget -= kTileSlots;
      ++left;
    }
  }
}

namespace {

// Slots that a layer's heads keep in all: those always kept, and the best of the others, which have place / 2^12 of
// the scores of these.
std::uint64_t tokens_of_share(const ArenaView& to, std::uint32_t layer, std::uint32_t place, void* context) {
  auto* score = static_cast<std::uint32_t*>(context);
  std::uint64_t slots = 0;
  for (std::uint32_t head = 0; head < to.shape().kv_heads; ++head) {
    const Chain& chain = to.chain(layer, head);
    const Droppable inner(to, chain);
    score_slots(to, chain, layer, head, score);
    const auto from = [&](std::uint32_t limit) {
      std::uint64_t sum = 0;
      inner.each([&](std::uint32_t i) { sum += score[i] >= limit ? score[i] : 0; });
      return sum;
    };
    const std::uint64_t all = from(0);  // may be near 2^64
    const std::uint64_t wanted = all / 4096 * place + (all % 4096 * place + 4095) / 4096;
    const std::uint32_t limit = largest_that([&](std::uint32_t least) { return from(least) >= wanted; });
    slots += chain.used - inner.count();
    if (place != 0) inner.each([&](std::uint32_t i) { slots += score[i] >= limit ? 1 : 0; });
  }
  return slots;
}

}  // namespace

void share_layers(const ArenaView& to, std::uint32_t tokens, std::uint32_t* score) {
  share_evenly(to, tokens, 4096, tokens_of_share, score);
}

}  // namespace nibkv
