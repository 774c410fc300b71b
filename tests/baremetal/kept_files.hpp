#pragma once

#include <cstddef>
#include <span>

namespace nibkv::metal {

/// tests/data/*.snapshot in the order of kKeptSnapshots, as constant data.
std::span<const std::byte> kept_file(std::size_t index);

}  // namespace nibkv::metal
