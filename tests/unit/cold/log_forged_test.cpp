// Snapshots of a log that say what cannot be, and sources that change.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "nibkv/nibkv.hpp"
#include "tests/support/effort.hpp"
#include "tests/support/rig.hpp"
#include "tests/support/snapshots.hpp"
#include "tests/unit/cold/recalling.hpp"

namespace nibkv::log_forged_test {
namespace {

using test::Random;
using test::Rig;
using test::saved;
using test::step;
using test::steps;
using test::TakenApart;
using test::with_log;

using Bytes = std::vector<std::byte>;

constexpr Shape kShape = {.layers = 3, .query_heads = 4, .kv_heads = 2, .head_dim = 64, .max_chunk = 8, .workers = 2};
constexpr std::size_t kChains = 1, kLog = 5;
constexpr std::size_t kRecord = 32;

// A cache that snapshots are offered to, which they must leave as it is.
class Offered {
 public:
  Offered(const Shape& shape, const Policy& policy) : rig_(shape, policy) {
    Random random(10);
    steps(rig_.cache(), random, 170);
    state_ = rig_.arena().copy();
  }
  void refuses(const Bytes& snapshot, Status status, const std::string& what) {
    EXPECT_EQ(restore(rig_.cache(), snapshot), status) << what;
    EXPECT_EQ(rig_.arena().copy(), state_) << what;
  }
  Rig& rig() { return rig_; }

 private:
  Rig rig_;
  Bytes state_;
};

TEST(LogForged, LogsThatCannotBeAreRefused) {
  // Six heads, of which three have an index.
  const Shape& shape = kShape;
  const Policy policy = with_log(128, 128, 64, 128);
  Rig rig(shape, policy);
  Random random(11);
  steps(rig.cache(), random, 300);
  const Bytes good = saved(rig.cache());
  Offered offered(shape, policy);
  std::size_t with = 6, without = 6;
  for (std::size_t i = 0; i < 6; ++i)
    (is_indexed(rig.cache(), static_cast<std::uint32_t>(i / 2), i % 2) ? with : without) = i;
  ASSERT_LT(with, 6u);
  ASSERT_LT(without, 6u);
  const auto forged = [&](const std::string& what, Status status, auto change) {
    TakenApart parts(good);
    ASSERT_EQ(parts.sealed(), good);
    change(parts);
    ASSERT_NE(parts.sealed(), good) << what;
    offered.refuses(parts.sealed(), status, what);
  };
  const auto word = [&](const std::string& what, std::size_t offset, std::uint32_t value,
                        Status status = Status::kCorrupt) {
    forged(what, status, [&](TakenApart& parts) { TakenApart::put(parts.sections[kLog].bytes, offset, value); });
  };
  const auto log = [](std::size_t head, std::size_t index) { return 8 + head * kRecord + index * 4; };
  const auto pages = TakenApart::get<std::uint32_t>(TakenApart(good).sections[kLog].bytes, log(with, 0));
  ASSERT_GT(pages, 4u) << "more than the log has space for";
  word("identity", 0, 1, Status::kOtherStore);
  word("reserved", 4, 1);
  for (const std::uint32_t wrong : {pages + 1, pages - 1, 0u, 4u, 0xffffffffu, pages + (1u << 27)})
    word("pages " + std::to_string(wrong), log(with, 0), wrong);
  for (std::size_t index = 0; index < 8; ++index) word("a head without an index", log(without, index), 1);
  const std::size_t first = 8 + 6 * kRecord, page = index_page_bytes(64);
  for (const std::size_t number : {0u, 3u, 11u}) {
    const std::size_t scales = first + number * page + 4 * 64 + 64 + 32;
    for (const std::size_t which : {0u, 2u}) {
      for (const std::uint16_t value : {std::uint16_t{1}, std::uint16_t{255}, std::uint16_t{0xfffe}}) {
        forged("a scale", Status::kCorrupt,
               [&](TakenApart& parts) { TakenApart::put(parts.sections[kLog].bytes, scales + which, value); });
      }
    }
    forged("a mean", Status::kCorrupt, [&](TakenApart& parts) {
      TakenApart::put(parts.sections[kLog].bytes, first + number * page + 4 * 64 + 63, std::int8_t{-128});
    });
  }
  const std::size_t size = TakenApart(good).sections[kLog].bytes.size();
  ASSERT_EQ(size, first + 3 * 4 * page);
  for (const std::size_t wrong :
       {std::size_t{0}, std::size_t{8}, first, size - page, size - 1, size + 1, size + page}) {
    forged("of " + std::to_string(wrong) + " bytes", Status::kCorrupt, [&](TakenApart& parts) {
      parts.sections[kLog].bytes.resize(wrong);
      parts.sections[kLog].claimed = wrong;
    });
  }
  forged("none", Status::kCorrupt, [](TakenApart& parts) { parts.sections.pop_back(); });
  forged("two", Status::kBadSnapshot, [](TakenApart& parts) { parts.sections.push_back(parts.sections.back()); });
  forged("another kind", Status::kBadSnapshot, [](TakenApart& parts) { parts.sections[kLog].kind = 6; });
  // A chain that the log does not continue.
  forged("fewer slots in the window", Status::kCorrupt, [&](TakenApart& parts) {
    const auto used = TakenApart::get<std::uint32_t>(parts.sections[kChains].bytes, with * 32);
    TakenApart::put(parts.sections[kChains].bytes, with * 32, used - 1);
  });
  // And a cache without a log takes none.
  Rig plain(shape, streaming_llm(128));
  Random other(12);
  steps(plain.cache(), other, 20);
  TakenApart parts(saved(plain.cache()));
  parts.sections.push_back(TakenApart(good).sections[kLog]);
  EXPECT_EQ(restore(plain.cache(), parts.sealed()), Status::kCorrupt);
  SnapshotInfo info;
  EXPECT_EQ(inspect(good, info), Status::kOk);
  EXPECT_EQ(info.bytes, good.size());
}

// Whatever is said with right checksums: refused, or a cache that goes on.
TEST(LogForged, RandomMutationsWithRightChecksumsDoNoHarm) {
  const Shape shape = {.layers = 1, .query_heads = 2, .kv_heads = 2, .head_dim = 16, .max_chunk = 16};
  const Policy policy = with_log(68, 64, 32, 128);
  Rig rig(shape, policy), victim(shape, policy);
  Random random(13);
  steps(rig.cache(), random, 200);
  const Bytes good = saved(rig.cache());
  std::uint32_t taken = 0;
  const std::uint64_t rounds = test::turns(3000, 300) * test::effort();
  for (std::uint64_t round = 0; round < rounds && !HasFailure(); ++round) {
    TakenApart parts(good);
    for (std::uint32_t i = 0; i < 1 + random.below(3); ++i) {
      Bytes& bytes = parts.sections[random.below(4) == 0 ? kChains : kLog].bytes;
      bytes[random.below(static_cast<std::uint32_t>(bytes.size()))] = static_cast<std::byte>(random.below(256));
    }
    if (restore(victim.cache(), parts.sealed()) != Status::kOk) continue;
    ++taken;
    ASSERT_EQ(check(victim.cache()), Status::kOk);
    std::copy(rig.pages().begin(), rig.pages().end(), victim.pages().begin());
    Random next(round);
    for (int i = 0; i < 3; ++i) {
      for (const float x : step(victim.cache(), next)) ASSERT_TRUE(std::isfinite(x));
    }
    ASSERT_EQ(check(victim.cache()), Status::kOk);
  }
  EXPECT_GT(taken, rounds / 4);
  EXPECT_TRUE(victim.arena().guards_intact());
}

// Reads a span, and fails or lies from the n-th call on.
struct Source {
  const Bytes& bytes;
  std::size_t turns_at = ~std::size_t{0};
  bool lies = false;
  std::size_t call = 0;

