#include "nibkv/check.hpp"

#include <gtest/gtest.h>

#include <cstddef>
#include <cstring>
#include <functional>
#include <vector>

#include "arena/band.hpp"
#include "nibkv/nibkv.hpp"
#include "tests/support/rig.hpp"

namespace nibkv::check_test {
namespace {

using test::Random;

constexpr Shape kShape = {.layers = 2, .query_heads = 4, .kv_heads = 2, .head_dim = 16, .max_chunk = 20};

// An arena whose bytes can be damaged.
class Broken {
 public:
  Broken(const Shape& shape, const Policy& policy, std::uint32_t tokens)
      : arena_(footprint(shape, policy)), layout_(layout_of(shape, policy)) {
    EXPECT_EQ(cache_.init(arena_.bytes(), shape, policy), Status::kOk);
    Random random(81);
    for (std::uint32_t done = 0; done < tokens; done += shape.max_chunk) {
      const std::size_t rows = std::size_t{shape.max_chunk} * shape.head_dim;
      for (std::uint32_t layer = 0; layer < shape.layers; ++layer) {
        EXPECT_EQ(append(cache_, layer, random.bells(rows * shape.kv_heads), random.bells(rows * shape.kv_heads)),
                  Status::kOk);
        test::attend_all(cache_, layer, random.bells(rows * shape.query_heads));
      }
    }
  }

  Cache& cache() { return cache_; }
  const Layout& layout() const { return layout_; }

  template <typename T>
  T read(std::uint64_t offset) const {
    T value;
    std::memcpy(&value, arena_.bytes().data() + offset, sizeof value);
    return value;
  }
  Chain chain(std::uint32_t head) const { return read<Chain>(layout_.chains + head * sizeof(Chain)); }
  std::uint64_t link(std::uint32_t tile) const { return layout_.links + tile * 4u; }
  std::uint64_t side(std::uint32_t tile) const { return layout_.sides + std::uint64_t{tile} * layout_.side_bytes; }

  // What check returns while `value` is at `offset`.
  template <typename T>
  Status with(std::uint64_t offset, T value) {
    std::byte* at = arena_.bytes().data() + offset;
    T kept;
    std::memcpy(&kept, at, sizeof kept);
    EXPECT_NE(std::memcmp(&kept, &value, sizeof kept), 0) << "nothing is damaged at " << offset;
    std::memcpy(at, &value, sizeof value);
    const Status status = check(cache_);
    std::memcpy(at, &kept, sizeof kept);
    EXPECT_EQ(check(cache_), Status::kOk);
    return status;
  }
  Status with_chain(std::uint32_t head, const std::function<void(Chain&)>& damage) {
    Chain chain = this->chain(head);
    damage(chain);
    return with(layout_.chains + head * sizeof(Chain), chain);
  }

