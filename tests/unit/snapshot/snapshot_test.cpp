#include "nibkv/snapshot.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "nibkv/nibkv.hpp"
#include "tests/support/effort.hpp"
#include "tests/support/snapshots.hpp"

namespace nibkv::snapshot_test {
namespace {

using test::go_on;
using test::Random;
using test::Rig;
using test::same_bytes;
using test::saved;
using test::SnapshotCase;
using test::TakenApart;

using Bytes = std::vector<std::byte>;

constexpr std::size_t kNote = 0, kChains = 1, kSides = 2, kCodes = 3, kShared = 4;

Bytes all_of(const Rig& rig) {
  return rig.arena().copy();
}

// A cache of one chain whose snapshot has all kinds of side data in few bytes.
constexpr Shape kSmall = {.layers = 1, .query_heads = 2, .kv_heads = 1, .head_dim = 16, .outlier_channels = 4};
constexpr Shape kSmallPair = {.layers = 2, .query_heads = 2, .kv_heads = 1, .head_dim = 16, .outlier_channels = 4};

const Shape& small_shape(const Policy& policy) {
  return has_pairs(policy) ? kSmallPair : kSmall;
}

void go_on_small(Cache& cache, Random& random, int steps) {
  for (int step = 0; step < steps; ++step) {
    for (std::uint32_t layer = 0; layer < cache.shape().layers; ++layer) {
      EXPECT_EQ(append(cache, layer, random.bells(16), random.bells(16)), Status::kOk);
      test::attend_all(cache, layer, random.bells(32));
    }
  }
}

Bytes small_snapshot(const Policy& policy, int steps, const SaveOptions& options = {}) {
  Rig rig(small_shape(policy), policy);
  Random random(5);
  go_on_small(rig.cache(), random, steps);
  return saved(rig.cache(), options);
}

TEST(Snapshot, TheCacheGoesOnAsIfNothingHadBeen) {
  const std::vector<std::string> ports = test::running_ports();
  std::size_t turn = 0;
  for (const SnapshotCase& one : test::snapshot_cases()) {
    for (const int steps : {23, 1, 6, 9}) {
      if (turn++ % test::kEvery != 0) continue;
      const std::string& from = ports[turn % ports.size()];
      const std::string& to = ports[(turn + 1) % ports.size()];
      Rig first(one.shape, one.policy, from, 3, one.budgets);
      Random random(7);
      go_on(first.cache(), random, steps);
      const Bytes snapshot = saved(first.cache());

      Shape shape = one.shape;
      shape.workers = 3;
      ASSERT_EQ(layout_of(shape, one.policy).views != 0, has_pairs(one.policy)) << one.name;
      Rig second(shape, one.policy, to, 3, one.budgets);
      Random other(8);
      go_on(second.cache(), other, 5);
      ASSERT_EQ(restore(second.cache(), snapshot), Status::kOk) << one.name << " after " << steps;
      EXPECT_EQ(saved(second.cache()), snapshot) << one.name << " after " << steps;
      EXPECT_EQ(second.cache().usage().used_tiles, first.cache().usage().used_tiles);
      EXPECT_EQ(second.cache().usage().peak_tiles, first.cache().usage().peak_tiles);
      EXPECT_EQ(second.cache().usage().used_bytes, first.cache().usage().used_bytes);
      EXPECT_EQ(second.cache().usage().peak_bytes, first.cache().usage().peak_bytes);

      Random again = random;
      const std::vector<float> expected = go_on(first.cache(), random, 17);
      const std::vector<float> got = go_on(second.cache(), again, 17);
      EXPECT_TRUE(same_bytes(expected, got)) << one.name << " after " << steps << ", " << from << " to " << to;
      EXPECT_EQ(saved(second.cache()), saved(first.cache())) << one.name << " after " << steps;
      EXPECT_EQ(check(second.cache()), Status::kOk) << one.name;
      EXPECT_TRUE(second.arena().guards_intact());
    }
  }
}

TEST(Snapshot, SlotsAreWhatExplainSaidOfThem) {
  std::size_t turn = 0;
  for (const SnapshotCase& one : test::snapshot_cases()) {
    if (one.policy.keep != Keep::kScore || turn++ % test::kEvery != 0) continue;
    Rig first(one.shape, one.policy, {}, 3, one.budgets), second(one.shape, one.policy, {}, 3, one.budgets);
    Random random(9);
    go_on(first.cache(), random, 30);
    ASSERT_EQ(restore(second.cache(), saved(first.cache())), Status::kOk) << one.name;
    for (std::uint32_t layer = 0; layer < one.shape.layers; ++layer) {
      EXPECT_EQ(second.cache().seen(layer), first.cache().seen(layer));
      for (std::uint32_t head = 0; head < one.shape.kv_heads; ++head) {
        EXPECT_EQ(second.cache().budget(layer, head), first.cache().budget(layer, head)) << one.name;
        const auto expected = test::explain_all(first.cache(), layer, head);
        const auto got = test::explain_all(second.cache(), layer, head);
        ASSERT_EQ(got.size(), expected.size());
        for (std::size_t i = 0; i < got.size(); ++i) {
          EXPECT_EQ(got[i].position, expected[i].position);
          EXPECT_EQ(got[i].global, expected[i].global);
          EXPECT_EQ(got[i].local, expected[i].local);
          EXPECT_EQ(got[i].bias, expected[i].bias);
          EXPECT_EQ(got[i].merged, expected[i].merged);
        }
      }
    }
  }
}

TEST(Snapshot, PositionsFarFromTheirTilesFirstComeBack) {
  const Shape shape = {.layers = 1, .query_heads = 1, .kv_heads = 1, .head_dim = 16, .max_chunk = 4096};
  Rig first(shape, l2_norm(4200)), second(shape, l2_norm(4200));
  Random random(12);
  for (int chunk = 0; chunk < 40; ++chunk) {
    auto keys = random.bells(std::size_t{4096} * 16);
    if (chunk == 0) std::fill_n(keys.begin(), 40 * 16, 0.0f);  // the first tokens always stay
    ASSERT_EQ(append(first.cache(), 0, keys, keys), Status::kOk);
  }
  EXPECT_EQ(check(first.cache()), Status::kOk);
  ASSERT_EQ(restore(second.cache(), saved(first.cache())), Status::kOk);
  EXPECT_EQ(saved(second.cache()), saved(first.cache()));
  std::uint32_t farthest = 0;
  for (const SlotInfo& slot : test::explain_all(second.cache(), 0, 0)) farthest = std::max(farthest, slot.position);
  EXPECT_EQ(farthest, 40u * 4096 - 1);
}

TEST(Snapshot, IsAsLongAsAnnouncedAndComesInChunks) {
  struct Sink {
    Bytes bytes;
    std::vector<std::size_t> counts;
  };
  const Bytes note(77, std::byte{9});
  for (const SnapshotCase& one : test::snapshot_cases()) {
    Rig rig(one.shape, one.policy, {}, 3, one.budgets);
    Random random(10);
    for (int round = 0; round < (test::kShorter == 1 ? 8 : 4); ++round) {
      const Bytes before = all_of(rig);
      Sink sink;
      const auto write = [](void* context, const std::byte* bytes, std::size_t count) {
        auto& to = *static_cast<Sink*>(context);
        to.bytes.insert(to.bytes.end(), bytes, bytes + count);
        to.counts.push_back(count);
        return true;
      };
      ASSERT_EQ(save(rig.cache(), SnapshotSink{write, &sink}, {7, note}), Status::kOk);
      EXPECT_EQ(all_of(rig), before) << one.name;
      EXPECT_EQ(sink.bytes.size(), snapshot_bytes(rig.cache(), note.size())) << one.name;
      EXPECT_LE(sink.bytes.size(), most_snapshot_bytes(one.shape, one.policy, note.size())) << one.name;
      for (std::size_t i = 0; i + 1 < sink.counts.size(); ++i) EXPECT_EQ(sink.counts[i], kSnapshotChunk);
      EXPECT_LE(sink.counts.back(), kSnapshotChunk);
      EXPECT_GT(sink.counts.back(), 0u);
      EXPECT_EQ(sink.bytes, saved(rig.cache(), {7, note}));
      go_on(rig.cache(), random, round);
    }
    Bytes few(static_cast<std::size_t>(snapshot_bytes(rig.cache())) - 1, std::byte{3});
    EXPECT_EQ(save(rig.cache(), few), Status::kBadArgument);
    EXPECT_EQ(few, Bytes(few.size(), std::byte{3}));
  }
}

TEST(Snapshot, OfAFullCacheIsTheLargest) {
  Rig rig({.layers = 2, .query_heads = 2, .kv_heads = 2, .head_dim = 16, .max_chunk = 32}, full(64));
  Random random(3);
  const auto rows = random.bells(std::size_t{32} * 2 * 16);
  for (int chunk = 0; chunk < 2; ++chunk) {
    for (const std::uint32_t layer : {0u, 1u}) ASSERT_EQ(append(rig.cache(), layer, rows, rows), Status::kOk);
  }
  EXPECT_EQ(snapshot_bytes(rig.cache(), 5), most_snapshot_bytes(rig.shape(), rig.policy(), 5));
  EXPECT_EQ(most_snapshot_bytes(rig.shape(), full(0)), 0u);
  static_assert(most_snapshot_bytes({.layers = 1, .query_heads = 1, .kv_heads = 1, .head_dim = 16}, full(32)) ==
                64 + 5 * 20 + 32 + 2 * 64 + 32 * 16);
}

TEST(Snapshot, IsTheSameHoweverTheTilesLieInMemory) {
  // One cache gave tiles back and took them again, the other never did.
  const Shape shape = {.layers = 1, .query_heads = 2, .kv_heads = 2, .head_dim = 16, .max_chunk = 32};
  Rig first(shape, full(320)), second(shape, full(320));
  Random random(21);
  for (int chunk = 0; chunk < 5; ++chunk) {
    const auto rows = random.bells(std::size_t{32} * 2 * 16);
    ASSERT_EQ(append(first.cache(), 0, rows, rows), Status::kOk);
  }
  std::vector<std::uint32_t> target(160, kDrop);
  for (std::uint32_t i = 0; i < 40; ++i) target[i + 3] = i;
  for (const std::uint32_t head : {1u, 0u}) ASSERT_EQ(compact(first.cache(), 0, head, target), Status::kOk);
  const Bytes snapshot = saved(first.cache());
  ASSERT_EQ(restore(second.cache(), snapshot), Status::kOk);
  EXPECT_NE(first.copy_state(), second.copy_state());
  EXPECT_EQ(saved(second.cache()), snapshot);
}

TEST(Snapshot, KeepsANoteAndASequenceNumber) {
  const Bytes note = {std::byte{1}, std::byte{2}, std::byte{3}};
  const Bytes snapshot = small_snapshot(ems(40), 3, {41, note});
  SnapshotInfo info;
  ASSERT_EQ(inspect(snapshot, info), Status::kOk);
  EXPECT_EQ(info.bytes, snapshot.size());
  EXPECT_EQ(info.sequence, 41u);
  ASSERT_EQ(info.note_bytes, note.size());
  const auto begin = snapshot.begin() + static_cast<std::ptrdiff_t>(info.note_offset);
  EXPECT_TRUE(std::equal(note.begin(), note.end(), begin));
  Rig rig(kSmall, ems(40));
  EXPECT_EQ(restore(rig.cache(), snapshot), Status::kOk);
  EXPECT_EQ(rig.cache().held(0, 0), 3u);
}

TEST(Snapshot, WhatFollowsItIsNotLookedAt) {
  Bytes snapshot = small_snapshot(full(40), 3);
  snapshot.resize(snapshot.size() + 1000, std::byte{0xff});
  Rig rig(kSmall, full(40));
  EXPECT_EQ(restore(rig.cache(), snapshot), Status::kOk);
}

TEST(Snapshot, NeedsACacheAndFunctions) {
  Cache none;
  Bytes bytes(100);
  SnapshotInfo info;
  EXPECT_EQ(save(none, bytes), Status::kNotReady);
  EXPECT_EQ(save(none, SnapshotSink{}), Status::kNotReady);
  EXPECT_EQ(restore(none, bytes), Status::kNotReady);
  EXPECT_EQ(snapshot_bytes(none), 0u);
  Rig rig(kSmall, full(40));
  EXPECT_EQ(save(rig.cache(), SnapshotSink{}), Status::kBadArgument);
  EXPECT_EQ(restore(rig.cache(), SnapshotSource{}), Status::kBadArgument);
  EXPECT_EQ(inspect(SnapshotSource{}, info), Status::kBadArgument);
}

// Restores into caches that hold something else, and that a refused snapshot must not change.
class Victim {
 public:
  explicit Victim(const Policy& policy) : rig_(small_shape(policy), policy) {
    Random random(77);
    go_on_small(rig_.cache(), random, 9);
    before_ = all_of(rig_);
  }
  Status offer(std::span<const std::byte> snapshot) { return restore(rig_.cache(), snapshot); }
  bool unchanged() const { return all_of(rig_) == before_ && rig_.arena().guards_intact(); }
  Rig& rig() { return rig_; }

