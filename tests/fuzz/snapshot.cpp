// A snapshot, as it is and with its checksums corrected: either it is refused and nothing changes,
// or it is restored and the cache is usable. Also imported into a cache of another policy.
#include <gtest/gtest.h>

#include <cstring>
#include <memory>

#include "nibkv/nibkv.hpp"
#include "tests/fuzz/targets.hpp"
#include "tests/support/snapshots.hpp"

namespace nibkv::fuzz {
namespace {

using test::Random;
using test::Rig;

// One chain, two that may borrow from each other, two that compete, two that share
// codes; all of them small.
struct Kind {
  Shape shape;
  Policy policy;
};

std::vector<Kind> kinds() {
  const Shape one = {.layers = 1, .query_heads = 2, .kv_heads = 1, .head_dim = 16, .outlier_channels = 4};
  const Shape two = {.layers = 2, .query_heads = 4, .kv_heads = 2, .head_dim = 16, .max_chunk = 3};
  Shape exact = two;
  exact.storage = Storage::kF32;
  Policy merged = ems(48);
  merged.merge = Merge::kBoth;
  const Shape pair = {.layers = 2, .query_heads = 2, .kv_heads = 1, .head_dim = 16, .max_chunk = 3};
  Policy folded = minicache(600, pairs_from(0, 2));
  folded.fold.recent = folded.fold.retained = 0;
  Policy scored = ems_fold(600, pairs_from(0, 2));
  scored.fold = folded.fold;
  Policy tiers = tova(66);
  tiers.tail = 1;
  tiers.faint = 32;
  Policy log = streaming_llm(68);
  log.recall = 32;
  log.log = 64;
  log.indexed = 128;
  return {{one, ems(40)},    {two, full(40)}, {two, streaming_llm(40)}, {two, ada_kv(64)}, {one, merged},
          {exact, full(40)}, {pair, folded},  {pair, scored},           {one, tiers},      {two, precise_tail(64, 4)},
          {two, log}};
}

void work(Cache& cache, std::uint64_t seed) {
  const Shape& shape = cache.shape();
  Random random(seed);
  for (int step = 0; step < 3; ++step) {
    for (std::uint32_t layer = 0; layer < shape.layers; ++layer) {
      const auto rows = random.bells(std::size_t{shape.kv_heads} * shape.head_dim);
      const Status appended = append(cache, layer, rows, rows);
      const bool out_of_turn = appended == Status::kBadArgument && has_pairs(cache.policy());
      EXPECT_TRUE(appended == Status::kOk || appended == Status::kFull || out_of_turn);
      const auto asked = random.bells(std::size_t{shape.query_heads} * shape.head_dim);
      EXPECT_EQ(recall(cache, layer, asked), Status::kOk);
      const auto queries = random.bells(std::size_t{shape.query_heads} * shape.head_dim);
      std::vector<float> out(queries.size());
      const Status attended = attend(cache, layer, queries, out);
      EXPECT_TRUE(attended == Status::kOk || appended == Status::kFull || out_of_turn);
    }
  }
}

// A policy for a smaller cache, which keeps less.
Policy smaller(const Kind& kind) {
  if (kind.shape.storage == Storage::kF32) return streaming_llm(7, 2);
  Policy policy = kind.policy.keep == Keep::kRecent ? full(40) : ems(9);
  policy.threshold = 0;
  return policy;
}

// A nonempty cache, made once.
class Cached {
 public:
  Cached(const Shape& shape, const Policy& policy) : rig_(shape, policy) {
    work(rig_.cache(), 3);
    before_ = rig_.arena().copy();
  }

