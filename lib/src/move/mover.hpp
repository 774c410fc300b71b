#pragma once

#include <cstdint>

#include "move/next_faint.hpp"
#include "pipeline/append_rows.hpp"

namespace nibkv {

/// Where slots go that come from another cache.
struct Destination {
  Chain& chain;
  Tier* tier = nullptr;     ///< nullptr: the list where tokens arrive
  std::uint32_t left = 0;   ///< if not 0, positions must rise: the slots of the chain that are still to come
  std::uint64_t least = 0;  ///< the smallest position that the next one may have then
};
/// A slot more there.
Place add_slot(const ArenaView& to, Destination& at, std::uint32_t position);

/// Where the slots of a chain come from: an arena, or a snapshot. Slots are numbered as there: faint ones, kept ones,
/// and those of the tail.
struct SlotSource {
  const Policy& policy;  ///< of the cache that held them
  const Chain& chain;    ///< its slots used, tokens seen, and what it says of its global scores
  std::uint32_t faint;   ///< its first slots, whose positions are in no order
  std::uint32_t tail;    ///< its last slots, which lie in a tail
  /// Adds slots [slot, slot + count) of it at the destination, a place of the other cache. The numbers rise from
  /// call to call, and some may be left out; but if next_faint was called, all faint slots come, one by one in any
  /// order, with a count of 0 for one that is not wanted. The workspace of the other cache is free during a call.
  void (*take)(void* context, const ArenaView& cache, Destination& at, std::uint32_t slot, std::uint32_t count);
  /// How many of the slots from `slot` on, which is not faint, have positions below `position`: of those in its tile.
  std::uint32_t (*before)(void* context, const ArenaView& cache, std::uint32_t slot, std::uint32_t position);
  /// Offers all faint slots; none if the source has changed.
  void (*next_faint)(void* context, const ArenaView& cache, NextFaint& next);
  void* context;
};

/// Whether what `from` holds can go on in `to`, as far as shapes and profiles say.
/// @param from  need not have an arena
Status check_kinds(const ArenaView& from, const ArenaView& to);

/// Whether a cache has space for what another one holds; one that drops slots always has.
/// @param tiles  that all its chains need if each is one list
/// @param most   slots of the longest one
bool has_space(const ArenaView& to, std::uint64_t tiles, std::uint32_t most);

/// Fills a cache with what another one held, and cuts it back by its own policy.
class Mover {
 public:
  /// @param to  empty
  explicit Mover(const ArenaView& to);

  /// Fills an empty chain.
  void fill(std::uint32_t layer, std::uint32_t kv_head, const SlotSource& from);
  /// After all chains.
  /// @param seen        tokens of every layer
  /// @param whole_from  of the other cache's history, as is exact_from
  void finish(std::uint32_t seen, std::uint32_t whole_from, std::uint32_t exact_from) const;

 private:
  class Order;  // of a chain's slots

  void take_slots_of(Chain& chain, std::uint32_t layer, std::uint32_t kv_head, const SlotSource& from);
  void take_by_score(std::uint32_t layer, std::uint32_t kv_head, Order& from);
  void take_in_tiers(std::uint32_t layer, std::uint32_t kv_head, Order& order);
  void cut(std::uint32_t layer, std::uint32_t kv_head, std::uint32_t kept) const;

  const ArenaView& to_;
  Cache unguarded_;               // the same with a policy that has no recent window
  bool all_ = true;               // whether all slots have found space
  bool exact_ = true;             // whether they lie as if the later tokens had never come
  std::uint32_t whole_from_ = 0;  // where tiers were cut
};

}  // namespace nibkv
