// Snapshots of caches with a log: the arena's part is in them, the pages stay in the store.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "nibkv/nibkv.hpp"
#include "tests/support/rig.hpp"
#include "tests/support/snapshots.hpp"
#include "tests/unit/cold/recalling.hpp"

namespace nibkv::log_snapshot_test {
namespace {

using test::append_token;
using test::mild_token;
using test::positions_of;
using test::Random;
using test::recall_and_attend;
using test::Rig;
using test::saved;
using test::step;
using test::steps;
using test::TakenApart;
using test::Token;
using test::with_log;

using Bytes = std::vector<std::byte>;

constexpr Shape kShape = {.layers = 2, .query_heads = 4, .kv_heads = 2, .head_dim = 64, .max_chunk = 8, .workers = 2};
constexpr std::size_t kChains = 1, kLog = 5;
constexpr std::size_t kRecord = 32;

void copy_store(Rig& from, Rig& to) {
  ASSERT_EQ(from.pages().size(), to.pages().size());
  std::copy(from.pages().begin(), from.pages().end(), to.pages().begin());
  to.store().identity = from.store().identity;
}

void verify_all(Cache& cache) {
  for (std::uint32_t layer = 0; layer < cache.shape().layers; ++layer) {
    for (std::uint32_t head = 0; head < cache.shape().kv_heads; ++head)
      ASSERT_EQ(verify_log(cache, layer, head), Status::kOk);
  }
}

std::uint32_t kept_pages(const Cache& cache) {
  const RecallUsage usage = recall_usage(cache);
  return usage.written_pages - usage.forgotten_pages;
}

struct Kind {
  const char* name;
  Shape shape;
  Policy policy;
};

std::vector<Kind> kinds() {
  std::vector<Kind> list = {{"all heads", kShape, with_log(128, 2048, 64)},
                            {"a full log", kShape, with_log(128, 128, 64)}};
  Shape shape = kShape;
  shape.layers = 3;
  shape.outlier_channels = 4;
  shape.storage = Storage::kQ8Q4;
  list.push_back({"heads that look things up", shape, with_log(128, 512, 96, 86)});
  shape.basis = KeyBasis::kMeasured;
  shape.storage = Storage::kQ2;
  shape.max_chunk = 20;
  Policy policy = with_log(100, 512, 64);
  policy.sinks = 0;
  list.push_back({"a measured basis, no sinks", shape, policy});
  return list;
}

TEST(LogSnapshot, TheCacheGoesOnAsIfNothingHadBeen) {
  const std::vector<std::string> ports = test::running_ports();
  for (const Kind& kind : kinds()) {
    for (const int at : {0, 60, 131, 400}) {
      SCOPED_TRACE(std::string(kind.name) + ", saved after " + std::to_string(at));
      Rig first(kind.shape, kind.policy, ports.front()), second(kind.shape, kind.policy, ports.back());
      first.store().identity = 5;
      Random random(1);
      if (kind.shape.basis == KeyBasis::kMeasured)
        append_token(first.cache(), test::random_tokens(random, kind.shape, 20));
      steps(first.cache(), random, at);
      const Bytes snapshot = saved(first.cache());
      copy_store(first, second);
      Random before(2);
      steps(second.cache(), before, 70);  // what is replaced
      copy_store(first, second);
      ASSERT_EQ(restore(second.cache(), snapshot), Status::kOk);
      ASSERT_EQ(check(second.cache()), Status::kOk);
      EXPECT_EQ(saved(second.cache()), snapshot);
      EXPECT_EQ(recalled(second.cache(), 0, 0), 0u);
      EXPECT_EQ(logged(second.cache(), 1, 1), logged(first.cache(), 1, 1));
      EXPECT_EQ(recall_usage(second.cache()).read_pages, recall_usage(first.cache()).read_pages);
      EXPECT_EQ(oldest_reachable(second.cache()), oldest_reachable(first.cache()));
      for (int i = 0; i < 150; ++i) {
        Random again = random;
        const std::vector<float> expected = step(first.cache(), random);
        ASSERT_TRUE(test::same_bytes(step(second.cache(), again), expected)) << i;
        for (std::uint32_t layer = 0; layer < kind.shape.layers; ++layer)
          ASSERT_EQ(positions_of(second.cache(), layer, 1), positions_of(first.cache(), layer, 1)) << i;
      }
      EXPECT_TRUE(std::equal(first.pages().begin(), first.pages().end(), second.pages().begin()));
      const RecallUsage one = recall_usage(first.cache()), other = recall_usage(second.cache());
      EXPECT_EQ(other.chosen_tokens, one.chosen_tokens);
      EXPECT_EQ(other.written_pages, one.written_pages);
      EXPECT_EQ(other.lost_pages, 0u);
      EXPECT_TRUE(second.arena().guards_intact());
    }
  }
}

TEST(LogSnapshot, ComesBackFromABankToo) {
  Rig first(kShape, with_log(128, 512, 64)), second(kShape, with_log(128, 512, 64));
  Random random(3);
  steps(first.cache(), random, 200);
  struct Flashes {
    Bytes bank[2];
  } flashes;
  const auto bytes = static_cast<std::size_t>(most_snapshot_bytes(kShape, first.policy()));
  for (Bytes& bank : flashes.bank) bank.resize(bytes);
  SnapshotBanks banks;
  banks.read = [](void* context, std::uint32_t bank, std::uint64_t offset, std::byte* to, std::size_t count) {
    std::memcpy(to, static_cast<Flashes*>(context)->bank[bank].data() + offset, count);
    return true;
  };
  banks.write = [](void* context, std::uint32_t bank, std::uint64_t offset, const std::byte* from, std::size_t count) {
    std::memcpy(static_cast<Flashes*>(context)->bank[bank].data() + offset, from, count);
    return true;
  };
  banks.context = &flashes;
  banks.bytes = bytes;
  ASSERT_EQ(save_to_banks(first.cache(), banks), Status::kOk);
  copy_store(first, second);
  ASSERT_EQ(restore_from_banks(second.cache(), banks), Status::kOk);
  Random again = random;
  EXPECT_TRUE(test::same_bytes(step(first.cache(), random), step(second.cache(), again)));
}

TEST(LogSnapshot, HasNothingOfWhatIsRecalledAndIsNeverLongerThanAnnounced) {
  for (const Kind& kind : kinds()) {
    Rig rig(kind.shape, kind.policy), other(kind.shape, kind.policy);
    const std::uint64_t most = most_snapshot_bytes(kind.shape, kind.policy);
    std::uint64_t largest = 0;
    Random random(4);
    for (int i = 0; i < 700; ++i) {
      const Token token = test::random_tokens(random, kind.shape, kind.shape.max_chunk);
      append_token(rig.cache(), token);
      append_token(other.cache(), token);
      const std::uint64_t before = snapshot_bytes(rig.cache());
      test::recall_all(rig.cache(), token.queries);
      ASSERT_EQ(snapshot_bytes(rig.cache()), before) << kind.name;
      largest = std::max(largest, before);
    }
    EXPECT_LE(largest, most) << kind.name;
    EXPECT_GT(largest, most * 3 / 4) << kind.name;
    ASSERT_GT(recall_usage(rig.cache()).chosen_tokens, 0u);
    TakenApart one(saved(rig.cache())), none(saved(other.cache()));
    ASSERT_EQ(one.sections.size(), kLog + 1);
    for (std::size_t section = 0; section < kLog; ++section)
      EXPECT_EQ(one.sections[section].bytes, none.sections[section].bytes) << kind.name << section;
    for (std::size_t i = 0; i < kind.shape.layers * 2u; ++i) {  // what was read, chosen and found
      for (TakenApart* parts : {&one, &none}) {
        Bytes& log = parts->sections[kLog].bytes;
        std::fill_n(log.begin() + static_cast<std::ptrdiff_t>(8 + i * kRecord + 8), 24, std::byte{0});
      }
    }
    EXPECT_EQ(one.sections[kLog].bytes, none.sections[kLog].bytes) << kind.name;
  }
}

TEST(LogSnapshot, NamesItsStore) {
  Rig rig(kShape, with_log(128, 512, 64)), other(kShape, with_log(128, 512, 64));
  rig.store().identity = 7;
  other.store().identity = 8;
  Random random(5);
  steps(rig.cache(), random, 150);
  steps(other.cache(), random, 30);
  const Bytes state = other.copy_state();
  EXPECT_EQ(restore(other.cache(), saved(rig.cache())), Status::kOtherStore);
  EXPECT_EQ(other.copy_state(), state);
  other.store().identity = 7;
  EXPECT_EQ(restore(other.cache(), saved(rig.cache())), Status::kOk);
}

// What a store has in place of its pages, and how many of a cache's pages are lost then.
class Stores {
 public:
  Stores() : now_(kShape, policy()), random_(6) {
    steps(now_.cache(), random_, 180);
    older_.assign(now_.pages().begin(), now_.pages().end());
    older_kept_ = kept_pages(now_.cache());
    steps(now_.cache(), random_, 200);
    snapshot_ = saved(now_.cache());
    pages_.assign(now_.pages().begin(), now_.pages().end());
  }