  static bool read(void* context, std::uint64_t offset, std::byte* to, std::size_t count) {
    auto& from = *static_cast<Source*>(context);
    const bool turned = from.call++ >= from.turns_at;
    if (turned && !from.lies) return false;
    std::memcpy(to, from.bytes.data() + offset, count);
    if (turned) to[count / 2] ^= std::byte{0x10};
    return true;
  }
};

TEST(LogForged, ASourceThatFailsOrLiesLeavesTheOldCacheOrAnEmptyOne) {
  const Shape shape = {.layers = 1, .query_heads = 2, .kv_heads = 2, .head_dim = 16, .max_chunk = 16};
  const Policy policy = with_log(68, 64, 32, 128);
  Rig rig(shape, policy);
  Random random(14);
  steps(rig.cache(), random, 150);
  const Bytes snapshot = saved(rig.cache());
  Source whole{snapshot};
  ASSERT_EQ(restore(rig.cache(), SnapshotSource{Source::read, &whole, snapshot.size()}), Status::kOk);
  std::size_t lost = 0;
  for (const bool lies : {false, true}) {
    for (std::size_t turn = 0; turn < whole.call; ++turn) {
      Offered offered(shape, policy);
      const Bytes before = offered.rig().arena().copy();
      Source source{snapshot, turn, lies};
      const Status status = restore(offered.rig().cache(), SnapshotSource{Source::read, &source, snapshot.size()});
      ASSERT_NE(status, Status::kOk) << turn;
      if (status == Status::kLost) {
        ++lost;
        EXPECT_EQ(offered.rig().cache().seen(0), 0u);
        EXPECT_EQ(logged(offered.rig().cache(), 0, 0) + logged(offered.rig().cache(), 0, 1), 0u);
      } else {
        EXPECT_EQ(offered.rig().arena().copy(), before) << turn;
      }
      ASSERT_EQ(check(offered.rig().cache()), Status::kOk) << turn;
    }
  }
  EXPECT_GT(lost, 10u);
}

}  // namespace
}  // namespace nibkv::log_forged_test
