#pragma once

#include <cstdint>

#include "nibkv/cache.hpp"

namespace nibkv {

/// The fingerprint of everything that affects what a cache holds or does: all fields except
/// the workers, and the rotary embedding only if it is read.
std::uint64_t fingerprint(const Shape& shape, const Policy& policy);

/// @param folds  whether layers share codes: near the length where sharing starts to pay off, that
///               depends on the number of workers
std::uint64_t fingerprint(const Policy& policy, bool folds);

}  // namespace nibkv
