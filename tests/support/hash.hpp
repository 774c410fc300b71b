#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace nibkv::test {

/// FNV-1a, 64 bits.
class Hash {
 public:
  void add(std::span<const std::byte> bytes) {
    for (const std::byte byte : bytes) word_ = (word_ ^ static_cast<std::uint64_t>(byte)) * 0x100000001b3u;
  }
  std::uint64_t word() const { return word_; }

 private:
  std::uint64_t word_ = 0xcbf29ce484222325u;
};

}  // namespace nibkv::test
