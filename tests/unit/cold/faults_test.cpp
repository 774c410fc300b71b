// What a store does wrong, and a store that is full of an older past.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "cold/index.hpp"
#include "nibkv/nibkv.hpp"
#include "tests/support/effort.hpp"
#include "tests/support/rig.hpp"
#include "tests/support/workers.hpp"
#include "tests/unit/cold/recalling.hpp"

namespace nibkv::faults_test {
namespace {

using test::Flash;
using test::page_sum;
using test::positions_of;
using test::Random;
using test::Rig;
using test::set_word;
using test::Token;
using test::with_log;
using test::word_of;

constexpr Shape kShape = {.layers = 2, .query_heads = 4, .kv_heads = 2, .head_dim = 64, .max_chunk = 8, .workers = 2};
constexpr std::uint32_t kHeads = 4;

bool all_finite(std::span<const float> numbers) {
  return std::all_of(numbers.begin(), numbers.end(), [](float x) { return std::isfinite(x); });
}

// Queries that give every token some of their attention.
std::vector<float> mild(std::vector<float> queries) {
  for (float& query : queries) query *= 0.125f;
  return queries;
}

std::vector<Token> chunks_of(const Shape& shape, std::uint32_t count, std::uint32_t tokens, std::uint64_t seed) {
  Random random(seed);
  std::vector<Token> chunks;
  for (std::uint32_t i = 0; i < count; ++i) {
    chunks.push_back(test::random_tokens(random, shape, tokens));
    chunks.back().queries = mild(chunks.back().queries);
  }
  return chunks;
}

// The positions that an indexed head must hold if all of its log is recalled but for one page.
std::set<std::uint32_t> all_but(const Cache& cache, std::uint32_t layer, std::uint32_t head, std::uint32_t lost) {
  const std::uint32_t seen = cache.seen(layer), sinks = cache.policy().sinks;
  const std::uint32_t own = cache.held(layer, head) - recalled(cache, layer, head);
  const std::uint32_t end = (seen - own) / 32, pages = cache.policy().log / 32;
  std::set<std::uint32_t> positions;
  for (std::uint32_t i = 0; i < sinks && i < seen; ++i) positions.insert(i);
  for (std::uint32_t i = seen - (own - sinks); i < seen; ++i) positions.insert(i);
  for (std::uint32_t page = end > pages ? end - pages : 0; page < end; ++page) {
    for (std::uint32_t t = 0; page != lost && t < 32; ++t) positions.insert(sinks + page * 32 + t);
  }
  return positions;
}

void expect_held(const Cache& cache, std::uint32_t layer, std::uint32_t head, std::uint32_t lost) {
  const std::vector<std::uint32_t> held = positions_of(cache, layer, head);
  const std::set<std::uint32_t> set(held.begin(), held.end());
  ASSERT_EQ(set.size(), held.size());
  ASSERT_EQ(set, all_but(cache, layer, head, lost)) << "layer " << layer << ", head " << head;
}

// A run of 2,000 tokens in which one read or write fails.
// @returns what the store did in all
std::uint64_t run_with_failure(const Policy& policy, const std::vector<Token>& chunks, bool write,
                               std::uint64_t place) {
  const bool of_everything = policy.recall == policy.log;
  Rig rig(kShape, policy);
  Flash flash(rig);
  (write ? flash.failing_write : flash.failing_read) = place;
  for (std::size_t i = 0; i < chunks.size() && !testing::Test::HasFailure(); ++i) {
    test::append_token(rig.cache(), chunks[i]);
    const std::uint32_t failures = flash.failures;
    test::recall_all(rig.cache(), chunks[i].queries);
    if (flash.failures == 0 || flash.failures != failures) continue;
    // The page was lost before this recall: it brings none of it.
    const std::uint32_t layer = flash.failed_head / 2, head = flash.failed_head % 2;
    const std::uint32_t first = policy.sinks + flash.failed_page * 32;
    for (const std::uint32_t position : positions_of(rig.cache(), layer, head))
      EXPECT_TRUE(position < first || position >= first + 32) << position;
    if (of_everything && i % 40 == 0) expect_held(rig.cache(), layer, head, flash.failed_page);
  }
  EXPECT_EQ(check(rig.cache()), Status::kOk);
  const bool failed = place != Flash::kNever;
  EXPECT_EQ(flash.failures, failed ? 1u : 0u);
  EXPECT_EQ(recall_usage(rig.cache()).lost_pages, failed ? 1u : 0u);
  EXPECT_EQ(recall_usage(rig.cache(), flash.failed_head / 2, flash.failed_head % 2).lost_pages, failed ? 1u : 0u);
  EXPECT_EQ(recall_usage(rig.cache()).written_pages + (failed && write ? 1u : 0u), flash.writes);
  EXPECT_EQ(recall_usage(rig.cache()).read_pages, flash.reads);
  for (std::uint32_t i = 0; i < kHeads && of_everything; ++i) {
    const bool lost = failed && i == flash.failed_head;
    expect_held(rig.cache(), i / 2, i % 2, lost ? flash.failed_page : 0xffffffff);
  }
  std::vector<Token> tokens;
  for (const Token& chunk : chunks) {
    for (std::uint32_t t = 0; t < 8; ++t) {
      const auto rows = [t](const std::vector<float>& all) {
        const auto size = static_cast<std::ptrdiff_t>(all.size() / 8);
        return std::vector<float>(all.begin() + t * size, all.begin() + (t + 1) * size);
      };
      tokens.push_back({rows(chunk.keys), rows(chunk.values), rows(chunk.queries)});
    }
  }
  std::vector<float> out;
  for (std::uint32_t layer = 0; layer < 2; ++layer) {
    const std::vector<float> of_layer = test::attend_all(rig.cache(), layer, tokens.back().queries);
    out.insert(out.end(), of_layer.begin(), of_layer.end());
  }
  test::expect_attention(rig.cache(), tokens, out, 0.5);
  return write ? flash.writes : flash.reads;
}

// With an effort of 100, at every place.
TEST(Faults, OfOneReadOrWriteAnywhereLoseOnePage) {
  const std::vector<Token> chunks = chunks_of(kShape, 250, 8, 1);
  for (const Policy& policy : {with_log(1312, 1216, 1216), with_log(128, 1024, 64)}) {
    for (const bool write : {true, false}) {
      const std::uint64_t places = run_with_failure(policy, chunks, write, Flash::kNever);
      ASSERT_GT(places, 200u);
      const std::uint64_t step = std::max<std::uint64_t>(places * test::kShorter / (6 * test::effort()), 1) | 1;
      for (std::uint64_t place = 0; place < places; place += step) {
        SCOPED_TRACE((write ? "write " : "read ") + std::to_string(place) + " of " + std::to_string(places));
        (void)run_with_failure(policy, chunks, write, place);
        if (HasFailure()) return;
      }
    }
  }
}

// A cache with ten pages of each head in its store, none of them read yet.
class Written {
 public:
  explicit Written(Storage storage = Storage::kQ8Q4, std::uint32_t identity = 77) : rig_(shape_of(storage), policy()) {
    rig_.store().identity = identity;
    for (const Token& token : chunks_of(kShape, 50, 8, 2)) test::append_token(rig_.cache(), token);
    state_ = rig_.copy_state();
    pages_.assign(rig_.pages().begin(), rig_.pages().end());
    queries_ = mild(Random(3).bells(4 * 64));
  }