  /// @param of  what the snapshot is of; null: of a cache like this one
  void offer(std::span<const std::byte> input, const Kind* of) {
    Cache& cache = rig_.cache();
    std::vector<std::byte> bytes(input.begin(), input.end());  // a copy of exact size, for sanitizers
    const Status taken = of == nullptr ? restore(cache, bytes) : import_snapshot(cache, of->shape, of->policy, bytes);
    EXPECT_TRUE(of == nullptr || !has_log(of->policy) || taken == Status::kBadPolicy);
    if (taken != Status::kOk) {
      EXPECT_EQ(rig_.arena().copy(), before_);
      return;
    }
    EXPECT_EQ(check(cache), Status::kOk);
    SnapshotInfo info;
    EXPECT_EQ(inspect(bytes, info), Status::kOk);
    const std::vector<std::byte> first = test::saved(cache);
    EXPECT_EQ(restore(cache, first), Status::kOk);
    EXPECT_EQ(test::saved(cache), first);
    work(cache, 5);
    EXPECT_TRUE(rig_.arena().guards_intact());
    test::put_back(before_, rig_.arena().bytes());
  }

 private:
  class Open : public Rig {
   public:
    using Rig::arena;
    using Rig::Rig;
    test::Arena& arena() { return const_cast<test::Arena&>(Rig::arena()); }
  };
  Open rig_;
  std::vector<std::byte> before_;
};

// Copies magic, version, fingerprints and length from `good`, and corrects the checksums, as far as
// the sections can be parsed.
void seal(std::vector<std::byte>& bytes, const std::vector<std::byte>& good) {
  if (bytes.size() < 64) return;
  std::memcpy(bytes.data(), good.data(), 8);
  std::memcpy(bytes.data() + 16, good.data() + 16, 20);
  const std::uint64_t total = bytes.size();
  std::memcpy(bytes.data() + 8, &total, 8);
  std::uint32_t crc = test::crc_of(0, std::span(bytes).first(60));
  std::memcpy(bytes.data() + 60, &crc, 4);
  for (std::size_t at = 64; bytes.size() - at >= 20;) {
    std::uint64_t length = 0;
    std::memcpy(&length, bytes.data() + at + 8, 8);
    if (length > bytes.size() - at - 20) return;
    const std::size_t end = at + 16 + static_cast<std::size_t>(length);
    crc = test::crc_of(crc, std::span(bytes).subspan(at, end - at));
    std::memcpy(bytes.data() + end, &crc, 4);
    at = end + 4;
  }
}

std::vector<std::byte> good_snapshot(const Kind& kind) {
  Rig rig(kind.shape, kind.policy);
  // Layers that share codes fold from the 35th token on; slots are faint from the 67th, and the
  // log is full after 132.
  const std::uint64_t rounds = has_pairs(kind.policy)   ? 13
                               : has_tiers(kind.policy) ? 25
                               : has_log(kind.policy)   ? 50
                                                        : 4;
  for (std::uint64_t i = 0; i < rounds; ++i) work(rig.cache(), i);
  return test::saved(rig.cache());
}

}  // namespace

// One byte for the kind of cache, one that tells whether to correct the
// checksums, then the snapshot.
void snapshot(std::span<const std::byte> input) {
  static const std::vector<Kind> kKinds = kinds();
  static std::vector<std::unique_ptr<Cached>> caches, others;
  static std::vector<std::vector<std::byte>> good;
  if (caches.empty()) {
    for (const Kind& kind : kKinds) {
      caches.push_back(std::make_unique<Cached>(kind.shape, kind.policy));
      others.push_back(std::make_unique<Cached>(kind.shape, smaller(kind)));
      good.push_back(good_snapshot(kind));
    }
  }
  if (input.size() < 2) return;
  const std::size_t kind = std::to_integer<std::size_t>(input[0]) % kKinds.size();
  std::vector<std::byte> bytes(input.begin() + 2, input.end());
  if (input[1] != std::byte{0}) seal(bytes, good[kind]);
  caches[kind]->offer(bytes, nullptr);
  others[kind]->offer(bytes, &kKinds[kind]);
}

std::vector<Input> snapshot_seeds() {
  std::vector<Input> seeds;
  const std::vector<Kind> list = kinds();
  for (std::size_t kind = 0; kind < list.size(); ++kind) {
    for (const std::byte sealed : {std::byte{0}, std::byte{1}}) {
      Input input = {static_cast<std::byte>(kind), sealed};
      const std::vector<std::byte> bytes = good_snapshot(list[kind]);
      input.insert(input.end(), bytes.begin(), bytes.end());
      seeds.push_back(input);
    }
  }
  return seeds;
}

}  // namespace nibkv::fuzz
