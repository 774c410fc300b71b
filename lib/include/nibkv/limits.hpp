#pragma once

#include <cstdint>

// Constants only, because the ports include this file too: code in it might be compiled for a newer CPU.
namespace nibkv {

inline constexpr std::uint32_t kTileSlots = 32;    ///< slots of a tile
inline constexpr std::uint32_t kMaxHeadDim = 256;  ///< maximum channels of a head
inline constexpr std::uint32_t kMaxOutlierChannels = 16;
inline constexpr std::uint32_t kMaxRows = 16;  ///< maximum query rows that share one pass over a chain

}  // namespace nibkv