  static Policy policy() { return with_log(480, 384, 384); }

  void back() {
    test::put_back(state_, std::span(const_cast<std::byte*>(rig_.state().data()), state_.size()));
    std::copy(pages_.begin(), pages_.end(), rig_.pages().begin());
  }
  // Of a head by its number.
  std::span<std::byte> page(std::uint32_t head, std::uint32_t number) {
    const std::size_t bytes = cold_page_bytes(rig_.shape(), rig_.policy());
    return rig_.pages().subspan((head * 12 + number) * bytes, bytes);
  }
  Rig& rig() { return rig_; }
  Cache& cache() { return rig_.cache(); }

  // Recalls all that one head can have.
  void recall_head(std::uint32_t head) {
    ASSERT_EQ(recall(rig_.cache(), head / 2, queries_, {.first_head = head % 2, .heads = 1}), Status::kOk);
  }
  // Whether all pages are there but one.
  void expect_lost(std::uint32_t head, std::uint32_t number) {
    recall_head(head);
    recall_head(head);
    EXPECT_EQ(recall_usage(cache(), head / 2, head % 2).lost_pages, number == 0xffffffff ? 0u : 1u);
    expect_held(cache(), head / 2, head % 2, number);
  }
  void expect_sound() {
    EXPECT_EQ(check(cache()), Status::kOk);
    EXPECT_TRUE(all_finite(test::attend_all(cache(), 0, queries_)));
    EXPECT_TRUE(all_finite(test::attend_all(cache(), 1, queries_)));
  }

