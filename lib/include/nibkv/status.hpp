#pragma once

#include <cstdint>
#include <string_view>

#include "nibkv/macros_push.hpp"

namespace nibkv {

/// What a call did. Any value but kOk means that nothing changed, kLost alone excepted. The values are frozen: they
/// never move or change meaning.
enum class [[nodiscard]] Status : std::int8_t{
    kOk = 0,
    kBadShape = 1,    ///< a field of Shape is out of its range
    kBadPolicy = 2,   ///< a field of Policy is out of its range, or does not fit the shape, or no preset has that name
    kMisaligned = 3,  ///< the arena does not start at a multiple of kArenaAlignment: aligned() makes one
    kArenaTooSmall = 4,    ///< the arena is shorter than footprint(shape, policy)
    kUnknownPort = 5,      ///< no built port has that name
    kUnsupportedPort = 6,  ///< the port is built, but this CPU cannot run it
    kBadProfile =
        7,          ///< the profile is missing, damaged, of another version, or made for another shape or other weights
    kNotReady = 8,  ///< the cache was not initialised
    kBadArgument = 9,  ///< an index out of range, a span of the wrong size, or a number that is not finite
    kFull = 10,        ///< the pool has no tile left and the policy may not make room
    kBadPlan = 11,     ///< the plan does not describe this chain (see plan.hpp)
    kCorrupt = 12,  ///< the arena, or a snapshot whose checksums are right, holds what no verb writes (see check.hpp)
    kBadSnapshot = 13,    ///< not a snapshot, cut short, or damaged (see snapshot.hpp)
    kNewerSnapshot = 14,  ///< a snapshot of a version that this library does not know
    kOtherShape = 15,     ///< a snapshot of a cache of another shape
    kOtherPolicy = 16,    ///< a snapshot of a cache of another policy or with other budgets
    kOtherProfile = 17,   ///< a snapshot of a cache with another profile, or with one where here is none
    kStorageFailed = 18,  ///< a callback could not read or write
    kLost = 19,           ///< a source changed while it was restored from: the cache is empty now
};

/// A short English sentence for a status. Its texts live in an object file of their own: firmware that does not call it
/// does not pay for them.
std::string_view text(Status status);

}  // namespace nibkv

#include "nibkv/macros_pop.hpp"
