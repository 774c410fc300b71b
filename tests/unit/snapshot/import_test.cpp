#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "nibkv/nibkv.hpp"
#include "tests/support/effort.hpp"
#include "tests/support/feed.hpp"
#include "tests/support/snapshots.hpp"

namespace nibkv::import_test {
namespace {

using test::go_on;
using test::Random;
using test::Rig;
using test::saved;
using test::SnapshotCase;
using test::TakenApart;

using Bytes = std::vector<std::byte>;

// Caches into which a snapshot of a cache of this shape may go, or not.
std::vector<SnapshotCase> targets(const Shape& shape, std::uint32_t turn) {
  constexpr std::uint16_t kChunks[] = {1, 7, 40, 64};
  std::vector<SnapshotCase> list;
  const auto add = [&](const char* name, const Policy& policy, const std::vector<std::uint32_t>& budgets = {}) {
    Shape other = shape;
    other.max_chunk = kChunks[(turn + list.size()) % 4];
    other.workers = static_cast<std::uint16_t>(1 + list.size() % 3);
    if (footprint(other, policy) != 0) list.push_back({name, other, policy, budgets});
  };
  add("full", full(400));
  add("full, too small", full(33));
  add("streaming", streaming_llm(61, 3));
  add("streaming, no sinks", streaming_llm(32, 0));
  add("ems", ems(40));
  add("ems, as many", ems(100));
  add("h2o", h2o(90));
  add("snapkv", snapkv(70));
  add("l2_norm", l2_norm(50));
  add("ada_kv", ada_kv(64));
  add("pyramid_kv", pyramid_kv(64));
  add("precise tail", precise_tail(400, 50));
  add("qpruning", qpruning(144));
  Policy policy = ems(37);
  policy.merge = Merge::kBoth;
  policy.threshold = 0;
  policy.recent = 5;
  add("all is merged", policy);
  policy.recent = policy.sinks = 0;
  policy.per_query = false;
  add("nothing is always kept", policy);
  policy = tova(64);
  policy.budget = Budget::kTable;
  add("table", policy, {96, 32, 64, 64});
  return list;
}

// What restoring and moving gives.
Status restore_and_move(const SnapshotCase& from, const Bytes& snapshot, Cache& to, std::uint64_t profile_seed = 3) {
  Rig between(from.shape, from.policy, {}, profile_seed, from.budgets);
  const Status restored = restore(between.cache(), snapshot);
  return restored == Status::kOk ? move_to(between.cache(), to) : restored;
}

struct Pairs {
  unsigned all = 0, refused = 0, cut = 0;
};

void expect_equal(const SnapshotCase& from, const SnapshotCase& to, const Bytes& snapshot, const std::string& port,
                  Pairs& pairs) {
  SCOPED_TRACE(from.name + " to " + to.name + " with chunks of " + std::to_string(to.shape.max_chunk));
  Rig expected(to.shape, to.policy, {}, 3, to.budgets), got(to.shape, to.policy, port, 3, to.budgets);
  const Bytes before = got.arena().copy();
  const Status status = restore_and_move(from, snapshot, expected.cache());
  ASSERT_EQ(import_snapshot(got.cache(), from.shape, from.policy, snapshot), status);
  ++pairs.all;
  if (status != Status::kOk) {
    ++pairs.refused;
    EXPECT_EQ(got.arena().copy(), before);
    return;
  }
  // All of the state: rows, scores, history, peaks, and where tiles lie.
  ASSERT_EQ(got.copy_state(), expected.copy_state());
  EXPECT_EQ(check(got.cache()), Status::kOk);
  EXPECT_TRUE(got.arena().guards_intact());
  if (oldest_exact(got.cache()) == got.cache().seen(0)) ++pairs.cut;
  if (to.policy.keep == Keep::kAll) return;
  Random same(8), too(8);
  EXPECT_EQ(go_on(got.cache(), same, 2), go_on(expected.cache(), too, 2));
}

TEST(ImportSnapshot, IsToRestoreAndThenToMove) {
  const std::vector<std::string> ports = test::running_ports();
  Pairs pairs;
  std::uint32_t turn = 0;
  for (const SnapshotCase& from : test::snapshot_cases()) {
    if (has_pairs(from.policy)) continue;
    for (const int steps : {30, 3}) {
      Rig rig(from.shape, from.policy, {}, 3, from.budgets);
      Random random(7);
      go_on(rig.cache(), random, steps);
      const Bytes snapshot = saved(rig.cache(), {1, Bytes(9)});
      for (const SnapshotCase& to : targets(from.shape, turn)) {
        if (++turn % test::kEvery != 0) continue;
        expect_equal(from, to, snapshot, ports[turn % ports.size()], pairs);
        if (testing::Test::HasFatalFailure()) return;
      }
    }
  }
  if (test::kEvery != 1) return;
  EXPECT_GT(pairs.all, 400u);
  EXPECT_GT(pairs.refused, 5u) << "caches that keep everything may be too small";
  EXPECT_GT(pairs.cut, pairs.all / 3);
  EXPECT_LT(pairs.cut, pairs.all);
}

TEST(ImportSnapshot, AnyPolicyToAnyOther) {
  const Shape shape = {
      .layers = 2, .query_heads = 4, .kv_heads = 2, .head_dim = 32, .outlier_channels = 4, .max_chunk = 9};
  const unsigned rounds = test::turns(150, 4) * test::effort();
  Pairs pairs;
  for (unsigned round = 0; round < rounds; ++round) {
    Random random(round + 1000);
    SnapshotCase sides[2];
    for (SnapshotCase& side : sides) {
      side.shape = shape;
      side.shape.max_chunk = static_cast<std::uint16_t>(random.within(1, 40));
      side.policy = test::random_scored_policy(random, side.shape, 200);
      side.name = "round " + std::to_string(round);
    }
    Rig rig(sides[0].shape, sides[0].policy, {}, 3);
    if (rig.made() != Status::kOk) continue;
    go_on(rig.cache(), random, 25);
    expect_equal(sides[0], sides[1], saved(rig.cache()), {}, pairs);
    if (HasFatalFailure()) return;
  }
  EXPECT_GT(pairs.all, pairs.refused);
}

// A cache of one chain, into whose cache of another policy snapshots go.
constexpr Shape kSmall = {.layers = 1, .query_heads = 2, .kv_heads = 1, .head_dim = 16, .outlier_channels = 4};

struct Small {
  Policy from, to;
  Bytes snapshot;