  static Policy policy() { return with_log(128, 512, 64); }
  std::uint32_t kept() const { return kept_pages(now_.cache()); }
  std::uint32_t older_kept() const { return older_kept_; }
  const Bytes& pages() const { return pages_; }
  const Bytes& older() const { return older_; }

  /// @param lost  of the pages that the snapshot counts on
  void expect(const char* what, const Bytes& pages, std::uint32_t lost) {
    SCOPED_TRACE(what);
    ASSERT_LE(lost, kept());
    Rig asked(kShape, policy()), verified(kShape, policy());
    for (Rig* rig : {&asked, &verified}) {
      std::copy(pages.begin(), pages.end(), rig->pages().begin());
      ASSERT_EQ(restore(rig->cache(), snapshot_), Status::kOk);
      EXPECT_EQ(recall_usage(rig->cache()).lost_pages, 0u) << "restore reads no page";
    }
    verify_all(verified.cache());
    EXPECT_EQ(recall_usage(verified.cache()).lost_pages, lost);
    std::uint32_t there = 0;
    for (std::uint32_t i = 0; i < 4; ++i) there += logged(verified.cache(), i / 2, i % 2);
    EXPECT_EQ(there, (kept() - lost) * 32);
    // Both forget the same in the end, and never have what is lost.
    Random one = random_, other = random_;
    for (int i = 0; i < 60; ++i) {
      const Token token = mild_token(one, kShape);
      (void)mild_token(other, kShape);
      for (Rig* rig : {&asked, &verified}) {
        append_token(rig->cache(), token);
        for (const float x : recall_and_attend(rig->cache(), token.queries)) ASSERT_TRUE(std::isfinite(x));
        ASSERT_EQ(check(rig->cache()), Status::kOk);
      }
    }
    EXPECT_LE(recall_usage(asked.cache()).lost_pages, lost);
    EXPECT_EQ(recall_usage(asked.cache()).lost_pages != 0, lost != 0);
    EXPECT_EQ(recall_usage(verified.cache()).lost_pages, lost) << "none that is written from now on";
    if (lost == kept()) {
      EXPECT_LE(recalled(verified.cache(), 0, 0), 64u);
    }
  }

