// attend with a caller's mask for the new tokens.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "nibkv/attend.hpp"
#include "tests/reference/arena_model.hpp"
#include "tests/reference/attention.hpp"
#include "tests/support/effort.hpp"
#include "tests/support/exact_query.hpp"
#include "tests/support/model_of.hpp"
#include "tests/support/rig.hpp"

namespace nibkv::mask_test {
namespace {

using test::Random;
using test::Rig;
using test::running_ports;
using test::words;

using Sees = std::function<bool(std::uint32_t query, std::uint32_t token)>;

std::vector<std::uint32_t> mask_of(std::uint32_t count, const Sees& sees) {
  const std::uint32_t length = (count + 31) / 32;
  std::vector<std::uint32_t> mask(std::size_t{count} * length);
  for (std::uint32_t i = 0; i < count; ++i) {
    for (std::uint32_t j = 0; j < length * 32; ++j) {
      // What is beyond the tokens is ignored.
      if (j < count ? sees(i, j) : (i + j) % 3 == 0) mask[i * length + j / 32] |= 1u << j % 32;
    }
  }
  return mask;
}

bool causal(std::uint32_t query, std::uint32_t token) {
  return token <= query;
}

// A tree: the parent of each token is an earlier one. A token sees itself and its ancestors.
Sees random_tree(Random& random, std::uint32_t count) {
  std::vector<std::uint32_t> parents(count, 0);
  for (std::uint32_t i = 1; i < count; ++i) parents[i] = random.below(i);
  return [parents](std::uint32_t query, std::uint32_t token) {
    while (query > token) query = parents[query];
    return query == token;
  };
}

Status attend_with(Rig& rig, std::uint32_t layer, std::uint32_t count, std::span<const float> queries,
                   std::span<const std::uint32_t> mask, std::span<float> out, const Part& part = {}) {
  const Shape& shape = rig.shape();
  return attend(rig.cache(), layer, count,
                tokens_first(queries.data(), Number::kF32, shape.query_heads, shape.head_dim), mask,
                tokens_first(out.data(), Number::kF32, shape.query_heads, shape.head_dim), part);
}

// A walk of chunks through two caches, one with a causal mask, the other without any.
void walk(const Shape& shape, const Policy& policy, const std::string& port, std::uint32_t chunks, std::uint64_t seed) {
  Random random(seed);
  Rig masked(shape, policy, port);
  Rig plain(shape, policy, port);
  ASSERT_EQ(masked.made(), Status::kOk) << words(shape, policy);
  for (std::uint32_t chunk = 0; chunk < chunks; ++chunk) {
    const std::uint32_t count = random.within(1, shape.max_chunk);
    for (std::uint32_t layer = 0; layer < shape.layers; ++layer) {
      const std::size_t floats = std::size_t{count} * shape.kv_heads * shape.head_dim;
      const auto keys = random.bells(floats), values = random.bells(floats);
      ASSERT_EQ(append(masked.cache(), layer, keys, values), Status::kOk);
      ASSERT_EQ(append(plain.cache(), layer, keys, values), Status::kOk);
      const auto queries = random.bells(std::size_t{count} * shape.query_heads * shape.head_dim);
      std::vector<float> out(queries.size());
      for (std::uint32_t head = 0; head < shape.kv_heads; ++head) {
        ASSERT_EQ(attend_with(masked, layer, count, queries, mask_of(count, causal), out, {head, 1}), Status::kOk);
      }
      ASSERT_TRUE(test::same_bytes(out, test::attend_all(plain.cache(), layer, queries)))
          << "chunk " << chunk << ", " << words(shape, policy, port);
    }
    if (chunk % 4 == 3 || chunk + 1 == chunks) {
      ASSERT_EQ(masked.copy_state(), plain.copy_state()) << "chunk " << chunk << ", " << words(shape, policy, port);
    }
  }
}

TEST(Mask, ThatIsCausalGivesTheBytesOfNone) {
  constexpr Shape kShape = {.layers = 2, .query_heads = 6, .kv_heads = 2, .head_dim = 32, .max_chunk = 70};
  for (const std::string& port : running_ports()) {
    walk(kShape, full(1500), port, test::turns(12, 3), 1);
    walk(kShape, streaming_llm(50), port, test::turns(12, 3), 2);
    Shape shape = kShape;
    shape.storage = Storage::kF32;
    walk(shape, full(1500), port, test::turns(12, 3), 3);
    shape.storage = Storage::kQ4;
    const auto presets = test::scored_presets(shape, 96);
    for (std::size_t i = 0; i < presets.size(); i += test::kEvery) {
      walk(shape, presets[i].policy, port, test::turns(8, 5), 4);
    }
    walk(shape, minicache(800, pairs_from(0, 2)), port, test::turns(16, 6), 5);
    walk(shape, ems_fold(400, pairs_from(0, 2)), port, test::turns(16, 8), 6);
    ASSERT_FALSE(HasFailure()) << port;
  }
}

// Each query of a tree gets exact attention over older slots and its ancestors, within the softmax's bound.
TEST(Mask, OfATreeSeesOnlyAncestors) {
  constexpr Shape kShape = {.layers = 1, .query_heads = 4, .kv_heads = 2, .head_dim = 32, .max_chunk = 75};
  constexpr double kScale = 0.05;
  for (const std::string& port : running_ports()) {
    for (std::uint32_t old = 0; old < 80; old += 13) {
      Rig rig(kShape, full(320), port);
      Random random(200 + old);
      const auto more = [&](std::uint32_t count) {
        const auto rows = random.gaussians(std::size_t{count} * 2 * 32);
        ASSERT_EQ(append(rig.cache(), 0, rows, random.gaussians(rows.size())), Status::kOk);
      };
      if (old % 75 != 0) more(old % 75);
      const std::uint32_t before = rig.cache().held(0, 0);
      const std::uint32_t count = random.within(2, 75);
      more(count);
      const Sees sees = random_tree(random, count);
      const auto queries = test::exact_queries(random, kShape, count, kScale);
      std::vector<float> out(queries.size() * 32);
      ASSERT_EQ(attend_with(rig, 0, count, test::rows_of(queries), mask_of(count, sees), out), Status::kOk);
      for (std::uint32_t row = 0; row < count * 4; ++row) {
        const auto slots = test::model_of(rig).slots(0, row % 4 / 2);
        std::vector<int> biases(slots.size(), 0);
        for (std::uint32_t j = 0; j < count; ++j)
          if (!sees(row / 4, j)) biases[before + j] = -1000000;
        const auto expected = reference::fixed_point_case(queries[row].codes, kScale, slots, slots.size(), biases);
        const auto got = reference::rotated(reference::widen(std::span(out).subspan(row * 32, 32)));
        ASSERT_LE(reference::distance(got, expected.exact), expected.norm_bound)
            << port << ", " << before << " older slots, " << count << " in the tree, row " << row;
      }
    }
  }
}

TEST(Mask, OfF32StorageIsExactAttentionOfWhatIsSeen) {
  constexpr Shape kShape = {
      .layers = 1, .query_heads = 2, .kv_heads = 1, .head_dim = 16, .max_chunk = 70, .storage = Storage::kF32};
  Rig rig(kShape, full(320));
  Random random(300);
  reference::Rows keys, values;
  for (int step = 0; step < 4; ++step) {
    const std::uint32_t before = rig.cache().held(0, 0);
    const std::uint32_t count = random.within(20, 70);
    auto new_keys = random.gaussians(count * 16);
    auto new_values = random.gaussians(count * 16);
    // A token that only it sees, whose numbers would drown all others.
    std::fill_n(new_keys.begin() + 3 * 16, 16, 1e10f);
    std::fill_n(new_values.begin() + 3 * 16, 16, 1e30f);
    const bool alone = step == 3;
    if (!alone) std::copy_n(new_keys.begin(), 16, new_keys.begin() + 3 * 16);
    if (!alone) std::copy_n(new_values.begin(), 16, new_values.begin() + 3 * 16);
    ASSERT_EQ(append(rig.cache(), 0, new_keys, new_values), Status::kOk);
    for (std::size_t i = 0; i < count; ++i) {
      keys.push_back(reference::widen(std::span(new_keys).subspan(i * 16, 16)));
      values.push_back(reference::widen(std::span(new_values).subspan(i * 16, 16)));
    }
    std::vector<std::uint64_t> bits(count * 2);
    for (std::uint64_t& word : bits) word = random.word();
    const Sees sees = [&](std::uint32_t query, std::uint32_t token) {
      return token != 3 && (token == query || (bits[query * 2 + token / 64] >> token % 64 & 1) != 0);
    };
    const auto queries = random.gaussians(count * 2 * 16);
    std::vector<float> out(queries.size());
    if (before == 0) {
      EXPECT_EQ(attend_with(rig, 0, count, queries, mask_of(count, [](auto, auto) { return false; }), out),
                Status::kBadArgument);
    }
    ASSERT_EQ(attend_with(rig, 0, count, queries, mask_of(count, sees), out), Status::kOk);
    for (std::uint32_t row = 0; row < count * 2; ++row) {
      reference::Rows seen_keys, seen_values;
      for (std::uint32_t slot = 0; slot < keys.size(); ++slot) {
        if (slot >= before && !sees(row / 2, slot - before)) continue;
        seen_keys.push_back(keys[slot]);
        seen_values.push_back(values[slot]);
      }
      const auto exact = reference::attention(reference::widen(std::span(queries).subspan(row * 16, 16)), seen_keys,
                                              seen_values, seen_keys.size());
      ASSERT_LE(reference::distance(reference::widen(std::span(out).subspan(row * 16, 16)), exact),
                2e-6 * (1 + reference::norm(exact)))
          << "step " << step << ", row " << row;
    }
  }
}

// Tokens of an image see each other, also later ones. Queries may be divided; the bytes stay.
TEST(Mask, MayShowLaterTokensAndBeDividedIntoParts) {
  constexpr Shape kShape = {.layers = 1, .query_heads = 4, .kv_heads = 2, .head_dim = 16, .max_chunk = 40};
  Random random(400);
  Rig rig(kShape, full(64));
  const auto rows = random.bells(40 * 2 * 16);
  ASSERT_EQ(append(rig.cache(), 0, rows, rows), Status::kOk);
  std::vector<float> queries = random.bells(4 * 16);
  const std::vector<float> first = queries;
  while (queries.size() < 40 * 4 * 16) queries.insert(queries.end(), first.begin(), first.end());
  const auto all = mask_of(40, [](auto, auto) { return true; });
  std::vector<float> out(queries.size()), parts(queries.size());
  ASSERT_EQ(attend_with(rig, 0, 40, queries, all, out), Status::kOk);
  for (std::uint32_t query = 0; query < 40; ++query) {
    EXPECT_TRUE(test::same_bytes(std::span(out).subspan(query * 64, 64), std::span(out).first(64)))
        << "equal queries that see the same get the same: " << query;
    for (const std::uint32_t head : {0u, 1u})
      ASSERT_EQ(attend_with(rig, 0, 40, queries, all, parts, {head, 1, query, 1}), Status::kOk);
  }
  EXPECT_TRUE(test::same_bytes(out, parts));
}

// A draft that nobody sees, not even its own query, gets no attention.
TEST(Mask, HiddenTokensGetNoScore) {
  constexpr Shape kShape = {.layers = 1, .query_heads = 4, .kv_heads = 2, .head_dim = 16, .max_chunk = 8};
  for (const std::string& port : running_ports()) {
    Random random(500);
    Rig rig(kShape, ems(64), port);
    for (int chunk = 0; chunk < 2; ++chunk) {
      const auto rows = random.bells(8 * 2 * 16);
      ASSERT_EQ(append(rig.cache(), 0, rows, rows), Status::kOk);
      const auto queries = random.bells(8 * 4 * 16);
      std::vector<float> out(queries.size());
      const auto mask = mask_of(8, [](std::uint32_t query, std::uint32_t token) {
        return token != 5 && (causal(query, token) || query == 0);
      });
      ASSERT_EQ(attend_with(rig, 0, 8, queries, mask, out), Status::kOk);
    }
    for (const std::uint32_t head : {0u, 1u}) {
      const auto slots = test::explain_all(rig.cache(), 0, head);
      ASSERT_EQ(slots.size(), 16u);
      EXPECT_EQ(slots[13].global, 0u) << port;
      EXPECT_EQ(slots[13].local, 0u) << port;
      EXPECT_GT(slots[5].global, 0u) << "the next chunk saw it";
      EXPECT_GT(slots[14].global, 0u) << port;
    }
  }
}

TEST(Mask, OfTheWrongSizeOrWithNothingToSeeIsRefused) {
  constexpr Shape kShape = {.layers = 1, .query_heads = 2, .kv_heads = 2, .head_dim = 16, .max_chunk = 40};
  for (const Storage storage : {Storage::kQ4, Storage::kF32}) {
    Shape shape = kShape;
    shape.storage = storage;
    Rig rig(shape, full(128));
    Random random(600);
    const auto rows = random.bells(33 * 2 * 16);
    std::vector<float> out(rows.size());
    ASSERT_EQ(append(rig.cache(), 0, rows, rows), Status::kOk);
    const auto before = rig.copy_state();
    auto mask = mask_of(33, causal);
    EXPECT_EQ(attend_with(rig, 0, 33, rows, {}, out), Status::kBadArgument);
    EXPECT_EQ(attend_with(rig, 0, 33, rows, std::span(mask).first(65), out), Status::kBadArgument);
    EXPECT_EQ(attend_with(rig, 0, 32, rows, mask, out), Status::kBadArgument);
    EXPECT_EQ(attend_with(rig, 0, 0, rows, {}, out), Status::kBadArgument);
    EXPECT_EQ(attend_with(rig, 1, 33, rows, mask, out), Status::kBadArgument);
    mask[2 * 7] = 0;
    mask[2 * 7 + 1] = 0xfffffffe;  // bits from 33 on
    EXPECT_EQ(attend_with(rig, 0, 33, rows, mask, out), Status::kBadArgument) << "query 7 sees nothing";
    EXPECT_EQ(out, std::vector<float>(out.size()));
    EXPECT_EQ(attend_with(rig, 0, 33, rows, mask, out, {.first_query = 8}), Status::kOk) << "of the part, each does";
    mask[2 * 7 + 1] = 1;
    EXPECT_EQ(attend_with(rig, 0, 33, rows, mask, out), Status::kOk);
    EXPECT_EQ(rig.copy_state(), before);
    ASSERT_EQ(append(rig.cache(), 0, rows, rows), Status::kOk);
    std::fill(mask.begin(), mask.end(), 0);
    EXPECT_EQ(attend_with(rig, 0, 33, rows, mask, out), Status::kOk) << "older slots are enough";
    Cache cache;
    EXPECT_EQ(attend(cache, 0, 33, tokens_first(rows.data(), Number::kF32, 2, 16), mask,
                     tokens_first(out.data(), Number::kF32, 2, 16)),
              Status::kNotReady);
  }
}

}  // namespace
}  // namespace nibkv::mask_test
