#include <gtest/gtest.h>

#include "tests/property/walk.hpp"
#include "tests/support/effort.hpp"

namespace nibkv {
namespace {

using reference::ArenaModel;
using test::Random;
using test::Rig;
using test::Walk;
using test::words;

TEST(Operations, InAnyOrderLeaveWhatAPlainModelHolds) {
  for (const std::string& port : test::running_ports()) {
    for (std::uint64_t seed = 0; seed < test::turns(100, 10); ++seed) {
      SCOPED_TRACE("seed " + std::to_string(seed));
      Walk walk(Random(seed), port);
      walk.steps(60);
      if (HasFailure()) return;
    }
  }
}

TEST(Operations, AFullCacheGivesEveryTileBeforeItRefuses) {
  Random random(201);
  for (int round = 0; round < 20; ++round) {
    const Shape shape = {.layers = 3, .query_heads = 2, .kv_heads = 2, .head_dim = 16, .max_chunk = 33};
    Rig rig(shape, full(random.within(1, 200)));
    // First some use, so that free tiles lie anywhere.
    for (int step = 0; step < 30; ++step) {
      const auto rows = random.bells(std::size_t{random.within(1, 33)} * 2 * 16);
      const Status status = append(rig.cache(), random.below(3), rows, rows);
      ASSERT_TRUE(status == Status::kOk || status == Status::kFull);
      const std::uint32_t layer = random.below(3);
      const std::uint32_t head = random.below(2);
      std::vector<std::uint32_t> target(rig.cache().held(layer, head), kDrop);
      for (std::size_t i = target.size() / 2; i < target.size(); ++i)
        target[i] = static_cast<std::uint32_t>(i - target.size() / 2);
      ASSERT_EQ(compact(rig.cache(), layer, head, target), Status::kOk);
    }
    const auto token = random.bells(2 * 16);
    while (append(rig.cache(), 1, token, token) == Status::kOk) {
    }
    const Usage usage = rig.cache().usage();
    EXPECT_LE(usage.tiles - usage.used_tiles, 1u) << "both heads need a tile; " << words(shape, rig.policy());
    const ArenaModel model(rig.arena().bytes(), shape, rig.policy());
    EXPECT_EQ(model.check_chains(), usage.used_tiles);
  }
}

}  // namespace
}  // namespace nibkv
