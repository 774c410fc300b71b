#pragma once

#include <cstddef>
#include <span>

namespace nibkv::metal {

/// A GGUF file, aligned to 32 bytes.
std::span<const std::byte> tiny_model();

}  // namespace nibkv::metal
