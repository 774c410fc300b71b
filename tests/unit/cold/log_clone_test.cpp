// Copies of a cache with a log, each with a store of its own.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "nibkv/nibkv.hpp"
#include "tests/support/rig.hpp"
#include "tests/support/snapshots.hpp"
#include "tests/unit/cold/recalling.hpp"

namespace nibkv::log_clone_test {
namespace {

using test::Flash;
using test::Random;
using test::Rig;
using test::saved;
using test::step;
using test::steps;
using test::with_log;

using Bytes = std::vector<std::byte>;

constexpr Shape kShape = {.layers = 2, .query_heads = 4, .kv_heads = 2, .head_dim = 64, .max_chunk = 8, .workers = 2};

// An arena and a store for a copy.
struct Copy {
  explicit Copy(const Cache& from, std::uint32_t identity)
      : arena(from.usage().arena_bytes), pages(static_cast<std::size_t>(cold_bytes(from.shape(), from.policy()))) {
    store = memory_store(pages.data(), identity);
  }

  test::Arena arena;
  Bytes pages;
  ColdStore store;
  Cache cache;
};

Bytes copy_of_pages(Rig& rig) {
  return {rig.pages().begin(), rig.pages().end()};
}

TEST(LogClone, BothGoOnAsIfAlone) {
  for (const std::uint32_t log : {1024u, 128u}) {
    for (const std::uint32_t identity : {3u, 4u}) {
      for (const int at : {0, 50, 300}) {
        SCOPED_TRACE(std::to_string(log) + ", " + std::to_string(identity) + ", " + std::to_string(at));
        const Policy policy = with_log(128, log, 64);
        // The same twice; then one is cloned, and the other one goes the clone's way.
        Rig rig(kShape, policy), other(kShape, policy);
        rig.store().identity = other.store().identity = 3;
        Random random(1), same(1);
        steps(rig.cache(), random, at);
        steps(other.cache(), same, at);
        Copy copy(rig.cache(), identity);
        const Bytes state = rig.copy_state(), pages = copy_of_pages(rig);
        ASSERT_EQ(clone(rig.cache(), copy.arena.bytes(), copy.cache, &copy.store), Status::kOk);
        EXPECT_EQ(rig.copy_state(), state);
        EXPECT_EQ(copy_of_pages(rig), pages);
        EXPECT_EQ(check(copy.cache), Status::kOk);
        EXPECT_EQ(copy.pages == pages, identity == 3 || at < 128) << "pages have the identity of their store";
        if (identity == 3) {
          EXPECT_EQ(saved(copy.cache), saved(rig.cache()));
        }
        EXPECT_EQ(recalled(copy.cache, 0, 0), recalled(rig.cache(), 0, 0));
        Random here(2), there(3), there_too(3);
        Rig straight(kShape, policy);
        Random before(1);
        steps(straight.cache(), before, at);
        Random here_too(2);
        for (int i = 0; i < 200; ++i) {
          ASSERT_TRUE(test::same_bytes(step(rig.cache(), here), step(straight.cache(), here_too))) << i;
          ASSERT_TRUE(test::same_bytes(step(copy.cache, there), step(other.cache(), there_too))) << i;
        }
        for (const Cache* cache : {&rig.cache(), &copy.cache}) EXPECT_EQ(recall_usage(*cache).lost_pages, 0u);
        EXPECT_EQ(recall_usage(copy.cache).written_pages, recall_usage(other.cache()).written_pages);
        EXPECT_EQ(check(copy.cache), Status::kOk);
        EXPECT_TRUE(copy.arena.guards_intact());
        if (identity == 3) {
          EXPECT_EQ(copy.pages, copy_of_pages(other));
        }
      }
    }
  }
}

// The original reads one page after the other, and is not written to.
TEST(LogClone, APageThatCannotBeCopiedIsLostInTheCopyAlone) {
  const Policy policy = with_log(128, 512, 64);
  Rig rig(kShape, policy);
  Random random(4);
  steps(rig.cache(), random, 250);
  const std::uint32_t written = recall_usage(rig.cache()).written_pages;
  Flash flash(rig);
  ASSERT_GT(written, 8u);
  for (std::uint32_t place = 0; place <= written; ++place) {
    flash.reads = flash.writes = 0;
    flash.failing_read = place;
    Copy copy(rig.cache(), 0);
    const Bytes state = rig.copy_state();
    ASSERT_EQ(clone(rig.cache(), copy.arena.bytes(), copy.cache, &copy.store), Status::kOk);
    EXPECT_EQ(rig.copy_state(), state);
    EXPECT_EQ(flash.reads, written);
    EXPECT_EQ(flash.writes, 0u);
    const std::uint32_t lost = place < written ? 1 : 0;
    EXPECT_EQ(recall_usage(copy.cache).lost_pages, lost);
    ASSERT_EQ(check(copy.cache), Status::kOk);
    Random next(5);
    for (int i = 0; i < 5; ++i) {
      for (const float x : step(copy.cache, next)) ASSERT_TRUE(std::isfinite(x));
    }
    EXPECT_EQ(recall_usage(copy.cache).lost_pages, lost) << "it is not asked for";
  }
  // A store that does not write.
  Copy copy(rig.cache(), 0);
  copy.store.write = [](void*, std::uint64_t, const void*, std::size_t) { return false; };
  ASSERT_EQ(clone(rig.cache(), copy.arena.bytes(), copy.cache, &copy.store), Status::kOk);
  EXPECT_EQ(recall_usage(copy.cache).lost_pages, written);
  EXPECT_EQ(logged(copy.cache, 0, 0), 0u);
  EXPECT_EQ(check(copy.cache), Status::kOk);
  EXPECT_EQ(recall_usage(rig.cache()).lost_pages, 0u);
  // What is lost already stays so, and is not counted again.
  Copy second(copy.cache, 0);
  ASSERT_EQ(clone(copy.cache, second.arena.bytes(), second.cache, &second.store), Status::kOk);
  EXPECT_EQ(recall_usage(second.cache).lost_pages, written);
}

TEST(LogClone, NeedsAStoreOfItsOwn) {
  Rig rig(kShape, with_log(128, 512, 64));
  Random random(6);
  steps(rig.cache(), random, 200);
  Copy copy(rig.cache(), 0);
  const Bytes before = copy.arena.copy(), pages = copy_of_pages(rig);
  const auto refuses = [&](const ColdStore* store) {
    EXPECT_EQ(clone(rig.cache(), copy.arena.bytes(), copy.cache, store), Status::kBadArgument);
    EXPECT_FALSE(copy.cache.ready());
    EXPECT_EQ(copy.arena.copy(), before);
    EXPECT_EQ(copy_of_pages(rig), pages);
  };
  refuses(nullptr);
  refuses(&rig.store());
  const ColdStore same = rig.store();
  refuses(&same);
  ColdStore half = copy.store;
  half.read = nullptr;
  refuses(&half);
  half = copy.store;
  half.write = nullptr;
  refuses(&half);
  // Without a log none is looked at.
  Rig plain(kShape, streaming_llm(64));
  half.read = nullptr;
  test::Arena arena(plain.cache().usage().arena_bytes);
  Cache fork;
  EXPECT_EQ(clone(plain.cache(), arena.bytes(), fork, &half), Status::kOk);
}

}  // namespace
}  // namespace nibkv::log_clone_test