 private:
  Rig now_;
  Random random_;
  Bytes snapshot_, pages_, older_;
  std::uint32_t older_kept_;
};

TEST(LogSnapshot, WhatAStoreDoesNotHaveIsLostAndCounted) {
  Stores stores;
  const std::size_t page = cold_page_bytes(kShape, Stores::policy());
  const std::size_t pages = stores.pages().size() / page;
  ASSERT_EQ(pages, 4u * 16);
  stores.expect("all is there", stores.pages(), 0);
  stores.expect("a new file", Bytes(stores.pages().size()), stores.kept());
  stores.expect("erased flash", Bytes(stores.pages().size(), std::byte{0xff}), stores.kept());
  // The log holds 16 pages of a head; so many are in use.
  const std::uint32_t of_head = stores.kept() / 4;
  ASSERT_GT(of_head, 6u);
  ASSERT_LE(of_head, 16u);
  Bytes changed = stores.pages();
  changed[3 * page + 100] ^= std::byte{1};
  stores.expect("a damaged page", changed, 1);
  changed = stores.pages();
  std::fill(changed.begin() + static_cast<std::ptrdiff_t>(changed.size() / 2), changed.end(), std::byte{0});
  stores.expect("half of a file", changed, stores.kept() / 2);
  stores.expect("an older file", stores.older(), stores.kept() - stores.older_kept());
  // Another conversation's, with the same identity, heads and numbers.
  Rig foreign(kShape, Stores::policy());
  Random random(7);
  steps(foreign.cache(), random, 380);
  stores.expect("a foreign file", Bytes(foreign.pages().begin(), foreign.pages().end()), stores.kept());
}

// The store went on after the snapshot. Pages that were written again are the lost ones; with space for all there are
// none, and what is written again are the same bytes.
TEST(LogSnapshot, AnOlderOneOverANewerStoreLosesWhatWasOverwritten) {
  for (const std::uint32_t log : {2048u, 256u}) {
    const Policy policy = with_log(128, log, 64);
    for (const int more : {0, 40, 120, 600}) {
      SCOPED_TRACE(std::to_string(log) + ", " + std::to_string(more) + " tokens more");
      Rig rig(kShape, policy), other(kShape, policy);
      Random random(8);
      steps(rig.cache(), random, 450);
      const Bytes snapshot = saved(rig.cache());
      const Random from_here = random;
      const std::uint32_t kept = kept_pages(rig.cache()), written = recall_usage(rig.cache()).written_pages;
      steps(rig.cache(), random, more);
      const std::uint32_t again = recall_usage(rig.cache()).written_pages - written;
      copy_store(rig, other);
      ASSERT_EQ(restore(other.cache(), snapshot), Status::kOk);
      verify_all(other.cache());
      EXPECT_EQ(recall_usage(other.cache()).lost_pages, log == 2048 ? 0 : std::min(again, kept));
      Random now = from_here;
      steps(other.cache(), now, 100);
      EXPECT_EQ(check(other.cache()), Status::kOk);
      if (log != 2048) continue;
      EXPECT_TRUE(more < 100 || std::equal(rig.pages().begin(), rig.pages().end(), other.pages().begin()));
      EXPECT_EQ(recall_usage(other.cache()).lost_pages, 0u);
    }
  }
}

TEST(LogSnapshot, VerifyingIsForLogs) {
  Cache none;
  EXPECT_EQ(verify_log(none, 0, 0), Status::kNotReady);
  Rig full_one(kShape, full(64)), rig(kShape, with_log(128, 512, 64));
  EXPECT_EQ(verify_log(full_one.cache(), 1, 1), Status::kOk);
  EXPECT_EQ(verify_log(rig.cache(), 2, 0), Status::kBadArgument);
  EXPECT_EQ(verify_log(rig.cache(), 0, 2), Status::kBadArgument);
  EXPECT_EQ(verify_log(rig.cache(), 0, 0), Status::kOk) << "nothing in it";
  Random random(9);
  steps(rig.cache(), random, 200);
  const RecallUsage before = recall_usage(rig.cache(), 1, 0);
  ASSERT_EQ(verify_log(rig.cache(), 1, 0), Status::kOk);
  EXPECT_EQ(recall_usage(rig.cache(), 1, 0).read_pages - before.read_pages, before.written_pages);
  EXPECT_EQ(recall_usage(rig.cache()).lost_pages, 0u);
  // What is recalled of a page that is lost meanwhile stays as it is until the next choice.
  const std::uint32_t held = recalled(rig.cache(), 1, 0);
  ASSERT_GT(held, 0u);
  std::fill(rig.pages().begin(), rig.pages().end(), std::byte{0});
  ASSERT_EQ(verify_log(rig.cache(), 1, 0), Status::kOk);
  EXPECT_EQ(recall_usage(rig.cache(), 1, 0).lost_pages, before.written_pages);
  EXPECT_EQ(logged(rig.cache(), 1, 0), 0u);
  EXPECT_EQ(recalled(rig.cache(), 1, 0), held);
  EXPECT_EQ(check(rig.cache()), Status::kOk);
  const std::uint32_t reads = recall_usage(rig.cache(), 1, 0).read_pages;
  ASSERT_EQ(verify_log(rig.cache(), 1, 0), Status::kOk);
  EXPECT_EQ(recall_usage(rig.cache(), 1, 0).read_pages, reads) << "what is lost is not read again";
}

TEST(LogSnapshot, IsNotImported) {
  const Policy policy = with_log(128, 512, 64);
  Rig rig(kShape, policy), other(kShape, with_log(160, 512, 64)), plain(kShape, streaming_llm(128));
  Random random(15);
  steps(rig.cache(), random, 200);
  steps(plain.cache(), random, 20);
  const Bytes snapshot = saved(rig.cache()), of_plain = saved(plain.cache());
  EXPECT_EQ(import_snapshot(other.cache(), kShape, policy, snapshot), Status::kBadPolicy);
  EXPECT_EQ(import_snapshot(plain.cache(), kShape, policy, snapshot), Status::kBadPolicy);
  EXPECT_EQ(import_snapshot(rig.cache(), kShape, plain.policy(), of_plain), Status::kBadPolicy);
  EXPECT_EQ(restore(other.cache(), snapshot), Status::kOtherPolicy);
  EXPECT_EQ(restore(plain.cache(), snapshot), Status::kOtherPolicy);
  EXPECT_EQ(restore(rig.cache(), of_plain), Status::kOtherPolicy);
}

// Tokens in the log cannot be taken back: those of the window can, as far as before the restart.
TEST(LogSnapshot, TruncateEndsWhereTheLogBegins) {
  const Policy policy = with_log(128, 512, 64);
  Rig rig(kShape, policy), again(kShape, policy);
  Random random(16);
  steps(rig.cache(), random, 300);
  copy_store(rig, again);
  ASSERT_EQ(restore(again.cache(), saved(rig.cache())), Status::kOk);
  const std::uint32_t oldest = oldest_reachable(rig.cache());
  ASSERT_EQ(oldest_reachable(again.cache()), oldest);
  const std::uint32_t in_log = logged(rig.cache(), 0, 0) + policy.sinks;
  ASSERT_GT(in_log, policy.sinks);
  ASSERT_EQ(oldest, in_log) << "no token that has left the window, and every one that has not";
  for (Rig* one : {&rig, &again}) {
    const Bytes before = one->copy_state();
    for (const std::uint32_t seen : {0u, 1u, policy.sinks, in_log - 1}) {
      EXPECT_EQ(truncate(one->cache(), seen), Status::kGone) << seen;
      EXPECT_EQ(one->copy_state(), before);
    }
    ASSERT_EQ(truncate(one->cache(), oldest), Status::kOk);
    EXPECT_EQ(logged(one->cache(), 0, 0), in_log - policy.sinks) << "the log stays";
    EXPECT_EQ(one->cache().held(0, 0), policy.sinks + recalled(one->cache(), 0, 0));
    EXPECT_EQ(check(one->cache()), Status::kOk);
  }
  // From here on the window fills again; no page is written before it is full.
  Random one = random, other = random;
  const std::uint32_t written = recall_usage(rig.cache()).written_pages;
  for (int i = 0; i < 120; ++i) {
    ASSERT_TRUE(test::same_bytes(step(rig.cache(), one), step(again.cache(), other))) << i;
    if (i == 20) {
      EXPECT_EQ(recall_usage(rig.cache()).written_pages, written);
    }
  }
  EXPECT_GT(recall_usage(rig.cache()).written_pages, written);
  EXPECT_EQ(recall_usage(again.cache()).lost_pages, 0u);
}

}  // namespace
}  // namespace nibkv::log_snapshot_test
