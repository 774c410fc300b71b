#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "nibkv/truncate.hpp"

#include "nibkv/macros_push.hpp"

namespace nibkv {

/// Copies a conversation: `to` becomes a cache of the same shape, policy, profile and port that holds the same
/// bytes in its own arena, and both go on by themselves. For several conversations from one prefix, or
/// several candidates of one answer.
///
/// @param arena  at least from.usage().arena_bytes, starting at a multiple of kArenaAlignment, apart from
///               `from`'s; must outlive `to`
/// @param to     may be any cache; becomes the handle of `arena`
/// @param store  where there is a log (Policy::log): that of `to`, of cold_bytes() in another place than that of
///               `from`, since both write. It must outlive `to`, and may have another identity. The pages of `from` are
///               copied to it one after the other, through the scratch of `to`. One that cannot be read or
///               written is lost in `to` and counted there; `from` does not notice. Not used without a log
/// @returns kNotReady; kMisaligned; kArenaTooSmall; kBadArgument when the arenas overlap, and for a log without a store
///          that has both functions, or with that of `from`: the same context and write. Neither `to` nor
///          the arena is changed unless kOk.
/// Cost: O(footprint) once, to copy the arena, and that of reading and writing the log. No other call on `from` may run
///       meanwhile.
Status clone(const Cache& from, std::span<std::byte> arena, Cache& to, const ColdStore* store = nullptr);

/// Carries a conversation over to a cache of another budget, max_chunk, number of workers, or policy:
/// replaces what `to` holds with what `from` holds, rows as they are coded. For an app that has to give
/// back memory, or that gets more of it. `from` stays as it is.
///
/// Heads that hold more than `to` has space for are cut back to its budget by its own policy, as
/// append does it: by the scores that `from` keeps, which it keeps in the same units. A score that `from`
/// does not keep is 0 in `to`, so the newest slots stay; one that `to` does not keep is lost, and with
/// Merge::kNone so is what merged slots add to their logits. Positions are those that explain()
/// gives for `from`.
///
/// Tiers (Policy::tail, faint) may differ. A slot whose new tile has wider codes gets such codes of its row, of which
/// 8 bits lose nothing, then or when they move down; where it has narrower ones, the row is coded again. The tail of
/// `to` gets as many slots as lie in that of `from`, at least its Policy::tail, as far as it can hold them. Faint slots
/// stay as they are if `to` has space for all of them among its own. Else they come at their positions and are ranked
/// with all others; so a cache without faint slots has them as slots like any other, of the bits that they have left.
/// oldest_exact() is what it was if slots lie in the same tiers as before, or if `to` has no tail; else seen().
///
/// @param from  all layers have seen the same tokens
/// @param to    a cache in another arena, of the same layers, heads, head_dim, outlier channels and storage,
///              with the same profile. Neither may share codes between layers, and both have the same wide layers and
///              wide_first. If one has a Rotary::reach, both have the same rotary embedding and reach: keys were coded
///              by it
/// @returns kNotReady; kBadPolicy where one of them has a log (Policy::log), whose pages are of the heads,
///          windows and codes of one policy; kBadArgument when both are in one arena,
///          or when layers of `from` have not seen the same tokens; kOtherShape; kOtherProfile; kOtherPolicy when
///          layers share codes or others are wide, and with a reach when `to` could not know the positions: without
///          Keep::kScore it takes what Keep::kAll held, or Keep::kRecent with the same sinks; kFull when `to` keeps
///          everything and has too few tiles. Neither cache is changed unless kOk.
/// Cost: O(held * head_dim), and that of plan and compact for each tile that is more than the budget. Where faint slots
///       are put among the others, their positions are read once for each 64 of them.
Status move_to(const Cache& from, Cache& to);

}  // namespace nibkv

#include "nibkv/macros_pop.hpp"
