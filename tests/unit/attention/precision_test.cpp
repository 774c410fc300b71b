// What codes are expected to do to logits, against what they do.
#include "nibkv/precision.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "tests/support/feed.hpp"
#include "tests/support/model_of.hpp"

namespace nibkv::precision_test {
namespace {

using test::model_of;
using test::Random;
using test::Rig;

constexpr std::uint32_t kTokens = 300;
constexpr Shape kShape = {.layers = 2, .query_heads = 4, .kv_heads = 2, .head_dim = 64, .max_chunk = 10};

// The root mean square of the error of one query head's logits.
double measured(const Rig& rig, std::span<const float> keys, std::span<const float> queries, std::uint32_t query_head) {
  const std::uint32_t dim = kShape.head_dim, head = query_head / kShape.group();
  const auto slots = model_of(rig).slots(0, head);
  double sum = 0;
  for (std::uint32_t t = 0; t < kTokens; ++t) {
    const std::vector<double> key = reference::decode_key(slots[t], {}, 0, head);
    double error = 0;
    for (std::uint32_t c = 0; c < dim; ++c)
      error += queries[query_head * dim + c] * (keys[(t * kShape.kv_heads + head) * dim + c] - key[c]);
    sum += error * error / dim;
  }
  return std::sqrt(sum / kTokens);
}

void feed(Rig& rig, std::span<const float> keys) {
  const std::size_t chunk = std::size_t{kShape.max_chunk} * kShape.kv_heads * kShape.head_dim;
  for (std::size_t at = 0; at < keys.size(); at += chunk) {
    for (std::uint32_t layer = 0; layer < kShape.layers; ++layer)
      ASSERT_EQ(append(rig.cache(), layer, keys.subspan(at, chunk), keys.subspan(at, chunk)), Status::kOk);
  }
}

TEST(LogitErrors, AreThoseThatCodesMake) {
  Random random(1);
  const auto keys = random.bells(std::size_t{kTokens} * kShape.kv_heads * kShape.head_dim);
  const auto queries = random.bells(std::size_t{kShape.query_heads} * kShape.head_dim);
  for (const Storage storage : {Storage::kQ8, Storage::kQ8Q4, Storage::kQ4, Storage::kQ4Q2, Storage::kQ2}) {
    Shape shape = kShape;
    shape.storage = storage;
    Rig rig(shape, full(kTokens), "");
    feed(rig, keys);
    std::vector<float> errors(kShape.query_heads);
    ASSERT_EQ(logit_errors(rig.cache(), 0, queries, errors), Status::kOk);
    for (std::uint32_t query = 0; query < kShape.query_heads; ++query) {
      const double exact = measured(rig, keys, queries, query);
      EXPECT_NEAR(errors[query] / exact, 1, 0.25) << static_cast<int>(storage) << ", query head " << query;
    }
  }
}

TEST(LogitErrors, AreSmallerInWideLayers) {
  Random random(2);
  const auto keys = random.bells(std::size_t{kTokens} * kShape.kv_heads * kShape.head_dim);
  const auto queries = random.bells(std::size_t{kShape.query_heads} * kShape.head_dim);
  Policy policy = full(kTokens);
  policy.wide.add(1);
  Rig rig(kShape, policy, "");
  feed(rig, keys);
  std::vector<float> narrow(4), wide(4);
  ASSERT_EQ(logit_errors(rig.cache(), 0, queries, narrow), Status::kOk);
  ASSERT_EQ(logit_errors(rig.cache(), 1, queries, wide), Status::kOk);
  for (std::size_t query = 0; query < 4; ++query)
    EXPECT_NEAR(wide[query] / narrow[query], std::sqrt(4e-5 / 7e-3), 1e-3);
}

// Slots of a tail count as what they will become, faint ones as what they are.
TEST(LogitErrors, AreThoseOfTheTiers) {
  Random random(2);
  const auto keys = random.bells(std::size_t{kTokens} * kShape.kv_heads * kShape.head_dim);
  const auto queries = random.bells(std::size_t{kShape.query_heads} * kShape.head_dim);
  Policy tail = full(kTokens);
  tail.tail = 32;
  Rig plain(kShape, full(kTokens), ""), tailed(kShape, tail, "");
  feed(plain, keys);
  feed(tailed, keys);
  std::vector<float> without(4), with(4), faint(4);
  ASSERT_EQ(logit_errors(plain.cache(), 0, queries, without), Status::kOk);
  ASSERT_EQ(logit_errors(tailed.cache(), 0, queries, with), Status::kOk);
  Policy policy = snapkv(192);
  policy.tail = 32;
  policy.faint = 96;
  Rig rig(kShape, policy, "");
  for (int token = 0; token < 600; ++token) (void)test::feed(rig.cache(), random, 1);
  ASSERT_EQ(logit_errors(rig.cache(), 0, queries, faint), Status::kOk);
  const double share = 96.0 / rig.cache().held(0, 0);
  for (std::size_t query = 0; query < 4; ++query) {
    EXPECT_NEAR(with[query] / without[query], 1, 0.01);
    EXPECT_NEAR(faint[query] / without[query] / std::sqrt(1 - share + share * 0.111 / 0.007), 1, 0.1);
  }
}

TEST(LogitErrors, AreSmallerWhereAProfileKnowsTheMean) {
  Shape shape = kShape;
  Random random(3);
  const auto rows = test::keys_of_profile(shape, 5, 0, kTokens, random);
  const auto queries = random.bells(std::size_t{shape.query_heads} * shape.head_dim);
  std::vector<float> without(4), with(4);
  for (const std::uint16_t channels : {std::uint16_t{0}, std::uint16_t{8}}) {
    shape.outlier_channels = channels;
    Rig rig(shape, full(kTokens), "", 5);
    feed(rig, rows);
    ASSERT_EQ(logit_errors(rig.cache(), 0, queries, channels == 0 ? without : with), Status::kOk);
  }
  for (std::size_t query = 0; query < 4; ++query) EXPECT_LT(with[query], without[query] / 2) << query;
}

TEST(LogitErrors, AreZeroWithoutCodesAndWithoutSlots) {
  Shape shape = kShape;
  const std::vector<float> queries(std::size_t{shape.query_heads} * shape.head_dim, 1.0f);
  std::vector<float> errors(4, -1.0f);
  Rig empty(shape, full(kTokens), "");
  ASSERT_EQ(logit_errors(empty.cache(), 0, queries, errors), Status::kOk);
  EXPECT_EQ(errors, std::vector<float>(4, 0.0f));
  shape.storage = Storage::kF32;
  Rig exact(shape, full(kTokens), "");
  feed(exact, Random(4).bells(std::size_t{kTokens} * kShape.kv_heads * kShape.head_dim));
  errors.assign(4, -1.0f);
  ASSERT_EQ(logit_errors(exact.cache(), 0, queries, errors), Status::kOk);
  EXPECT_EQ(errors, std::vector<float>(4, 0.0f));
}

TEST(LogitErrors, OfHugeRowsAreFinite) {
  const std::vector<float> rows(std::size_t{kShape.max_chunk} * kShape.kv_heads * kShape.head_dim, 0x1p118f);
  const std::vector<float> queries(std::size_t{kShape.query_heads} * kShape.head_dim, 0x1p100f);
  for (const Storage storage : {Storage::kQ8, Storage::kQ2}) {
    Shape shape = kShape;
    shape.storage = storage;
    Rig rig(shape, full(kTokens), "");
    for (int i = 0; i < 9; ++i) ASSERT_EQ(append(rig.cache(), 0, rows, rows), Status::kOk);
    std::vector<float> errors(4, -1.0f);
    ASSERT_EQ(logit_errors(rig.cache(), 0, queries, errors), Status::kOk);
    for (const float error : errors) EXPECT_TRUE(error > 1e20f && error <= 1e30f) << error;
  }
}

TEST(LogitErrors, RefuseWhatDoesNotFit) {
  std::vector<float> queries(std::size_t{kShape.query_heads} * kShape.head_dim, 1.0f);
  std::vector<float> errors(4, -1.0f);
  EXPECT_EQ(logit_errors(Cache{}, 0, queries, errors), Status::kNotReady);
  Rig rig(kShape, full(kTokens), "");
  EXPECT_EQ(logit_errors(rig.cache(), 2, queries, errors), Status::kBadArgument);
  EXPECT_EQ(logit_errors(rig.cache(), 0, std::span(queries).first(255), errors), Status::kBadArgument);
  EXPECT_EQ(logit_errors(rig.cache(), 0, queries, std::span(errors).first(3)), Status::kBadArgument);
  queries[7] = std::numeric_limits<float>::infinity();
  EXPECT_EQ(logit_errors(rig.cache(), 0, queries, errors), Status::kBadArgument);
  EXPECT_EQ(errors, std::vector<float>(4, -1.0f));
}

}  // namespace
}  // namespace nibkv::precision_test
