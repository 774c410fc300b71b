#include "tests/reference/streaming.hpp"

#include <algorithm>

namespace nibkv::reference {

std::vector<std::uint32_t> streaming_positions(std::uint32_t seen, std::uint32_t held, std::uint32_t sinks) {
  std::vector<std::uint32_t> positions;
  const std::uint32_t first = std::min(held, sinks);
  for (std::uint32_t i = 0; i < first; ++i) positions.push_back(i);
  for (std::uint32_t i = seen - (held - first); i < seen; ++i) positions.push_back(i);
  return positions;
}

}  // namespace nibkv::reference