 private:
  Rig rig_;
  Bytes before_;
};

const Policy kPolicies[] = {full(70), streaming_llm(40, 4), ems(40)};

// Of 36 tokens, 32 fold.
Policy folded(Policy policy) {
  policy.recent = policy.keep == Keep::kScore ? 1 : 0;
  policy.sinks = 0;
  policy.fold.keys = policy.fold.values = pairs_from(0, 2);
  policy.fold.recent = 0;
  policy.fold.retained = 0;
  return policy;
}
const Policy kFolded[] = {folded(full(600)), folded(ems_fold(600))};

std::vector<Policy> all_policies() {
  std::vector<Policy> list(std::begin(kPolicies), std::end(kPolicies));
  list.insert(list.end(), std::begin(kFolded), std::end(kFolded));
  return list;
}

TEST(Snapshot, EveryTruncationIsRefused) {
  for (const Policy& policy : all_policies()) {
    const Bytes snapshot = small_snapshot(policy, has_pairs(policy) ? 36 : 35, {1, Bytes(5)});
    Victim victim(policy);
    for (std::size_t length = 0; length < snapshot.size(); length = test::after(length, snapshot.size() - 1)) {
      // A copy of exact size, so that a sanitizer sees reads past the end.
      const Bytes part(snapshot.begin(), snapshot.begin() + static_cast<std::ptrdiff_t>(length));
      ASSERT_EQ(victim.offer(part), Status::kBadSnapshot) << length;
      SnapshotInfo info;
      ASSERT_EQ(inspect(part, info), Status::kBadSnapshot) << length;
    }
    EXPECT_TRUE(victim.unchanged());
    EXPECT_EQ(victim.offer(snapshot), Status::kOk);
  }
}

TEST(Snapshot, EveryFlippedBitIsRefused) {
  for (const Policy& policy : all_policies()) {
    Bytes snapshot = small_snapshot(policy, has_pairs(policy) ? 34 : 5, {1, Bytes(5)});
    Victim victim(policy);
    for (std::size_t bit = 0; bit < snapshot.size() * 8; bit = test::after(bit, snapshot.size() * 8 - 1)) {
      const auto mask = static_cast<std::byte>(1 << bit % 8);
      snapshot[bit / 8] ^= mask;
      ASSERT_EQ(victim.offer(snapshot), Status::kBadSnapshot) << bit;
      snapshot[bit / 8] ^= mask;
    }
    EXPECT_TRUE(victim.unchanged());
    EXPECT_EQ(victim.offer(snapshot), Status::kOk);
  }
}

TEST(Snapshot, ThoseOfOtherCachesAreRefusedByName) {
  const Shape shape = {
      .layers = 2, .query_heads = 4, .kv_heads = 2, .head_dim = 32, .outlier_channels = 4, .max_chunk = 3};
  Policy policy = ems(90);
  policy.budget = Budget::kTable;
  const std::vector<std::uint32_t> budgets = {96, 64, 96, 64};
  Rig mine(shape, policy, {}, 3, budgets);
  Random random(1);
  go_on(mine.cache(), random, 30);
  const Bytes snapshot = saved(mine.cache());

  const auto expect = [&](Status status, const Shape& other_shape, const Policy& other_policy, std::uint64_t seed,
                          const std::vector<std::uint32_t>& other_budgets) {
    Rig rig(other_shape, other_policy, {}, seed, other_budgets);
    const Bytes before = all_of(rig);
    EXPECT_EQ(restore(rig.cache(), snapshot), status) << test::words(other_shape, other_policy);
    EXPECT_TRUE(status == Status::kOk || all_of(rig) == before);
  };
  expect(Status::kOk, shape, policy, 3, budgets);
  expect(Status::kOtherProfile, shape, policy, 4, budgets);
  expect(Status::kOtherPolicy, shape, policy, 3, {64, 96, 96, 64});

  const auto of_shape = [&](const std::function<void(Shape&)>& change) {
    Shape other = shape;
    change(other);
    expect(Status::kOtherShape, other, policy, 3, budgets);
  };
  of_shape([](Shape& s) { s.query_heads = 6; });
  of_shape([](Shape& s) { s.head_dim = 48; });
  of_shape([](Shape& s) { s.outlier_channels = 8; });
  of_shape([](Shape& s) { s.max_chunk = 4; });
  of_shape([](Shape& s) { std::swap(s.layers, s.kv_heads), s.layers = 4, s.kv_heads = 1; });

  const auto of_policy = [&](const std::function<void(Policy&)>& change) {
    Policy other = policy;
    change(other);
    expect(Status::kOtherPolicy, shape, other, 3, budgets);
  };
  of_policy([](Policy& p) { p.tokens = 91; });
  of_policy([](Policy& p) { p.sinks = 3; });
  of_policy([](Policy& p) { p.recent -= 1; });
  of_policy([](Policy& p) { p.score = Score::kGlobal; });
  of_policy([](Policy& p) { p.group = Group::kMax; });
  of_policy([](Policy& p) { p.recent_share = 17; });
  of_policy([](Policy& p) { p.combine = Combine::kSum; });
  of_policy([](Policy& p) { p.per_query = false; });
  of_policy([](Policy& p) { p.window = 64; });
  of_policy([](Policy& p) { p.pool = 5; });
  of_policy([](Policy& p) { p.value_norms = false; });
  of_policy([](Policy& p) { p.wide.add(1); });
  of_policy([](Policy& p) { p.wide_first = true; });
  of_policy([](Policy& p) { p.merge = Merge::kValues; });
  of_policy([](Policy& p) { p.similarity = Similarity::kValue; });
  of_policy([](Policy& p) { p.mass = Mass::kNone; });
  of_policy([](Policy& p) { p.mean_threshold = true; });
  of_policy([](Policy& p) { p.threshold = 95; });
  of_policy([](Policy& p) { p.candidate_mass = 1; });
  of_policy([](Policy& p) { p.budget = Budget::kPyramid; });
}

TEST(Snapshot, ThoseOfCachesThatShareOtherwiseAreRefusedByName) {
  const Policy policy = kFolded[1];
  const Bytes snapshot = small_snapshot(policy, 36);
  const auto expect = [&](Status status, const std::function<void(Policy&)>& change) {
    Policy other = policy;
    change(other);
    Rig rig(kSmallPair, other);
    EXPECT_EQ(restore(rig.cache(), snapshot), status) << test::words(kSmallPair, other);
  };
  expect(Status::kOk, [](Policy& p) { p.fold.min_cosine = 1; });
  expect(Status::kOtherPolicy, [](Policy& p) { p.fold = {}; });
  expect(Status::kOtherPolicy, [](Policy& p) { p.fold.keys = {}; });
  expect(Status::kOtherPolicy, [](Policy& p) { p.fold.values = {}; });
  expect(Status::kOtherPolicy, [](Policy& p) { p.fold.recent = 1; });
  expect(Status::kOtherPolicy, [](Policy& p) { p.fold.t = 1; });
  expect(Status::kOtherPolicy, [](Policy& p) { p.fold.retained = 1; });
  expect(Status::kOtherPolicy, [](Policy& p) { p.fold.retain = Retain::kNear; });
  expect(Status::kOtherPolicy, [](Policy& p) { p.fold.centred = true; });
}

TEST(Snapshot, AnotherNumberOfWorkersMayMeanThatLayersDoNotShare) {
  Shape shape = kSmallPair, other = kSmallPair;
  other.workers = 64;
  const Policy policy = kFolded[1];
  ASSERT_NE(layout_of(shape, policy).views, 0u);
  ASSERT_EQ(layout_of(other, policy).views, 0u);
  Rig first(shape, policy), second(other, policy);
  EXPECT_EQ(restore(second.cache(), saved(first.cache())), Status::kOtherPolicy);
}

TEST(Snapshot, TheRotaryEmbeddingMattersWhereItIsRead) {
  Shape shape = {.layers = 1, .query_heads = 1, .kv_heads = 1, .head_dim = 16};
  shape.rotary = {.base = 1e4f, .dims = 16};
  Shape other = shape;
  other.rotary.base = 2e4f;
  for (const bool read : {false, true}) {
    Policy policy = ems(40);
    policy.position_free = read;
    Rig first(shape, policy), second(other, policy);
    EXPECT_EQ(restore(second.cache(), saved(first.cache())), read ? Status::kOtherShape : Status::kOk);
  }
}

TEST(Snapshot, TheReachMattersWhereThereIsOne) {
  const auto shape = [](std::uint32_t reach) {
    Shape made = {.layers = 1, .query_heads = 1, .kv_heads = 1, .head_dim = 16};
    made.rotary = {.base = 1e4f, .dims = 16, .reach = reach};
    return made;
  };
  Rig without(shape(0), ems(40)), near(shape(64), ems(40)), same(shape(64), ems(40)), far(shape(65), ems(40));
  EXPECT_EQ(restore(same.cache(), saved(near.cache())), Status::kOk);
  EXPECT_EQ(restore(far.cache(), saved(near.cache())), Status::kOtherShape);
  EXPECT_EQ(restore(without.cache(), saved(near.cache())), Status::kOtherShape);
  EXPECT_EQ(restore(near.cache(), saved(without.cache())), Status::kOtherShape);
}

TEST(Snapshot, AProfileIsNeededWhereThereWasOne) {
  const Shape shape = {.layers = 1, .query_heads = 1, .kv_heads = 1, .head_dim = 16};
  const Bytes profile = test::make_profile(shape, 4);
  test::Arena with(footprint(shape, full(40))), without(footprint(shape, full(40)));
  Cache a, b;
  ASSERT_EQ(a.init(with.bytes(), shape, full(40), {.profile = profile}), Status::kOk);
  ASSERT_EQ(b.init(without.bytes(), shape, full(40)), Status::kOk);
  EXPECT_EQ(restore(b, saved(a)), Status::kOtherProfile);
  EXPECT_EQ(restore(a, saved(b)), Status::kOtherProfile);
  // f32 rows do not read it.
  Shape exact = shape;
  exact.storage = Storage::kF32;
  test::Arena with_exact(footprint(exact, full(40))), without_exact(footprint(exact, full(40)));
  ASSERT_EQ(a.init(with_exact.bytes(), exact, full(40), {.profile = profile}), Status::kOk);
  ASSERT_EQ(b.init(without_exact.bytes(), exact, full(40)), Status::kOk);
  EXPECT_EQ(restore(b, saved(a)), Status::kOk);
}

TEST(Snapshot, WhatLayInSlotsThatAreFreeNowDoesNotShow) {
  constexpr Shape kShape = {.layers = 1, .query_heads = 1, .kv_heads = 1, .head_dim = 16, .max_chunk = 20};
  for (const test::Preset& preset : test::scored_presets(kShape, 32)) {
    if (preset.policy.budget == Budget::kScores) continue;  // needs a profile
    Random random(91);
    const auto rows = random.bells(20 * 16);
    Rig one(kShape, preset.policy);
    Rig other(kShape, preset.policy);
    ASSERT_EQ(append(one.cache(), 0, rows, rows), Status::kOk);
    auto others = rows;
    for (std::size_t i = 2 * 16; i < others.size(); ++i) others[i] = -others[i];
    ASSERT_EQ(append(other.cache(), 0, others, others), Status::kOk);
    std::vector<std::uint32_t> first_two(20, kDrop);
    first_two[0] = 0;
    first_two[1] = 1;
    ASSERT_EQ(compact(one.cache(), 0, 0, first_two), Status::kOk);
    ASSERT_EQ(compact(other.cache(), 0, 0, first_two), Status::kOk);
    const std::vector<std::byte> bytes = saved(one.cache());
    EXPECT_EQ(bytes, saved(other.cache())) << preset.name;
    Rig restored(kShape, preset.policy);
    ASSERT_EQ(restore(restored.cache(), bytes), Status::kOk);
    EXPECT_EQ(saved(restored.cache()), bytes) << preset.name << ": a cache that never held the other 18";
  }
}

TEST(Snapshot, AnotherVersionIsRefusedByName) {
  TakenApart parts(small_snapshot(ems(40), 5));
  Victim victim(ems(40));
  for (const std::uint16_t version : {0, 1, 3, 0xffff}) {
    TakenApart::put(parts.header, 4, version);
    TakenApart::put<std::uint16_t>(parts.header, 6, 4711);
    EXPECT_EQ(victim.offer(parts.sealed()), Status::kNewerSnapshot) << version;
  }
  EXPECT_TRUE(victim.unchanged());
}

// Snapshots with right checksums and impossible content.
class Forger {
 public:
  explicit Forger(const Policy& policy, int steps = 36) : good_(small_snapshot(policy, steps)), victim_(policy) {
    EXPECT_EQ(TakenApart(good_).sealed(), good_) << "the format is what the test knows";
  }

