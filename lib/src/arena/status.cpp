#include "nibkv/status.hpp"

namespace nibkv {

std::string_view text(Status status) {
  switch (status) {
    case Status::kOk:
      return "ok";
    case Status::kBadShape:
      return "a field of the shape is out of range";
    case Status::kBadPolicy:
      return "the policy is unknown, out of range, or does not fit the shape";
    case Status::kMisaligned:
      return "the arena must start at a multiple of 64 bytes; aligned() (in C nibkv_aligned) makes one of any buffer";
    case Status::kArenaTooSmall:
      return "the arena is smaller than footprint() says; smallest_footprint() is the least that a preset takes";
    case Status::kUnknownPort:
      return "no port of that name was built";
    case Status::kUnsupportedPort:
      return "this CPU cannot run that port";
    case Status::kBadProfile:
      return "the profile is missing, damaged, of another version, or made for another shape or other weights";
    case Status::kNotReady:
      return "the cache was not initialised";
    case Status::kBadArgument:
      return "an index is out of range, a span has the wrong size, or a number is not finite";
    case Status::kFull:
      return "the pool has no tile left and the policy keeps everything";
    case Status::kBadPlan:
      return "the plan does not describe this chain";
    case Status::kCorrupt:
      return "the arena or the snapshot contradicts itself";
    case Status::kBadSnapshot:
      return "not a snapshot, or a damaged one";
    case Status::kNewerSnapshot:
      return "the snapshot is of a version, older or newer, that this library does not read";
    case Status::kOtherShape:
      return "the snapshot is of a cache of another shape";
    case Status::kOtherPolicy:
      return "the snapshot is of a cache of another policy or with other budgets";
    case Status::kOtherProfile:
      return "the snapshot is of a cache with another profile";
    case Status::kStorageFailed:
      return "the storage could not be read or written";
    case Status::kLost:
      return "the source changed while it was read; the cache is empty now";
    case Status::kGone:
      return "tokens that far back were dropped or merged; oldest_reachable() says how far back it can go";
    case Status::kOtherStore:
      return "the snapshot is of a cache whose log is in a store of another identity";
  }
  return "unknown status";
}

}  // namespace nibkv
