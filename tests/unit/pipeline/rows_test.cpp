// append and attend of rows as engines keep them.
#include "nibkv/rows.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "nibkv/nibkv.hpp"
#include "tests/reference/halves.hpp"
#include "tests/support/effort.hpp"
#include "tests/support/rig.hpp"

namespace nibkv::rows_test {
namespace {

using test::Random;
using test::Rig;
using test::running_ports;
using test::words;

constexpr Number kNumbers[] = {Number::kF32, Number::kF16, Number::kBf16};

const reference::HalfFormat& format_of(Number number) {
  return number == Number::kF16 ? reference::kF16 : reference::kBf16;
}

std::uint32_t bits_of(float number) {
  std::uint32_t bits;
  std::memcpy(&bits, &number, sizeof bits);
  return bits;
}

// Rows in an engine's memory. What lies between them is not a number, so that reading it is refused.
class Engine {
 public:
  Engine(Random& random, Number number, std::uint32_t tokens, std::uint32_t heads, std::uint32_t dim)
      : number_{number}, tokens_{tokens}, heads_{heads}, dim_{dim} {
    const std::size_t gap = random.below(3) * 5;
    const std::size_t more = random.below(2) * 7;
    head_stride_ = dim + gap;
    token_stride_ = heads * head_stride_ + more;
    if (random.below(2) == 0) {
      token_stride_ = dim + gap;
      head_stride_ = (tokens + random.below(3)) * token_stride_ + more;
    }
    bytes_.assign((tokens * token_stride_ + heads * head_stride_ + dim) * size(), std::byte{0xff});
  }

  ConstRows in() const { return {bytes_.data(), number_, token_stride_, head_stride_}; }
  MutableRows out() { return {bytes_.data(), number_, token_stride_, head_stride_}; }

  /// Draws numbers of the type, small ones and denormals among them, and returns them as dense f32.
  std::vector<float> fill(Random& random) {
    std::vector<float> dense;
    for_each([&](std::size_t at) {
      const float bell = random.below(8) == 0 ? random.bell() * 0x1p-20f : random.bell();
      put(at, bell);
      dense.push_back(get(at));
    });
    return dense;
  }
  void put(std::size_t at, float number) {
    std::byte* to = bytes_.data() + at * size();
    if (number_ == Number::kF32) {
      std::memcpy(to, &number, 4);
    } else {
      const std::uint16_t half = reference::nearest(format_of(number_), static_cast<double>(number));
      std::memcpy(to, &half, 2);
    }
  }
  float get(std::size_t at) const {
    const std::byte* from = bytes_.data() + at * size();
    float number;
    if (number_ == Number::kF32) {
      std::memcpy(&number, from, 4);
    } else {
      std::uint16_t half;
      std::memcpy(&half, from, 2);
      number = static_cast<float>(reference::value_of(format_of(number_), half));
    }
    return number;
  }
  std::size_t at(std::uint32_t token, std::uint32_t head) const { return token * token_stride_ + head * head_stride_; }
  const std::vector<std::byte>& bytes() const { return bytes_; }

  /// The memory as it must be after dense rows were written to it.
  std::vector<std::byte> with(const std::vector<float>& dense) const {
    Engine copy = *this;
    std::size_t next = 0;
    for_each([&](std::size_t at) { copy.put(at, dense[next++]); });
    return copy.bytes_;
  }

 private:
  std::size_t size() const { return number_ == Number::kF32 ? 4 : 2; }
  template <typename Visit>
  void for_each(Visit visit) const {
    for (std::uint32_t token = 0; token < tokens_; ++token) {
      for (std::uint32_t head = 0; head < heads_; ++head) {
        for (std::uint32_t c = 0; c < dim_; ++c) visit(at(token, head) + c);
      }
    }
  }

