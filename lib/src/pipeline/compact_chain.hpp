#pragma once

#include <cstdint>
#include <span>

#include "attention/class_mass.hpp"
#include "pipeline/plan_chain.hpp"

namespace nibkv {

/// The body of compact() for a plan that is known to be valid. If two layers share codes, it is
/// carried out on both, and they must have seen the same tokens.
/// @param incoming  tokens for which space is made, which the caller appends next
/// @param arrays  must hold the scores of the slots if there are members; planning leaves them
///                there. All other arrays except the target are written, and for layers that share
///                codes the scores too
/// @param ripe    slots at the beginning of the tail that move down, as far as they stay: a multiple of 32
void carry_out(const ArenaView& to, std::uint32_t layer, std::uint32_t kv_head, const std::uint32_t* target,
               std::uint32_t incoming, const PlanArrays& arrays, std::uint32_t ripe = 0);

/// Cuts back every chain of a layer that `count` more tokens would make too long. All are cut back
/// before the first of them grows, since a head whose budget has grown takes tiles that others give
/// back. The lowest layer of a band makes room for all.
void make_room(const ArenaView& to, std::uint32_t layer, std::uint32_t count);

/// The same for one chain, which is too long for `count` more tokens.
/// @param incoming  as of carry_out
void make_room_in(const ArenaView& to, std::uint32_t layer, std::uint32_t kv_head, std::uint32_t count,
                  std::uint32_t incoming);

/// Whether a plan merges anything.
bool has_members(std::span<const std::uint32_t> target);

/// Merges the members of a plan into their centres without moving any slot; in both of two
/// layers that share codes.
void merge_members(const ArenaView& to, std::uint32_t layer, std::uint32_t kv_head, const std::uint32_t* target,
                   const PlanArrays& arrays);

}  // namespace nibkv
