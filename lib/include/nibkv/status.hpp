#pragma once

#include <cstdint>
#include <string_view>

#include "nibkv/macros_push.hpp"

namespace nibkv {

/// What a call did. Any value but kOk means that the cache is unchanged, except kLost, which leaves
/// it empty. The values are frozen: they never change their number or meaning.
enum class [[nodiscard]] Status : std::int8_t{
    kOk = 0,
    kBadShape = 1,         ///< a field of Shape is out of its range
    kBadPolicy = 2,        ///< a field of Policy or a given budget is out of its range or does not fit the shape, or no
                           ///< preset has that name
    kMisaligned = 3,       ///< the arena does not start at a multiple of kArenaAlignment: see aligned()
    kArenaTooSmall = 4,    ///< the arena is smaller than footprint(shape, policy)
    kUnknownPort = 5,      ///< no built port has that name
    kUnsupportedPort = 6,  ///< the port is built, but this CPU cannot run it
    kBadProfile =
        7,          ///< the profile is missing, damaged, of another version, or made for another shape or other weights
    kNotReady = 8,  ///< the cache was not initialised
    kBadArgument = 9,  ///< an index out of range, a span of the wrong size, or a number that is not finite
    kFull = 10,        ///< the pool has no tile left and the policy keeps everything
    kBadPlan = 11,     ///< the plan does not describe this chain (see plan.hpp)
    kCorrupt = 12,  ///< the arena, or a snapshot whose checksums are right, holds what no verb writes (see check.hpp)
    kBadSnapshot = 13,    ///< not a snapshot, truncated, or damaged (see snapshot.hpp)
    kNewerSnapshot = 14,  ///< a snapshot of a version, older or newer, that this library does not read
    kOtherShape = 15,     ///< a snapshot of a cache of another shape
    kOtherPolicy = 16,    ///< a snapshot of a cache of another policy or with other budgets
    kOtherProfile = 17,   ///< a snapshot of a cache with another profile, or with one where this cache has none
    kStorageFailed = 18,  ///< a callback could not read or write
    kLost = 19,           ///< the source changed during restore: the cache is empty now
    kGone = 20,           ///< tokens before those to be taken back were dropped or merged meanwhile (see truncate.hpp)
    kOtherStore = 21,     ///< a snapshot of a cache whose log is in a store of another identity
};

/// A short English sentence for a status. The texts are in an object file of their own, so firmware
/// that does not call this function does not contain them.
std::string_view text(Status status);

}  // namespace nibkv

#include "nibkv/macros_pop.hpp"