  Number number_;
  std::uint32_t tokens_, heads_, dim_;
  std::size_t token_stride_, head_stride_;
  std::vector<std::byte> bytes_;
};

// A walk of chunks through two caches: one gets the engine's rows, the other the same numbers as dense f32.
void walk(const Shape& shape, const Policy& policy, const std::string& port, std::uint32_t chunks, std::uint64_t seed) {
  Random random(seed);
  Rig native(shape, policy, port);
  Rig dense(shape, policy, port);
  ASSERT_EQ(native.made(), Status::kOk);
  const auto engine = [&](std::uint32_t count, std::uint32_t heads) {
    return Engine(random, kNumbers[random.below(3)], count, heads, shape.head_dim);
  };
  for (std::uint32_t chunk = 0; chunk < chunks; ++chunk) {
    const std::uint32_t count = random.within(1, shape.max_chunk);
    for (std::uint32_t layer = 0; layer < shape.layers; ++layer) {
      Engine keys = engine(count, shape.kv_heads), values = engine(count, shape.kv_heads);
      const std::vector<float> dense_keys = keys.fill(random), dense_values = values.fill(random);
      ASSERT_EQ(append(native.cache(), layer, count, keys.in(), values.in()), Status::kOk);
      ASSERT_EQ(append(dense.cache(), layer, dense_keys, dense_values), Status::kOk);

      Engine queries = engine(count, shape.query_heads), out = engine(count, shape.query_heads);
      const std::vector<float> expected = test::attend_all(dense.cache(), layer, queries.fill(random));
      const std::vector<std::byte> after = out.with(expected);
      for (std::uint32_t head = 0; head < shape.kv_heads; ++head) {
        const Part part{.first_head = head, .heads = 1};
        ASSERT_EQ(attend(native.cache(), layer, count, queries.in(), out.out(), part), Status::kOk);
      }
      ASSERT_EQ(out.bytes(), after) << "chunk " << chunk;
    }
    if (chunk % 4 == 3 || chunk + 1 == chunks) {
      ASSERT_EQ(native.copy_state(), dense.copy_state()) << "chunk " << chunk;
    }
  }
}

TEST(Rows, OfEveryTypeAndLayoutDoWhatDenseF32Does) {
  constexpr Shape kShape = {.layers = 2, .query_heads = 6, .kv_heads = 2, .head_dim = 48, .max_chunk = 7};
  for (const std::string& port : running_ports()) {
    walk(kShape, full(700), port, test::turns(32, 5), 1);
    walk(kShape, streaming_llm(50), port, test::turns(32, 5), 2);
    Shape shape = kShape;
    shape.outlier_channels = 8;
    walk(shape, ems(60), port, test::turns(32, 10), 3);
    shape.outlier_channels = 0;
    shape.storage = Storage::kF32;
    walk(shape, full(700), port, test::turns(32, 5), 4);
    ASSERT_FALSE(HasFailure()) << port;
  }
}

TEST(Rows, OfLayersThatShareCodesToo) {
  const Shape shape = {.layers = 4, .query_heads = 4, .kv_heads = 2, .head_dim = 32, .max_chunk = 9};
  for (const std::string& port : running_ports()) {
    Policy policy = minicache(400, pairs_from(0, 4));
    policy.fold.aligned_keys = policy.fold.aligned_values = policy.fold.keys;
    walk(shape, policy, port, test::turns(40, 8), 5);
    walk(shape, ems_fold(200, pairs_from(0, 4)), port, test::turns(40, 12), 6);
    ASSERT_FALSE(HasFailure()) << port;
  }
}

// f32 rows hold each number as it was: all denormals of f16 come through.
TEST(Rows, DenormalsOfF16AreKeptExactly) {
  constexpr Shape kShape = {
      .layers = 1, .query_heads = 1, .kv_heads = 1, .head_dim = 256, .max_chunk = 8, .storage = Storage::kF32};
  std::uint16_t halves[8 * 256];
  std::vector<float> dense;
  for (std::uint32_t i = 0; i < 2048; ++i) {
    halves[i] = static_cast<std::uint16_t>(i < 1024 ? i : 0x8000 + i - 1024);
    dense.push_back(std::copysign(std::ldexp(static_cast<float>(i % 1024), -24), i < 1024 ? 1.0f : -1.0f));
  }
  for (const std::string& port : running_ports()) {
    Rig native(kShape, full(32), port);
    Rig expected(kShape, full(32), port);
    const ConstRows rows = tokens_first(halves, Number::kF16, 1, 256);
    ASSERT_EQ(append(native.cache(), 0, 8, rows, rows), Status::kOk);
    ASSERT_EQ(append(expected.cache(), 0, dense, dense), Status::kOk);
    EXPECT_EQ(native.copy_state(), expected.copy_state()) << port;
  }
}

TEST(Rows, ToWriteRoundToEvenAndBecomeInfiniteBeyondTheRange) {
  constexpr Shape kShape = {
      .layers = 1, .query_heads = 1, .kv_heads = 1, .head_dim = 16, .max_chunk = 1, .storage = Storage::kF32};
  // One token: the output is its value, divided by a mass of 1.
  const float values[16] = {65504, 65519.996f, 65520,  -1e9f, 2049,     2051,      0x1p-24f, 0x1p-25f,
                            -2049, 3.4e38f,    -65520, 1,     0x3p-25f, -0x1p-14f, 0,        100};
  const std::uint16_t expected[16] = {0x7bff, 0x7bff, 0x7c00, 0xfc00, 0x6800, 0x6802, 0x0001, 0x0000,
                                      0xe800, 0x7c00, 0xfc00, 0x3c00, 0x0002, 0x8400, 0x0000, 0x5640};
  const float keys[16] = {};
  for (const std::string& port : running_ports()) {
    Rig rig(kShape, full(32), port);
    ASSERT_EQ(append(rig.cache(), 0, keys, values), Status::kOk);
    std::uint16_t out[16] = {};
    ASSERT_EQ(
        attend(rig.cache(), 0, 1, tokens_first(keys, Number::kF32, 1, 16), tokens_first(out, Number::kF16, 1, 16)),
        Status::kOk);
    for (int c = 0; c < 16; ++c) EXPECT_EQ(out[c], expected[c]) << port << ", channel " << c;
  }
}

constexpr Shape kSmall = {.layers = 1, .query_heads = 4, .kv_heads = 2, .head_dim = 16, .max_chunk = 3};

TEST(Rows, ThatAreNotFiniteAreRefusedBeforeAnythingChanges) {
  for (const Policy& policy : {full(64), ems(40)}) {
    for (const Number number : kNumbers) {
      Random random(7);
      Rig rig(kSmall, policy);
      Engine good(random, number, 3, 2, 16), queries(random, number, 3, 4, 16), out(random, number, 3, 4, 16);
      (void)good.fill(random);
      (void)queries.fill(random);
      ASSERT_EQ(append(rig.cache(), 0, 3, good.in(), good.in()), Status::kOk);
      const auto before = rig.copy_state();
      const auto untouched = out.bytes();
      for (const float wrong : {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()}) {
        for (std::uint32_t i = 0; i < 3 * 2 * 16; ++i) {
          Engine bad = good;
          bad.put(bad.at(i / 32, i / 16 % 2) + i % 16, wrong);
          ASSERT_EQ(append(rig.cache(), 0, 3, bad.in(), good.in()), Status::kBadArgument) << i;
          ASSERT_EQ(append(rig.cache(), 0, 3, good.in(), bad.in()), Status::kBadArgument) << i;
        }
        for (std::uint32_t i = 0; i < 3 * 4 * 16; ++i) {
          Engine bad = queries;
          bad.put(bad.at(i / 64, i / 16 % 4) + i % 16, wrong);
          ASSERT_EQ(attend(rig.cache(), 0, 3, bad.in(), out.out()), Status::kBadArgument) << i;
        }
      }
      EXPECT_EQ(rig.copy_state(), before);
      EXPECT_EQ(out.bytes(), untouched);
    }
  }
}

// What another part reads is not looked at.
TEST(Rows, OnlyTheQueriesOfThePartMustBeFinite) {
  Random random(8);
  for (const Number number : kNumbers) {
    Rig rig(kSmall, full(64));
    Engine rows(random, number, 3, 2, 16), queries(random, number, 3, 4, 16), out(random, number, 3, 4, 16);
    (void)rows.fill(random);
    (void)queries.fill(random);
    ASSERT_EQ(append(rig.cache(), 0, 3, rows.in(), rows.in()), Status::kOk);
    queries.put(queries.at(1, 2), std::numeric_limits<float>::infinity());
    const auto status = [&](const Part& part) { return attend(rig.cache(), 0, 3, queries.in(), out.out(), part); };
    EXPECT_EQ(status({.heads = 1}), Status::kOk);
    EXPECT_EQ(status({.first_query = 2}), Status::kOk);
    EXPECT_EQ(status({.first_head = 1, .queries = 1}), Status::kOk);
    EXPECT_EQ(status({.first_head = 1}), Status::kBadArgument);
    EXPECT_EQ(status({.first_head = 1, .first_query = 1, .queries = 1}), Status::kBadArgument);
  }
}

TEST(Rows, WithoutAnAddressOrInTheWrongNumberAreRefused) {
  Rig rig(kSmall, full(64));
  const float zeros[3 * 4 * 16] = {};
  float out[3 * 4 * 16];
  std::fill(std::begin(out), std::end(out), 5.0f);
  const ConstRows rows = tokens_first(zeros, Number::kF32, 2, 16);
  const ConstRows queries = tokens_first(zeros, Number::kF32, 4, 16);
  const MutableRows to = tokens_first(out, Number::kF32, 4, 16);
  ASSERT_EQ(append(rig.cache(), 0, 2, rows, rows), Status::kOk);
  const auto before = rig.copy_state();
  std::vector<ConstRows> bad(5, rows);
  bad[0].first = nullptr;
  bad[1].number = Number{3};
  bad[2].token_stride = std::numeric_limits<std::size_t>::max() / 8;
  bad[3].head_stride = std::numeric_limits<std::size_t>::max() / 4;
  bad[4].head_stride = std::numeric_limits<std::size_t>::max();
  for (std::size_t i = 0; i < bad.size(); ++i) {
    EXPECT_EQ(append(rig.cache(), 0, 2, bad[i], rows), Status::kBadArgument) << i;
    EXPECT_EQ(append(rig.cache(), 0, 2, rows, bad[i]), Status::kBadArgument) << i;
    EXPECT_EQ(attend(rig.cache(), 0, 2, bad[i], to), Status::kBadArgument) << i;
    MutableRows bad_out = to;
    if (i == 0) bad_out.first = nullptr;
    if (i == 1) bad_out.number = Number{3};
    if (i >= 2) bad_out.token_stride = bad[i].token_stride, bad_out.head_stride = bad[i].head_stride;
    EXPECT_EQ(attend(rig.cache(), 0, 2, queries, bad_out), Status::kBadArgument) << i;
  }
  for (const std::uint32_t count : {0u, 4u, 0xffffffffu}) {
    EXPECT_EQ(append(rig.cache(), 0, count, rows, rows), Status::kBadArgument) << count;
    EXPECT_EQ(attend(rig.cache(), 0, count, queries, to), Status::kBadArgument) << count;
  }
  EXPECT_EQ(attend(rig.cache(), 0, 3, queries, to), Status::kBadArgument) << "more than it holds";
  EXPECT_EQ(append(rig.cache(), 1, 1, rows, rows), Status::kBadArgument);
  EXPECT_EQ(attend(rig.cache(), 1, 1, queries, to), Status::kBadArgument);
  Cache none;
  EXPECT_EQ(append(none, 0, 1, rows, rows), Status::kNotReady);
  EXPECT_EQ(attend(none, 0, 1, queries, to), Status::kNotReady);
  EXPECT_EQ(rig.copy_state(), before);
  for (const float number : out) EXPECT_EQ(bits_of(number), bits_of(5.0f));
}

TEST(Rows, ToWriteMayNotOverlap) {
  Rig rig(kSmall, full(64));
  const float zeros[3 * 4 * 16] = {};
  std::vector<float> memory(4096);
  const ConstRows rows = tokens_first(zeros, Number::kF32, 2, 16);
  ASSERT_EQ(append(rig.cache(), 0, 3, rows, rows), Status::kOk);
  const auto status = [&](std::uint32_t count, std::size_t token_stride, std::size_t head_stride) {
    return attend(rig.cache(), 0, count, tokens_first(zeros, Number::kF32, 4, 16),
                  {memory.data(), Number::kF32, token_stride, head_stride});
  };
  EXPECT_EQ(status(3, 64, 16), Status::kOk);
  EXPECT_EQ(status(3, 63, 16), Status::kBadArgument);
  EXPECT_EQ(status(3, 64, 15), Status::kBadArgument);
  EXPECT_EQ(status(3, 67, 17), Status::kOk) << "the last row of a token ends where the next token begins";
  EXPECT_EQ(status(3, 66, 17), Status::kBadArgument);
  EXPECT_EQ(status(3, 16, 48), Status::kOk) << "heads outermost";
  EXPECT_EQ(status(3, 16, 47), Status::kBadArgument);
  EXPECT_EQ(status(3, 15, 48), Status::kBadArgument);
  EXPECT_EQ(status(3, 16, 16), Status::kBadArgument);
  EXPECT_EQ(status(3, 0, 0), Status::kBadArgument);
  EXPECT_EQ(status(1, 0, 16), Status::kOk) << "of one token";
  EXPECT_EQ(status(1, 0, 15), Status::kBadArgument);
}

// Rows to read may.
TEST(Rows, OfAllHeadsMayBeTheSame) {
  Random random(9);
  const std::vector<float> row = random.bells(16);
  std::vector<float> twice = row;
  twice.insert(twice.end(), row.begin(), row.end());
  Rig shared(kSmall, full(64));
  Rig dense(kSmall, full(64));
  const ConstRows rows = {row.data(), Number::kF32, 0, 0};
  ASSERT_EQ(append(shared.cache(), 0, 1, rows, rows), Status::kOk);
  ASSERT_EQ(append(dense.cache(), 0, twice, twice), Status::kOk);
  EXPECT_EQ(shared.copy_state(), dense.copy_state());
}

}  // namespace
}  // namespace nibkv::rows_test
