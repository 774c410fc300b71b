#pragma once

#include <cstdint>

namespace nibkv {

/// Those faint slots of a chain that come next in the order of their positions, found without memory for all of them.
class NextFaint {
 public:
  /// Takes a slot if it is one of the next. All of the chain are offered, once each, after begin().
  void offer(std::uint32_t position, std::uint32_t slot) {
    const std::uint64_t key = std::uint64_t{position} << 32 | slot;
    if (key < from_ || (count_ == kMost && key > keys_[kMost - 1])) return;
    std::uint32_t at = count_ < kMost ? count_++ : kMost - 1;
    for (; at != 0 && keys_[at - 1] > key; --at) keys_[at] = keys_[at - 1];
    keys_[at] = key;
  }
  void begin() { first_ = count_ = 0; }

  bool any() const { return first_ != count_; }
  std::uint32_t position() const { return static_cast<std::uint32_t>(keys_[first_] >> 32); }
  std::uint32_t slot() const { return static_cast<std::uint32_t>(keys_[first_]); }
  void pop() { from_ = keys_[first_++] + 1; }

 private:
  static constexpr std::uint32_t kMost = 64;
  std::uint64_t keys_[kMost];  // position, slot
  std::uint32_t first_ = 0;
  std::uint32_t count_ = 0;
  std::uint64_t from_ = 0;  // the smallest that has not come
};

}  // namespace nibkv