  Small(const Policy& of, const Policy& into, int tokens) : from(of), to(into) {
    Rig rig(kSmall, from);
    Random random(5);
    test::feed(rig.cache(), random, static_cast<std::uint32_t>(tokens));
    snapshot = saved(rig.cache(), {1, Bytes(5)});
  }
};

std::vector<Small> small_ones(int tokens) {
  Policy merged = ems(20);
  merged.threshold = 0;
  std::vector<Small> list;
  list.emplace_back(full(90), streaming_llm(10, 2), tokens);
  list.emplace_back(streaming_llm(60, 4), full(96), tokens);
  Policy even = ems(60);
  even.budget = Budget::kUniform;  // import does not know what a profile gave a head
  list.emplace_back(even, merged, tokens);
  list.emplace_back(h2o(60), ems_no_merge(24), tokens);
  Policy tiers = tova(66);
  tiers.tail = 1;
  list.emplace_back(full(90), tiers, tokens);
  tiers.faint = 32;
  list.emplace_back(tiers, full(96), tokens);
  list.emplace_back(tiers, ems_no_merge(24), tokens);
  list.emplace_back(tiers, streaming_llm(30, 2), tokens);
  list.emplace_back(tiers, precise_tail(96, 40), tokens);
  Policy other = tiers;
  other.faint_storage = Storage::kQ4Q2;
  list.emplace_back(other, tiers, tokens);
  return list;
}

// Holds something else, which a refused snapshot must not change.
class Victim {
 public:
  explicit Victim(const Small& small) : small_(small), rig_(kSmall, small.to) {
    Random random(77);
    test::feed(rig_.cache(), random, 9);
    before_ = rig_.arena().copy();
  }
  Status offer(std::span<const std::byte> snapshot) {
    return import_snapshot(rig_.cache(), kSmall, small_.from, snapshot);
  }
  Status offer(const SnapshotSource& source) { return import_snapshot(rig_.cache(), kSmall, small_.from, source); }
  bool unchanged() const { return rig_.arena().copy() == before_ && rig_.arena().guards_intact(); }
  Rig& rig() { return rig_; }

