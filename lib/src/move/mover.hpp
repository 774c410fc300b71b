#pragma once

#include <cstdint>

#include "arena/band.hpp"
#include "pipeline/append_rows.hpp"

namespace nibkv {

/// Where the slots of a chain come from: an arena, or a snapshot.
struct SlotSource {
  const Policy& policy;  ///< of the cache that held them
  const Chain& chain;    ///< its slots used, tokens seen, and what it says of its global scores
  /// Adds slots [slot, slot + count) of it to `to`, a chain of the other cache, with add_slot. The numbers rise from
  /// call to call, and some may be left out. The workspace of the other cache is free during a call.
  void (*take)(void* context, const ArenaView& cache, Chain& to, std::uint32_t slot, std::uint32_t count);
  void* context;
};

/// Whether what `from` holds can go on in `to`, as far as shapes and profiles say.
/// @param from  need not have an arena
Status check_kinds(const ArenaView& from, const ArenaView& to);

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
  void take_slots_of(Chain& chain, std::uint32_t layer, std::uint32_t kv_head, const SlotSource& from);
  void take_by_score(std::uint32_t layer, std::uint32_t kv_head, const SlotSource& from);
  void cut(std::uint32_t layer, std::uint32_t kv_head, std::uint32_t kept) const;

  const ArenaView& to_;
  Cache unguarded_;  // the same with a policy that has no recent window
  bool all_ = true;  // whether all slots have found space
};

}  // namespace nibkv