 private:
  test::Arena arena_;
  Layout layout_;
  Cache cache_;
};

TEST(Check, NeedsACache) {
  Cache cache;
  EXPECT_EQ(check(cache), Status::kNotReady);
}

// It says where all else lies, and lies in the arena.
TEST(Check, TheLayoutMustBeThatOfShapeAndPolicy) {
  Broken arena(kShape, ems(100), 160);
  ASSERT_EQ(check(arena.cache()), Status::kOk);
  const std::size_t at = arena.layout().layout;
  for (std::size_t offset = 0; offset + 4 <= sizeof(Layout); offset += 4) {
    EXPECT_EQ(arena.with<std::uint32_t>(at + offset, 0x13579bdf), Status::kCorrupt) << offset;
  }
  EXPECT_EQ(check(arena.cache()), Status::kOk);
}

TEST(Check, HeaderCountsMustBeThoseOfTheTiles) {
  Broken arena(kShape, ems(100), 160);
  ASSERT_EQ(check(arena.cache()), Status::kOk);
  const Usage usage = arena.cache().usage();
  EXPECT_EQ(arena.with<std::uint32_t>(0, 0), Status::kCorrupt);
  EXPECT_EQ(arena.with(4, usage.used_tiles - 1), Status::kCorrupt);
  EXPECT_EQ(arena.with(8, usage.used_tiles - 1), Status::kCorrupt);
  EXPECT_EQ(arena.with(8, usage.tiles + 1), Status::kCorrupt);
}

// append_share writes over the newest slots of a chain, as many as were reserved.
TEST(Check, ReservedTokensAreThere) {
  Broken arena(kShape, full(200), 20);
  ASSERT_EQ(truncate(arena.cache(), 3), Status::kOk);
  ASSERT_EQ(reserve(arena.cache(), 0, 5), Status::kOk);
  EXPECT_EQ(arena.read<std::uint32_t>(40), 5u);
  EXPECT_EQ(arena.read<std::uint32_t>(44), 8u);
  ASSERT_EQ(check(arena.cache()), Status::kOk);
  EXPECT_EQ(arena.with<std::uint32_t>(40, 9), Status::kCorrupt) << "more than are held";
  EXPECT_EQ(arena.with<std::uint32_t>(44, 3), Status::kCorrupt) << "what the layer has not seen";
  EXPECT_EQ(arena.with<std::uint32_t>(40, 21), Status::kCorrupt) << "more than a chunk";
}

// restore refuses what no verb can have written; check does, too. A budget beyond the arena's let appends write outside it.
TEST(Check, CountsAndBudgetsAreOnesThatASnapshotMayHave) {
  for (const Policy& policy : {full(200), streaming_llm(100), ems(100), ada_kv(128), pyramid_kv(150)}) {
    SCOPED_TRACE(test::words(kShape, policy));
    Broken arena(kShape, policy, 160);
    ASSERT_EQ(check(arena.cache()), Status::kOk);
    const std::uint32_t budget = arena.chain(1).budget;
    const std::vector<std::uint32_t> damaged = {0,           budget - 1, budget + 1, budget - 32,
                                                budget + 32, 200,        1000000,    0xffffffff};
    for (const std::uint32_t wrong : damaged) {
      if (wrong == budget) continue;
      EXPECT_EQ(arena.with_chain(1, [&](Chain& chain) { chain.budget = wrong; }), Status::kCorrupt) << wrong;
    }
    if (!keeps_global(policy)) {
      EXPECT_EQ(arena.with_chain(1, [&](Chain& chain) { chain.heaviest = 1; }), Status::kCorrupt);
      EXPECT_EQ(arena.with_chain(1, [&](Chain& chain) { chain.exponent = 1; }), Status::kCorrupt);
    }
    if (!keeps_local(policy)) {
      EXPECT_EQ(arena.with_chain(1, [&](Chain& chain) { chain.level = 1; }), Status::kCorrupt);
    }
    EXPECT_EQ(arena.with_chain(1, [&](Chain& chain) { chain.members_mass += 1; }), Status::kCorrupt);
    EXPECT_EQ(arena.with<std::uint32_t>(offsetof(ArenaHeader, used_entries), 1), Status::kCorrupt);
    EXPECT_EQ(arena.with<std::uint64_t>(offsetof(ArenaHeader, used_bytes), 1), Status::kCorrupt);
    EXPECT_EQ(arena.with<std::uint64_t>(offsetof(ArenaHeader, peak_bytes), 1), Status::kCorrupt);
  }
}

TEST(Check, BudgetsOfATableFitTheArenaTogether) {
  const std::vector<std::uint32_t> table = {96, 128, 160, 128};
  Policy policy = ems(128);
  policy.budget = Budget::kTable;
  test::Rig rig(kShape, policy, {}, 1, table);
  ASSERT_EQ(check(rig.cache()), Status::kOk);
  const std::uint64_t at = layout_of(kShape, policy).chains + offsetof(Chain, budget);
  std::byte* const budget = const_cast<std::byte*>(rig.arena().bytes().data()) + at;
  for (const std::uint32_t wrong : {0u, 64u, 97u, 128u, 160u, 1000000u}) {
    std::memcpy(budget, &wrong, sizeof wrong);
    EXPECT_EQ(check(rig.cache()), Status::kCorrupt) << wrong;
  }
  std::memcpy(budget, table.data(), sizeof table[0]);
  EXPECT_EQ(check(rig.cache()), Status::kOk);
}

TEST(Check, WhatLayersThatShareCodesKnowIsWhatASnapshotMayHave) {
  const Shape shape = {.layers = 4, .query_heads = 2, .kv_heads = 2, .head_dim = 16, .max_chunk = 20};
  Broken arena(shape, minicache(200, pairs_from(2, 4)), 160);
  ASSERT_NE(arena.layout().views, 0u);
  ASSERT_EQ(check(arena.cache()), Status::kOk);
  const std::uint64_t lower = arena.layout().folds + 4 * sizeof(FoldedPart);
  EXPECT_EQ(arena.with<std::uint32_t>(lower + offsetof(FoldedPart, nearest), 0), Status::kCorrupt);
  EXPECT_EQ(arena.with<std::uint32_t>(lower + offsetof(FoldedPart, farthest), 1), Status::kCorrupt);
  EXPECT_EQ(arena.with<std::uint64_t>(offsetof(ArenaHeader, peak_bytes), std::uint64_t{1} << 31), Status::kCorrupt);
}

TEST(Check, AChainHasTheTilesThatItsSlotsNeed) {
  for (const Policy& policy : {full(200), streaming_llm(100), ems(100)}) {
    Broken arena(kShape, policy, 160);
    ASSERT_EQ(check(arena.cache()), Status::kOk);
    const auto tiles = static_cast<std::uint32_t>(arena.layout().tiles);
    const Chain first = arena.chain(0);
    const Chain second = arena.chain(1);
    const auto of_chain = [&](const std::function<void(Chain&)>& damage) {
      EXPECT_EQ(arena.with_chain(0, damage), Status::kCorrupt) << test::words(kShape, policy);
    };
    of_chain([&](Chain& chain) { chain.first = tiles; });
    of_chain([&](Chain& chain) { chain.first = kNoTile; });
    of_chain([&](Chain& chain) { chain.first = second.first; });
    of_chain([&](Chain& chain) { chain.last = chain.first; });
    of_chain([&](Chain& chain) { chain.used += kTileSlots; });
    of_chain([&](Chain& chain) { chain.used -= kTileSlots; });
    of_chain([&](Chain& chain) { chain.used = 0; });
    of_chain([&](Chain& chain) { chain.used = 0xffffffff; });
    of_chain([&](Chain& chain) { chain.seen = chain.used - 1; });
    of_chain([&](Chain& chain) { chain.seen += 1; });
    EXPECT_EQ(arena.with(arena.link(first.first), tiles), Status::kCorrupt);
    EXPECT_EQ(arena.with(arena.link(first.first), first.first), Status::kCorrupt);
    EXPECT_EQ(arena.with(arena.link(first.first), kNoTile), Status::kCorrupt);
    EXPECT_EQ(arena.with(arena.link(first.first), second.first), Status::kCorrupt);
    EXPECT_EQ(arena.with(arena.link(first.last), second.first), Status::kCorrupt);
  }
}

TEST(Check, AFreeTileIsInOneListOfItsRun) {
  for (const Policy& policy : {full(200), streaming_llm(150), pyramid_kv(160)}) {
    Broken arena(kShape, policy, 100);
    ASSERT_EQ(check(arena.cache()), Status::kOk);
    const auto tiles = static_cast<std::uint32_t>(arena.layout().tiles);
    const Chain first = arena.chain(0);
    const Chain second = arena.chain(1);
    ASSERT_NE(first.free, kNoTile);
    ASSERT_NE(second.free, kNoTile);
    for (const std::uint32_t wrong : {tiles, kNoTile, second.free, first.first, first.last}) {
      const Status status = arena.with_chain(0, [&](Chain& chain) { chain.free = wrong; });
      EXPECT_EQ(status, Status::kCorrupt) << test::words(kShape, policy) << ": " << wrong;
    }
    EXPECT_EQ(arena.with(arena.link(first.free), first.free), Status::kCorrupt);
    EXPECT_EQ(arena.with(arena.link(first.free), tiles + 7), Status::kCorrupt);
  }
}

TEST(Check, FindsATileThatIsListedTwiceInPlaceOfAnother) {
  // Tile numbers beyond the marks that fit the scratch: one row of 16 channels, 2,048 bytes and more.
  constexpr Shape kLong = {.layers = 1, .query_heads = 1, .kv_heads = 1, .head_dim = 16};
  Broken arena(kLong, full(32 * 100000), 40);
  ASSERT_LT(arena.layout().scratch_bytes * 8, 100000u);
  ASSERT_EQ(check(arena.cache()), Status::kOk);
  for (const std::uint32_t tile : {5u, 50000u, 99990u}) {
    EXPECT_EQ(arena.with(arena.link(tile), tile + 2), Status::kCorrupt) << tile;
    EXPECT_EQ(arena.with(arena.link(tile), tile), Status::kCorrupt) << tile;
    EXPECT_EQ(arena.with(arena.link(tile), tile - 1), Status::kCorrupt) << tile;
  }
}

TEST(Check, ScalesAreZeroOrNormal) {
  Broken arena(kShape, full(100), 40);
  const std::uint64_t side = arena.side(arena.chain(1).first);
  for (const std::uint16_t wrong : {1, 255, 0xe301, 0xffff}) {
    EXPECT_EQ(arena.with(side + 2 * 3, wrong), Status::kCorrupt) << wrong;
    EXPECT_EQ(arena.with(side + 64 + 2 * 31, wrong), Status::kCorrupt) << wrong;
  }
  EXPECT_EQ(arena.with<std::uint16_t>(side + 2 * 3, 0), Status::kOk);
  EXPECT_EQ(arena.with<std::uint16_t>(side + 2 * 3, 0x7e01), Status::kOk);
}

TEST(Check, PositionsScoresAndBiasesAreOnesThatVerbsWrite) {
  Broken arena(kShape, ems(100), 200);
  ASSERT_EQ(check(arena.cache()), Status::kOk);
  const Side& at = arena.layout().side;
  const Chain chain = arena.chain(2);
  ASSERT_NE(chain.heaviest, 0xffffffff);
  const std::uint64_t side = arena.side(chain.first);
  const auto third = arena.read<std::uint16_t>(side + at.positions + 2 * 3);
  EXPECT_EQ(arena.with<std::uint16_t>(side + at.positions + 2 * 4, third), Status::kCorrupt);
  EXPECT_EQ(arena.with<std::uint16_t>(side + at.positions + 2 * 4, 0), Status::kCorrupt);
  EXPECT_EQ(arena.with<std::uint16_t>(side + at.positions, 1), Status::kCorrupt);
  EXPECT_EQ(arena.with<std::uint32_t>(arena.layout().bases + chain.last * 4u, 0), Status::kCorrupt);
  EXPECT_EQ(arena.with<std::uint32_t>(arena.layout().bases + chain.last * 4u, chain.seen), Status::kCorrupt);
  EXPECT_EQ(arena.with(side + at.global + 4 * 4, chain.heaviest + 1), Status::kCorrupt);
  EXPECT_EQ(arena.with(side + at.global + 4 * 3, chain.heaviest + 1), Status::kOk) << "a sink";
  EXPECT_EQ(arena.with<std::uint8_t>(side + at.bias + 5, 33), Status::kCorrupt);
}

TEST(Check, LayersThatShareCodesAreInStep) {
  constexpr Policy kPairs = minicache(400, pairs_from(0, 2));
  Broken arena(kShape, kPairs, 380);
  ASSERT_EQ(check(arena.cache()), Status::kOk);
  const Layout& at = arena.layout();
  ASSERT_NE(at.views, 0u);
  // Of head 0 of both layers: u32 first, last, used, retained, free.
  const std::uint64_t lower = at.folds;
  const std::uint64_t upper = at.folds + 2 * 32;
  const auto word = [&](std::uint64_t offset) { return arena.read<std::uint32_t>(offset); };
  const std::uint32_t used = word(lower + 8);
  ASSERT_GT(used, 64u);
  ASSERT_NE(word(lower + 16), kNoTile);
  for (const std::uint64_t part : {lower, upper}) {
    EXPECT_EQ(arena.with(part, word(part + 4)), Status::kCorrupt) << "first";
    EXPECT_EQ(arena.with(part, word(part) ^ 1), Status::kCorrupt) << "the other layer's";
    EXPECT_EQ(arena.with<std::uint32_t>(part, 0), Status::kCorrupt) << "no view";
    EXPECT_EQ(arena.with(part, static_cast<std::uint32_t>(at.tiles + at.views)), Status::kCorrupt);
    EXPECT_EQ(arena.with(part + 4, word(part)), Status::kCorrupt) << "last";
    EXPECT_EQ(arena.with(part + 8, used - 1), Status::kCorrupt) << "used";
    EXPECT_EQ(arena.with(part + 8, used + 32), Status::kCorrupt);
    EXPECT_EQ(arena.with(part + 12, word(part + 12) + 1), Status::kCorrupt) << "retained";
    EXPECT_EQ(arena.with(part + 16, kNoTile), Status::kCorrupt) << "free";
    EXPECT_EQ(arena.with(part + 16, word(part)), Status::kCorrupt);
    EXPECT_EQ(arena.with(part + 16, arena.chain(0).free), Status::kCorrupt);
    EXPECT_EQ(arena.with(arena.link(word(part)), kNoTile), Status::kCorrupt) << "link";
    EXPECT_EQ(arena.with(arena.link(word(part)), word(part)), Status::kCorrupt);
  }
  EXPECT_EQ(arena.with<std::uint32_t>(12, 0), Status::kCorrupt) << "used entries";
  EXPECT_EQ(arena.with<std::uint64_t>(16, 1), Status::kCorrupt) << "used bytes";
  EXPECT_EQ(arena.with<std::uint64_t>(24, 1), Status::kCorrupt) << "peak bytes";
  EXPECT_EQ(arena.with_chain(2, [](Chain& chain) { chain.seen += 1; }), Status::kCorrupt);
  EXPECT_EQ(arena.with_chain(0, [](Chain& chain) { chain.used += 1; }), Status::kCorrupt);
}

TEST(Check, ALayerInNoPairHasNoFoldedPart) {
  Shape shape = kShape;
  shape.layers = 3;
  Broken arena(shape, minicache(400, pairs_from(0, 2)), 380);
  ASSERT_EQ(check(arena.cache()), Status::kOk);
  ASSERT_NE(arena.layout().views, 0u);
  const std::uint64_t part = arena.layout().folds + 4 * 32;
  EXPECT_EQ(arena.with<std::uint32_t>(part + 8, 5), Status::kCorrupt) << "used";
  EXPECT_EQ(arena.with<std::uint32_t>(part + 12, 1), Status::kCorrupt) << "retained";
}

TEST(Check, NoCountOfSlotsWrapsAround) {
  for (const Policy& policy : {full(200), ems(100)}) {
    Broken arena(kShape, policy, 0);
    ASSERT_EQ(check(arena.cache()), Status::kOk);
    EXPECT_EQ(arena.with_chain(0, [](Chain& chain) { chain.used = chain.seen = 0xffffffff; }), Status::kCorrupt);
  }
}

TEST(Check, RefusesACodeOf8BitsThatNoRowHas) {
  const Shape shape = {.layers = 2, .query_heads = 1, .kv_heads = 1, .head_dim = 16, .max_chunk = 8};
  for (const bool keys : {true, false}) {
    Policy policy = full(64);
    policy.wide.add(1);
    policy.wide_storage = keys ? Storage::kQ8Q4 : Storage::kQ8;
    test::Rig rig(shape, policy, "");
    const std::vector<float> rows(std::size_t{8} * 16, 1.0f);
    for (std::uint32_t layer = 0; layer < 2; ++layer) ASSERT_EQ(append(rig.cache(), layer, rows, rows), Status::kOk);
    ASSERT_EQ(check(rig.cache()), Status::kOk);
    const ArenaView to{rig.cache()};
    (keys ? to.key_codes(to.chain(1, 0).first) : to.value_codes(to.chain(1, 0).first))[5] = 0x80;
    EXPECT_EQ(check(rig.cache()), Status::kCorrupt);
  }
}

// A layer that was not reserved may be behind.
TEST(Check, LooksForReservedTokensInReservedLayersAlone) {
  const Shape shape = {.layers = 2, .query_heads = 1, .kv_heads = 1, .head_dim = 16, .max_chunk = 8};
  test::Rig rig(shape, full(96), "");
  const std::vector<float> rows(std::size_t{8} * 16, 1.0f);
  ASSERT_EQ(append(rig.cache(), 1, rows, rows), Status::kOk);
  std::vector<std::uint32_t> target(8, kDrop);
  target[7] = 0;
  ASSERT_EQ(compact(rig.cache(), 1, 0, target), Status::kOk);
  ASSERT_EQ(reserve(rig.cache(), 0, 8), Status::kOk);
  EXPECT_EQ(check(rig.cache()), Status::kOk);
}

}  // namespace
}  // namespace nibkv::check_test
