#pragma once

#include <cstdint>
#include <vector>

namespace nibkv::reference {

/// The positions that a StreamingLLM cache holds when it holds `held` of `seen` tokens: the first `sinks` and the most
/// recent ones.
std::vector<std::uint32_t> streaming_positions(std::uint32_t seen, std::uint32_t held, std::uint32_t sinks);

}  // namespace nibkv::reference
