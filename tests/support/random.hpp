#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace nibkv::test {

/// SplitMix64: the same numbers on every machine.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  /// Numbers chosen by a caller: two bytes each, so that a fuzzer can steer; after them,
  /// numbers as from a seed.
  /// @param bytes  must outlive the object and its copies
  explicit Random(std::span<const std::byte> bytes) : state_(bytes.size()), chosen_(bytes) {}

  std::uint64_t word() {
    if (chosen_.size() >= 2) {
      const std::uint64_t top =
          std::to_integer<std::uint64_t>(chosen_[0]) << 8 | std::to_integer<std::uint64_t>(chosen_[1]);
      chosen_ = chosen_.subspan(2);
      state_ ^= top << 48;
      return top << 48;
    }
    state_ += kStep;
    return mixed(state_);
  }

  /// [0, bound)
  std::uint32_t below(std::uint32_t bound) { return static_cast<std::uint32_t>((word() >> 32) * bound >> 32); }
  /// [low, high]
  std::uint32_t within(std::uint32_t low, std::uint32_t high) { return low + below(high - low + 1); }

  /// A bell curve with a variance near 1, made from integers: the centred sum of 12 numbers in
  /// [0, 255], divided by 256. No libm, no rounding.
  float bell() {
    int sum = 0;
    for (int i = 0; i < 12; ++i) sum += static_cast<int>(below(256));
    return static_cast<float>(sum - 1530) / 256.0f;
  }

  double uniform() { return (static_cast<double>(word() >> 11) + 0.5) * 0x1p-53; }
  double gaussian() { return std::sqrt(-2.0 * std::log(uniform())) * std::cos(6.283185307179586 * uniform()); }

  std::vector<float> bells(std::size_t count) {
    if (!chosen_.empty()) return Random(word()).bells(count);  // a fuzzer need not choose rows
    std::vector<float> numbers(count);
    // As bell() does, in one loop: tests that are compiled without inlining spend much of their time here.
    std::uint64_t state = state_;
    for (float& number : numbers) {
      int sum = 0;
      for (int i = 0; i < 12; ++i) {
        state += kStep;
        sum += static_cast<int>(mixed(state) >> 56);
      }
      number = static_cast<float>(sum - 1530) / 256.0f;
    }
    state_ = state;
    return numbers;
  }
  std::vector<float> gaussians(std::size_t count) {
    std::vector<float> numbers(count);
    for (float& number : numbers) number = static_cast<float>(gaussian());
    return numbers;
  }

 private:
  static constexpr std::uint64_t kStep = 0x9e3779b97f4a7c15u;
  [[gnu::always_inline]] static std::uint64_t mixed(std::uint64_t z) {
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
  }

  std::uint64_t state_;
  std::span<const std::byte> chosen_;
};

}  // namespace nibkv::test
