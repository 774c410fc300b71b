// Faults reported in other caches, which this one must not have: what is saved and restored.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "nibkv/nibkv.hpp"
#include "tests/support/effort.hpp"
#include "tests/support/feed.hpp"
#include "tests/support/snapshots.hpp"

namespace nibkv::reports_snapshots_test {
namespace {

using test::feed;
using test::Random;
using test::Rig;
using test::saved;

using Bytes = std::vector<std::byte>;

constexpr Shape kTwoLayers = {.layers = 2, .query_heads = 4, .kv_heads = 2, .head_dim = 64};

// The snapshot must be refused with that status, and the cache must be unchanged.
void expect_refused(Cache& cache, std::span<const std::byte> snapshot, Status status, const std::string& what) {
  const Bytes before = saved(cache);
  EXPECT_EQ(restore(cache, snapshot), status) << what;
  EXPECT_EQ(saved(cache), before) << what;
}

// ggml-org/llama.cpp#27068: a restore that is refused half-way leaves what it had already written.
TEST(ReportsSnapshots, ADamagedOneLeavesNothingBehind) {
  Rig rig(kTwoLayers, ems(64)), victim(kTwoLayers, ems(64));
  Random random(1);
  (void)feed(rig.cache(), random, 150);
  (void)feed(victim.cache(), random, 40);
  Bytes snapshot = saved(rig.cache());
  const Bytes before = saved(victim.cache());
  for (std::size_t at = 0; at < snapshot.size(); at += 13 * test::kStride) {
    const auto bit = static_cast<std::byte>(1u << random.below(8));
    snapshot[at] ^= bit;
    ASSERT_NE(restore(victim.cache(), snapshot), Status::kOk) << "byte " << at;
    ASSERT_EQ(saved(victim.cache()), before) << "byte " << at;
    snapshot[at] ^= bit;
  }
  for (std::size_t length = 0; length < snapshot.size(); length += 97 * test::kStride) {
    ASSERT_NE(restore(victim.cache(), std::span(snapshot).first(length)), Status::kOk) << length << " bytes";
    ASSERT_EQ(saved(victim.cache()), before) << length << " bytes";
  }
  EXPECT_EQ(restore(victim.cache(), snapshot), Status::kOk);
}

// ggml-org/llama.cpp#28498: a state that was saved under one rotation of keys is read under another.
TEST(ReportsSnapshots, OneOfAnotherProfileIsRefusedAndOneOfTheSameIsTheSameOnEveryPort) {
  Shape shape = kTwoLayers;
  shape.outlier_channels = 4;
  Rig rig(shape, ems(64), {}, 1);
  Random random(2);
  (void)feed(rig.cache(), random, 150);
  const Bytes snapshot = saved(rig.cache());
  for (const std::string& port : test::running_ports()) {
    Rig other(shape, ems(64), port, 2);
    (void)feed(other.cache(), random, 40);
    expect_refused(other.cache(), snapshot, Status::kOtherProfile, port);
    Rig same(shape, ems(64), port, 1);
    ASSERT_EQ(restore(same.cache(), snapshot), Status::kOk) << port;
    EXPECT_EQ(saved(same.cache()), snapshot) << port;
  }
}

// jundot/omlx#2045: the key of stored blocks omits the bit width.
TEST(ReportsSnapshots, OneOfAnotherWidthIsRefused) {
  Rig rig(kTwoLayers, full(64));
  Random random(3);
  (void)feed(rig.cache(), random, 50);
  const Bytes snapshot = saved(rig.cache());
  Shape exact = kTwoLayers;
  exact.storage = Storage::kF32;
  Shape more = kTwoLayers;
  more.outlier_channels = 4;
  for (const Shape& shape : {exact, more}) {
    Rig other(shape, full(64));
    (void)feed(other.cache(), random, 20);
    expect_refused(other.cache(), snapshot, Status::kOtherShape, test::words(shape, full(64)));
  }
}

// ggml-org/llama.cpp#25297: once a sliding window has moved on, saving and loading loses a part of it.
TEST(ReportsSnapshots, AWindowThatMovedOnComesBackWhole) {
  Rig rig(kTwoLayers, streaming_llm(64)), second(kTwoLayers, streaming_llm(64));
  Random random(4);
  (void)feed(rig.cache(), random, 500);
  ASSERT_EQ(restore(second.cache(), saved(rig.cache())), Status::kOk);
  Random same = random;
  EXPECT_TRUE(test::same_bytes(feed(rig.cache(), random, 200), feed(second.cache(), same, 200)));
  EXPECT_EQ(saved(rig.cache()), saved(second.cache()));
}

// ggml-org/llama.cpp#14434: saving a state that holds nothing and restoring it crashes.
TEST(ReportsSnapshots, OneOfAnEmptyCacheEmptiesAnother) {
  Rig empty(kTwoLayers, ems(64)), rig(kTwoLayers, ems(64));
  Random random(5);
  (void)feed(rig.cache(), random, 30);
  ASSERT_EQ(restore(rig.cache(), saved(empty.cache())), Status::kOk);
  for (const std::uint32_t layer : {0u, 1u}) {
    EXPECT_EQ(rig.cache().seen(layer), 0u);
    for (const std::uint32_t head : {0u, 1u}) EXPECT_EQ(rig.cache().held(layer, head), 0u);
  }
  EXPECT_EQ(check(rig.cache()), Status::kOk);
  (void)feed(rig.cache(), random, 1);
  EXPECT_EQ(rig.cache().held(1, 1), 1u);
}

}  // namespace
}  // namespace nibkv::reports_snapshots_test
