#include "nibkv/cache.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <set>
#include <type_traits>

#include "tests/support/rig.hpp"

namespace nibkv::cache_test {
namespace {

using test::Arena;
using test::Random;
using test::Rig;

constexpr Shape kShape = {.layers = 2, .query_heads = 6, .kv_heads = 2, .head_dim = 64, .max_chunk = 8};

Shape with_outliers(std::uint16_t channels) {
  Shape shape = kShape;
  shape.outlier_channels = channels;
  return shape;
}

std::vector<std::byte> object_bytes(const Cache& cache) {
  static_assert(std::is_trivially_copyable_v<Cache>);
  std::vector<std::byte> bytes(sizeof cache);
  std::memcpy(bytes.data(), &cache, sizeof cache);
  return bytes;
}

// An init that must fail, tried on an empty object and on one that is in use: neither may change.
struct Failure {
  const char* what;
  Status status;
  Shape shape = kShape;
  Policy policy = full(100);
  std::size_t offset = 0;
  std::size_t missing = 0;
  std::string_view port = {};
  std::vector<std::byte> profile = {};
};

std::vector<Failure> failures() {
  std::vector<Failure> list;
  Shape bad = kShape;
  bad.head_dim = 63;
  list.push_back({"shape", Status::kBadShape, bad});
  list.push_back({"policy", Status::kBadPolicy, kShape, streaming_llm(8, 8)});
  list.push_back({"zero tokens", Status::kBadPolicy, kShape, full(0)});
  constexpr Shape kHuge = {.layers = 1024, .query_heads = 1024, .kv_heads = 1024, .head_dim = 256};
  list.push_back({"beyond this machine", Status::kBadPolicy, kHuge, full(kMaxTokens)});
  for (const std::size_t offset : {1, 4, 16, 32, 63}) {
    list.push_back({"misaligned", Status::kMisaligned, kShape, full(100), offset});
  }
  list.push_back({"one byte short", Status::kArenaTooSmall, kShape, full(100), 0, 1});
  list.push_back({"empty arena", Status::kArenaTooSmall, kShape, full(100), 0, footprint(kShape, full(100))});
  for (const std::string_view port : {"scala", "scalarr", "Scalar", "none", " "}) {
    list.push_back({"unknown port", Status::kUnknownPort, kShape, full(100), 0, 0, port});
  }
  list.push_back({"no profile", Status::kBadProfile, with_outliers(4)});
  const std::vector<std::byte> good = test::make_profile(kShape, 3);
  std::vector<std::byte> damaged = good;
  damaged[100] ^= std::byte{1};
  list.push_back({"damaged profile", Status::kBadProfile, with_outliers(4), full(100), 0, 0, {}, damaged});
  list.push_back({"damaged profile that is not needed", Status::kBadProfile, kShape, full(100), 0, 0, {}, damaged});
  list.push_back(
      {"short profile", Status::kBadProfile, with_outliers(4), full(100), 0, 0, {}, {good.begin(), good.end() - 1}});
  Shape other = with_outliers(4);
  other.layers = 3;
  list.push_back({"profile of another shape", Status::kBadProfile, other, full(100), 0, 0, {}, good});
  return list;
}

TEST(Init, SaysWhatIsWrongAndChangesNothing) {
  Rig in_use(kShape, full(100));
  Random random(21);
  const auto rows = random.bells(2 * 2 * 64);
  ASSERT_EQ(append(in_use.cache(), 0, rows, rows), Status::kOk);
  const std::vector<std::byte> old_arena = in_use.arena().copy();

  for (const Failure& failure : failures()) {
    const std::size_t need = footprint(failure.shape, failure.policy);
    Arena arena((need == 0 ? 4096 : need) - failure.missing, failure.offset);
    const std::vector<std::byte> before = arena.copy();
    for (Cache cache : {Cache{}, in_use.cache()}) {
      const std::vector<std::byte> object = object_bytes(cache);
      EXPECT_EQ(cache.init(arena.bytes(), failure.shape, failure.policy, {failure.port, failure.profile}),
                failure.status)
          << failure.what;
      EXPECT_EQ(object_bytes(cache), object) << failure.what;
    }
    EXPECT_EQ(arena.copy(), before) << failure.what;
    EXPECT_EQ(in_use.arena().copy(), old_arena) << failure.what;
  }
}

TEST(Aligned, MakesAnArenaOfAnyBuffer) {
  const std::size_t need = footprint(kShape, full(100));
  std::vector<std::byte> buffer(need + 2 * kArenaAlignment - 1);
  for (std::size_t skipped = 0; skipped < kArenaAlignment; ++skipped) {
    const std::span<std::byte> given = std::span(buffer).subspan(skipped, need + kArenaAlignment - 1);
    const std::span<std::byte> arena = aligned(given);
    ASSERT_GE(arena.size(), need) << skipped;
    EXPECT_EQ(arena.data() + arena.size(), given.data() + given.size()) << skipped;
    EXPECT_LT(arena.data() - given.data(), std::ptrdiff_t{kArenaAlignment}) << skipped;
    Cache cache;
    EXPECT_EQ(cache.init(arena, kShape, full(100)), Status::kOk) << skipped;
    const std::size_t lost = given.size() - arena.size();
    for (std::size_t size = 0; size <= lost; ++size) EXPECT_TRUE(aligned(given.first(size)).empty()) << size;
    EXPECT_EQ(aligned(given.first(lost + 1)).size(), 1u);
  }
  EXPECT_TRUE(aligned({}).empty());
  Cache cache;
  EXPECT_EQ(cache.init(aligned({}), kShape, full(100)), Status::kArenaTooSmall);
  EXPECT_NE(text(Status::kMisaligned).find("aligned()"), std::string_view::npos);
}

TEST(Init, RefusesAPortThatThisCpuCannotRun) {
  Arena arena(footprint(kShape, full(100)));
  const std::vector<std::byte> before = arena.copy();
  for (std::uint32_t i = 0; !port_name(i).empty(); ++i) {
    if (port_runs(port_name(i))) continue;
    Cache cache;
    EXPECT_EQ(cache.init(arena.bytes(), kShape, full(100), {port_name(i), {}}), Status::kUnsupportedPort)
        << port_name(i);
    EXPECT_EQ(arena.copy(), before);
  }
}

TEST(Ports, AreListedOnceAndScalarRunsEverywhere) {
  std::set<std::string_view> names;
  std::uint32_t count = 0;
  for (; !port_name(count).empty(); ++count) EXPECT_TRUE(names.insert(port_name(count)).second) << port_name(count);
  EXPECT_GE(count, 1u);
  EXPECT_TRUE(port_runs("scalar"));
  EXPECT_EQ(port_name(count - 1), "scalar");
  EXPECT_FALSE(port_runs("no such port"));
  EXPECT_FALSE(port_runs(""));
  EXPECT_TRUE(port_name(0xffffffff).empty());
}

TEST(Ports, AnEmptyNameChoosesTheFirstThatRuns) {
  Rig rig(kShape, full(10));
  EXPECT_EQ(rig.cache().port(), test::running_ports().front());
  for (const std::string& port : test::running_ports()) {
    Rig named(kShape, full(10), port);
    EXPECT_EQ(named.cache().port(), port);
  }
}

TEST(Cache, IsNotReadyBeforeInit) {
  Cache cache;
  EXPECT_FALSE(cache.ready());
  EXPECT_EQ(cache.clear(), Status::kNotReady);
  EXPECT_TRUE(cache.port().empty());
  EXPECT_EQ(cache.held(0, 0), 0u);
  EXPECT_EQ(cache.seen(0), 0u);
  EXPECT_EQ(cache.usage().arena_bytes, 0u);
  EXPECT_EQ(cache.usage().tiles, 0u);
  std::vector<float> row(64, 1.0f);
  EXPECT_EQ(append(cache, 0, row, row), Status::kNotReady);
  EXPECT_EQ(attend(cache, 0, row, row), Status::kNotReady);
  std::uint32_t target[1] = {0};
  EXPECT_EQ(plan(cache, 0, 0, 0, target), Status::kNotReady);
  EXPECT_EQ(compact(cache, 0, 0, target), Status::kNotReady);
}

TEST(Cache, StartsEmptyWhateverTheArenaHeld) {
  Rig rig(kShape, streaming_llm(100));
  EXPECT_TRUE(rig.cache().ready());
  EXPECT_EQ(rig.cache().shape(), kShape);
  EXPECT_EQ(rig.cache().policy(), streaming_llm(100));
  for (std::uint32_t layer = 0; layer < 2; ++layer) {
    EXPECT_EQ(rig.cache().seen(layer), 0u);
    for (std::uint32_t head = 0; head < 2; ++head) EXPECT_EQ(rig.cache().held(layer, head), 0u);
  }
  EXPECT_EQ(rig.cache().usage().used_tiles, 0u);
}

TEST(Cache, IndicesOutOfRangeHoldNothing) {
  Rig rig(kShape, full(100));
  const std::vector<float> rows(2 * 64, 1.0f);
  for (const std::uint32_t layer : {0u, 1u}) ASSERT_EQ(append(rig.cache(), layer, rows, rows), Status::kOk);
  EXPECT_EQ(rig.cache().held(1, 1), 1u);
  EXPECT_EQ(rig.cache().held(2, 0), 0u);
  EXPECT_EQ(rig.cache().held(0, 2), 0u);
  EXPECT_EQ(rig.cache().held(0xffffffff, 0xffffffff), 0u);
  EXPECT_EQ(rig.cache().seen(2), 0u);
  EXPECT_EQ(rig.cache().seen(0xffffffff), 0u);
}

TEST(Cache, UsageCountsTilesAndTheirBytes) {
  for (const std::uint16_t outliers : std::initializer_list<std::uint16_t>{0, 8}) {
    for (const Storage storage : {Storage::kQ4, Storage::kF32}) {
      if (storage == Storage::kF32 && outliers != 0) continue;
      Shape shape = with_outliers(outliers);
      shape.storage = storage;
      Rig rig(shape, full(100));
      const Layout at = layout_of(shape, rig.policy());
      const std::size_t chains = 2 * 2 * sizeof(Chain);
      const std::size_t tile = std::size_t{at.code_bytes} + at.side_bytes + 4;
      Usage usage = rig.cache().usage();
      EXPECT_EQ(usage.arena_bytes, footprint(shape, rig.policy()));
      EXPECT_EQ(usage.tiles, 2u * 2u * 4u);
      EXPECT_EQ(usage.used_tiles, 0u);
      EXPECT_EQ(usage.used_bytes, chains);
      EXPECT_EQ(usage.peak_bytes, chains);
      const std::vector<float> rows(8 * 2 * 64, 1.0f);
      for (std::uint32_t tokens = 8; tokens <= 96; tokens += 8) {
        ASSERT_EQ(append(rig.cache(), 1, rows, rows), Status::kOk);
        const std::uint32_t tiles = 2 * ((tokens + 31) / 32);
        usage = rig.cache().usage();
        EXPECT_EQ(usage.used_tiles, tiles) << tokens;
        EXPECT_EQ(usage.peak_tiles, tiles) << tokens;
        EXPECT_EQ(usage.used_bytes, chains + tiles * tile) << tokens;
        EXPECT_EQ(usage.peak_bytes, usage.used_bytes) << tokens;
        EXPECT_EQ(rig.cache().held(1, 0), tokens);
        EXPECT_EQ(rig.cache().held(0, 0), 0u);
        EXPECT_EQ(rig.cache().seen(1), tokens);
      }
      const std::vector<std::uint32_t> none(96, kDrop);
      ASSERT_EQ(compact(rig.cache(), 1, 0, none), Status::kOk);
      usage = rig.cache().usage();
      EXPECT_EQ(usage.used_tiles, 3u);
      EXPECT_EQ(usage.peak_tiles, 6u);
      EXPECT_EQ(usage.used_bytes, chains + 3 * tile);
      EXPECT_EQ(usage.peak_bytes, chains + 6 * tile);
      EXPECT_EQ(rig.cache().seen(1), 96u);
    }
  }
}

TEST(Cache, ClearForgetsTokensAndPeaksAndTheNextRunIsTheSame) {
  for (const Policy& policy : {full(96), streaming_llm(48), ems(48), pyramid_kv(48), head_kv(48)}) {
    Rig rig(with_outliers(4), policy);
    Random random(22);
    const auto rows = random.bells(8 * 2 * 64);
    const auto queries = random.bells(8 * 6 * 64);
    std::vector<std::vector<float>> first;
    for (int run = 0; run < 2; ++run) {
      for (int step = 0; step < 12; ++step) {
        ASSERT_EQ(append(rig.cache(), 1, rows, rows), Status::kOk) << run << ", step " << step;
        const std::vector<float> out = test::attend_all(rig.cache(), 1, queries);
        if (run == 0) first.push_back(out);
        EXPECT_TRUE(test::same_bytes(out, first[static_cast<std::size_t>(step)])) << "step " << step;
      }
      ASSERT_EQ(rig.cache().clear(), Status::kOk);
      EXPECT_TRUE(rig.cache().ready());
      EXPECT_EQ(rig.cache().held(1, 0), 0u);
      EXPECT_EQ(rig.cache().seen(1), 0u);
      const Usage usage = rig.cache().usage();
      EXPECT_EQ(usage.used_tiles, 0u);
      EXPECT_EQ(usage.peak_tiles, 0u);
      EXPECT_EQ(usage.peak_bytes, usage.used_bytes);
      EXPECT_EQ(attend(rig.cache(), 1, queries, std::span(first[0])), Status::kBadArgument);
    }
  }
}

TEST(Cache, ACopyIsAHandleOnTheSameArena) {
  Rig rig(kShape, full(100));
  Cache copy = rig.cache();
  const std::vector<float> rows(2 * 64, 1.0f);
  ASSERT_EQ(append(copy, 0, rows, rows), Status::kOk);
  EXPECT_EQ(rig.cache().held(0, 1), 1u);
  EXPECT_EQ(rig.cache().seen(0), 1u);
}

TEST(Cache, TheSameCallsLeaveTheSameArenaAtAnyAddress) {
  const Policy policy = streaming_llm(64);
  const std::size_t need = footprint(kShape, policy);
  std::vector<std::byte> first;
  for (const std::size_t offset : {0, 64, 192}) {
    Arena arena(need, offset);
    Cache cache;
    ASSERT_EQ(cache.init(arena.bytes(), kShape, policy), Status::kOk);
    Random random(23);
    for (int step = 0; step < 30; ++step) {
      const auto rows = random.bells(8 * 2 * 64);
      const auto queries = random.bells(8 * 6 * 64);
      ASSERT_EQ(append(cache, 0, rows, rows), Status::kOk);
      (void)test::attend_all(cache, 0, queries);
    }
    if (first.empty()) first = arena.copy();
    EXPECT_EQ(arena.copy(), first) << "offset " << offset;
  }
}

constexpr Shape kStaticShape = {.layers = 1, .query_heads = 2, .kv_heads = 1, .head_dim = 32, .max_chunk = 4};
constexpr Policy kStaticPolicy = streaming_llm(40);

TEST(StaticCache, IsAnArenaOfItsFootprint) {
  using Static = StaticCache<kStaticShape, kStaticPolicy>;
  static_assert(Static::kBytes == footprint(kStaticShape, kStaticPolicy));
  static_assert(alignof(Static) >= kArenaAlignment);
  static_assert(sizeof(Static) <= Static::kBytes + sizeof(Cache) + kArenaAlignment);
  static Static storage;
  EXPECT_FALSE(storage.cache().ready());
  EXPECT_EQ(storage.init({"no such port", {}}), Status::kUnknownPort);
  EXPECT_FALSE(storage.cache().ready());
  ASSERT_EQ(storage.init(), Status::kOk);
  EXPECT_EQ(storage.cache().usage().arena_bytes, Static::kBytes);

  Rig rig(kStaticShape, kStaticPolicy);
  Random random(24);
  for (int step = 0; step < 40; ++step) {
    const auto rows = random.bells(4 * 32);
    const auto queries = random.bells(4 * 2 * 32);
    ASSERT_EQ(append(storage.cache(), 0, rows, rows), Status::kOk);
    ASSERT_EQ(append(rig.cache(), 0, rows, rows), Status::kOk);
    EXPECT_TRUE(
        test::same_bytes(test::attend_all(storage.cache(), 0, queries), test::attend_all(rig.cache(), 0, queries)))
        << step;
  }
}

constexpr Policy kStaticEms = ems(40);

TEST(StaticCache, TakesAScoredPolicyAsItsArgument) {
  static StaticCache<kStaticShape, kStaticEms> storage;
  ASSERT_EQ(storage.init(), Status::kOk);
  EXPECT_EQ(storage.cache().policy(), kStaticEms);
  Rig rig(kStaticShape, kStaticEms);
  Random random(25);
  std::uint32_t merged = 0;
  for (int step = 0; step < 100; ++step) {
    const auto rows = random.bells(4 * 32);
    const auto queries = random.bells(4 * 2 * 32);
    ASSERT_EQ(append(storage.cache(), 0, rows, rows), Status::kOk);
    ASSERT_EQ(append(rig.cache(), 0, rows, rows), Status::kOk);
    ASSERT_TRUE(
        test::same_bytes(test::attend_all(storage.cache(), 0, queries), test::attend_all(rig.cache(), 0, queries)))
        << step;
    for (const SlotInfo& slot : test::explain_all(storage.cache(), 0, 0)) merged += slot.merged;
  }
  EXPECT_LE(storage.cache().held(0, 0), 72u);
  EXPECT_GT(merged, 0u);
}

}  // namespace
}  // namespace nibkv::cache_test
