// One word for all that the pipeline computes. It is the same on every architecture, with every port and every
// compiler; it changes only when the numbers of the library are changed on purpose.
#include <gtest/gtest.h>

#include <cstdio>
#include <span>

#include "nibkv/nibkv.hpp"
#include "tests/support/hash.hpp"
#include "tests/support/rig.hpp"

namespace nibkv {
namespace {

// To update: run this test; it prints the new word.
constexpr std::uint64_t kGolden = 0x3c19ae28fff282cd;
constexpr std::uint64_t kTurnedGolden = 0x41116db1db0b32a7;  // of the cases that turn keys

using test::Hash;

struct Case {
  Shape shape;
  Policy policy;
  int steps;
  std::vector<std::uint32_t> budgets = {};
};

// Every score, both merges, every way to share a budget; groups below and above the 16 rows of a pass.
std::vector<Case> scored_cases() {
  std::vector<Case> list;
  Policy policy = ems(90);
  list.push_back(
      {{.layers = 2, .query_heads = 6, .kv_heads = 2, .head_dim = 64, .outlier_channels = 4, .max_chunk = 12},
       policy,
       40});
  policy.merge = Merge::kBoth;
  policy.mass = Mass::kCount;
  policy.similarity = Similarity::kKeyValue;
  policy.group = Group::kMax;
  policy.combine = Combine::kMax;
  policy.mean_threshold = true;
  policy.budget = Budget::kPyramid;
  list.push_back({{.layers = 3, .query_heads = 8, .kv_heads = 2, .head_dim = 96, .outlier_channels = 8, .max_chunk = 5},
                  policy,
                  60});
  policy = ems(70);
  policy.merge = Merge::kBoth;
  policy.threshold = 0;
  policy.pool = 3;
  policy.candidate_mass = 200;
  list.push_back({{.layers = 1, .query_heads = 20, .kv_heads = 1, .head_dim = 48, .max_chunk = 3}, policy, 70});
  list.push_back({{.layers = 1, .query_heads = 4, .kv_heads = 4, .head_dim = 32, .max_chunk = 9}, ada_kv(80), 60});
  list.push_back({{.layers = 2, .query_heads = 2, .kv_heads = 2, .head_dim = 16, .max_chunk = 40}, head_kv(100), 20});
  list.push_back({{.layers = 1, .query_heads = 3, .kv_heads = 1, .head_dim = 128}, h2o(40), 400});
  list.push_back({{.layers = 1, .query_heads = 3, .kv_heads = 1, .head_dim = 112, .max_chunk = 2}, tova(33), 60});
  list.push_back(
      {{.layers = 1, .query_heads = 2, .kv_heads = 2, .head_dim = 80, .outlier_channels = 16, .max_chunk = 16},
       l2_norm(50),
       20});
  policy = snapkv(96);
  policy.budget = Budget::kTable;
  list.push_back(
      {{.layers = 1, .query_heads = 4, .kv_heads = 2, .head_dim = 64, .max_chunk = 8}, policy, 40, {128, 64}});
  return list;
}

// Every kind of block of the rotation (16 to 256), group sizes below and above the 16 rows of a pass, outlier channels,
// both policies, both storages; streaming cases run several times round their budget.
std::vector<Case> cases() {
  std::vector<Case> list;
  list.push_back(
      {{.layers = 2, .query_heads = 6, .kv_heads = 2, .head_dim = 64, .outlier_channels = 4, .max_chunk = 24},
       streaming_llm(96),
       24});
  list.push_back(
      {{.layers = 1, .query_heads = 8, .kv_heads = 1, .head_dim = 128, .outlier_channels = 16, .max_chunk = 5},
       full(100),
       20});
  list.push_back(
      {{.layers = 1, .query_heads = 4, .kv_heads = 2, .head_dim = 240, .outlier_channels = 8, .max_chunk = 9},
       full(90),
       10});
  list.push_back(
      {{.layers = 1, .query_heads = 32, .kv_heads = 1, .head_dim = 80, .max_chunk = 3}, streaming_llm(40, 6), 40});
  list.push_back({{.layers = 1, .query_heads = 2, .kv_heads = 2, .head_dim = 256, .max_chunk = 40}, full(80), 2});
  list.push_back(
      {{.layers = 1, .query_heads = 3, .kv_heads = 3, .head_dim = 16, .outlier_channels = 12, .max_chunk = 7},
       streaming_llm(33, 0),
       30});
  Shape f32 = {.layers = 1, .query_heads = 4, .kv_heads = 2, .head_dim = 48, .max_chunk = 8};
  f32.storage = Storage::kF32;
  list.push_back({f32, streaming_llm(32), 12});
  for (const Case& one : scored_cases()) list.push_back(one);
  return list;
}

// Keys that are compared without their rotary embedding, and merged in the phase of their centre.
std::vector<Case> turned_cases() {
  std::vector<Case> list;
  Shape shape = {.layers = 2, .query_heads = 6, .kv_heads = 2, .head_dim = 64, .outlier_channels = 8, .max_chunk = 12};
  shape.rotary = {.base = 1e4f, .dims = 64};
  Policy policy = ems(90);
  policy.merge = Merge::kBoth;
  policy.rephase = true;
  list.push_back({shape, policy, 40});
  policy.rephase = false;
  policy.position_free = true;
  list.push_back({shape, policy, 40});
  shape = {.layers = 1, .query_heads = 5, .kv_heads = 1, .head_dim = 112, .max_chunk = 7};
  shape.rotary = {.base = 5e5f, .scale = 0.25f, .dims = 96, .adjacent = false};
  policy.rephase = true;
  policy.similarity = Similarity::kKeyValue;
  policy.threshold = 0;
  list.push_back({shape, policy, 60});
  return list;
}

// Rows of very different sizes, exactly zero ones too.
void scale_rows(std::vector<float>& rows, std::size_t dim, test::Random& random) {
  constexpr float kSizes[] = {1.0f, 1.0f, 1.0f, 1.0f, 0.0f, 1024.0f, 0.0009765625f, 8.0f};
  for (std::size_t row = 0; row < rows.size() / dim; ++row) {
    const float size = kSizes[random.below(8)];
    for (std::size_t c = 0; c < dim; ++c) rows[row * dim + c] *= size;
  }
}

// What explain() and plan() say of every head; every other time everything is cut back at once.
void add_scores(test::Rig& rig, int step, Hash& hash) {
  for (std::uint32_t layer = 0; layer < rig.shape().layers; ++layer) {
    for (std::uint32_t head = 0; head < rig.shape().kv_heads; ++head) {
      for (const SlotInfo& slot : test::explain_all(rig.cache(), layer, head)) {
        const std::uint32_t words[] = {slot.position, slot.global, slot.local, slot.bias, slot.merged};
        hash.add(std::as_bytes(std::span(words)));
      }
      std::vector<std::uint32_t> target(rig.cache().held(layer, head));
      ASSERT_EQ(plan(rig.cache(), layer, head, rig.shape().max_chunk, target), Status::kOk);
      hash.add(std::as_bytes(std::span(target)));
    }
  }
  const Policy& policy = rig.policy();
  if (step % 20 != 19) return;
  const std::uint32_t tokens = policy.sinks + policy.recent + (policy.tokens - policy.sinks - policy.recent + 1) / 2;
  ASSERT_EQ(compact_now(rig.cache(), tokens, policy.budget), Status::kOk) << test::words(rig.shape(), policy);
}

void run(const Case& one, const std::string& port, Hash& hash) {
  const Shape& shape = one.shape;
  const bool scored = one.policy.keep == Keep::kScore;
  test::Rig rig(shape, one.policy, port, 7, one.budgets);
  ASSERT_EQ(rig.made(), Status::kOk);
  hash.add(rig.profile());
  test::Random random(shape.head_dim);
  for (int step = 0; step < one.steps; ++step) {
    const std::uint32_t count = step == 0 ? shape.max_chunk : random.within(1, shape.max_chunk);
    for (std::uint32_t layer = 0; layer < shape.layers; ++layer) {
      auto keys = test::keys_of_profile(shape, 7, layer, count, random);
      auto values = random.bells(std::size_t{count} * shape.kv_heads * shape.head_dim);
      auto queries = random.bells(std::size_t{count} * shape.query_heads * shape.head_dim);
      if (shape.outlier_channels == 0) scale_rows(keys, shape.head_dim, random);
      scale_rows(values, shape.head_dim, random);
      scale_rows(queries, shape.head_dim, random);
      for (float& x : queries) x *= 0.0625f;
      ASSERT_EQ(append(rig.cache(), layer, keys, values), Status::kOk) << test::words(shape, one.policy, port);
      const std::vector<float> out = test::attend_all(rig.cache(), layer, queries);
      hash.add(std::as_bytes(std::span(out)));
    }
    if (scored && step % 10 == 9) add_scores(rig, step, hash);
    if (step % 7 == 6) {  // a plan of its own: every third of the slots but the first is dropped
      std::vector<std::uint32_t> target;
      std::uint32_t next = 0;
      for (std::uint32_t i = 0; i < rig.cache().held(0, 0); ++i) target.push_back(i % 3 == 1 && i > 4 ? kDrop : next++);
      ASSERT_EQ(compact(rig.cache(), 0, 0, target), Status::kOk);
    }
  }
  hash.add(rig.state());
}

void expect_word(const std::vector<Case>& list, std::uint64_t expected) {
  for (const std::string& port : test::running_ports()) {
    Hash hash;
    int number = 0;
    for (const Case& one : list) {
      run(one, port, hash);
      std::printf("[   golden ] port %s, after case %d: 0x%016llx\n", port.c_str(), number++,
                  static_cast<unsigned long long>(hash.word()));
    }
    char word[32];
    std::snprintf(word, sizeof word, "0x%016llx", static_cast<unsigned long long>(hash.word()));
    EXPECT_EQ(hash.word(), expected) << "port " << port << " gave " << word;
  }
}

TEST(Golden, TheWholePipelineGivesTheSameWordWithEveryPortOnEveryMachine) {
  expect_word(cases(), kGolden);
}

TEST(Golden, SoDoKeysThatAreTurned) {
  expect_word(turned_cases(), kTurnedGolden);
}

}  // namespace
}  // namespace nibkv
