// add_scores: from weights to scores.
#include <cstdint>
#include <cstring>

#include "tests/parity/parity_support.hpp"

namespace nibkv::parity {
namespace {

class AddScoresKernel : public PortTest {};

// Initial scores of one tile, and what is added to them. The attention stays just
// below 2^31, or far below.
struct ScoresInput {
  ScoresInput(int count_, int group_, Random& random) : count{count_}, group{group_} {
    fill_bytes(static_cast<Bytes>(random.below(kByteKinds)), random, softmax, 0, 32767);
    const int share = 65538 / (count / group);  // of (2^31 - 1) / 32767
    fill_bytes(static_cast<Bytes>(random.below(kByteKinds)), random, factors, 0, share < 32767 ? share : 32767);
    const auto global_kind = static_cast<Bytes>(random.below(kByteKinds));
    const auto local_kind = static_cast<Bytes>(random.below(kByteKinds));
    for (int t = 0; t < 32; ++t) {
      global[t] = global_kind == Bytes::kRandom ? random.bits()
                                                : 0u - static_cast<std::uint32_t>(draw_byte(global_kind, random, 0, 1));
      local[t] = static_cast<std::uint16_t>(draw_byte(local_kind, random, 0, 65535));
    }
  }
  int count;
  int group;
  int global_shift = 0;
  int local_shift = 0;
  std::uint32_t fade = 0;
  bool with_global = true;
  bool with_local = true;
  Unaligned<std::uint16_t> softmax{count * 32};
  Unaligned<std::int16_t> factors{count};
  Unaligned<std::uint32_t> global{32};
  Unaligned<std::uint16_t> local{32};
};

struct ScoresOutput {
  Output<std::uint32_t> global{32};
  Output<std::uint16_t> local{32};
};

void add(const Kernels& port, ScoresInput& in, ScoresOutput& out) {
  std::memcpy(out.global.data(), in.global.data(), 32 * sizeof(std::uint32_t));
  std::memcpy(out.local.data(), in.local.data(), 32 * sizeof(std::uint16_t));
  port.add_scores({.softmax = in.softmax.data(),
                   .factors = in.factors.data(),
                   .count = in.count,
                   .group = in.group,
                   .global_shift = in.global_shift,
                   .local_shift = in.local_shift,
                   .fade = in.fade,
                   .global = in.with_global ? out.global.data() : nullptr,
                   .local = in.with_local ? out.local.data() : nullptr});
}

void expect_same_scores(const Kernels& port, ScoresInput& in) {
  ScoresOutput expected;
  ScoresOutput actual;
  add(kScalarKernels, in, expected);
  add(port, in, actual);
  EXPECT_TRUE(actual.global.same_bytes(expected.global) && actual.local.same_bytes(expected.local))
      << in.count << " rows in groups of " << in.group << ", shifts " << in.global_shift << " and " << in.local_shift
      << ", fade " << in.fade << ", global " << in.with_global << ", local " << in.with_local;
}

template <typename Visit>
void for_each_grouping(Visit visit) {
  for (int count = 1; count <= kMostRows; ++count) {
    for (int group = 1; group <= count; ++group) {
      if (count % group == 0) visit(count, group);
      if (testing::Test::HasFailure()) return;
    }
  }
}

TEST_P(AddScoresKernel, HasTheScalarBytes) {
  constexpr std::uint32_t kFades[] = {0, 1, 2048, 65535, 65536};
  Random random{20};
  for_each_grouping([&](int count, int group) {
    for (int shift = 0; shift < 32; ++shift) {
      for (const std::uint32_t fade : kFades) {
        for (int scores = 0; scores < 4; ++scores) {
          ScoresInput in{count, group, random};
          in.global_shift = shift;
          in.local_shift = random.below(2) == 0 ? shift : random.below(32);
          in.fade = fade;
          in.with_global = scores % 2 != 0;
          in.with_local = scores / 2 != 0;
          expect_same_scores(port(), in);
        }
      }
    }
  });
}

TEST_P(AddScoresKernel, OfEveryLocalScoreAndFadeHasTheScalarBytes) {
  Random random{21};
  for (int first = 0; first < 65536; first += 32) {
    ScoresInput in{2, 1, random};
    for (int t = 0; t < 32; ++t) in.local[t] = static_cast<std::uint16_t>(first + t);
    in.local_shift = random.between(16, 31);
    in.fade = random.bits() % 65537;
    expect_same_scores(port(), in);
    ASSERT_FALSE(HasFailure()) << "from " << first;
  }
}

// Scores that the attention raises exactly to the last value, to one below it, and to one beyond.
TEST_P(AddScoresKernel, SaturatesWhereTheScalarPortDoes) {
  Random random{22};
  for_each_grouping([&](int count, int group) {
    for (int shift = 0; shift < 32; ++shift) {
      ScoresInput in{count, group, random};
      in.global_shift = in.local_shift = shift;
      std::memset(in.global.data(), 0, 32 * sizeof(std::uint32_t));
      std::memset(in.local.data(), 0, 32 * sizeof(std::uint16_t));
      ScoresOutput more;
      add(scalar(), in, more);
      for (int t = 0; t < 32; ++t) {
        in.global[t] = 0xffffffff - more.global[t] + static_cast<std::uint32_t>(random.between(-1, 1));
        in.local[t] = static_cast<std::uint16_t>(65535 - more.local[t] + random.between(-1, 1));
      }
      expect_same_scores(port(), in);
    }
  });
}

INSTANTIATE_TEST_SUITE_P(BuiltPorts, AddScoresKernel, testing::ValuesIn(kPorts), port_of);

}  // namespace
}  // namespace nibkv::parity