 private:
  const Small& small_;
  Rig rig_;
  Bytes before_;
};

TEST(ImportSnapshot, EveryTruncationAndEveryFlippedBitIsRefused) {
  for (Small& small : small_ones(5)) {
    Bytes& snapshot = small.snapshot;
    Victim victim(small);
    for (std::size_t length = 0; length < snapshot.size(); length = test::after(length, snapshot.size() - 1)) {
      const Bytes part(snapshot.begin(), snapshot.begin() + static_cast<std::ptrdiff_t>(length));
      ASSERT_EQ(victim.offer(part), Status::kBadSnapshot) << length;
    }
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

// Changed content with right checksums: what restoring refuses is refused, and the rest is what moving gives.
TEST(ImportSnapshot, ChangedContentIsJudgedAsRestoringDoes) {
  constexpr std::size_t kChains = 1, kSides = 2, kCodes = 3;
  Random random(32);
  for (const Small& small : small_ones(70)) {
    const TakenApart good(small.snapshot);
    const unsigned rounds = 1500 * test::effort() / test::kShorter;
    unsigned taken = 0;
    Victim victim(small);
    Rig expected(kSmall, small.to);
    for (unsigned i = 0; i < rounds; ++i) {
      TakenApart parts = good;
      const std::size_t kinds[] = {kChains, kSides, kSides, kCodes};
      Bytes& bytes = random.below(8) == 0 ? parts.header : parts.sections[kinds[random.below(4)]].bytes;
      const std::size_t first = &bytes == &parts.header ? 36 : 0;
      for (std::uint32_t change = random.within(1, 3); change != 0; --change) {
        const std::size_t at = first + random.below(static_cast<std::uint32_t>(bytes.size() - first));
        bytes[at] = random.below(2) == 0 ? bytes[at] ^ static_cast<std::byte>(1u << random.below(8))
                                         : static_cast<std::byte>(random.below(256));
      }
      const Bytes snapshot = parts.sealed();
      const Status status = restore_and_move({"", kSmall, small.from, {}}, snapshot, expected.cache(), 1);
      ASSERT_EQ(victim.offer(snapshot), status) << i;
      if (status != Status::kOk) continue;
      ++taken;
      ASSERT_EQ(saved(victim.rig().cache()), saved(expected.cache())) << i;
      ASSERT_EQ(check(victim.rig().cache()), Status::kOk) << i;
    }
    EXPECT_GT(taken, rounds / 50);
    EXPECT_LT(taken, rounds);
  }
}

// Reads a span, and fails or lies from the n-th call on, or lies at that one alone.
struct Treacherous {
  enum class How { kFails, kLies, kLiesOnce };
  Bytes bytes;
  std::size_t call = 0;
  std::size_t turns_at = ~std::size_t{0};
  How how = How::kFails;

  static bool read(void* context, std::uint64_t offset, std::byte* to, std::size_t count) {
    auto& from = *static_cast<Treacherous*>(context);
    EXPECT_LE(count, kSnapshotChunk);
    EXPECT_LE(offset + count, from.bytes.size());
    const std::size_t call = from.call++;
    const bool turned = from.how == How::kLiesOnce ? call == from.turns_at : call >= from.turns_at;
    if (turned && from.how == How::kFails) return false;
    std::memcpy(to, from.bytes.data() + offset, count);
    if (turned && count != 0) to[count / 2] ^= std::byte{0x10};
    return true;
  }
};

TEST(ImportSnapshot, ASourceThatFailsOrLiesLeavesTheOldCacheOrAnEmptyOne) {
  for (const Small& small : small_ones(70)) {
    const Bytes& snapshot = small.snapshot;
    Victim whole(small);
    Treacherous source{snapshot};
    ASSERT_EQ(whole.offer(SnapshotSource{Treacherous::read, &source, snapshot.size()}), Status::kOk);
    const std::size_t calls = source.call;
    const Bytes expected = saved(whole.rig().cache());
    for (const auto how : {Treacherous::How::kFails, Treacherous::How::kLies, Treacherous::How::kLiesOnce}) {
      std::size_t lost = 0;
      for (std::size_t turn = 0; turn < calls; turn = test::after(turn, calls - 1)) {
        Victim victim(small);
        source = {snapshot, 0, turn, how};
        const Status status = victim.offer(SnapshotSource{Treacherous::read, &source, snapshot.size()});
        if (status == Status::kLost) {
          ++lost;
          EXPECT_EQ(victim.rig().cache().seen(0), 0u);
          EXPECT_EQ(victim.rig().cache().usage().used_tiles, 0u);
          EXPECT_EQ(check(victim.rig().cache()), Status::kOk);
          EXPECT_EQ(victim.offer(snapshot), Status::kOk);
        } else if (status == Status::kOk) {
          // The lie was about bytes of which nothing was taken, such as a section's header while content is checked.
          EXPECT_EQ(how, Treacherous::How::kLiesOnce) << turn;
          EXPECT_EQ(saved(victim.rig().cache()), expected) << turn;
        } else {
          EXPECT_TRUE(victim.unchanged()) << turn << ": " << text(status);
        }
        EXPECT_TRUE(victim.rig().arena().guards_intact());
      }
      EXPECT_GT(lost, test::kStride == 1 ? 5u : 0u);
    }
  }
}

TEST(ImportSnapshot, WhatDoesNotGoTogetherIsRefusedByName) {
  const Shape shape = {
      .layers = 2, .query_heads = 4, .kv_heads = 2, .head_dim = 32, .outlier_channels = 4, .max_chunk = 3};
  Rig mine(shape, ems(90), {}, 3);
  Random random(1);
  go_on(mine.cache(), random, 30);
  const Bytes snapshot = saved(mine.cache());
  Cache none;
  EXPECT_EQ(import_snapshot(none, shape, ems(90), snapshot), Status::kNotReady);
  const auto expect = [&](Status status, const Shape& of, const Policy& policy, const Shape& into,
                          const Policy& other = ems(64), std::uint64_t seed = 3) {
    Rig rig(into, other, {}, seed);
    const Bytes before = rig.arena().copy();
    EXPECT_EQ(import_snapshot(rig.cache(), of, policy, snapshot), status);
    EXPECT_TRUE(status == Status::kOk || rig.arena().copy() == before);
    EXPECT_EQ(import_snapshot(rig.cache(), of, policy, SnapshotSource{}),
              status == Status::kBadShape || status == Status::kBadPolicy ? status : Status::kBadArgument);
  };
  expect(Status::kOk, shape, ems(90), shape);
  expect(Status::kOtherProfile, shape, ems(90), shape, ems(64), 4);
  const auto changed = [&](const std::function<void(Shape&)>& change) {
    Shape other = shape;
    change(other);
    return other;
  };
  // What is said of the snapshot is wrong.
  expect(Status::kOtherShape, changed([](Shape& s) { s.max_chunk = 4; }), ems(90), shape);
  expect(Status::kOtherPolicy, shape, ems(91), shape);
  expect(Status::kBadShape, changed([](Shape& s) { s.head_dim = 20; }), ems(90), shape);
  expect(Status::kBadPolicy, shape, ems(0), shape);
  // It is right, but the cache is another.
  expect(Status::kOk, shape, ems(90), changed([](Shape& s) { s.max_chunk = 50, s.workers = 2; }));
  expect(Status::kOtherShape, shape, ems(90), changed([](Shape& s) { s.query_heads = 6; }));
  expect(Status::kOtherShape, shape, ems(90), changed([](Shape& s) { s.layers = 3; }));
  expect(Status::kOtherShape, shape, ems(90), changed([](Shape& s) { s.head_dim = 48; }), full(100));
  expect(Status::kOtherShape, shape, ems(90), changed([](Shape& s) { s.outlier_channels = 8; }));
  Policy folds = minicache(600, pairs_from(0, 2));
  folds.fold.recent = 0;
  ASSERT_NE(layout_of(shape, folds).views, 0u);
  expect(Status::kOtherPolicy, shape, ems(90), shape, folds);
  expect(Status::kOtherPolicy, shape, folds, shape);
}

TEST(ImportSnapshot, SnapshotsOfFoldedLayersAndOfAPassThatFailedAreRefused) {
  const Shape shape = {.layers = 2, .query_heads = 2, .kv_heads = 1, .head_dim = 16};
  Policy folds = minicache(600, pairs_from(0, 2));
  folds.fold.recent = folds.fold.retained = 0;
  ASSERT_NE(layout_of(shape, folds).views, 0u);
  Rig folded(shape, folds), failed(shape, ems(40)), to(shape, ems(64));
  Random random(5);
  test::feed(folded.cache(), random, 40);
  test::feed(failed.cache(), random, 40);
  const std::vector<float> rows = random.bells(16);
  ASSERT_EQ(append(failed.cache(), 0, rows, rows), Status::kOk);
  const Bytes before = to.arena().copy();
  EXPECT_EQ(import_snapshot(to.cache(), shape, folds, saved(folded.cache())), Status::kOtherPolicy);
  EXPECT_EQ(import_snapshot(to.cache(), shape, ems(40), saved(failed.cache())), Status::kBadArgument);
  EXPECT_EQ(to.arena().copy(), before);
}

}  // namespace
}  // namespace nibkv::import_test