  void expect(Status status, const char* what, const std::function<void(TakenApart&)>& forge) {
    TakenApart parts(good_);
    forge(parts);
    const Bytes bytes = parts.sealed();
    EXPECT_NE(bytes, good_) << what;
    EXPECT_EQ(victim_.offer(bytes), status) << what;
    EXPECT_TRUE(victim_.unchanged()) << what;
  }
  template <typename T>
  void expect(Status status, const char* what, std::size_t section, std::size_t offset, T value) {
    expect(status, what, [&](TakenApart& parts) { TakenApart::put(parts.sections[section].bytes, offset, value); });
  }
  template <typename T>
  void header(Status status, const char* what, std::size_t offset, T value) {
    expect(status, what, [&](TakenApart& parts) { TakenApart::put(parts.header, offset, value); });
  }

 private:
  Bytes good_;
  Victim victim_;
};

constexpr Status kCorrupt = Status::kCorrupt, kBad = Status::kBadSnapshot;

TEST(Snapshot, FoldedPartsThatCannotBeAreRefused) {
  for (const Policy& policy : kFolded) {
    ASSERT_NE(layout_of(kSmallPair, policy).views, 0u);
    Forger forger(policy);
    // Of each chain: used, seen, budget, heaviest, exponent, folded, retained, reach.
    const auto both = [&](const char* what, std::size_t offset, std::uint32_t value) {
      forger.expect(kCorrupt, what, [&](TakenApart& parts) {
        ASSERT_EQ(TakenApart::get<std::uint32_t>(parts.sections[kChains].bytes, 20), 32u);
        for (const std::size_t chain : {0u, 32u}) TakenApart::put(parts.sections[kChains].bytes, chain + offset, value);
      });
    };
    for (const std::uint32_t count : {0u, 1u, 31u, 33u, 36u, 37u, 0xffffffffu}) {
      if (count != 31 && count != 1) both("folded slots of both", 20, count);
      for (const std::size_t chain : {0u, 32u}) {
        forger.expect(kCorrupt, "folded slots of one", kChains, chain + 20, count);
      }
    }
    for (const std::uint32_t count : {1u, 4u, 5u, 0xffffffffu}) both("retained by both", 24, count);
    for (const std::size_t chain : {0u, 32u}) {
      forger.expect<std::uint32_t>(kCorrupt, "retained by one", kChains, chain + 24, 1);
      forger.expect<std::uint32_t>(kCorrupt, "distances", kChains, chain + 28, 7);
      forger.expect<std::uint32_t>(kCorrupt, "one has more tokens", kChains, chain + 4, 37);
    }
    forger.expect(kCorrupt, "the upper layer is ahead", [](TakenApart& parts) {
      TakenApart::put<std::uint32_t>(parts.sections[kChains].bytes, 32, 37);
      TakenApart::put<std::uint32_t>(parts.sections[kChains].bytes, 32 + 4, 37);
    });
    forger.expect(kCorrupt, "the lower layer is more than a chunk ahead", [](TakenApart& parts) {
      TakenApart::put<std::uint32_t>(parts.sections[kChains].bytes, 0, 38);
      TakenApart::put<std::uint32_t>(parts.sections[kChains].bytes, 4, 38);
    });
    // Tiles of the pool instead of entries: more than such a chain may have.
    forger.expect(kCorrupt, "slots that should have folded", [](TakenApart& parts) {
      for (const std::size_t chain : {0u, 32u}) {
        TakenApart::put<std::uint32_t>(parts.sections[kChains].bytes, chain + 20, 0);
      }
      TakenApart::put<std::uint32_t>(parts.header, 36, 4);
      TakenApart::put<std::uint32_t>(parts.header, 40, 4);
      TakenApart::put<std::uint64_t>(parts.header, 48, 10000);
      parts.sections[kCodes].bytes.resize(2 * parts.sections[kCodes].bytes.size());
      parts.sections[kCodes].claimed = parts.sections[kCodes].bytes.size();
      parts.sections[kShared].bytes.clear();
      parts.sections[kShared].claimed = 0;
    });
    for (const std::uint64_t peak : {std::uint64_t{0}, std::uint64_t{100}, std::uint64_t{1} << 40}) {
      forger.header(kCorrupt, "peak bytes", 48, peak);
    }
    if (policy.keep != Keep::kScore) continue;
    const Side at = side_of(kSmallPair, policy);
    const std::size_t record = 4 + at.total;
    for (const std::size_t tile : {0u, 1u, 2u, 3u}) {
      forger.expect<std::uint32_t>(kCorrupt, "a position of one", kSides, tile * record, 1);
    }
    forger.expect<std::uint16_t>(kCorrupt, "a folded position of one", kSides, 2 * record + 4 + at.positions + 2 * 5,
                                 33);
    forger.expect(kCorrupt, "folded slots that were never appended", [&](TakenApart& parts) {
      for (const std::size_t tile : {0u, 2u}) {
        TakenApart::put<std::uint16_t>(parts.sections[kSides].bytes, tile * record + 4 + at.positions + 2 * 5, 36);
      }
    });
    forger.expect<std::uint16_t>(kCorrupt, "a scale", kSides, 2 * record + 4 + 2, 255);
  }
}

TEST(Snapshot, DistancesThatCannotBeAreRefused) {
  Policy policy = folded(full(600));
  policy.fold.retain = Retain::kFarRange;
  Forger forger(policy);
  forger.expect<std::uint32_t>(kCorrupt, "nearest beyond farthest", kChains, 28, (1 << 19) - 1);
  forger.expect<std::uint32_t>(kCorrupt, "nearest", kChains, 28, 1 << 19);
  forger.expect<std::uint32_t>(kCorrupt, "no nearest", kChains, 28, 0xffffffff);
  forger.expect<std::uint32_t>(kCorrupt, "farthest below nearest", kChains, 32 + 28, 1);
  forger.expect<std::uint32_t>(kCorrupt, "farthest", kChains, 32 + 28, 1 << 19);
  forger.expect<std::uint32_t>(kCorrupt, "no farthest", kChains, 32 + 28, 0xffffffff);
}

// A snapshot between the two layers of a pair: the lower one is ahead.
TEST(Snapshot, GoesOnBetweenTheLayersOfAPair) {
  for (const Policy& policy : kFolded) {
    for (const int steps : {3, 31, 32, 40, 70}) {
      Rig first(kSmallPair, policy), second(kSmallPair, policy);
      Random random(15);
      go_on_small(first.cache(), random, steps);
      const auto rows = random.bells(16);
      ASSERT_EQ(append(first.cache(), 0, rows, rows), Status::kOk);
      ASSERT_EQ(restore(second.cache(), saved(first.cache())), Status::kOk) << steps;
      for (Cache* cache : {&first.cache(), &second.cache()}) {
        EXPECT_EQ(append(*cache, 0, rows, rows), Status::kBadArgument);
        EXPECT_EQ(append(*cache, 1, rows, rows), Status::kOk);
        Random again(16);
        go_on_small(*cache, again, 40);
      }
      EXPECT_EQ(saved(second.cache()), saved(first.cache())) << steps;
    }
  }
}

TEST(Snapshot, HeadersAndSectionsThatContradictTheContentAreRefused) {
  for (const Policy& policy : kPolicies) {
    Forger forger(policy);
    forger.header<std::uint32_t>(kBad, "magic", 0, 0x504b424e);
    forger.header<std::uint16_t>(kBad, "header bytes", 6, 60);
    forger.header<std::uint64_t>(kCorrupt, "peak bytes", 48, 1);
    forger.header<std::uint32_t>(kCorrupt, "tokens that cannot go back, though nothing is gone", 56, 1);
    forger.header<std::uint32_t>(kCorrupt, "more of them than there are", 56, 0xffffffff);
    forger.header<std::uint32_t>(kCorrupt, "fewer tiles in use", 36, 1);
    forger.header<std::uint32_t>(kCorrupt, "more tiles in use", 36, 3);
    forger.header<std::uint32_t>(kCorrupt, "peak below", 40, 1);
    forger.header<std::uint32_t>(kCorrupt, "peak beyond the pool", 40, 1000);
    for (const std::uint64_t total : {0ull, 10ull, 63ull, 64ull, 65ull, 100ull, 1000ull, 1ull << 40, ~0ull}) {
      forger.expect(kBad, "total", [&](TakenApart& parts) {
        parts.total_follows = false;
        TakenApart::put(parts.header, 8, total);
      });
    }
    for (const std::size_t section : {kNote, kChains, kSides, kCodes, kShared}) {
      forger.expect(kBad, "kind", [&](TakenApart& parts) { parts.sections[section].kind = 5; });
      forger.expect(kBad, "reserved", [&](TakenApart& parts) { parts.sections[section].reserved = 1; });
      for (const std::uint64_t claimed : {1ull, 1ull << 32, 1ull << 63, ~0ull, ~0ull - 19}) {
        forger.expect(kBad, "length", [&](TakenApart& parts) { parts.sections[section].claimed = claimed; });
      }
      forger.expect(kBad, "missing", [&](TakenApart& parts) {
        parts.sections.erase(parts.sections.begin() + static_cast<std::ptrdiff_t>(section));
      });
      forger.expect(kBad, "twice", [&](TakenApart& parts) { parts.sections.push_back(parts.sections[section]); });
      const auto resized = [&](std::size_t bytes) {
        return [=](TakenApart& parts) {
          parts.sections[section].bytes.resize(bytes);
          parts.sections[section].claimed = bytes;
        };
      };
      if (section == kNote) continue;
      if (section != kShared || has_pairs(policy)) forger.expect(kCorrupt, "empty", resized(0));
      forger.expect(kCorrupt, "too long", resized(3000));
      forger.expect(kCorrupt, "too short", resized(31));
    }
    forger.expect(kBad, "out of order",
                  [](TakenApart& parts) { std::swap(parts.sections[kSides], parts.sections[kCodes]); });
  }
}

TEST(Snapshot, CountsThatCannotBeAreRefused) {
  for (const Policy& policy : kPolicies) {
    Forger forger(policy);
    forger.expect<std::uint32_t>(kCorrupt, "a tile more", kChains, 0, 36 + 32);
    forger.expect<std::uint32_t>(kCorrupt, "a tile less", kChains, 0, 4);
    forger.expect<std::uint32_t>(kCorrupt, "no slots", kChains, 0, 0);
    forger.expect<std::uint32_t>(kCorrupt, "more slots than tokens", kChains, 0, 37);
    forger.expect<std::uint32_t>(kCorrupt, "all slots there are", kChains, 0, 0xffffffff);
    forger.expect<std::uint32_t>(kCorrupt, "fewer tokens than slots", kChains, 4, 35);
    forger.expect(kCorrupt, "2^32 - 1 slots and tokens", [](TakenApart& parts) {
      TakenApart::put<std::uint32_t>(parts.sections[kChains].bytes, 0, 0xffffffff);
      TakenApart::put<std::uint32_t>(parts.sections[kChains].bytes, 4, 0xffffffff);
    });
    forger.expect<std::uint32_t>(Status::kOtherPolicy, "budget", kChains, 8, 1 << 20);
    for (const std::size_t word : {20u, 24u, 28u}) forger.expect<std::uint32_t>(kCorrupt, "reserved", kChains, word, 1);
    if (policy.keep == Keep::kScore) continue;
    forger.expect<std::uint32_t>(kCorrupt, "heaviest", kChains, 12, 1);
    forger.expect<std::uint16_t>(kCorrupt, "exponent", kChains, 16, 1);
    forger.expect<std::uint16_t>(kCorrupt, "level", kChains, 18, 1);
  }
  // A chain as long as the pool, with everything that belongs to it, and one tile more
  // than a budget allows.
  Forger forger(streaming_llm(40, 4));
  forger.expect(kCorrupt, "beyond the pool", [](TakenApart& parts) {
    TakenApart::put<std::uint32_t>(parts.sections[kChains].bytes, 0, 97);
    TakenApart::put<std::uint32_t>(parts.sections[kChains].bytes, 4, 97);
    TakenApart::put<std::uint32_t>(parts.header, 36, 4);
    TakenApart::put<std::uint32_t>(parts.header, 40, 4);
    for (const std::size_t section : {kSides, kCodes}) {
      auto& bytes = parts.sections[section].bytes;
      bytes.resize(bytes.size() * 2);
      parts.sections[section].claimed = bytes.size();
    }
  });
  forger.expect(kCorrupt, "over the budget", [](TakenApart& parts) {
    TakenApart::put<std::uint32_t>(parts.sections[kChains].bytes, 0, 73);
    TakenApart::put<std::uint32_t>(parts.sections[kChains].bytes, 4, 73);
    TakenApart::put<std::uint32_t>(parts.header, 36, 3);
    TakenApart::put<std::uint32_t>(parts.header, 40, 3);
    for (const std::size_t section : {kSides, kCodes}) {
      auto& bytes = parts.sections[section].bytes;
      bytes.resize(bytes.size() / 2 * 3);
      parts.sections[section].claimed = bytes.size();
    }
  });
}

TEST(Snapshot, HeadsOfALayerHaveSeenTheSameAndShareItsBudget) {
  const Shape shape = {.layers = 2, .query_heads = 2, .kv_heads = 2, .head_dim = 16, .max_chunk = 5};
  Rig rig(shape, ada_kv(96)), victim(shape, ada_kv(96));
  Random random(4);
  for (int step = 0; step < 45; ++step) {
    for (const std::uint32_t layer : {0u, 1u}) {
      const auto rows = random.bells(5 * 2 * 16);
      ASSERT_EQ(append(rig.cache(), layer, rows, rows), Status::kOk);
      test::attend_all(rig.cache(), layer, random.bells(5 * 2 * 16));
    }
  }
  const Bytes good = saved(rig.cache());
  ASSERT_NE(rig.cache().budget(0, 0), rig.cache().budget(0, 1)) << "heads do not compete";
  const Bytes before = all_of(victim);
  const auto expect = [&](const char* what, const std::function<void(std::vector<std::byte>&)>& forge) {
    TakenApart parts(good);
    forge(parts.sections[kChains].bytes);
    EXPECT_EQ(restore(victim.cache(), parts.sealed()), kCorrupt) << what;
    EXPECT_EQ(all_of(victim), before) << what;
  };
  const auto word = [](std::vector<std::byte>& bytes, std::size_t head, std::size_t index, std::int64_t change) {
    const auto value = TakenApart::get<std::uint32_t>(bytes, head * 32 + index * 4);
    TakenApart::put(bytes, head * 32 + index * 4, static_cast<std::uint32_t>(value + change));
  };
  expect("seen", [&](auto& bytes) { word(bytes, 3, 1, 1); });
  expect("a sum of budgets too large", [&](auto& bytes) { word(bytes, 1, 2, 32); });
  expect("a sum of budgets too small", [&](auto& bytes) { word(bytes, 1, 2, -32); });
  expect("budgets that are not whole tiles", [&](auto& bytes) {
    word(bytes, 0, 2, 1);
    word(bytes, 1, 2, -1);
  });
  expect("a negative budget", [&](auto& bytes) {
    word(bytes, 0, 2, 32 * 7);
    word(bytes, 1, 2, -32 * 7);
  });
  EXPECT_EQ(restore(victim.cache(), good), Status::kOk);
}

TEST(Snapshot, SideDataThatNoVerbWritesIsRefused) {
  const Side at = side_of(kSmall, ems(40));
  const std::size_t next = 4 + at.total;  // the second tile's record
  Forger forger(ems(40));
  const auto side = [&](const char* what, std::size_t offset, auto value) {
    forger.expect(kCorrupt, what, kSides, 4 + offset, value);
  };
  side("a denormal scale", at.key_scales + 2, std::uint16_t{255});
  side("a key scale out of range", at.key_scales + 2, static_cast<std::uint16_t>((177 << 8) + 1));
  side("a value scale out of range", at.value_scales + 62, std::uint16_t{0xffff});
  side("an outlier code", at.outliers + 127, std::int8_t{-128});
  side("a position twice", at.positions + 2 * 5, std::uint16_t{4});
  side("positions out of order", at.positions + 2 * 5, std::uint16_t{2});
  side("a position that was never appended", at.positions + 2 * 31, std::uint16_t{36});
  side("a tile that does not begin at its base", at.positions, std::uint16_t{1});
  side("a bias out of range", at.bias + 7, std::uint8_t{33});
  side("a score above the bound", at.global + 4 * 10, std::uint32_t{0xffffffff});
  forger.expect<std::uint32_t>(kCorrupt, "a base below the tile before", kSides, next, 31);
  forger.expect<std::uint32_t>(kCorrupt, "a base beyond the tokens", kSides, next, 36);
  forger.expect<std::uint32_t>(kCorrupt, "a base that wraps", kSides, next, 0xffffffff);
  Forger plain(full(70));
  plain.expect<std::uint16_t>(kCorrupt, "a scale", kSides, 2, 1);
}

TEST(Snapshot, NoTileCanBeNamedTwice) {
  // Cyclic chains, or tiles in two chains: a snapshot has no tile numbers that could express them.
  // But it could claim the tiles of others: two chains that need more than the pool has.
  const Shape shape = {.layers = 1, .query_heads = 2, .kv_heads = 2, .head_dim = 16, .max_chunk = 32};
  Rig rig(shape, full(64)), victim(shape, full(64));
  Random random(4);
  const auto rows = random.bells(std::size_t{32} * 2 * 16);
  ASSERT_EQ(append(rig.cache(), 0, rows, rows), Status::kOk);
  for (const std::uint32_t tiles : {1u, 2u, 3u, 4u, 5u, 0x10000000u}) {
    TakenApart parts(saved(rig.cache()));
    for (const std::size_t head : {0u, 1u}) {
      TakenApart::put(parts.sections[kChains].bytes, head * 32, tiles * 32 * (head == 0 ? 1 : 0) + 32 * (head == 1));
      TakenApart::put(parts.sections[kChains].bytes, head * 32 + 4, 0xfffffff0u);
    }
    TakenApart::put(parts.header, 36, tiles + 1);
    TakenApart::put(parts.header, 40, 4);
    for (const std::size_t section : {kSides, kCodes}) {
      auto& bytes = parts.sections[section].bytes;
      bytes.resize(bytes.size() / 2 * (std::min<std::uint32_t>(tiles, 100) + 1));
      parts.sections[section].claimed = bytes.size();
    }
    EXPECT_EQ(restore(victim.cache(), parts.sealed()), tiles <= 3 ? Status::kOk : kCorrupt) << tiles;
    EXPECT_EQ(check(victim.cache()), Status::kOk);
  }
}

// Reads a span, and fails or lies at the n-th call.
struct Treacherous {
  Bytes bytes;
  std::size_t call = 0;
  std::size_t turns_at = ~std::size_t{0};
  bool lies = false;