 private:
  static Shape shape_of(Storage storage) {
    Shape shape = kShape;
    shape.storage = storage;
    return shape;
  }

  Rig rig_;
  std::vector<std::byte> state_, pages_;
  std::vector<float> queries_;
};

TEST(Faults, APageWithAnyBitChangedIsLost) {
  Written written;
  const std::size_t bits = written.page(1, 3).size() * 8;
  written.expect_lost(1, 0xffffffff);
  const std::size_t step = test::effort() >= 100 ? 1 : 7 * test::kShorter;
  for (std::size_t bit = 0; bit < bits && !HasFailure(); bit += bit < 256 ? 1 : step) {
    written.back();
    written.page(1, 3)[bit / 8] ^= std::byte{1} << bit % 8;
    SCOPED_TRACE("bit " + std::to_string(bit));
    written.expect_lost(1, 3);
  }
  written.expect_sound();
}

TEST(Faults, SoIsOneWithAnotherHeaderWhoseSumIsRight) {
  Written written;
  for (std::size_t word = 0; word < 8; ++word) {
    for (const std::uint32_t value : {0u, 1u, 2u, 4u, 76u, 0x7fffffffu, 0xffffffffu}) {
      written.back();
      const std::span<std::byte> page = written.page(1, 3);
      ASSERT_EQ(word_of(page, test::kSum), page_sum(page)) << "the sum of lib/FORMAT.md";
      if (word_of(page, word) == value) continue;
      set_word(page, word, value);
      if (word != test::kSum) set_word(page, test::kSum, page_sum(page));
      SCOPED_TRACE("word " + std::to_string(word) + ", value " + std::to_string(value));
      written.expect_lost(1, 3);
      written.expect_sound();
    }
  }
}

TEST(Faults, SoIsAnyOtherPage) {
  Written written, foreign(Storage::kQ8Q4, 78), other(Storage::kQ8Q4, 77);
  ASSERT_EQ(other.cache().clear(), Status::kOk);
  for (const Token& token : chunks_of(kShape, 50, 8, 4)) test::append_token(other.cache(), token);
  const auto put = [&](std::span<const std::byte> page, const char* what) {
    written.back();
    std::copy(page.begin(), page.end(), written.page(1, 3).begin());
    SCOPED_TRACE(what);
    written.expect_lost(1, 3);
    written.expect_sound();
  };
  written.back();
  const std::vector<std::byte> next(written.page(1, 4).begin(), written.page(1, 4).end());
  const std::vector<std::byte> of_head(written.page(2, 3).begin(), written.page(2, 3).end());
  put(next, "the next page");
  put(of_head, "another head's");
  put(foreign.page(1, 3), "of another identity");
  put(other.page(1, 3), "of another cache with this identity");
  put(std::vector<std::byte>(next.size()), "zeros");
  put(std::vector<std::byte>(next.size(), std::byte{0xff}), "erased flash");
}

TEST(Faults, SoIsAPageThatIsCutOrTorn) {
  Written written, other;
  ASSERT_EQ(other.cache().clear(), Status::kOk);
  for (const Token& token : chunks_of(kShape, 50, 8, 4)) test::append_token(other.cache(), token);
  const std::size_t bytes = written.page(1, 3).size();
  for (std::size_t at = 0; at < bytes; at += at < 64 ? 1 : 31 * test::kShorter) {
    for (const bool torn : {false, true}) {
      written.back();
      const std::span<std::byte> page = written.page(1, 3);
      const std::vector<std::byte> whole(page.begin(), page.end());
      std::fill(page.begin() + static_cast<std::ptrdiff_t>(at), page.end(), std::byte{0});
      const auto rest = other.page(1, 3).subspan(at);
      if (torn) std::copy(rest.begin(), rest.end(), page.begin() + static_cast<std::ptrdiff_t>(at));
      const bool same = std::equal(page.begin(), page.end(), whole.begin());  // but for what was zero
      SCOPED_TRACE((torn ? "torn at " : "cut at ") + std::to_string(at));
      written.expect_lost(1, same ? 0xffffffff : 3);
      if (HasFailure()) return;
    }
  }
}

// Someone who can write to arena and store. The content must be one that rows have; then it may be any.
TEST(Faults, ContentThatNoRowHasIsLostEvenWhereAllSumsAreRight) {
  for (const Storage storage : {Storage::kQ8, Storage::kQ8Q4, Storage::kQ4, Storage::kQ2}) {
    Written written(storage);
    const auto put = [&](bool fits, auto change) {
      written.back();
      const std::span<std::byte> page = written.page(1, 3);
      change(page);
      set_word(page, test::kSum, page_sum(page));
      written.expect_lost(1, 3);
      written.back();
      change(page);
      set_word(page, test::kSum, page_sum(page));
      const ArenaView to{written.cache()};
      HeadIndex(to, cold_head(to, to.chain(0, 1))).at(3).set_sum(page_sum(page));
      written.expect_lost(1, fits ? 0xffffffff : 3);
      written.expect_sound();
    };
    const auto scale = [](std::size_t array, std::size_t lane, std::uint16_t value) {
      return [=](std::span<std::byte> page) { std::memcpy(page.data() + 32 + array * 64 + lane * 2, &value, 2); };
    };
    for (const std::size_t array : {0u, 1u}) {
      for (const std::uint16_t value :
           {std::uint16_t{1}, std::uint16_t{255}, std::uint16_t{0xff00}, std::uint16_t{0xffff}})
        put(false, scale(array, 5, value));
      put(true, scale(array, 31, 256));
      put(true, scale(array, 0, 0));
    }
    put(true, scale(0, 3, (127 + 50) << 8));
    put(false, scale(0, 3, ((127 + 50) << 8) + 1));
    put(true, scale(1, 3, (127 + 80) << 8));
    put(false, scale(1, 3, ((127 + 80) << 8) + 1));
    const auto codes = [](std::size_t from, std::byte value) {
      return [=](std::span<std::byte> page) { page[from] = value; };
    };
    const std::size_t first = 32 + ArenaView{written.cache()}.layout().side_bytes;
    const TileFormat format = format_of(storage);
    put(format.key_bits != 8, codes(first + 100, std::byte{0x80}));
    put(true, codes(first + 100, std::byte{0x81}));
    put(true, codes(first + 100, std::byte{0xff}));
    const std::size_t last = first + format.key_bytes(64) + format.value_bytes(64) - 1;
    put(format.value_bits != 8, codes(last, std::byte{0x80}));
  }
}

TEST(Faults, VerifyFindsAStoreThatOnlySaysThatItWrites) {
  RecallUsage sound;
  for (const int kind : {3, 0, 1, 2}) {
    SCOPED_TRACE(kind);
    Rig rig(kShape, with_log(128, 512, 64));
    Flash flash(rig);
    rig.store().verify = true;
    if (kind == 0) flash.instead_of_write = [](std::uint64_t, std::span<const std::byte>) { return true; };
    if (kind == 1) {
      flash.instead_of_write = [&](std::uint64_t offset, std::span<const std::byte> page) {
        std::copy(page.begin(), page.end(), rig.pages().begin() + static_cast<std::ptrdiff_t>(offset));
        rig.pages()[offset + page.size() - 200] ^= std::byte{4};
        return true;
      };
    }
    if (kind == 2) {  // reads nothing, either, and says that it did
      flash.instead_of_write = [](std::uint64_t, std::span<const std::byte>) { return true; };
      rig.store().read = [](void*, std::uint64_t, void*, std::size_t) { return true; };
    }
    for (const Token& token : chunks_of(kShape, 50, 8, 5)) {
      test::append_token(rig.cache(), token);
      test::recall_all(rig.cache(), token.queries);
    }
    const RecallUsage usage = recall_usage(rig.cache());
    if (kind == 3) sound = usage;
    EXPECT_EQ(usage.written_pages, kind == 3 ? sound.written_pages : 0u);
    EXPECT_EQ(usage.lost_pages, kind == 3 ? 0u : sound.written_pages);
    EXPECT_EQ(logged(rig.cache(), 1, 1), kind == 3 ? sound.written_pages * 8 : 0u);
    EXPECT_EQ(recalled(rig.cache(), 1, 1), kind == 3 ? 64u : 0u);
    EXPECT_EQ(check(rig.cache()), Status::kOk);
  }
}

// Power fails after pages were written and before the arena was saved. Only where a full log has given the places of its
// oldest pages to new ones are these lost.
TEST(Faults, AnOlderArenaGoesOnWithANewerStore) {
  for (const std::uint32_t log : {1024u, 256u}) {
    const Policy policy = with_log(128, log, 64);
    for (const std::uint32_t saved_at : {20u, 60u, 61u, 62u, 63u, 100u}) {
      Rig rig(kShape, policy), straight(kShape, policy);
      const std::vector<Token> chunks = chunks_of(kShape, 130, 8, 6);
      const auto step = [](Rig& one, const Token& chunk) {
        test::append_token(one.cache(), chunk);
        return test::recall_and_attend(one.cache(), chunk.queries);
      };
      std::vector<std::byte> state;
      for (std::uint32_t i = 0; i < saved_at + 16; ++i) {
        if (i == saved_at) state = rig.copy_state();
        (void)step(rig, chunks[i]);
        if (i < saved_at) (void)step(straight, chunks[i]);
      }
      const std::vector<std::byte> pages(rig.pages().begin(), rig.pages().end());
      test::put_back(state, std::span(const_cast<std::byte*>(rig.state().data()), state.size()));
      ASSERT_EQ(check(rig.cache()), Status::kOk);
      for (std::uint32_t i = saved_at; i < 130; ++i) {
        if (i == saved_at + 16) {
          EXPECT_TRUE(std::equal(pages.begin(), pages.end(), rig.pages().begin())) << "pages are written as before";
        }
        const std::vector<float> out = step(rig, chunks[i]), expected = step(straight, chunks[i]);
        ASSERT_TRUE(log == 256 || test::same_bytes(out, expected)) << saved_at << " " << i;
      }
      ASSERT_EQ(check(rig.cache()), Status::kOk);
      EXPECT_LE(recall_usage(rig.cache()).lost_pages, log == 256 ? 16u : 0u);
    }
  }
}

TEST(Faults, AStoreIsAskedForNothingTwiceAndNothingElse) {
  Shape shape = kShape;
  shape.layers = 4;
  const Policy policy = with_log(128, 512, 64, 100);
  Rig rig(shape, policy);
  Flash flash(rig);
  std::set<std::uint64_t> indexed;
  flash.instead_of_write = [&](std::uint64_t offset, std::span<const std::byte> page) {
    std::copy(page.begin(), page.end(), rig.pages().begin() + static_cast<std::ptrdiff_t>(offset));
    const std::uint32_t head = word_of(page, test::kHead);
    EXPECT_TRUE(is_indexed(rig.cache(), head / 2, head % 2));
    EXPECT_EQ(offset / page.size() % 16, word_of(page, test::kPage) % 16);
    indexed.insert(offset / page.size() / 16);
    return true;
  };
  ASSERT_EQ(rig.pages().size(), cold_bytes(shape, policy));
  for (const Token& token : chunks_of(shape, 150, 8, 7)) {
    test::append_token(rig.cache(), token);
    EXPECT_EQ(flash.offsets.size(), 0u) << "append reads nothing";
    for (std::uint32_t layer = 0; layer < 4; ++layer) {
      for (std::uint32_t head = 0; head < 2; ++head) {
        const std::vector<std::uint32_t> before = positions_of(rig.cache(), layer, head);
        const std::set<std::uint32_t> there(before.begin(), before.end());
        ASSERT_EQ(recall(rig.cache(), layer, token.queries, {.first_head = head, .heads = 1}), Status::kOk);
        std::set<std::uint64_t> needed;  // pages, by their places
        for (const std::uint32_t position : positions_of(rig.cache(), layer, head)) {
          if (!there.contains(position)) needed.insert((position - policy.sinks) / 32 % 16);
        }
        EXPECT_EQ(flash.offsets.size(), needed.size());
        for (const std::uint64_t offset : flash.offsets)
          EXPECT_TRUE(needed.contains(offset / cold_page_bytes(shape, policy) % 16));
        EXPECT_TRUE(is_indexed(rig.cache(), layer, head) || flash.offsets.empty());
        const std::set<std::uint64_t> once(flash.offsets.begin(), flash.offsets.end());
        EXPECT_EQ(once.size(), flash.offsets.size());
        EXPECT_EQ(flash.announced, flash.offsets);
        flash.offsets.clear();
        flash.announced.clear();
      }
    }
    const std::uint64_t reads = flash.reads;
    test::recall_all(rig.cache(), token.queries);
    EXPECT_EQ(flash.reads, reads) << "the same again needs no page";
    flash.offsets.clear();
  }
  EXPECT_EQ(indexed.size(), indexed_heads(shape, policy));
  EXPECT_GT(flash.reads, 1000u);
}

TEST(Faults, HeadsOfALayerAreRecalledAtTheSameTime) {
  Shape shape = kShape;
  shape.query_heads = shape.kv_heads = shape.workers = 4;
  const Policy policy = with_log(128, 512, 64);
  Rig rig(shape, policy), straight(shape, policy);
  for (const Token& token : chunks_of(shape, 80, 8, 14)) {
    test::append_token(rig.cache(), token);
    test::append_token(straight.cache(), token);
    test::recall_all(straight.cache(), token.queries);
    for (std::uint32_t layer = 0; layer < 2; ++layer) {
      test::run_workers(4, [&](std::uint32_t worker) {
        EXPECT_EQ(recall(rig.cache(), layer, token.queries, {.first_head = worker, .heads = 1, .worker = worker}),
                  Status::kOk);
      });
    }
    ASSERT_EQ(rig.copy_state(), straight.copy_state());
  }
}

// check() says so, or the cache goes on.
TEST(Faults, AnyBitOfAnArenaMayBeWrong) {
  Shape shape = {.layers = 1, .query_heads = 2, .kv_heads = 2, .head_dim = 16, .max_chunk = 16};
  Policy policy = with_log(68, 64, 32, 128);
  Rig rig(shape, policy);
  const std::vector<Token> chunks = chunks_of(shape, 30, 16, 15);
  for (std::uint32_t i = 0; i < 20; ++i) {
    test::append_token(rig.cache(), chunks[i]);
    test::recall_all(rig.cache(), chunks[i].queries);
  }
  ASSERT_EQ(recalled(rig.cache(), 0, 0) + recalled(rig.cache(), 0, 1), 32u);
  const std::vector<std::byte> state = rig.copy_state(), pages(rig.pages().begin(), rig.pages().end());
  std::vector<std::byte> changed = state;
  std::uint32_t found = 0;
  const std::size_t step = test::effort() >= 100 ? 1 : 19 * test::kStride;
  for (std::size_t bit = 0; bit < state.size() * 8 && !HasFailure(); bit += bit < 2048 ? 1 : step) {
    changed[bit / 8] ^= std::byte{1} << bit % 8;
    test::put_back(changed, std::span(const_cast<std::byte*>(rig.state().data()), state.size()));
    changed[bit / 8] = state[bit / 8];
    if (check(rig.cache()) != Status::kOk) {
      ++found;
      continue;
    }
    SCOPED_TRACE("bit " + std::to_string(bit % 8) + " of byte " + std::to_string(bit / 8));
    std::copy(pages.begin(), pages.end(), rig.pages().begin());
    test::recall_all(rig.cache(), chunks[20].queries);
    for (std::uint32_t i = 20; i < 24; ++i) {
      test::append_token(rig.cache(), chunks[i]);
      test::recall_all(rig.cache(), chunks[i].queries);
      EXPECT_TRUE(all_finite(test::attend_all(rig.cache(), 0, chunks[i].queries)));
    }
    EXPECT_EQ(check(rig.cache()), Status::kOk);
  }
  EXPECT_GT(found, 500u);
  // Another head with an index than there is space for.
  test::put_back(state, std::span(const_cast<std::byte*>(rig.state().data()), state.size()));
  ASSERT_EQ(check(rig.cache()), Status::kOk);
  const ArenaView to{rig.cache()};
  cold_head(to, to.chain(0, 1)) = cold_head(to, to.chain(0, 0));
  cold_head(to, to.chain(0, 0)).index = 0;
  cold_head(to, to.chain(0, 1)).index = 1;
  EXPECT_EQ(check(rig.cache()), Status::kCorrupt);
  EXPECT_TRUE(rig.arena().guards_intact());
}

TEST(Faults, CountersOfPagesStopAtTheirLargestValue) {
  Rig rig(kShape, with_log(128, 512, 64));
  const auto run = [&](std::uint64_t seed) {
    for (const Token& token : chunks_of(kShape, 40, 8, seed)) {
      test::append_token(rig.cache(), token);
      test::recall_all(rig.cache(), token.queries);
    }
  };
  run(16);
  const ArenaView to{rig.cache()};
  ColdHead& head = cold_head(to, to.chain(1, 0));
  head.written = head.read = head.lost = 0xfffffffe;
  run(17);
  rig.store().read = [](void*, std::uint64_t, void*, std::size_t) { return false; };
  run(18);
  const RecallUsage usage = recall_usage(rig.cache(), 1, 0);
  EXPECT_EQ(usage.written_pages, 0xffffffffu);
  EXPECT_EQ(usage.read_pages, 0xffffffffu);
  EXPECT_EQ(usage.lost_pages, 0xffffffffu);
  EXPECT_EQ(recall_usage(rig.cache()).read_pages, 0xffffffffu);
}

// What a page holds depends on its tokens alone, not on what was recalled or lay in the scratch.
TEST(Faults, PagesAreTheSameBytesHoweverTheyWereRecalled) {
  const Policy policy = with_log(128, 512, 64);
  Rig rig(kShape, policy), other(kShape, policy);
  for (const Token& token : chunks_of(kShape, 100, 8, 8)) {
    test::append_token(rig.cache(), token);
    test::append_token(other.cache(), token);
    (void)test::recall_and_attend(rig.cache(), token.queries);
  }
  EXPECT_TRUE(std::equal(rig.pages().begin(), rig.pages().end(), other.pages().begin()));
}

TEST(Faults, AClearedCacheIsAFreshOne) {
  for (const bool wiped : {false, true}) {
    const Policy policy = with_log(128, 512, 64);
    Rig rig(kShape, policy), fresh(kShape, policy);
    for (const Token& token : chunks_of(kShape, 90, 8, 9)) {
      test::append_token(rig.cache(), token);
      test::recall_all(rig.cache(), token.queries);
    }
    ASSERT_EQ(wiped ? rig.cache().wipe() : rig.cache().clear(), Status::kOk);
    ASSERT_EQ(check(rig.cache()), Status::kOk);
    EXPECT_EQ(recall_usage(rig.cache()).written_pages, 0u);
    EXPECT_EQ(logged(rig.cache(), 0, 0), 0u);
    for (const Token& token : chunks_of(kShape, 60, 8, 10)) {
      test::append_token(rig.cache(), token);
      test::append_token(fresh.cache(), token);
      ASSERT_TRUE(test::same_bytes(test::recall_and_attend(rig.cache(), token.queries),
                                   test::recall_and_attend(fresh.cache(), token.queries)));
      ASSERT_EQ(check(rig.cache()), Status::kOk);
    }
    EXPECT_EQ(recall_usage(rig.cache()).lost_pages, 0u);
  }
}

// A store that drops writes without a word: what lies there is a page of the same head, number and identity.
TEST(Faults, APageFromBeforeClearIsNotTakenForANewOne) {
  for (const int kind : {0, 1, 2}) {
    const Policy policy = with_log(480, 384, 384);
    Rig rig(kShape, policy);
    Flash flash(rig);
    for (const Token& token : chunks_of(kShape, 60, 8, 11)) test::append_token(rig.cache(), token);
    ASSERT_GT(logged(rig.cache(), 0, 0), 0u);
    flash.instead_of_write = [](std::uint64_t, std::span<const std::byte>) { return true; };
    if (kind != 2) {
      ASSERT_EQ(kind == 0 ? rig.cache().clear() : rig.cache().wipe(), Status::kOk);
    }
    if (kind == 2) {  // a new cache over the old store
      test::Arena arena(footprint(kShape, policy));
      Cache next;
      ASSERT_EQ(next.init(arena.bytes(), kShape, policy, {.store = &rig.store()}), Status::kOk);
      for (const Token& token : chunks_of(kShape, 60, 8, 12)) test::append_token(next, token);
      test::recall_all(next, mild(Random(13).bells(256)));
      EXPECT_EQ(logged(next, 1, 1), 0u);
      EXPECT_EQ(recalled(next, 1, 1), 0u);
      continue;
    }
    for (const Token& token : chunks_of(kShape, 60, 8, 12)) test::append_token(rig.cache(), token);
    ASSERT_GT(logged(rig.cache(), 1, 1), 0u) << "the store says that it wrote";
    test::recall_all(rig.cache(), mild(Random(13).bells(256)));
    EXPECT_EQ(logged(rig.cache(), 1, 1), 0u);
    EXPECT_EQ(recalled(rig.cache(), 1, 1), 0u);
    EXPECT_EQ(recall_usage(rig.cache()).lost_pages, recall_usage(rig.cache()).written_pages);
    EXPECT_EQ(check(rig.cache()), Status::kOk);
  }
}

}  // namespace
}  // namespace nibkv::faults_test
