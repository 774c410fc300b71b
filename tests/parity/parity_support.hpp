#pragma once

// What the tests of the kernels share: every built port that this CPU runs must write the bytes
// of the scalar port. They go through the list of ports, so a new port needs no new test.
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <limits>
#include <new>
#include <ostream>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include "ports/ports.hpp"

namespace nibkv {

inline void PrintTo(const Port& port, std::ostream* out) {
  *out << port.kernels->name;
}

namespace parity {

constexpr int kMostRows = kMaxRows;

class Random {
 public:
  explicit Random(std::uint32_t seed) : engine_{seed} {}
  std::uint32_t bits() { return static_cast<std::uint32_t>(engine_()); }
  int below(int n) { return static_cast<int>(bits() % static_cast<std::uint32_t>(n)); }
  int between(int low, int high) { return low + below(high - low + 1); }
  float unit() { return static_cast<float>(bits() >> 8) * 0x1p-24f; }
  float signed_unit() { return 2 * unit() - 1; }
  float bell() { return signed_unit() + signed_unit() + signed_unit() + signed_unit(); }

 private:
  std::mt19937 engine_;
};

// Exactly this many elements, so that an address sanitiser sees a read too far;
// aligned as codes are.
template <typename T>
class Aligned {
 public:
  explicit Aligned(int size) : size_{size}, data_{static_cast<T*>(::operator new(bytes(), kAlignment))} {}
  Aligned(const Aligned&) = delete;
  Aligned& operator=(const Aligned&) = delete;
  ~Aligned() { ::operator delete(data_, kAlignment); }
  T* data() { return data_; }
  T& operator[](int i) { return data_[i]; }
  int size() const { return size_; }

 private:
  static constexpr std::align_val_t kAlignment{32};
  std::size_t bytes() const { return static_cast<std::size_t>(size_) * sizeof(T); }
  int size_;
  T* data_;
};

// An input with no more than the alignment of its type, which ends where its memory ends.
template <typename T>
class Unaligned {
 public:
  explicit Unaligned(int size) : cells_(static_cast<std::size_t>(size) + 1) {}
  T* data() { return cells_.data() + 1; }
  T& operator[](int i) { return cells_[static_cast<std::size_t>(i) + 1]; }
  int size() const { return static_cast<int>(cells_.size()) - 1; }

 private:
  std::vector<T> cells_;
};

// An output between two guards, which are compared too, so that a write outside
// shows as a difference.
template <typename T>
class Output {
 public:
  explicit Output(int size) : cells_(static_cast<std::size_t>(size) + 2 * kGuard) {
    std::memset(cells_.data(), 0xA5, cells_.size() * sizeof(T));
  }
  T* data() { return cells_.data() + kGuard; }
  T& operator[](int i) { return cells_[static_cast<std::size_t>(i) + kGuard]; }
  int size() const { return static_cast<int>(cells_.size() - 2 * kGuard); }
  bool same_bytes(const Output& other) const {
    return std::memcmp(cells_.data(), other.cells_.data(), cells_.size() * sizeof(T)) == 0;
  }
  bool guards_are_untouched() {
    Output untouched{size()};
    for (int i = 0; i < size(); ++i) untouched[i] = (*this)[i];
    return same_bytes(untouched);
  }

 private:
  static constexpr std::size_t kGuard = 67;
  std::vector<T> cells_;
};

enum class Bytes { kRandom, kLargest, kSmallest, kMixedExtremes, kZero, kCount };
inline constexpr int kByteKinds = static_cast<int>(Bytes::kCount);

inline int draw_byte(Bytes kind, Random& random, int low, int high) {
  switch (kind) {
    case Bytes::kLargest:
      return high;
    case Bytes::kSmallest:
      return low;
    case Bytes::kMixedExtremes:
      return random.below(2) == 0 ? low : high;
    case Bytes::kZero:
      return low > 0 ? low : 0;
    default:
      return random.between(low, high);
  }
}

template <typename Bytes_>
void fill_bytes(Bytes kind, Random& random, Bytes_& bytes, int low, int high) {
  using T = std::remove_reference_t<decltype(bytes[0])>;
  for (int i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<T>(draw_byte(kind, random, low, high));
}

inline std::string describe(const char* what, int head_dim, int kind, int round) {
  return std::string{what} + ", head_dim " + std::to_string(head_dim) + ", kind " + std::to_string(kind) + ", round " +
         std::to_string(round);
}

/// For inputs that a kernel may get but promises nothing about: it must return, and
/// write only where it may.
inline float draw_odd(Random& random) {
  constexpr float kOdd[] = {std::numeric_limits<float>::quiet_NaN(),
                            std::numeric_limits<float>::infinity(),
                            -std::numeric_limits<float>::infinity(),
                            1.0f,
                            0.0f,
                            std::numeric_limits<float>::max()};
  return kOdd[random.below(6)];
}

/// A test that runs once for each port.
class PortTest : public testing::TestWithParam<Port> {
 protected:
  void SetUp() override {
    if (!GetParam().runs_here()) GTEST_SKIP() << "needs a CPU that runs the port " << GetParam().kernels->name;
  }
  const Kernels& port() const { return *GetParam().kernels; }
  const Kernels& scalar() const { return kScalarKernels; }
};

inline std::string port_of(const testing::TestParamInfo<Port>& test) {
  return test.param.kernels->name;
}

}  // namespace parity
}  // namespace nibkv