  static bool read(void* context, std::uint64_t offset, std::byte* to, std::size_t count) {
    auto& from = *static_cast<Treacherous*>(context);
    EXPECT_LE(count, kSnapshotChunk);
    EXPECT_LE(offset + count, from.bytes.size());
    const bool turned = from.call++ >= from.turns_at;
    if (turned && !from.lies) return false;
    std::memcpy(to, from.bytes.data() + offset, count);
    if (turned) to[count / 2] ^= std::byte{0x10};
    return true;
  }
};

TEST(Snapshot, ASourceThatFailsOrLiesLeavesTheOldCacheOrAnEmptyOne) {
  for (const Policy& policy : all_policies()) {
    const Bytes snapshot = small_snapshot(policy, 36, {1, Bytes(5)});
    std::size_t calls = 0;
    std::size_t lost[2] = {};
    for (const bool lies : {false, true}) {
      for (std::size_t turn = 0; turn == 0 || turn < calls; ++turn) {
        Victim victim(policy);
        Treacherous source{snapshot, 0, turn, lies};
        const Status status =
            restore(victim.rig().cache(), SnapshotSource{Treacherous::read, &source, snapshot.size()});
        ASSERT_NE(status, Status::kOk) << turn;
        if (status == Status::kLost) {
          ++lost[lies];
          EXPECT_EQ(victim.rig().cache().seen(0), 0u);
          EXPECT_EQ(victim.rig().cache().usage().used_tiles, 0u);
          EXPECT_EQ(check(victim.rig().cache()), Status::kOk);
          EXPECT_EQ(victim.offer(snapshot), Status::kOk);
        } else {
          EXPECT_TRUE(lies || status == Status::kStorageFailed) << turn;
          EXPECT_TRUE(victim.unchanged()) << turn;
        }
        if (turn == 0) {
          source = {snapshot};
          EXPECT_EQ(restore(victim.rig().cache(), SnapshotSource{Treacherous::read, &source, snapshot.size()}),
                    Status::kOk);
          calls = source.call;
        }
      }
    }
    EXPECT_GT(lost[0], 3u);
    EXPECT_GT(lost[1], 3u);
  }
}

TEST(Snapshot, ASinkThatGivesUpIsToldOfAndThePartIsRefused) {
  Rig rig(kSmall, ems(40));
  Random random(5);
  for (int i = 0; i < 38; ++i) ASSERT_EQ(append(rig.cache(), 0, random.bells(16), random.bells(16)), Status::kOk);
  const Bytes before = all_of(rig);
  const Bytes whole = saved(rig.cache());
  struct Sink {
    Bytes bytes;
    std::size_t room;
  };
  for (std::size_t room = 0; room <= whole.size(); room = test::after(room, whole.size())) {
    Sink sink{{}, room};
    const auto write = [](void* context, const std::byte* bytes, std::size_t count) {
      auto& to = *static_cast<Sink*>(context);
      const std::size_t part = std::min(count, to.room - to.bytes.size());
      to.bytes.insert(to.bytes.end(), bytes, bytes + part);
      return part == count;
    };
    const Status status = save(rig.cache(), SnapshotSink{write, &sink});
    EXPECT_EQ(status, room == whole.size() ? Status::kOk : Status::kStorageFailed) << room;
    SnapshotInfo info;
    EXPECT_EQ(inspect(sink.bytes, info), room == whole.size() ? Status::kOk : kBad) << room;
  }
  EXPECT_EQ(all_of(rig), before);
}

// A snapshot after one or more changes.
Bytes mutated(const Bytes& good, Random& random) {
  Bytes bytes = good;
  const std::uint32_t changes = 1 + random.below(4);
  for (std::uint32_t i = 0; i < changes; ++i) {
    const std::size_t at = random.below(static_cast<std::uint32_t>(bytes.size()));
    switch (random.below(5)) {
      case 0:
        bytes[at] ^= static_cast<std::byte>(1u << random.below(8));
        break;
      case 1:
        bytes[at] = static_cast<std::byte>(random.below(256));
        break;
      case 2: {
        constexpr std::uint32_t kEdges[] = {0, 1, 0x7fffffff, 0x80000000, 0xffffffff, 32, 33, 65535};
        const std::uint32_t word = kEdges[random.below(8)];
        if (at + 4 <= bytes.size()) std::memcpy(bytes.data() + at, &word, 4);
        break;
      }
      case 3:
        bytes.resize(at + 1);
        break;
      default: {  // a piece from elsewhere
        const std::size_t from = random.below(static_cast<std::uint32_t>(bytes.size()));
        const std::size_t count = std::min<std::size_t>({random.below(40), bytes.size() - at, bytes.size() - from});
        std::memmove(bytes.data() + at, bytes.data() + from, count);
      }
    }
  }
  return bytes;
}

TEST(Snapshot, RandomMutationsAreRefused) {
  Random random(31);
  for (const Policy& policy : all_policies()) {
    const Bytes good = small_snapshot(policy, 36, {1, Bytes(5)});
    Victim victim(policy);
    const unsigned rounds = 2000 * test::effort() / test::kShorter;
    for (unsigned i = 0; i < rounds; ++i) {
      const Bytes bytes = mutated(good, random);
      if (std::equal(good.begin(), good.end(), bytes.begin(), bytes.end())) continue;
      ASSERT_EQ(victim.offer(bytes), kBad) << i;
    }
    EXPECT_TRUE(victim.unchanged());
  }
}

// Changed content with corrected checksums: it is refused, or the cache is usable.
TEST(Snapshot, RandomMutationsWithRightChecksumsDoNoHarm) {
  Random random(32);
  for (const Policy& policy : all_policies()) {
    const TakenApart good(small_snapshot(policy, 36));
    const unsigned rounds = 3000 * test::effort() / test::kShorter;
    unsigned taken = 0;
    Victim victim(policy);
    const Bytes before = all_of(victim.rig());
    for (unsigned i = 0; i < rounds; ++i) {
      TakenApart parts = good;
      const std::uint32_t which = random.below(8);
      if (which < 2) {
        const std::size_t at = 8 + random.below(52);
        parts.header[at] ^= static_cast<std::byte>(1u << random.below(8));
      } else {
        const std::size_t codes = has_pairs(policy) && random.below(2) == 0 ? kShared : kCodes;
        auto& section = parts.sections[which < 5 ? kChains : which < 7 ? kSides : codes];
        section.bytes = mutated(section.bytes, random);
        if (random.below(4) != 0) section.bytes.resize(section.claimed);
        section.claimed = section.bytes.size();
      }
      const Bytes bytes = parts.sealed();
      if (victim.offer(bytes) != Status::kOk) continue;
      ++taken;
      ASSERT_EQ(check(victim.rig().cache()), Status::kOk) << i;
      ASSERT_EQ(saved(victim.rig().cache()).size(), bytes.size()) << i;
      Random rows(i);
      for (int step = 0; step < 3; ++step) {
        // A chain may claim to have seen 2^32 - 1 tokens.
        for (std::uint32_t layer = 0; layer < victim.rig().shape().layers; ++layer) {
          (void)append(victim.rig().cache(), layer, rows.bells(16), rows.bells(16));
          test::attend_all(victim.rig().cache(), layer, rows.bells(32));
        }
      }
      ASSERT_TRUE(victim.rig().arena().guards_intact()) << i;
    }
    EXPECT_GT(taken, rounds / 50) << "nothing but codes and scores can be changed";
    EXPECT_LT(taken, rounds) << "everything was taken";
  }
}

}  // namespace
}  // namespace nibkv::snapshot_test
