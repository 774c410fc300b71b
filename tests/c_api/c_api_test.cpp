#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <string>
#include <tuple>

#include "calls.h"
#include "tests/support/rig.hpp"
#include "tests/support/snapshots.hpp"

namespace nibkv {
namespace {

using test::Arena;
using test::Random;

constexpr Shape kShape = {.layers = 2, .query_heads = 4, .kv_heads = 2, .head_dim = 32, .max_chunk = 8, .workers = 2};

nibkv_shape in_c(const Shape& shape) {
  return {shape.layers,
          shape.query_heads,
          shape.kv_heads,
          shape.head_dim,
          shape.outlier_channels,
          shape.max_chunk,
          shape.workers,
          static_cast<std::uint8_t>(shape.storage),
          {shape.rotary.base, shape.rotary.scale, shape.rotary.dims, shape.rotary.adjacent, shape.rotary.reach},
          static_cast<std::uint8_t>(shape.basis)};
}

nibkv_policy in_c(const Policy& p) {
  const auto number = [](auto value) { return static_cast<std::uint8_t>(value); };
  nibkv_policy c = {};
  c.keep = number(p.keep);
  c.tokens = p.tokens;
  c.sinks = p.sinks;
  c.recent = p.recent;
  c.score = number(p.score);
  c.group = number(p.group);
  c.combine = number(p.combine);
  c.per_query = p.per_query;
  c.window = p.window;
  c.pool = p.pool;
  c.merge = number(p.merge);
  c.rephase = p.rephase;
  c.similarity = number(p.similarity);
  c.position_free = p.position_free;
  c.mass = number(p.mass);
  c.mean_threshold = p.mean_threshold;
  c.threshold = p.threshold;
  c.candidate_mass = p.candidate_mass;
  c.budget = number(p.budget);
  c.most = p.most;
  c.recovered = p.recovered;
  c.recent_share = p.recent_share;
  c.value_norms = p.value_norms;
  c.wide_storage = static_cast<std::uint8_t>(p.wide_storage);
  std::memcpy(c.wide, p.wide.words, sizeof c.wide);
  c.wide_first = p.wide_first;
  c.tail_storage = number(p.tail_storage);
  c.faint_storage = number(p.faint_storage);
  c.tail = p.tail;
  c.faint = p.faint;
  c.log = p.log;
  c.recall = p.recall;
  c.indexed = p.indexed;
  std::copy_n(p.fold.keys.words, 4, c.fold.keys);
  std::copy_n(p.fold.values.words, 4, c.fold.values);
  std::copy_n(p.fold.aligned_keys.words, 4, c.fold.aligned_keys);
  std::copy_n(p.fold.aligned_values.words, 4, c.fold.aligned_values);
  c.fold.recent = p.fold.recent;
  c.fold.t = p.fold.t;
  c.fold.retained = p.fold.retained;
  c.fold.retain = number(p.fold.retain);
  c.fold.centred = p.fold.centred;
  c.fold.min_cosine = p.fold.min_cosine;
  return c;
}

auto fields(const nibkv_policy& p) {
  return std::tie(p.keep, p.tokens, p.sinks, p.recent, p.score, p.group, p.combine, p.per_query, p.window, p.pool,
                  p.merge, p.rephase, p.similarity, p.position_free, p.mass, p.mean_threshold, p.threshold,
                  p.candidate_mass, p.budget, p.most, p.recovered, p.recent_share, p.value_norms, p.wide_storage,
                  p.wide[0], p.wide[3], p.wide_first, p.tail_storage, p.faint_storage, p.tail, p.faint, p.log, p.recall,
                  p.indexed, p.fold.recent, p.fold.t, p.fold.retained, p.fold.retain, p.fold.centred,
                  p.fold.min_cosine);
}

Status in_cpp(nibkv_status status) {
  return static_cast<Status>(status);
}

std::vector<std::string> preset_names() {
  std::vector<std::string> names;
  for (std::uint32_t i = 0; !policy_name(i).empty(); ++i) names.emplace_back(policy_name(i));
  return names;
}

Shape random_shape(Random& random) {
  Shape shape;
  shape.layers = static_cast<std::uint16_t>(random.within(1, random.below(8) == 0 ? 1024 : 40));
  shape.kv_heads = static_cast<std::uint16_t>(random.within(1, 9));
  shape.query_heads = static_cast<std::uint16_t>(shape.kv_heads * random.within(1, 9));
  shape.head_dim = static_cast<std::uint16_t>(16 * random.within(1, 16));
  shape.max_chunk = static_cast<std::uint16_t>(random.within(1, random.below(4) == 0 ? 4096 : 40));
  shape.workers = static_cast<std::uint16_t>(random.within(1, random.below(4) == 0 ? 256 : 4));
  if (random.below(4) == 0) {
    shape.storage = Storage::kF32;
  } else {
    shape.outlier_channels = static_cast<std::uint16_t>(4 * random.below(5));
  }
  return shape;
}

std::uint32_t random_tokens(Random& random) {
  return 1 + (random.word() & 0xffffff) / (1u << random.below(24));
}

// The bytes of an arena that do not depend on how calls were divided: without workspace, and what was reserved.
std::vector<std::byte> undivided(const Arena& arena, const Policy& policy) {
  std::vector<std::byte> bytes = arena.copy();
  bytes.resize(static_cast<std::size_t>(layout_of(kShape, policy).plan));
  std::fill_n(bytes.begin() + 40, 16, std::byte{0});
  return bytes;
}

struct CountedStore {
  std::vector<std::byte> pages;
  int writes = 0, reads = 0, prefetches = 0;
};

nibkv_cold_store store_of(CountedStore& counted) {
  nibkv_cold_store store = {};
  store.write = [](void* context, std::uint64_t offset, const void* page, std::size_t bytes) {
    auto& to = *static_cast<CountedStore*>(context);
    if (offset + bytes > to.pages.size()) return false;
    std::memcpy(to.pages.data() + offset, page, bytes);
    return ++to.writes != 0;
  };
  store.read = [](void* context, std::uint64_t offset, void* page, std::size_t bytes) {
    auto& from = *static_cast<CountedStore*>(context);
    if (offset + bytes > from.pages.size()) return false;
    std::memcpy(page, from.pages.data() + offset, bytes);
    return ++from.reads != 0;
  };
  store.prefetch = [](void* context, std::uint64_t, std::size_t) { ++static_cast<CountedStore*>(context)->prefetches; };
  store.context = &counted;
  return store;
}

TEST(CApi, RecallsAsTheCppInterfaceDoes) {
  constexpr Shape kOne = {.layers = 1, .query_heads = 4, .kv_heads = 2, .head_dim = 32, .max_chunk = 4};
  Policy policy = recall_window(128, 512);
  policy.indexed = 256;
  test::Rig rig(kOne, policy);
  const nibkv_shape c_shape = in_c(kOne);
  const nibkv_policy c_policy = in_c(policy);
  CountedStore counted;
  counted.pages.resize(static_cast<std::size_t>(nibkv_cold_bytes(&c_shape, &c_policy)));
  ASSERT_EQ(counted.pages.size(), cold_bytes(kOne, policy));
  const nibkv_policy none = in_c(full(4));
  EXPECT_EQ(nibkv_cold_bytes(&c_shape, &none), 0u);
  EXPECT_EQ(nibkv_cold_bytes(nullptr, &c_policy), 0u);
  const nibkv_cold_store store = store_of(counted);
  Arena arena(nibkv_footprint(&c_shape, &c_policy));
  nibkv_options options = {};
  nibkv_cache cache = {};
  EXPECT_EQ(nibkv_recall(&cache, 0, 1, nullptr, nullptr), NIBKV_NOT_READY);
  EXPECT_EQ(nibkv_init(&cache, arena.bytes().data(), arena.bytes().size(), &c_shape, &c_policy, &options),
            NIBKV_BAD_ARGUMENT);
  options.store = &store;
  ASSERT_EQ(nibkv_init(&cache, arena.bytes().data(), arena.bytes().size(), &c_shape, &c_policy, &options), NIBKV_OK);
  EXPECT_EQ(nibkv_recall(&cache, 0, 1, nullptr, nullptr), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_recall_rows(&cache, 0, 1, nullptr, nullptr), NIBKV_BAD_ARGUMENT);
  Random random(9);
  for (int i = 0; i < 600; ++i) {
    const std::vector<float> keys = random.bells(64), values = random.bells(64), queries = random.bells(128);
    ASSERT_EQ(append(rig.cache(), 0, keys, values), Status::kOk);
    ASSERT_EQ(nibkv_append(&cache, 0, 1, keys.data(), values.data()), NIBKV_OK);
    ASSERT_EQ(recall(rig.cache(), 0, queries), Status::kOk);
    const nibkv_rows rows = {queries.data(), NIBKV_NUMBER_F32, 128, 32};
    if (i % 2 == 0) {
      ASSERT_EQ(nibkv_recall(&cache, 0, 1, queries.data(), nullptr), NIBKV_OK);
    } else {
      ASSERT_EQ(nibkv_recall_rows(&cache, 0, 1, &rows, nullptr), NIBKV_OK);
    }
    std::vector<float> out(128);
    ASSERT_EQ(nibkv_attend(&cache, 0, 1, queries.data(), out.data(), nullptr), NIBKV_OK);
    ASSERT_TRUE(test::same_bytes(out, test::attend_all(rig.cache(), 0, queries))) << i;
    ASSERT_EQ(nibkv_recalled(&cache, 0, 1), recalled(rig.cache(), 0, 1));
  }
  const nibkv_recall_usage usage = nibkv_recall_usage_now(&cache);
  const RecallUsage same = recall_usage(rig.cache());
  EXPECT_EQ(usage.written_pages, same.written_pages);
  EXPECT_EQ(usage.written_pages, static_cast<std::uint32_t>(counted.writes));
  EXPECT_EQ(usage.read_pages, same.read_pages);
  EXPECT_EQ(usage.read_pages, static_cast<std::uint32_t>(counted.reads));
  EXPECT_EQ(usage.read_pages, static_cast<std::uint32_t>(counted.prefetches));
  EXPECT_EQ(usage.lost_pages, 0u);
  EXPECT_EQ(usage.forgotten_pages, same.forgotten_pages);
  EXPECT_EQ(usage.chosen_tokens, same.chosen_tokens);
  EXPECT_EQ(usage.found_tokens, same.found_tokens);
  EXPECT_GT(usage.read_pages, 100u);
}

TEST(CApi, ALogGoesOnAfterARestartAndInACopy) {
  constexpr Shape kOne = {.layers = 1, .query_heads = 4, .kv_heads = 2, .head_dim = 32, .max_chunk = 4};
  Policy policy = recall_window(128, 512);
  policy.indexed = 256;
  const nibkv_shape shape = in_c(kOne);
  const nibkv_policy c_policy = in_c(policy);
  const std::size_t bytes = nibkv_footprint(&shape, &c_policy);
  CountedStore first, second;
  first.pages.resize(static_cast<std::size_t>(nibkv_cold_bytes(&shape, &c_policy)));
  second.pages.resize(first.pages.size());
  nibkv_cold_store store = store_of(first), other = store_of(second);
  store.identity = 5;
  other.identity = 6;
  Arena arena(bytes), after(bytes), copied(bytes);
  nibkv_options options = {};
  options.store = &store;
  nibkv_cache cache = {}, restored = {}, copy = {};
  EXPECT_EQ(nibkv_verify_log(&cache, 0, 0), NIBKV_NOT_READY);
  ASSERT_EQ(nibkv_init(&cache, arena.bytes().data(), bytes, &shape, &c_policy, &options), NIBKV_OK);
  ASSERT_EQ(nibkv_init(&restored, after.bytes().data(), bytes, &shape, &c_policy, &options), NIBKV_OK);
  Random random(10);
  const auto step = [&](nibkv_cache* one, const std::vector<float>& rows, const std::vector<float>& queries) {
    std::vector<float> out(128);
    EXPECT_EQ(nibkv_append(one, 0, 1, rows.data(), rows.data()), NIBKV_OK);
    EXPECT_EQ(nibkv_recall(one, 0, 1, queries.data(), nullptr), NIBKV_OK);
    EXPECT_EQ(nibkv_attend(one, 0, 1, queries.data(), out.data(), nullptr), NIBKV_OK);
    return out;
  };
  for (int i = 0; i < 400; ++i) (void)step(&cache, random.bells(64), random.bells(128));
  std::vector<std::byte> snapshot(static_cast<std::size_t>(nibkv_most_snapshot_bytes(&shape, &c_policy, 0)));
  const restart with = {snapshot.data(), snapshot.size(), &restored, 1, 2, copied.bytes().data(), bytes, &other, &copy};
  ASSERT_EQ(restart_in_c(&cache, &with), NIBKV_OK);
  EXPECT_EQ(nibkv_recall_usage_now(&restored).lost_pages, 0u);
  EXPECT_GT(second.writes, 10u);
  EXPECT_EQ(nibkv_verify_log(&restored, 0, 2), NIBKV_BAD_ARGUMENT);
  // The last token is in the log long before these end.
  for (int i = 0; i < 60; ++i) {
    const std::vector<float> rows = random.bells(64), queries = random.bells(128);
    const std::vector<float> out = step(&copy, rows, queries);
    ASSERT_TRUE(test::same_bytes(step(&restored, rows, queries), out)) << i;
  }
  EXPECT_EQ(nibkv_recall_usage_now(&copy).lost_pages, 0u);
  // Of another store, and of a file that is gone.
  store.identity = 7;
  EXPECT_EQ(restart_in_c(&copy, &with), NIBKV_OTHER_STORE);
  store.identity = 5;
  std::fill(first.pages.begin(), first.pages.end(), std::byte{0});
  ASSERT_EQ(restart_in_c(&restored, &with), NIBKV_OK);
  const nibkv_recall_usage usage = nibkv_recall_usage_now(&restored);
  EXPECT_EQ(usage.lost_pages, usage.written_pages - usage.forgotten_pages);
  EXPECT_EQ(nibkv_clone(&cache, copied.bytes().data(), bytes, &copy), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_clone_with_store(&cache, copied.bytes().data(), bytes, &store, &copy), NIBKV_BAD_ARGUMENT);
}

TEST(CApi, AConversationGivesTheBytesOfTheCppInterface) {
  Random random(1);
  const std::uint32_t all = 150, prompt = 61, tokens = 96;
  const std::size_t kv = std::size_t{kShape.kv_heads} * kShape.head_dim,
                    q = std::size_t{kShape.query_heads} * kShape.head_dim;
  const std::vector<float> keys = random.bells(kShape.layers * all * kv), values = random.bells(keys.size()),
                           queries = random.bells(kShape.layers * all * q);
  for (const std::string& name : preset_names()) {
    SCOPED_TRACE(name);
    if (name == "recall") continue;  // RecallsAsTheCppInterfaceDoes
    const std::uint32_t budget = name == "full" || name == "precise_tail" || name == "minicache" ? all : tokens;
    Policy policy;
    ASSERT_EQ(find_policy(name, budget, policy), Status::kOk);
    const std::size_t bytes = footprint(kShape, policy);

    Arena c_arena(bytes);
    std::vector<float> c_out(queries.size()), c_after(q);
    std::vector<nibkv_slot> c_slots(all);
    std::vector<std::uint32_t> c_target(all);
    const std::vector<std::byte> profile = test::make_profile(kShape, policy, 3);
    std::vector<TokenClass> classes;
    for (std::uint32_t i = 0; i < 16; ++i) classes.push_back(static_cast<TokenClass>(random.below(3)));
    const setup with = {in_c(kShape),
                        name.c_str(),
                        budget,
                        prompt,
                        all,
                        keys.data(),
                        values.data(),
                        queries.data(),
                        0,
                        profile.data(),
                        profile.size(),
                        reinterpret_cast<const std::uint8_t*>(classes.data())};
    results to = {
        c_arena.bytes().data(), bytes, c_out.data(), c_slots.data(), c_target.data(), c_after.data(), {}, 0, 0, 0};
    ASSERT_EQ(in_cpp(run_in_c(&with, &to)), Status::kOk);

    Arena arena(bytes);
    Cache cache;
    ASSERT_EQ(cache.init(arena.bytes(), kShape, policy, {{}, profile}), Status::kOk);
    std::vector<float> out(queries.size());
    for (std::uint32_t layer = 0; layer < kShape.layers; ++layer) {
      for (std::uint32_t token = 0; token < all;) {
        const std::uint32_t left = token < prompt ? prompt - token : 1;
        const std::uint32_t count = std::min<std::uint32_t>(left, kShape.max_chunk);
        const std::size_t from = layer * all + token;
        const std::span<const float> row(queries.data() + from * q, count * q);
        const std::span<float> to_row(out.data() + from * q, count * q);
        ASSERT_EQ(append(cache, layer, {keys.data() + from * kv, count * kv}, {values.data() + from * kv, count * kv}),
                  Status::kOk);
        if (count > 1) {
          ASSERT_EQ(attend(cache, layer, row, to_row), Status::kOk);
        } else {
          ASSERT_EQ(attend(cache, layer, row, to_row, {.heads = 1}), Status::kOk);
          ASSERT_EQ(attend(cache, layer, row, to_row, {.first_head = 1, .worker = 1}), Status::kOk);
        }
        token += count;
      }
    }
    ASSERT_EQ(classify(cache, classes), keeps_classes(policy) ? Status::kOk : Status::kBadPolicy);
    const std::vector<SlotInfo> slots = test::explain_all(cache, 0, 0);
    std::vector<std::uint32_t> target(slots.size());
    ASSERT_EQ(plan(cache, 0, 0, kShape.max_chunk, target), Status::kOk);
    ASSERT_EQ(compact(cache, 0, 0, target), Status::kOk);
    if (policy.keep == Keep::kScore) {
      ASSERT_EQ(compact_now(cache, budget - budget / 4, Budget::kUniform), Status::kOk);
    }
    std::vector<float> after(q);
    ASSERT_EQ(attend(cache, 0, {queries.data(), q}, after), Status::kOk);

    EXPECT_TRUE(test::same_bytes(c_out, out));
    EXPECT_TRUE(test::same_bytes(c_after, after));
    EXPECT_NE(after, std::vector<float>(q));
    EXPECT_EQ(c_arena.copy(), arena.copy());
    EXPECT_TRUE(c_arena.guards_intact());
    for (std::size_t i = 0; i < slots.size(); ++i) {
      EXPECT_EQ(c_target[i], target[i]) << i;
      EXPECT_EQ(std::tie(c_slots[i].position, c_slots[i].global, c_slots[i].local, c_slots[i].bias, c_slots[i].merged),
                std::tie(slots[i].position, slots[i].global, slots[i].local, slots[i].bias, slots[i].merged))
          << i;
    }
    Arena shared_arena(bytes);
    std::vector<float> shared_out(queries.size());
    setup in_shares = with;
    in_shares.in_shares = 1;
    to.arena = shared_arena.bytes().data();
    to.out = shared_out.data();
    ASSERT_EQ(in_cpp(run_in_c(&in_shares, &to)), Status::kOk);
    EXPECT_TRUE(test::same_bytes(shared_out, out));
    EXPECT_EQ(undivided(shared_arena, policy), undivided(arena, policy));
    EXPECT_EQ(to.held, cache.held(0, 0));
    EXPECT_EQ(to.budget, cache.budget(0, 0));
    EXPECT_EQ(to.seen, all);
    const Usage usage = cache.usage();
    EXPECT_EQ(std::tie(to.usage.arena_bytes, to.usage.used_bytes, to.usage.peak_bytes),
              std::tie(usage.arena_bytes, usage.used_bytes, usage.peak_bytes));
    EXPECT_EQ(std::tie(to.usage.tiles, to.usage.used_tiles, to.usage.peak_tiles, to.usage.drowned_rows),
              std::tie(usage.tiles, usage.used_tiles, usage.peak_tiles, usage.drowned_rows));
  }
}

TEST(CApi, OptionsReachTheCache) {
  Shape shape = kShape;
  shape.outlier_channels = 8;
  const std::vector<std::byte> profile = test::make_profile(shape, 3);
  const std::uint32_t budgets[] = {96, 64, 32, 64};
  Policy policy = snapkv(64);
  policy.budget = Budget::kTable;
  policy.recent = 16;
  const nibkv_shape c_shape = in_c(shape);
  const nibkv_policy c_policy = in_c(policy);
  Arena arena(footprint(shape, policy));
  const auto init = [&](const nibkv_options& options, nibkv_cache& cache) {
    return nibkv_init(&cache, arena.bytes().data(), arena.bytes().size(), &c_shape, &c_policy, &options);
  };
  nibkv_options options = {"scalar", profile.data(), profile.size(), budgets, 4, 0, 0, nullptr};
  nibkv_cache cache = {};
  ASSERT_EQ(init(options, cache), NIBKV_OK);
  EXPECT_STREQ(nibkv_port(&cache), "scalar");
  for (std::uint32_t layer = 0; layer < 2; ++layer) {
    for (std::uint32_t head = 0; head < 2; ++head)
      EXPECT_EQ(nibkv_head_budget(&cache, layer, head), budgets[2 * layer + head]);
  }

  nibkv_cache other = {};
  options.port = nullptr;
  ASSERT_EQ(init(options, other), NIBKV_OK);
  EXPECT_EQ(nibkv_port(&other), test::running_ports()[0]);
  options.port = "abacus";
  EXPECT_EQ(init(options, other), NIBKV_UNKNOWN_PORT);
  options = {"", nullptr, 0, budgets, 4, 0, 0, nullptr};
  EXPECT_EQ(init(options, other), NIBKV_BAD_PROFILE);
  options = {"", profile.data(), profile.size() - 1, budgets, 4, 0, 0, nullptr};
  EXPECT_EQ(init(options, other), NIBKV_BAD_PROFILE);
  options = {"", profile.data(), profile.size(), budgets, 3, 0, 0, nullptr};
  EXPECT_NE(init(options, other), NIBKV_OK);
  options = {"", profile.data(), profile.size(), budgets, 4, 77, 0, nullptr};
  EXPECT_EQ(init(options, other), NIBKV_OK) << "the profile does not say which weights it is of";
  options = {"", profile.data(), profile.size(), budgets, 4, 0, 1, nullptr};
  EXPECT_EQ(init(options, other), NIBKV_OK);
  options.turns = 2;
  EXPECT_EQ(init(options, other), NIBKV_BAD_ARGUMENT);
  options = {"", nullptr, 5, nullptr, 0, 0, 0, nullptr};
  EXPECT_EQ(init(options, other), NIBKV_BAD_ARGUMENT);
  options = {"", profile.data(), profile.size(), nullptr, 4, 0, 0, nullptr};
  EXPECT_EQ(init(options, other), NIBKV_BAD_ARGUMENT);
}

TEST(CApi, PresetsAreThoseOfCpp) {
  const std::vector<std::string> names = preset_names();
  ASSERT_FALSE(names.empty());
  for (std::uint32_t i = 0; i < names.size(); ++i) {
    EXPECT_EQ(nibkv_policy_name(i), names[i]);
    for (const std::uint32_t tokens : {0u, 1u, 40u, 512u}) {
      Policy policy;
      nibkv_policy c_policy = {};
      ASSERT_EQ(find_policy(names[i], tokens, policy), Status::kOk);
      ASSERT_EQ(nibkv_find_policy(names[i].c_str(), tokens, &c_policy), NIBKV_OK);
      EXPECT_EQ(fields(c_policy), fields(in_c(policy))) << names[i] << " " << tokens;
    }
  }
  EXPECT_EQ(nibkv_policy_name(static_cast<std::uint32_t>(names.size())), nullptr);
  nibkv_policy policy = in_c(ems(77));
  EXPECT_EQ(nibkv_find_policy("nothing", 5, &policy), NIBKV_BAD_POLICY);
  EXPECT_EQ(nibkv_find_policy(nullptr, 5, &policy), NIBKV_BAD_POLICY);
  EXPECT_EQ(fields(policy), fields(in_c(ems(77))));
  EXPECT_EQ(nibkv_find_policy("ems", 5, nullptr), NIBKV_BAD_ARGUMENT);
}

TEST(CApi, EveryFieldOfAPolicyAndAShapeCounts) {
  // A field that was lost in the conversion would leave the policy valid, or the
  // footprint unchanged.
  const nibkv_shape shape = in_c(kShape);
  const auto refused = [&](auto&& change) {
    nibkv_policy wrong = in_c(ems(512));
    change(wrong);
    return nibkv_footprint(&shape, &wrong) == 0;
  };
  EXPECT_FALSE(refused([](nibkv_policy&) {}));
  EXPECT_TRUE(refused([](nibkv_policy& p) { p.keep = 3; }));
  EXPECT_TRUE(refused([](nibkv_policy& p) { p.tokens = 0; }));
  EXPECT_TRUE(refused([](nibkv_policy& p) { p.sinks = 512; }));
  EXPECT_TRUE(refused([](nibkv_policy& p) { p.recent = 512; }));
  EXPECT_TRUE(refused([](nibkv_policy& p) { p.score = 4; }));
  EXPECT_TRUE(refused([](nibkv_policy& p) { p.group = 2; }));
  EXPECT_TRUE(refused([](nibkv_policy& p) { p.combine = 2; }));
  EXPECT_TRUE(refused([](nibkv_policy& p) { p.window = 3; }));
  EXPECT_TRUE(refused([](nibkv_policy& p) { p.pool = 2; }));
  EXPECT_TRUE(refused([](nibkv_policy& p) { p.merge = 3; }));
  EXPECT_TRUE(refused([](nibkv_policy& p) { p.similarity = 3; }));
  EXPECT_TRUE(refused([](nibkv_policy& p) { p.mass = 3; }));
  EXPECT_TRUE(refused([](nibkv_policy& p) { p.budget = 9; }));
  EXPECT_TRUE(refused([](nibkv_policy& p) { p.most = 65; }));
  // These have no value out of range, but must have their defaults if they are not read.
  const auto refused_when_full = [&](auto&& change) {
    nibkv_policy wrong = in_c(full(512));
    change(wrong);
    return nibkv_footprint(&shape, &wrong) == 0;
  };
  EXPECT_FALSE(refused_when_full([](nibkv_policy&) {}));
  EXPECT_TRUE(refused_when_full([](nibkv_policy& p) { p.per_query = false; }));
  EXPECT_TRUE(refused_when_full([](nibkv_policy& p) { p.mean_threshold = true; }));
  EXPECT_TRUE(refused_when_full([](nibkv_policy& p) { p.threshold = 1; }));
  EXPECT_TRUE(refused_when_full([](nibkv_policy& p) { p.candidate_mass = 1; }));

  // Layers that do not exist, and codes that are not wider.
  EXPECT_FALSE(refused_when_full([](nibkv_policy& p) { p.wide[0] = 1; }));
  EXPECT_TRUE(refused_when_full([](nibkv_policy& p) { p.wide[3] = 1; }));
  EXPECT_FALSE(refused_when_full([](nibkv_policy& p) { p.wide_first = true, p.wide_storage = NIBKV_Q8; }));
  EXPECT_TRUE(refused_when_full([](nibkv_policy& p) { p.wide_first = true, p.wide_storage = NIBKV_Q2; }));
  EXPECT_TRUE(refused_when_full([](nibkv_policy& p) { p.wide[0] = 1, p.wide_storage = NIBKV_Q4; }));

  // Read when layers share.
  const auto refused_when_folded = [&](auto&& change) {
    nibkv_policy wrong = in_c(minicache(512, pairs_from(0, 2)));
    change(wrong.fold);
    return nibkv_footprint(&shape, &wrong) == 0;
  };
  EXPECT_FALSE(refused_when_folded([](nibkv_fold&) {}));
  EXPECT_TRUE(refused_when_folded([](nibkv_fold& f) { f.keys[3] = 1; }));
  EXPECT_TRUE(refused_when_folded([](nibkv_fold& f) { f.values[3] = 1; }));
  EXPECT_TRUE(refused_when_folded([](nibkv_fold& f) { f.aligned_keys[3] = 1; }));
  EXPECT_TRUE(refused_when_folded([](nibkv_fold& f) { f.aligned_values[3] = 1; }));
  EXPECT_TRUE(refused_when_folded([](nibkv_fold& f) { f.recent = 1u << 25; }));
  EXPECT_TRUE(refused_when_folded([](nibkv_fold& f) { f.retained = 129; }));
  EXPECT_TRUE(refused_when_folded([](nibkv_fold& f) { f.retain = 99; }));

  const auto shape_refused = [&](auto&& change) {
    nibkv_shape wrong = shape;
    change(wrong);
    const nibkv_policy any = in_c(full(512));
    return nibkv_footprint(&wrong, &any) == 0;
  };
  EXPECT_TRUE(shape_refused([](nibkv_shape& s) { s.layers = 0; }));
  EXPECT_TRUE(shape_refused([](nibkv_shape& s) { s.query_heads = 3; }));
  EXPECT_TRUE(shape_refused([](nibkv_shape& s) { s.kv_heads = 0; }));
  EXPECT_TRUE(shape_refused([](nibkv_shape& s) { s.head_dim = 31; }));
  EXPECT_TRUE(shape_refused([](nibkv_shape& s) { s.outlier_channels = 1; }));
  EXPECT_TRUE(shape_refused([](nibkv_shape& s) { s.max_chunk = 0; }));
  EXPECT_TRUE(shape_refused([](nibkv_shape& s) { s.workers = 0; }));
  EXPECT_TRUE(shape_refused([](nibkv_shape& s) { s.storage = 6; }));
  EXPECT_FALSE(shape_refused([](nibkv_shape& s) { s.rotary = {1e4f, 1, 16, true, 64}; }));
  EXPECT_TRUE(shape_refused([](nibkv_shape& s) { s.rotary = {1e4f, 1, 16, true, 1}; }));
}

TEST(CApi, MacrosAreTheFootprintOfEveryPreset) {
  Random random(2);
  const std::vector<std::string> names = preset_names();
  std::vector<int> seen(names.size());
  for (int n = 0; n < 20000; ++n) {
    const Shape shape = random_shape(random);
    const std::uint32_t tokens = random_tokens(random), preset = random.below(static_cast<std::uint32_t>(names.size()));
    Policy policy;
    ASSERT_EQ(find_policy(names[preset], tokens, policy), Status::kOk);
    const nibkv_shape c_shape = in_c(shape);
    const nibkv_policy c_policy = in_c(policy);
    const std::size_t bytes = footprint(shape, policy);
    ASSERT_EQ(nibkv_footprint(&c_shape, &c_policy), bytes);
    if (bytes == 0) continue;  // out of range: macros do not check that
    ++seen[preset];
    ASSERT_EQ(macro_footprint_of(&c_policy, &c_shape), bytes) << test::words(shape, policy);
  }
  for (std::size_t i = 0; i < names.size(); ++i) EXPECT_GT(seen[i], 100) << names[i];
}

TEST(CApi, AMacroIsTheFootprintOfAnyPolicy) {
  Random random(3);
  int seen = 0;
  for (int n = 0; n < 5000; ++n) {
    Shape shape = random_shape(random);
    shape.storage = Storage::kQ4;
    shape.max_chunk = static_cast<std::uint16_t>(random.within(1, 40));
    const Policy policy = test::random_scored_policy(random, shape, 2000);
    const nibkv_shape c_shape = in_c(shape);
    const nibkv_policy c_policy = in_c(policy);
    const std::size_t bytes = footprint(shape, policy);
    if (bytes == 0) continue;
    ++seen;
    ASSERT_EQ(macro_footprint_of(&c_policy, &c_shape), bytes) << test::words(shape, policy);
  }
  EXPECT_GT(seen, 1000);
}

TEST(CApi, AStaticArenaOfAMacrosSizeIsExactlyEnough) {
  nibkv_cache cache = {};
  EXPECT_EQ(init_static(&cache, 1), NIBKV_ARENA_TOO_SMALL);
  EXPECT_EQ(nibkv_clear(&cache), NIBKV_NOT_READY);
  EXPECT_EQ(init_static(&cache, 0), NIBKV_OK);
  EXPECT_EQ(nibkv_clear(&cache), NIBKV_OK);
}

TEST(CApi, AnyBufferHasAnAlignedPart) {
  std::vector<std::byte> buffer(1000);
  for (std::size_t skipped = 0; skipped < 130; ++skipped) {
    for (std::size_t size : {std::size_t{0}, std::size_t{1}, std::size_t{63}, std::size_t{64}, std::size_t{800}}) {
      const std::span<std::byte> part = aligned(std::span(buffer).subspan(skipped, size));
      EXPECT_EQ(nibkv_aligned(buffer.data() + skipped, &size), part.data()) << skipped;
      EXPECT_EQ(size, part.size()) << skipped;
    }
  }
  std::size_t size = 100;
  EXPECT_EQ(nibkv_aligned(nullptr, &size), nullptr);
  EXPECT_EQ(size, 0u);
  EXPECT_EQ(nibkv_aligned(buffer.data(), nullptr), nullptr);
}

TEST(CApi, TokensThatFitAreThoseOfCpp) {
  Random random(4);
  const nibkv_shape shape = in_c(kShape);
  for (const std::string& name : preset_names()) {
    for (int n = 0; n < 20; ++n) {
      Policy policy;
      ASSERT_EQ(find_policy(name, 1, policy), Status::kOk);
      const nibkv_policy c_policy = in_c(policy);
      const std::uint64_t bytes = random.word() >> (random.below(50) + 10);
      EXPECT_EQ(nibkv_tokens_that_fit(&shape, &c_policy, bytes), tokens_that_fit(kShape, policy, bytes)) << name;
      EXPECT_EQ(nibkv_preset_tokens_that_fit(&shape, name.c_str(), bytes), tokens_that_fit(kShape, name, bytes))
          << name;
      EXPECT_EQ(nibkv_smallest_footprint(&shape, &c_policy), smallest_footprint(kShape, policy)) << name;
      EXPECT_EQ(nibkv_preset_smallest_footprint(&shape, name.c_str()), smallest_footprint(kShape, name)) << name;
    }
  }
  EXPECT_GT(nibkv_preset_smallest_footprint(&shape, "ems"), nibkv_preset_smallest_footprint(&shape, "full"));
  EXPECT_EQ(nibkv_preset_smallest_footprint(&shape, "no such policy"), 0u);
  const nibkv_policy full_policy = in_c(full(1));
  EXPECT_GT(nibkv_tokens_that_fit(&shape, &full_policy, 1000000), 1000u);
  EXPECT_GT(nibkv_preset_tokens_that_fit(&shape, "ems", 1000000), 700u);
  EXPECT_EQ(nibkv_preset_tokens_that_fit(&shape, "no such policy", 1000000), 0u);
}

TEST(CApi, StatusesAndNamesAreThoseOfCpp) {
  // To 31: what an enumeration of 21 values may hold in C++.
  for (int i = 0; i <= 31; ++i)
    EXPECT_EQ(nibkv_status_text(static_cast<nibkv_status>(i)), text(static_cast<Status>(i)));
  EXPECT_NE(text(Status{NIBKV_OTHER_STORE}), "unknown status");
  EXPECT_EQ(text(Status{NIBKV_OTHER_STORE + 1}), "unknown status") << "a status that nibkv.h lacks";
  for (std::uint32_t i = 0; !port_name(i).empty(); ++i) {
    EXPECT_EQ(nibkv_port_name(i), port_name(i));
    EXPECT_EQ(nibkv_port_runs(nibkv_port_name(i)), port_runs(port_name(i)));
    EXPECT_EQ(nibkv_port_name(i + 1) == nullptr, port_name(i + 1).empty());
  }
  EXPECT_TRUE(nibkv_port_runs("scalar"));
  EXPECT_FALSE(nibkv_port_runs("abacus"));
  EXPECT_FALSE(nibkv_port_runs(nullptr));
  const std::string version = std::to_string(NIBKV_VERSION_MAJOR) + "." + std::to_string(NIBKV_VERSION_MINOR) + "." +
                              std::to_string(NIBKV_VERSION_PATCH);
  EXPECT_EQ(NIBKV_VERSION_STRING, version);
  EXPECT_EQ(nibkv_version(), version);
  EXPECT_EQ(version, NIBKV_PROJECT_VERSION);
  EXPECT_EQ(nibkv_cache_bytes(), sizeof(nibkv_cache));
}

// Calls every verb on the handle, and compares what it and the counts return.
void expect_not_ready(nibkv_cache* cache) {
  float row[4 * 32] = {};
  std::uint32_t target[1] = {};
  nibkv_slot slot = {};
  bool done = false;
  EXPECT_EQ(nibkv_clear(cache), NIBKV_NOT_READY);
  EXPECT_EQ(nibkv_wipe(cache), NIBKV_NOT_READY);
  EXPECT_EQ(nibkv_tidy(cache, 1, &done), NIBKV_NOT_READY);
  EXPECT_EQ(nibkv_append(cache, 0, 1, row, row), NIBKV_NOT_READY);
  EXPECT_EQ(nibkv_attend(cache, 0, 1, row, row, nullptr), NIBKV_NOT_READY);
  const nibkv_rows rows = {row, NIBKV_NUMBER_F32, 16, 16};
  const nibkv_mutable_rows to_write = {row, NIBKV_NUMBER_F32, 16, 16};
  EXPECT_EQ(nibkv_append_rows(cache, 0, 1, &rows, &rows), NIBKV_NOT_READY);
  EXPECT_EQ(nibkv_attend_rows(cache, 0, 1, &rows, &to_write, nullptr), NIBKV_NOT_READY);
  const std::uint32_t own = 1;
  EXPECT_EQ(nibkv_attend_masked(cache, 0, 1, &rows, &own, &to_write, nullptr), NIBKV_NOT_READY);
  EXPECT_EQ(nibkv_attend_drafts(cache, 0, 1, &rows, &own, &to_write, nullptr), NIBKV_NOT_READY);
  const nibkv_share share = {0, 1, 0};
  EXPECT_EQ(nibkv_reserve(cache, 0, 1), NIBKV_NOT_READY);
  EXPECT_EQ(nibkv_append_share(cache, 0, 1, &rows, &rows, &share), NIBKV_NOT_READY);
  EXPECT_FALSE(nibkv_divisible(cache));
  EXPECT_EQ(nibkv_attend_share(cache, 0, &rows, &share), NIBKV_NOT_READY);
  EXPECT_EQ(nibkv_combine_share(cache, 0, &to_write, &share), NIBKV_NOT_READY);
  EXPECT_EQ(nibkv_explain(cache, 0, 0, &slot, 1), NIBKV_NOT_READY);
  float number = 0;
  EXPECT_EQ(nibkv_logit_errors(cache, 0, &number, &number), NIBKV_NOT_READY);
  EXPECT_EQ(nibkv_plan(cache, 0, 0, 0, target, 1), NIBKV_NOT_READY);
  EXPECT_EQ(nibkv_compact(cache, 0, 0, target, 1), NIBKV_NOT_READY);
  EXPECT_EQ(nibkv_compact_now(cache, 1, NIBKV_BUDGET_UNIFORM), NIBKV_NOT_READY);
  nibkv_cache other = {};
  EXPECT_EQ(nibkv_truncate(cache, 0), NIBKV_NOT_READY);
  EXPECT_EQ(nibkv_oldest_reachable(cache), 0u);
  EXPECT_EQ(nibkv_oldest_exact(cache), 0u);
  EXPECT_EQ(nibkv_room(cache), 0u);
  EXPECT_EQ(nibkv_clone(cache, row, sizeof row, &other), NIBKV_NOT_READY);
  EXPECT_EQ(nibkv_move_to(cache, &other), NIBKV_NOT_READY);
  EXPECT_EQ(nibkv_move_to(&other, cache), NIBKV_NOT_READY);
  nibkv_sink sink = {};
  nibkv_source source = {};
  EXPECT_EQ(nibkv_save(cache, row, sizeof row, nullptr), NIBKV_NOT_READY);
  EXPECT_EQ(nibkv_save_to(cache, &sink, nullptr), NIBKV_NOT_READY);
  EXPECT_EQ(nibkv_restore(cache, row, sizeof row), NIBKV_NOT_READY);
  EXPECT_EQ(nibkv_restore_from(cache, &source), NIBKV_NOT_READY);
  EXPECT_EQ(nibkv_import_snapshot(cache, nullptr, nullptr, row, sizeof row), NIBKV_NOT_READY);
  EXPECT_EQ(nibkv_import_snapshot_from(cache, nullptr, nullptr, &source), NIBKV_NOT_READY);
  EXPECT_EQ(nibkv_snapshot_bytes(cache, 0), 0u);
  nibkv_banks banks = {};
  EXPECT_EQ(nibkv_save_to_banks(cache, &banks, nullptr, 0), NIBKV_NOT_READY);
  EXPECT_EQ(nibkv_restore_from_banks(cache, &banks), NIBKV_NOT_READY);
  EXPECT_EQ(nibkv_held(cache, 0, 0), 0u);
  EXPECT_EQ(nibkv_head_budget(cache, 0, 0), 0u);
  EXPECT_EQ(nibkv_seen(cache, 0), 0u);
  EXPECT_EQ(nibkv_measured(cache, 0), 0u);
  EXPECT_EQ(nibkv_usage_now(cache).arena_bytes, 0u);
  EXPECT_EQ(nibkv_port(cache), nullptr);
}

// Types, strides and the part reach C++.
TEST(CApi, RowsOfEveryTypeAreThoseOfCpp) {
  constexpr std::uint32_t kCount = 5;
  const std::uint8_t numbers[] = {NIBKV_NUMBER_F32, NIBKV_NUMBER_F16, NIBKV_NUMBER_BF16};
  Random random(11);
  for (const std::uint8_t number : numbers) {
    test::Rig rig(kShape, full(64));
    test::Rig expected(kShape, full(64));
    nibkv_cache cache = {};
    std::memcpy(cache.opaque, &rig.cache(), sizeof(Cache));
    // Heads outermost, with space for more tokens. f16 and bf16 below 2, so that any bits are finite.
    std::vector<std::uint16_t> rows(2 * 4 * 8 * 32), c_out(rows.size()), out(rows.size());
    for (std::uint16_t& half : rows) half = static_cast<std::uint16_t>(random.below(0x10000) & 0xbbff);
    const nibkv_rows keys = {rows.data(), number, 32, 7 * 32}, values = {rows.data() + 2, number, 32, 6 * 32};
    const nibkv_rows queries = {rows.data() + 4, number, 32, 5 * 32};
    const nibkv_mutable_rows to = {c_out.data(), number, 4 * 32 + 1, 32};
    const nibkv_part part = {1, 1, 2, 3, 1};
    const Number type{number};
    for (std::uint32_t layer = 0; layer < kShape.layers; ++layer) {
      ASSERT_EQ(nibkv_append_rows(&cache, layer, kCount, &keys, &values), NIBKV_OK);
      ASSERT_EQ(
          append(expected.cache(), layer, kCount, {rows.data(), type, 32, 7 * 32}, {rows.data() + 2, type, 32, 6 * 32}),
          Status::kOk);
      for (const nibkv_part* of : {static_cast<const nibkv_part*>(nullptr), &part}) {
        std::fill(c_out.begin(), c_out.end(), std::uint16_t{0});
        std::fill(out.begin(), out.end(), std::uint16_t{0});
        ASSERT_EQ(nibkv_attend_rows(&cache, layer, kCount, &queries, &to, of), NIBKV_OK);
        ASSERT_EQ(attend(expected.cache(), layer, kCount, {rows.data() + 4, type, 32, 5 * 32},
                         {out.data(), type, 4 * 32 + 1, 32}, of == nullptr ? Part{} : Part{1, 1, 2, 3, 1}),
                  Status::kOk);
        EXPECT_EQ(c_out, out);
        EXPECT_NE(c_out, std::vector<std::uint16_t>(out.size()));
        // Each token sees the one beside it alone.
        const std::uint32_t mask[kCount] = {2, 1, 8, 4, 1};
        ASSERT_EQ(nibkv_attend_masked(&cache, layer, kCount, &queries, mask, &to, of), NIBKV_OK);
        EXPECT_NE(c_out, out);
        ASSERT_EQ(attend(expected.cache(), layer, kCount, {rows.data() + 4, type, 32, 5 * 32}, mask,
                         {out.data(), type, 4 * 32 + 1, 32}, of == nullptr ? Part{} : Part{1, 1, 2, 3, 1}),
                  Status::kOk);
        EXPECT_EQ(c_out, out);
        // As drafts they see the same, and leave no trace.
        std::fill(c_out.begin(), c_out.end(), std::uint16_t{0});
        ASSERT_EQ(nibkv_attend_drafts(&cache, layer, kCount, &queries, mask, &to, of), NIBKV_OK);
        EXPECT_EQ(c_out, out);
        ASSERT_EQ(nibkv_attend_drafts(&cache, layer, kCount, &queries, nullptr, &to, of), NIBKV_OK);
        EXPECT_NE(c_out, out);
      }
    }
    EXPECT_EQ(rig.copy_state(), expected.copy_state());
  }
}

TEST(CApi, TakingBackAndMovingAreThoseOfCpp) {
  const nibkv_shape shape = in_c(kShape);
  const nibkv_policy policy = in_c(ems(64)), larger = in_c(ems(96));
  Arena arena(nibkv_footprint(&shape, &policy)), second(arena.bytes().size());
  Arena third(nibkv_footprint(&shape, &larger));
  nibkv_cache cache = {}, fork = {}, moved = {};
  ASSERT_EQ(nibkv_init(&cache, arena.bytes().data(), arena.bytes().size(), &shape, &policy, nullptr), NIBKV_OK);
  ASSERT_EQ(nibkv_init(&moved, third.bytes().data(), third.bytes().size(), &shape, &larger, nullptr), NIBKV_OK);
  test::Rig rig(kShape, ems(64));
  Random random(7);
  for (int token = 0; token < 130; ++token) {
    for (std::uint32_t layer = 0; layer < kShape.layers; ++layer) {
      const std::vector<float> rows = random.bells(std::size_t{kShape.kv_heads} * kShape.head_dim);
      ASSERT_EQ(nibkv_append(&cache, layer, 1, rows.data(), rows.data()), NIBKV_OK);
      ASSERT_EQ(append(rig.cache(), layer, rows, rows), Status::kOk);
    }
  }
  EXPECT_EQ(nibkv_oldest_reachable(&cache), oldest_reachable(rig.cache()));
  EXPECT_EQ(nibkv_oldest_exact(&cache), oldest_exact(rig.cache()));
  EXPECT_NE(nibkv_oldest_exact(&cache), nibkv_oldest_reachable(&cache));
  EXPECT_EQ(nibkv_room(&cache), room(rig.cache()));
  EXPECT_EQ(nibkv_truncate(&cache, nibkv_oldest_reachable(&cache) - 1), NIBKV_GONE);
  const auto bytes_of = [](const nibkv_cache& of) {
    std::vector<std::byte> bytes(static_cast<std::size_t>(nibkv_snapshot_bytes(&of, 0)));
    EXPECT_EQ(nibkv_save(&of, bytes.data(), bytes.size(), nullptr), NIBKV_OK);
    return bytes;
  };
  ASSERT_EQ(nibkv_clone(&cache, second.bytes().data(), second.bytes().size(), &fork), NIBKV_OK);
  EXPECT_EQ(bytes_of(fork), bytes_of(cache));
  ASSERT_EQ(nibkv_truncate(&cache, 120), NIBKV_OK);
  ASSERT_EQ(truncate(rig.cache(), 120), Status::kOk);
  EXPECT_EQ(bytes_of(cache), test::saved(rig.cache()));
  EXPECT_EQ(nibkv_seen(&cache, 0), 120u);
  EXPECT_EQ(nibkv_seen(&fork, 0), 130u);
  bool done = false;
  ASSERT_EQ(nibkv_tidy(&fork, 8, &done), NIBKV_OK);
  for (int calls = 1; !done; ++calls) {
    ASSERT_LT(calls, 9);
    ASSERT_EQ(nibkv_tidy(&fork, 8, &done), NIBKV_OK);
  }
  ASSERT_EQ(nibkv_move_to(&fork, &moved), NIBKV_OK);
  EXPECT_EQ(nibkv_seen(&moved, 1), 130u);
  EXPECT_EQ(nibkv_held(&moved, 1, 1), nibkv_held(&fork, 1, 1));
  EXPECT_EQ(nibkv_check(&moved), NIBKV_OK);
  ASSERT_EQ(nibkv_wipe(&moved), NIBKV_OK);
  EXPECT_EQ(nibkv_seen(&moved, 1), 0u);
}

// A program that was compiled with fewer fields, and one with more, of which the library knows nothing.
TEST(CApi, OlderAndNewerStructsWork) {
  struct {
    nibkv_policy policy;
    std::uint32_t later[4];
  } newer = {};
  struct {
    nibkv_shape shape;
    std::uint32_t later[4];
  } newer_shape = {in_c(kShape), {}};
  const nibkv_shape shape = in_c(kShape);
  const nibkv_sizes here = NIBKV_SIZES;
  nibkv_sizes older = here, longer = here;
  older.policy = offsetof(nibkv_policy, fold);
  older.shape = offsetof(nibkv_shape, rotary);
  longer.policy = sizeof newer;
  longer.shape = sizeof newer_shape;

  // Written as far as the caller's struct reaches, and no farther.
  std::vector<unsigned char> bytes(sizeof(nibkv_policy), 0xc3);
  auto* short_policy = reinterpret_cast<nibkv_policy*>(bytes.data());
  ASSERT_EQ(nibkv_find_policy_sized("ems", 64, short_policy, &older), NIBKV_OK);
  for (std::size_t i = older.policy; i < bytes.size(); ++i) ASSERT_EQ(bytes[i], 0xc3) << i;
  std::memset(&newer, 0xff, sizeof newer);
  ASSERT_EQ(nibkv_find_policy_sized("ems", 64, &newer.policy, &longer), NIBKV_OK);
  for (const std::uint32_t word : newer.later) EXPECT_EQ(word, 0u);

  const std::size_t need = footprint(kShape, ems(64));
  EXPECT_EQ(nibkv_footprint_sized(&shape, short_policy, &older), need);
  EXPECT_EQ(nibkv_footprint_sized(&newer_shape.shape, &newer.policy, &longer), need);
  EXPECT_EQ(nibkv_smallest_footprint_sized(&shape, short_policy, &older), smallest_footprint(kShape, ems(64)));
  EXPECT_EQ(nibkv_tokens_that_fit_sized(&shape, short_policy, 1 << 20, &older),
            tokens_that_fit(kShape, ems(64), 1 << 20));
  EXPECT_EQ(nibkv_preset_tokens_that_fit_sized(&shape, "ems", 1 << 20, &older),
            tokens_that_fit(kShape, "ems", 1 << 20));
  EXPECT_EQ(nibkv_preset_smallest_footprint_sized(&shape, "ems", &older), smallest_footprint(kShape, "ems"));
  EXPECT_EQ(nibkv_most_snapshot_bytes_sized(&shape, short_policy, 5, &older), most_snapshot_bytes(kShape, ems(64), 5));
  EXPECT_EQ(nibkv_fold_pairs_sized(&shape, short_policy, nullptr, 0, 0, &older), NIBKV_OK);
  for (std::size_t i = older.policy; i < bytes.size(); ++i) ASSERT_EQ(bytes[i], 0xc3) << i;
  Arena arena(need);
  nibkv_cache cache = {};
  void* const at = arena.bytes().data();
  EXPECT_EQ(nibkv_init_sized(&cache, at, need, &shape, short_policy, nullptr, &older), NIBKV_OK);
  EXPECT_EQ(nibkv_init_sized(&cache, at, need, &newer_shape.shape, &newer.policy, nullptr, &longer), NIBKV_OK);
  EXPECT_EQ(nibkv_seen(&cache, 0), 0u);

  // What the library does not know must be 0.
  newer.later[3] = 1;
  EXPECT_EQ(nibkv_footprint_sized(&shape, &newer.policy, &longer), 0u);
  EXPECT_EQ(nibkv_init_sized(&cache, at, need, &newer_shape.shape, &newer.policy, nullptr, &longer),
            NIBKV_BAD_ARGUMENT);
  newer.later[3] = 0;
  newer_shape.later[0] = 1u << 31;
  EXPECT_EQ(nibkv_init_sized(&cache, at, need, &newer_shape.shape, &newer.policy, nullptr, &longer),
            NIBKV_BAD_ARGUMENT);
  nibkv_sizes wrong = here;
  wrong.policy = older.policy - 1;
  EXPECT_EQ(nibkv_find_policy_sized("ems", 64, short_policy, &wrong), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_footprint_sized(&shape, short_policy, &wrong), 0u);
  EXPECT_EQ(nibkv_footprint_sized(&shape, short_policy, nullptr), 0u);
  EXPECT_EQ(nibkv_init_sized(&cache, at, need, &shape, short_policy, nullptr, nullptr), NIBKV_BAD_ARGUMENT);
  const nibkv_options options = {};
  wrong = older;
  wrong.options = offsetof(nibkv_options, weights) - 1;
  EXPECT_EQ(nibkv_init_sized(&cache, at, need, &shape, short_policy, &options, &wrong), NIBKV_BAD_ARGUMENT);
  wrong.options = offsetof(nibkv_options, weights);
  EXPECT_EQ(nibkv_init_sized(&cache, at, need, &shape, short_policy, &options, &wrong), NIBKV_OK);
}

TEST(CApi, AHandleOfZerosOrNoneIsNotReady) {
  nibkv_cache cache = {};
  expect_not_ready(&cache);
  expect_not_ready(nullptr);
}

TEST(CApi, WrongArgumentsAreRefusedAndChangeNothing) {
  const nibkv_shape shape = in_c(kShape);
  const Policy policy = ems(64);
  const nibkv_policy c_policy = in_c(policy);
  Arena arena(footprint(kShape, policy));
  std::byte* const base = arena.bytes().data();
  const std::size_t size = arena.bytes().size();
  nibkv_cache cache = {};
  const nibkv_cache zeros = cache;
  const std::vector<std::byte> untouched = arena.copy();
  EXPECT_EQ(nibkv_init(nullptr, base, size, &shape, &c_policy, nullptr), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_init(&cache, nullptr, size, &shape, &c_policy, nullptr), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_init(&cache, base, size, nullptr, &c_policy, nullptr), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_init(&cache, base, size, &shape, nullptr, nullptr), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_init(&cache, base + 1, size, &shape, &c_policy, nullptr), NIBKV_MISALIGNED);
  EXPECT_EQ(nibkv_init(&cache, base, size - 1, &shape, &c_policy, nullptr), NIBKV_ARENA_TOO_SMALL);
  EXPECT_EQ(std::memcmp(&cache, &zeros, sizeof cache), 0);
  EXPECT_EQ(arena.copy(), untouched);
  EXPECT_EQ(nibkv_footprint(nullptr, &c_policy), 0u);
  EXPECT_EQ(nibkv_footprint(&shape, nullptr), 0u);
  EXPECT_EQ(nibkv_tokens_that_fit(nullptr, &c_policy, 1u << 30), 0u);
  EXPECT_EQ(nibkv_tokens_that_fit(&shape, nullptr, 1u << 30), 0u);
  EXPECT_EQ(nibkv_preset_tokens_that_fit(nullptr, "ems", 1u << 30), 0u);
  EXPECT_EQ(nibkv_preset_tokens_that_fit(&shape, nullptr, 1u << 30), 0u);
  EXPECT_EQ(nibkv_smallest_footprint(nullptr, &c_policy), 0u);
  EXPECT_EQ(nibkv_smallest_footprint(&shape, nullptr), 0u);
  EXPECT_EQ(nibkv_preset_smallest_footprint(nullptr, "ems"), 0u);
  EXPECT_EQ(nibkv_preset_smallest_footprint(&shape, nullptr), 0u);

  ASSERT_EQ(nibkv_init(&cache, base, size, &shape, &c_policy, nullptr), NIBKV_OK);
  Random random(5);
  const std::vector<float> rows = random.bells(9 * 4 * 32);
  std::vector<float> out(rows.size());
  const float* in = rows.data();
  ASSERT_EQ(nibkv_append(&cache, 0, 2, in, in), NIBKV_OK);
  const std::vector<std::byte> before = arena.copy();
  EXPECT_EQ(nibkv_append(&cache, 2, 1, in, in), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_append(&cache, 0, 0, in, in), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_append(&cache, 0, 9, in, in), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_append(&cache, 0, 0xffffffff, in, in), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_append(&cache, 0, 1, nullptr, in), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_append(&cache, 0, 1, in, nullptr), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_attend(&cache, 2, 1, in, out.data(), nullptr), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_attend(&cache, 0, 0, in, out.data(), nullptr), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_attend(&cache, 0, 3, in, out.data(), nullptr), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_attend(&cache, 0, 9, in, out.data(), nullptr), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_attend(&cache, 0, 1, nullptr, out.data(), nullptr), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_attend(&cache, 0, 1, in, nullptr, nullptr), NIBKV_BAD_ARGUMENT);
  for (const nibkv_part part : {nibkv_part{2, 0, 0, 0, 0}, nibkv_part{1, 2, 0, 0, 0}, nibkv_part{0, 0, 1, 0, 0},
                                nibkv_part{0, 0, 0, 2, 0}, nibkv_part{0, 0, 0, 0, 2}})
    EXPECT_EQ(nibkv_attend(&cache, 0, 1, in, out.data(), &part), NIBKV_BAD_ARGUMENT);
  const nibkv_rows good = {in, NIBKV_NUMBER_F32, 2 * 32, 32};
  const nibkv_rows queries = {in, NIBKV_NUMBER_F32, 4 * 32, 32};
  const nibkv_mutable_rows to = {out.data(), NIBKV_NUMBER_F32, 4 * 32, 32};
  for (const nibkv_rows bad : {nibkv_rows{nullptr, NIBKV_NUMBER_F32, 64, 32}, nibkv_rows{in, 3, 64, 32},
                               nibkv_rows{in, NIBKV_NUMBER_F16, 64, SIZE_MAX / 2}}) {
    EXPECT_EQ(nibkv_append_rows(&cache, 0, 1, &bad, &good), NIBKV_BAD_ARGUMENT);
    EXPECT_EQ(nibkv_append_rows(&cache, 0, 1, &good, &bad), NIBKV_BAD_ARGUMENT);
    EXPECT_EQ(nibkv_attend_rows(&cache, 0, 1, &bad, &to, nullptr), NIBKV_BAD_ARGUMENT);
  }
  for (const std::uint32_t count : {0u, 9u, 0xffffffffu}) {
    EXPECT_EQ(nibkv_append_rows(&cache, 0, count, &good, &good), NIBKV_BAD_ARGUMENT);
    EXPECT_EQ(nibkv_attend_rows(&cache, 0, count, &queries, &to, nullptr), NIBKV_BAD_ARGUMENT);
  }
  EXPECT_EQ(nibkv_append_rows(&cache, 0, 1, nullptr, &good), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_append_rows(&cache, 0, 1, &good, nullptr), NIBKV_BAD_ARGUMENT);
  const nibkv_share share = {0, 1, 0}, none = {1, 1, 0};
  EXPECT_EQ(nibkv_append_share(&cache, 0, 1, nullptr, &good, &share), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_append_share(&cache, 0, 1, &good, nullptr, &share), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_append_share(&cache, 0, 1, &good, &good, nullptr), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_append_share(&cache, 0, 1, &good, &good, &share), NIBKV_BAD_ARGUMENT) << "not reserved";
  EXPECT_EQ(nibkv_attend_share(&cache, 0, nullptr, &share), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_attend_share(&cache, 0, &queries, nullptr), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_attend_share(&cache, 0, &queries, &none), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_combine_share(&cache, 0, nullptr, &share), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_combine_share(&cache, 0, &to, nullptr), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_combine_share(&cache, 0, &to, &share), NIBKV_BAD_ARGUMENT) << "no share";
  EXPECT_EQ(nibkv_attend_rows(&cache, 0, 1, nullptr, &to, nullptr), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_attend_rows(&cache, 0, 1, &queries, nullptr, nullptr), NIBKV_BAD_ARGUMENT);
  const std::uint32_t own[2] = {1, 2}, nothing[2] = {1, 0xfffffffc};
  EXPECT_EQ(nibkv_attend_masked(&cache, 0, 2, nullptr, own, &to, nullptr), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_attend_masked(&cache, 0, 2, &queries, nullptr, &to, nullptr), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_attend_masked(&cache, 0, 2, &queries, own, nullptr, nullptr), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_attend_masked(&cache, 0, 2, &queries, nothing, &to, nullptr), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_attend_masked(&cache, 0, 0, &queries, own, &to, nullptr), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_attend_masked(&cache, 0, 0xffffffff, &queries, own, &to, nullptr), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_attend_drafts(&cache, 0, 2, nullptr, own, &to, nullptr), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_attend_drafts(&cache, 0, 2, &queries, own, nullptr, nullptr), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_attend_drafts(&cache, 0, 2, &queries, nothing, &to, nullptr), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_attend_drafts(&cache, 0, 0xffffffff, &queries, own, &to, nullptr), NIBKV_BAD_ARGUMENT);
  const nibkv_mutable_rows overlapping = {out.data(), NIBKV_NUMBER_F32, 4 * 32 - 1, 32};
  EXPECT_EQ(nibkv_attend_rows(&cache, 0, 2, &queries, &overlapping, nullptr), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(out, std::vector<float>(out.size()));

  std::uint32_t target[3] = {0, 1, 2};
  nibkv_slot slots[3];
  const std::vector<float> query(4 * 32, 1.0f);
  std::vector<float> errors(4, -1.0f);
  EXPECT_EQ(nibkv_logit_errors(&cache, 0, nullptr, errors.data()), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_logit_errors(&cache, 0, query.data(), nullptr), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_logit_errors(&cache, 99, query.data(), errors.data()), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(errors, std::vector<float>(4, -1.0f));
  EXPECT_EQ(nibkv_logit_errors(&cache, 0, query.data(), errors.data()), NIBKV_OK);
  EXPECT_GT(errors[3], 0.0f);
  EXPECT_EQ(nibkv_explain(&cache, 0, 2, slots, 2), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_explain(&cache, 0, 0, slots, 3), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_explain(&cache, 0, 0, nullptr, 2), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_explain(&cache, 1, 0, nullptr, 0), NIBKV_OK);
  EXPECT_EQ(nibkv_plan(&cache, 0, 0, 0, target, 3), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_plan(&cache, 0, 0, 9, target, 2), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_plan(&cache, 0, 0, 0, nullptr, 2), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_compact(&cache, 2, 0, target, 2), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_compact(&cache, 0, 0, target, 3), NIBKV_BAD_PLAN);
  EXPECT_EQ(nibkv_compact(&cache, 0, 0, nullptr, 2), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_compact_now(&cache, 65, NIBKV_BUDGET_UNIFORM), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_compact_now(&cache, 60, NIBKV_BUDGET_TABLE), NIBKV_BAD_POLICY);
  for (const int none : {-256, -1, 9, 255, 256, 257, 512}) {
    if (sizeof(nibkv_budget) == 1 && (none < 0 || none > 255)) continue;  // it has no such numbers
    EXPECT_EQ(nibkv_compact_now(&cache, 60, static_cast<nibkv_budget>(none)), NIBKV_BAD_POLICY) << none;
  }
  bool done = false;
  EXPECT_EQ(nibkv_tidy(&cache, 1, nullptr), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_tidy(&cache, 0, &done), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_tidy(&cache, 9, &done), NIBKV_BAD_ARGUMENT);
  EXPECT_FALSE(done);
  EXPECT_EQ(nibkv_truncate(&cache, 3), NIBKV_BAD_ARGUMENT);
  Arena second(size + 1);
  nibkv_cache fork = {};
  EXPECT_EQ(nibkv_clone(&cache, nullptr, size, &fork), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_clone(&cache, second.bytes().data(), size, nullptr), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_clone(&cache, second.bytes().data() + 1, size, &fork), NIBKV_MISALIGNED);
  EXPECT_EQ(nibkv_clone(&cache, second.bytes().data(), size - 1, &fork), NIBKV_ARENA_TOO_SMALL);
  EXPECT_EQ(std::memcmp(&fork, &zeros, sizeof fork), 0);
  EXPECT_EQ(nibkv_move_to(&cache, &cache), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(arena.copy(), before);

  EXPECT_EQ(nibkv_check_plan(target, 3), NIBKV_OK);
  EXPECT_EQ(nibkv_check_plan(nullptr, 3), NIBKV_BAD_ARGUMENT);
  target[1] = NIBKV_MEMBER;
  target[2] = 1;
  EXPECT_EQ(nibkv_check_plan(target, 3), NIBKV_OK);
  target[2] = 2;
  EXPECT_EQ(nibkv_check_plan(target, 3), NIBKV_BAD_PLAN);
  EXPECT_EQ(nibkv_check(&cache), NIBKV_OK);
  target[0] = NIBKV_DROP;
  target[1] = 0;
  EXPECT_EQ(nibkv_compact(&cache, 0, 0, target, 2), NIBKV_OK);
  EXPECT_EQ(nibkv_held(&cache, 0, 0), 1u);
  EXPECT_EQ(nibkv_held(&cache, 0, 1), 2u);
}

// A sink and a source in memory, with C callbacks.
struct Kept {
  std::vector<std::byte> bytes;
  bool works = true;

  static bool write(void* context, const void* bytes, size_t count) {
    auto& to = *static_cast<Kept*>(context);
    const auto* from = static_cast<const std::byte*>(bytes);
    to.bytes.insert(to.bytes.end(), from, from + count);
    return to.works;
  }
  static bool read(void* context, uint64_t offset, void* to, size_t count) {
    const auto& from = *static_cast<const Kept*>(context);
    EXPECT_LE(offset + count, from.bytes.size());
    EXPECT_LE(count, std::size_t{NIBKV_SNAPSHOT_CHUNK});
    std::memcpy(to, from.bytes.data() + offset, count);
    return from.works;
  }
};

// A cache of C++ and two equal ones of C.
struct Alike {
  const nibkv_shape shape = in_c(kShape);
  const nibkv_policy policy;
  test::Rig rig;
  Arena arena, other_arena;
  nibkv_cache cache = {}, other = {};
  Random random{9};

  explicit Alike(const Policy& of)
      : policy(in_c(of)), rig(kShape, of), arena(footprint(kShape, of)), other_arena(footprint(kShape, of)) {
    const auto start = [&](nibkv_cache& one, Arena& in) {
      EXPECT_EQ(nibkv_init(&one, in.bytes().data(), in.bytes().size(), &shape, &policy, nullptr), NIBKV_OK);
    };
    start(cache, arena);
    start(other, other_arena);
  }

  // Appends eight tokens to the one of C++ and the first of C.
  void add_tokens() {
    for (std::uint32_t layer = 0; layer < kShape.layers; ++layer) {
      const std::vector<float> rows = random.bells(std::size_t{8} * kShape.kv_heads * kShape.head_dim);
      ASSERT_EQ(append(rig.cache(), layer, rows, rows), Status::kOk);
      ASSERT_EQ(nibkv_append(&cache, layer, 8, rows.data(), rows.data()), NIBKV_OK);
    }
  }
};

TEST(CApi, SnapshotsAreThoseOfCpp) {
  for (const Policy& policy : {ems(64), full(200), minicache(600, pairs_from(0, 2))}) {
    Alike alike(policy);
    test::Rig& rig = alike.rig;
    nibkv_cache &cache = alike.cache, &other = alike.other;
    for (int step = 0; step < 12; ++step) alike.add_tokens();
    const char text[] = "what is kept beside it";
    const nibkv_note note = {7, text, sizeof text};
    const std::vector<std::byte> untouched = alike.other_arena.copy();
    std::vector<std::byte> expected(snapshot_bytes(rig.cache(), sizeof text));
    ASSERT_EQ(save(rig.cache(), expected, {7, std::as_bytes(std::span(text))}), Status::kOk);
    ASSERT_EQ(nibkv_snapshot_bytes(&cache, sizeof text), expected.size());
    EXPECT_EQ(nibkv_most_snapshot_bytes(&alike.shape, &alike.policy, 5), most_snapshot_bytes(kShape, policy, 5));
    std::vector<std::byte> bytes(expected.size() + 10);
    ASSERT_EQ(nibkv_save(&cache, bytes.data(), bytes.size(), &note), NIBKV_OK);
    EXPECT_TRUE(std::equal(expected.begin(), expected.end(), bytes.begin()));
    Kept kept;
    const nibkv_sink sink = {Kept::write, &kept};
    ASSERT_EQ(nibkv_save_to(&cache, &sink, &note), NIBKV_OK);
    EXPECT_EQ(kept.bytes, expected);
    const nibkv_source source = {Kept::read, &kept, kept.bytes.size()};
    nibkv_snapshot_info info = {}, again = {};
    ASSERT_EQ(nibkv_inspect(bytes.data(), bytes.size(), &info), NIBKV_OK);
    ASSERT_EQ(nibkv_inspect_from(&source, &again), NIBKV_OK);
    for (const nibkv_snapshot_info& one : {info, again}) {
      EXPECT_EQ(one.bytes, expected.size());
      EXPECT_EQ(one.sequence, 7u);
      ASSERT_EQ(one.note_bytes, sizeof text);
      EXPECT_EQ(std::memcmp(bytes.data() + one.note_offset, text, sizeof text), 0);
    }

    EXPECT_EQ(nibkv_save(&cache, nullptr, bytes.size(), &note), NIBKV_BAD_ARGUMENT);
    EXPECT_EQ(nibkv_save(&cache, bytes.data(), expected.size() - 1, &note), NIBKV_BAD_ARGUMENT);
    const nibkv_note claims = {7, nullptr, 1};
    const nibkv_note endless = {7, text, SIZE_MAX};
    EXPECT_EQ(nibkv_save(&cache, bytes.data(), bytes.size(), &endless), NIBKV_BAD_ARGUMENT);
    EXPECT_EQ(nibkv_snapshot_bytes(&cache, UINT64_MAX - 200), UINT64_MAX) << "and no sum that wraps";
    const nibkv_sink no_sink = {};
    const nibkv_source no_source = {};
    EXPECT_EQ(nibkv_save(&cache, bytes.data(), bytes.size(), &claims), NIBKV_BAD_ARGUMENT);
    EXPECT_EQ(nibkv_save_to(&cache, nullptr, nullptr), NIBKV_BAD_ARGUMENT);
    EXPECT_EQ(nibkv_save_to(&cache, &no_sink, nullptr), NIBKV_BAD_ARGUMENT);
    EXPECT_EQ(nibkv_inspect(nullptr, 100, &info), NIBKV_BAD_ARGUMENT);
    EXPECT_EQ(nibkv_inspect(bytes.data(), bytes.size(), nullptr), NIBKV_BAD_ARGUMENT);
    EXPECT_EQ(nibkv_inspect_from(nullptr, &info), NIBKV_BAD_ARGUMENT);
    EXPECT_EQ(nibkv_inspect_from(&no_source, &info), NIBKV_BAD_ARGUMENT);
    EXPECT_EQ(nibkv_restore(&other, nullptr, 100), NIBKV_BAD_ARGUMENT);
    EXPECT_EQ(nibkv_restore_from(&other, nullptr), NIBKV_BAD_ARGUMENT);
    EXPECT_EQ(nibkv_restore_from(&other, &no_source), NIBKV_BAD_ARGUMENT);
    EXPECT_EQ(nibkv_restore(&other, bytes.data(), expected.size() - 1), NIBKV_BAD_SNAPSHOT);
    kept.works = false;
    EXPECT_EQ(nibkv_restore_from(&other, &source), NIBKV_STORAGE_FAILED);
    EXPECT_EQ(nibkv_save_to(&cache, &sink, &note), NIBKV_STORAGE_FAILED);
    EXPECT_EQ(alike.other_arena.copy(), untouched);

    kept = {expected};
    ASSERT_EQ(nibkv_restore_from(&other, &source), NIBKV_OK);
    EXPECT_EQ(nibkv_seen(&other, 1), 96u);
    ASSERT_EQ(nibkv_clear(&other), NIBKV_OK);
    ASSERT_EQ(nibkv_restore(&other, bytes.data(), bytes.size()), NIBKV_OK);
    std::vector<std::byte> third(expected.size());
    ASSERT_EQ(nibkv_save(&other, third.data(), third.size(), &note), NIBKV_OK);
    EXPECT_EQ(third, expected);
    EXPECT_TRUE(alike.other_arena.guards_intact());
  }
  const nibkv_shape shape = in_c(kShape);
  EXPECT_EQ(nibkv_most_snapshot_bytes(&shape, nullptr, 0), 0u);
}

TEST(CApi, SnapshotsGoIntoOtherCachesAsInCpp) {
  Alike alike(ems(64));
  for (int step = 0; step < 12; ++step) alike.add_tokens();
  const std::vector<std::byte> snapshot = test::saved(alike.rig.cache());
  Shape shape = kShape;
  shape.max_chunk = 3;
  Policy policy = snapkv(40);
  policy.recent = 7;
  test::Rig expected(shape, policy);
  ASSERT_EQ(import_snapshot(expected.cache(), kShape, ems(64), snapshot), Status::kOk);
  const nibkv_shape c_shape = in_c(shape);
  const nibkv_policy c_policy = in_c(policy);
  Arena arena(footprint(shape, policy));
  nibkv_cache cache = {};
  ASSERT_EQ(nibkv_init(&cache, arena.bytes().data(), arena.bytes().size(), &c_shape, &c_policy, nullptr), NIBKV_OK);
  Kept kept{snapshot};
  const nibkv_source source = {Kept::read, &kept, kept.bytes.size()}, no_source = {};

  const std::vector<std::byte> untouched = arena.copy();
  EXPECT_EQ(nibkv_import_snapshot(&cache, nullptr, &alike.policy, snapshot.data(), snapshot.size()),
            NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_import_snapshot(&cache, &alike.shape, nullptr, snapshot.data(), snapshot.size()), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_import_snapshot(&cache, &alike.shape, &alike.policy, nullptr, 100), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_import_snapshot_from(&cache, nullptr, &alike.policy, &source), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_import_snapshot_from(&cache, &alike.shape, nullptr, &source), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_import_snapshot_from(&cache, &alike.shape, &alike.policy, nullptr), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_import_snapshot_from(&cache, &alike.shape, &alike.policy, &no_source), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_import_snapshot_sized(&cache, &alike.shape, &alike.policy, snapshot.data(), snapshot.size(), nullptr),
            NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_import_snapshot_from_sized(&cache, &alike.shape, &alike.policy, &source, nullptr),
            NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_import_snapshot(&cache, &c_shape, &c_policy, snapshot.data(), snapshot.size()), NIBKV_OTHER_SHAPE);
  EXPECT_EQ(nibkv_import_snapshot(&cache, &alike.shape, &c_policy, snapshot.data(), snapshot.size()),
            NIBKV_OTHER_POLICY);
  EXPECT_EQ(nibkv_import_snapshot(&cache, &alike.shape, &alike.policy, snapshot.data(), snapshot.size() - 1),
            NIBKV_BAD_SNAPSHOT);
  EXPECT_EQ(arena.copy(), untouched);

  const auto holds_the_same = [&] {
    std::vector<std::byte> bytes(static_cast<std::size_t>(nibkv_snapshot_bytes(&cache, 0)));
    EXPECT_EQ(nibkv_save(&cache, bytes.data(), bytes.size(), nullptr), NIBKV_OK);
    return bytes == test::saved(expected.cache());
  };
  ASSERT_EQ(nibkv_import_snapshot(&cache, &alike.shape, &alike.policy, snapshot.data(), snapshot.size()), NIBKV_OK);
  EXPECT_TRUE(holds_the_same());
  ASSERT_EQ(nibkv_clear(&cache), NIBKV_OK);
  ASSERT_EQ(nibkv_import_snapshot_from(&cache, &alike.shape, &alike.policy, &source), NIBKV_OK);
  EXPECT_TRUE(holds_the_same());
  EXPECT_TRUE(arena.guards_intact());
}

// Two banks in memory that C and C++ call; each call is recorded.
struct Flash {
  std::vector<std::byte> memory[2];
  std::vector<std::uint32_t> erased;
  bool reads = true, writes = true, erases = true;

  explicit Flash(std::uint64_t bytes) {
    for (auto& bank : memory) bank.resize(static_cast<std::size_t>(bytes), std::byte{0xff});
  }
  nibkv_banks in_c() { return {read<void>, write<void>, erase, this, memory[0].size()}; }
  SnapshotBanks in_cpp() { return {read<std::byte>, write<std::byte>, erase, this, memory[0].size()}; }

  template <typename T>
  static bool read(void* context, std::uint32_t bank, std::uint64_t offset, T* to, std::size_t count) {
    const auto& from = *static_cast<const Flash*>(context);
    std::memcpy(to, from.memory[bank].data() + offset, count);
    return from.reads;
  }
  template <typename T>
  static bool write(void* context, std::uint32_t bank, std::uint64_t offset, const T* bytes, std::size_t count) {
    auto& to = *static_cast<Flash*>(context);
    std::memcpy(to.memory[bank].data() + offset, bytes, count);
    return to.writes;
  }
  static bool erase(void* context, std::uint32_t bank) {
    auto& in = *static_cast<Flash*>(context);
    in.erased.push_back(bank);
    std::fill(in.memory[bank].begin(), in.memory[bank].end(), std::byte{0xff});
    return in.erases;
  }
};

TEST(CApi, BanksAreThoseOfCpp) {
  const char text[] = "what is kept beside it";
  Alike alike(ems(64));
  test::Rig& rig = alike.rig;
  nibkv_cache &cache = alike.cache, &other = alike.other;
  Flash flash(nibkv_most_snapshot_bytes(&alike.shape, &alike.policy, sizeof text)), same(flash.memory[0].size());
  nibkv_banks banks = flash.in_c();
  std::uint32_t bank = 7;
  nibkv_snapshot_info info = {};
  EXPECT_EQ(nibkv_newest_bank(&banks, &bank, &info), NIBKV_BAD_SNAPSHOT);
  EXPECT_EQ(nibkv_restore_from_banks(&other, &banks), NIBKV_BAD_SNAPSHOT);
  EXPECT_EQ(bank, 7u);
  for (std::uint32_t round = 0; round < 3; ++round) {
    alike.add_tokens();
    const std::size_t note_bytes = round == 0 ? 0 : sizeof text;
    ASSERT_EQ(nibkv_save_to_banks(&cache, &banks, round == 0 ? nullptr : text, note_bytes), NIBKV_OK);
    ASSERT_EQ(save_to_banks(rig.cache(), same.in_cpp(), std::as_bytes(std::span(text).first(note_bytes))), Status::kOk);
    EXPECT_EQ(flash.memory[0], same.memory[0]) << round;
    EXPECT_EQ(flash.memory[1], same.memory[1]) << round;
    EXPECT_EQ(flash.erased, same.erased);
    EXPECT_EQ(flash.erased.size(), round + 1);
    ASSERT_EQ(nibkv_newest_bank(&banks, &bank, &info), NIBKV_OK);
    EXPECT_EQ(bank, round % 2);
    EXPECT_EQ(info.sequence, round + 1);
    ASSERT_EQ(info.note_bytes, note_bytes);
    EXPECT_EQ(std::memcmp(flash.memory[bank].data() + info.note_offset, text, note_bytes), 0);
    ASSERT_EQ(nibkv_restore_from_banks(&other, &banks), NIBKV_OK);
    EXPECT_EQ(nibkv_seen(&other, 1), 8 * (round + 1));
    EXPECT_EQ(nibkv_snapshot_bytes(&other, note_bytes), info.bytes);
  }

  const std::vector<std::byte> untouched = alike.other_arena.copy();
  const auto expect_refused = [&](nibkv_status save, nibkv_status restore) {
    EXPECT_EQ(nibkv_save_to_banks(&cache, &banks, text, sizeof text), save);
    EXPECT_EQ(nibkv_restore_from_banks(&other, &banks), restore);
  };
  EXPECT_EQ(nibkv_save_to_banks(&cache, nullptr, nullptr, 0), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_save_to_banks(&cache, &banks, nullptr, 1), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_restore_from_banks(&other, nullptr), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_newest_bank(nullptr, &bank, &info), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_newest_bank(&banks, nullptr, &info), NIBKV_BAD_ARGUMENT);
  EXPECT_EQ(nibkv_newest_bank(&banks, &bank, nullptr), NIBKV_BAD_ARGUMENT);
  banks.read = nullptr;
  expect_refused(NIBKV_BAD_ARGUMENT, NIBKV_BAD_ARGUMENT);
  banks = flash.in_c();
  banks.write = nullptr;
  EXPECT_EQ(nibkv_save_to_banks(&cache, &banks, nullptr, 0), NIBKV_BAD_ARGUMENT);
  banks = flash.in_c();
  EXPECT_EQ(nibkv_save_to_banks(&cache, &banks, text, SIZE_MAX), NIBKV_BAD_ARGUMENT);
  banks.bytes = nibkv_snapshot_bytes(&cache, sizeof text) - 1;
  EXPECT_EQ(nibkv_save_to_banks(&cache, &banks, text, sizeof text), NIBKV_BAD_ARGUMENT);
  banks = flash.in_c();
  EXPECT_EQ(flash.memory[0], same.memory[0]);
  EXPECT_EQ(flash.memory[1], same.memory[1]);
  flash.erases = false;
  expect_refused(NIBKV_STORAGE_FAILED, NIBKV_OK);
  flash.erases = true;
  flash.writes = false;
  expect_refused(NIBKV_STORAGE_FAILED, NIBKV_OK);
  EXPECT_EQ(alike.other_arena.copy(), untouched) << "the same snapshot again";
  flash.reads = false;
  expect_refused(NIBKV_STORAGE_FAILED, NIBKV_STORAGE_FAILED);
  EXPECT_EQ(alike.other_arena.copy(), untouched);
  banks.erase = nullptr;
  flash.reads = flash.writes = true;
  const std::size_t erased = flash.erased.size();
  expect_refused(NIBKV_OK, NIBKV_OK);
  EXPECT_EQ(flash.erased.size(), erased);
}

TEST(CApi, AFullArenaAnswersFull) {
  const nibkv_shape shape = in_c(kShape);
  const nibkv_policy policy = in_c(full(32));
  Arena arena(nibkv_footprint(&shape, &policy));
  nibkv_cache cache = {};
  ASSERT_EQ(nibkv_init(&cache, arena.bytes().data(), arena.bytes().size(), &shape, &policy, nullptr), NIBKV_OK);
  const std::vector<float> rows(8 * 64, 1.0f);
  for (std::uint32_t layer = 0; layer < 2; ++layer) {
    for (int n = 0; n < 4; ++n) ASSERT_EQ(nibkv_append(&cache, layer, 8, rows.data(), rows.data()), NIBKV_OK);
  }
  EXPECT_EQ(nibkv_append(&cache, 0, 1, rows.data(), rows.data()), NIBKV_FULL);
  ASSERT_EQ(nibkv_clear(&cache), NIBKV_OK);
  EXPECT_EQ(nibkv_seen(&cache, 0), 0u);
  EXPECT_EQ(nibkv_append(&cache, 0, 1, rows.data(), rows.data()), NIBKV_OK);
}

TEST(CApi, ABasisIsMeasuredAndAPlanMayMakeSlotsFaint) {
  const nibkv_shape shape = {1, 2, 1, 32, 4, 20, 1, NIBKV_Q4, {0, 0, 0, 0, 0}, NIBKV_BASIS_MEASURED};
  nibkv_policy policy;
  ASSERT_EQ(nibkv_find_policy("qpruning", 192, &policy), NIBKV_OK);
  ASSERT_TRUE(policy.tail == 32 && policy.faint == 64 && policy.tail_storage == NIBKV_Q8);
  Arena arena(nibkv_footprint(&shape, &policy));
  nibkv_cache cache = {};
  ASSERT_EQ(nibkv_init(&cache, arena.bytes().data(), arena.bytes().size(), &shape, &policy, nullptr), NIBKV_OK);
  Random random(3);
  const auto rows = random.bells(20 * 32);
  for (int chunk = 0; chunk < 6; ++chunk) ASSERT_EQ(nibkv_append(&cache, 0, 20, rows.data(), rows.data()), NIBKV_OK);
  EXPECT_EQ(nibkv_measured(&cache, 0), 20u);
  std::vector<std::uint32_t> target(nibkv_held(&cache, 0, 0));
  std::uint32_t next = 0;
  for (std::uint32_t i = 0; i < target.size(); ++i) target[i] = i < 65 ? NIBKV_FAINT : next++;
  EXPECT_EQ(nibkv_compact(&cache, 0, 0, target.data(), static_cast<std::uint32_t>(target.size())), NIBKV_BAD_PLAN);
  target[0] = NIBKV_DROP;
  EXPECT_EQ(nibkv_compact(&cache, 0, 0, target.data(), static_cast<std::uint32_t>(target.size())), NIBKV_OK);
  EXPECT_EQ(nibkv_held(&cache, 0, 0), target.size() - 1);
}

TEST(CApi, FoldedLayersTakeFewerBytes) {
  const nibkv_shape shape = {4, 4, 2, 32, 0, 8, 1, NIBKV_Q4, {0, 0, 0, 0, 0}, 0};
  nibkv_policy policy;
  ASSERT_EQ(nibkv_find_policy("minicache", 1024, &policy), NIBKV_OK);
  const std::size_t apart = nibkv_footprint(&shape, &policy);
  policy.fold.keys[0] = policy.fold.values[0] = 1u << 2;
  const std::size_t folded = nibkv_footprint(&shape, &policy);
  EXPECT_LT(folded, apart);
  Policy same = minicache(1024, pairs_from(2, 4));
  EXPECT_EQ(folded, footprint({4, 4, 2, 32, 0, 8}, same));
  same.fold.values = {};
  policy.fold.values[0] = 0;
  EXPECT_EQ(nibkv_footprint(&shape, &policy), footprint({4, 4, 2, 32, 0, 8}, same));
  policy.fold.retain = 99;
  EXPECT_EQ(nibkv_footprint(&shape, &policy), 0u);
  // The gate: without measurements there are no pairs.
  policy.fold.retain = NIBKV_RETAIN_FAR;
  EXPECT_EQ(nibkv_fold_pairs(&shape, &policy, nullptr, 0, 0), NIBKV_OK);
  EXPECT_EQ(policy.fold.keys[0] | policy.fold.values[0], 0u);
  EXPECT_EQ(nibkv_fold_pairs(&shape, &policy, &shape, sizeof shape, 0), NIBKV_BAD_PROFILE);
  EXPECT_EQ(nibkv_fold_pairs(&shape, nullptr, nullptr, 0, 0), NIBKV_BAD_ARGUMENT);
}

TEST(CApi, PairsAreThoseOfCpp) {
  Shape shape = {.layers = 4, .query_heads = 4, .kv_heads = 2, .head_dim = 32, .outlier_channels = 4};
  const std::vector<std::byte> profile = test::make_profile(shape, 3);
  const nibkv_shape c_shape = in_c(shape);
  ProfileView view;
  ASSERT_EQ(view.open(profile, shape), Status::kOk);
  Policy policy = minicache(1024);
  policy.fold.min_cosine = 0;  // random layers: some are just above
  nibkv_policy c_policy = in_c(policy);
  ASSERT_EQ(nibkv_fold_pairs(&c_shape, &c_policy, profile.data(), profile.size(), 0), NIBKV_OK);
  const Policy chosen = fold_pairs(shape, policy, view, 0);
  EXPECT_FALSE(chosen.fold.keys.empty() && chosen.fold.values.empty());
  EXPECT_EQ(c_policy.fold.keys[0], chosen.fold.keys.words[0]);
  EXPECT_EQ(c_policy.fold.values[0], chosen.fold.values.words[0]);
}

}  // namespace
}  // namespace nibkv
