#include "bench/runner/stores/policy_settings.hpp"

#include <gtest/gtest.h>

#include <string>

#include "bench/runner/programs/arguments.hpp"

namespace nibkv::llm {
namespace {

constexpr std::uint32_t kBudgetTokens = 400;

Policy set(const std::string& text, Policy policy = ems(kBudgetTokens)) {
  apply_settings(parse_settings(text), policy);
  return policy;
}

std::string complaint(const std::string& text) {
  try {
    parse_settings(text);
  } catch (const UsageError& error) {
    return error.what();
  }
  return "none";
}

TEST(PolicySettings, SetsEachFieldAndNoOther) {
  Policy expected = ems(kBudgetTokens);
  const auto check = [&](const std::string& text) {
    EXPECT_EQ(set(text), expected) << text;
    expected = ems(kBudgetTokens);
  };
  expected.sinks = 7;
  check("sinks=7");
  expected.recent = 100;
  check("recent=100");
  expected.recent = 48;
  check("recent=12%");
  expected.score = Score::kKeyNorm;
  check("score=key_norm");
  expected.score = Score::kGlobal;
  check("score=global");
  expected.group = Group::kMax;
  check("group=max");
  expected.combine = Combine::kMax;
  check("combine=max");
  expected.per_query = false;
  check("per_query=0");
  expected.window = 4096;
  check("window=4096");
  expected.pool = 15;
  check("pool=15");
  expected.merge = Merge::kBoth;
  check("merge=both");
  expected.rephase = true;
  check("rephase=1");
  expected.position_free = true;
  check("position_free=1");
  expected.similarity = Similarity::kKeyValue;
  check("similarity=key_value");
  expected.mass = Mass::kCount;
  check("mass=count");
  expected.threshold = 255;
  check("threshold=255");
  expected.mean_threshold = true;
  expected.threshold = 0;
  check("threshold=mean");
  expected.candidate_mass = 230;
  check("candidate_mass=230");
  expected.budget = Budget::kAdaptive;
  check("budget=adaptive");
}

TEST(PolicySettings, SetsWhichLayersShare) {
  Policy expected = minicache(kBudgetTokens, pairs_from(16, 30));
  expected.fold.keys = {};
  EXPECT_EQ(set("fold_values=16-30", minicache(kBudgetTokens)), expected);
  expected.fold.keys = pairs_from(20, 25);
  expected.fold.recent = 40;
  expected.fold.t = 128;
  expected.fold.retained = 20;
  expected.fold.retain = Retain::kNear;
  EXPECT_EQ(set("fold_keys=20-25,fold_values=16-30,fold_recent=10%,fold_t=128,fold_retained=20,fold_retain=near",
                full(kBudgetTokens)),
            expected);
  for (const char* wrong : {"16", "16-", "-30", "30-16", "16-17", "16-300", "x-y"})
    EXPECT_NE(complaint("fold_keys=" + std::string(wrong)), "none") << wrong;
  Fold fold;
  fold.min_cosine = 77;
  fold.retain = Retain::kFarRange;
  fold.centred = true;
  EXPECT_EQ(set("fold_min_cosine=77,fold_retain=far_range,fold_centred=1", minicache(kBudgetTokens)).fold, fold);
  for (const char* key : {"fold", "fold_keys", "fold_t"}) {
    EXPECT_TRUE(reads_setting("minicache", key));
    EXPECT_TRUE(reads_setting("ems_fold", key));
    EXPECT_TRUE(reads_setting("f16_fold", key));
    EXPECT_TRUE(reads_setting("f16_fold_tokens", key));
    EXPECT_FALSE(reads_setting("full", key));
    EXPECT_FALSE(reads_setting("ems", key));
  }
  EXPECT_FALSE(reads_setting("minicache", "merge"));
  EXPECT_TRUE(reads_setting("ems_fold", "merge"));
  EXPECT_FALSE(reads_setting("f16_fold", "merge"));
  EXPECT_FALSE(reads_setting("f16_fold", "fold_centred"));
}

TEST(PolicySettings, ChoosePairsOfPoliciesThatFold) {
  const Shape shape = {.layers = 9, .query_heads = 1, .kv_heads = 1, .head_dim = 64, .max_chunk = 16};
  const auto chosen = [&](const std::string& policy, const std::string& settings) {
    StoreOptions options;
    options.policy = policy;
    options.settings = parse_settings(settings);
    Policy found;
    EXPECT_EQ(find_policy(policy, 4096, found), Status::kOk);
    apply_settings(options.settings, found);
    choose_pairs(options, shape, found);
    return found;
  };
  EXPECT_EQ(chosen("minicache", "fold=direct"), minicache(4096, pairs_from(4, 9)));
  EXPECT_EQ(chosen("ems_fold", "fold=direct,fold_start=1"), ems_fold(4096, pairs_from(1, 9)));
  EXPECT_EQ(chosen("minicache", "fold=gate"), minicache(4096)) << "there is no profile";
  EXPECT_EQ(chosen("minicache", "fold=direct,fold_keys=2-4"), [&] {
    Policy policy = minicache(4096);
    policy.fold.keys = pairs_from(2, 4);
    return policy;
  }()) << "pairs that are named";
  EXPECT_EQ(fold_text(shape, chosen("minicache", "fold=direct,fold_start=5")), "5+6, 7+8");
  EXPECT_EQ(fold_text(shape, chosen("minicache", "fold=direct,fold_start=7,fold_rows=values")), "7+8 values");
  EXPECT_EQ(fold_text(shape, minicache(64, pairs_from(7, 9))), "none, since 7+8 would save no bytes");
  EXPECT_EQ(fold_text(shape, minicache(4096)), "none");
  PolicySettings settings = parse_settings("fold_t=9");
  force_fold(settings);
  EXPECT_EQ(to_text(settings), "fold_t=9,fold=direct");
  settings = parse_settings("fold=gate");
  force_fold(settings);
  EXPECT_EQ(to_text(settings), "fold=gate");
}

TEST(PolicySettings, SetsSeveral) {
  const Policy policy = set("merge=none,recent=25%,mass=none");
  EXPECT_EQ(policy.merge, Merge::kNone);
  EXPECT_EQ(policy.mass, Mass::kNone);
  EXPECT_EQ(policy.recent, 100u);
  EXPECT_EQ(to_text(parse_settings("merge=none,recent=25%")), "merge=none,recent=25%");
}

TEST(PolicySettings, NamesWhatIsAllowed) {
  EXPECT_EQ(complaint("recnt=3"),
            "--set knows no 'recnt'; there are sinks, recent, recent_share, score, group, combine, per_query, window, "
            "pool, value_norms, wide, wide_storage, wide_first, tail, tail_storage, faint, faint_storage, log, recall, "
            "indexed, merge, rephase, "
            "similarity, position_free, mass, threshold, candidate_mass, budget, "
            "most, recovered, "
            "fold, fold_rows, fold_start, fold_centred, fold_min_cosine, fold_keys, fold_values, fold_recent, fold_t, "
            "fold_retained, "
            "fold_retain");
  EXPECT_EQ(complaint("merge=keys"), "--set merge takes none, values or both, not 'keys'");
  EXPECT_EQ(complaint("window=33"), "--set window takes a power of two from 1 to 4096, not '33'");
  EXPECT_EQ(complaint("pool=2"), "--set pool takes an odd number from 1 to 15, not '2'");
  EXPECT_EQ(complaint("threshold=256"), "--set threshold takes mean, or a number from 0 to 255, not '256'");
  EXPECT_EQ(complaint("budget=table"),
            "--set budget takes uniform, pyramid, scores, adaptive, prefix, "
            "retrieval, rules or any_scores, not 'table'");
  EXPECT_EQ(complaint("merge"), "--set takes key=value,..., not 'merge'");
  EXPECT_EQ(complaint(""), "--set takes key=value,..., not ''");
  EXPECT_EQ(complaint("pool=1,pool=3"), "--set has 'pool' twice");
  for (const char* wrong : {"recent=101%", "recent=%", "recent=-1", "sinks=", "per_query=2", "candidate_mass=256",
                            "window=0", "group=min", "score=", "=3", "merge=none,"}) {
    EXPECT_NE(complaint(wrong), "none") << wrong;
  }
}

TEST(PolicySettings, KnowsWhichPoliciesReadThem) {
  EXPECT_NO_THROW(check_settings(parse_settings("merge=none"), "ems"));
  EXPECT_NO_THROW(check_settings(parse_settings("sinks=9"), "streaming_llm"));
  EXPECT_THROW(check_settings(parse_settings("merge=none"), "streaming_llm"), UsageError);
  EXPECT_THROW(check_settings(parse_settings("sinks=9"), "full"), UsageError);
}

TEST(PolicySettings, ReachTheCache) {
  Config model;
  model.layers = model.query_heads = model.kv_heads = 1;
  model.head_dim = 64;
  StoreOptions options;
  options.policy = "streaming_llm";
  options.tokens = 200;
  options.settings = parse_settings("sinks=10%");
  const TileStore store(model, options);
  EXPECT_EQ(store.cache().policy().sinks, 20u);
  EXPECT_EQ(policy_text(options), "streaming_llm sinks=10%");

  // Keys are rotated as the model file's rotary embedding says.
  options.policy = "ems";
  options.settings = parse_settings("merge=both,rephase=1,position_free=1");
  EXPECT_THROW(TileStore(model, options), Error) << "without rotary embedding";
  model.rope_base = 5e5;
  model.rope_scale = 0.25;
  model.rope_pairs = 24;
  model.rope_adjacent = false;
  const TileStore turned(model, options);
  EXPECT_EQ(turned.cache().shape().rotary, (Rotary{.base = 5e5f, .scale = 0.25f, .dims = 48, .adjacent = false}));
  EXPECT_TRUE(turned.cache().policy().rephase && turned.cache().policy().position_free);
  model.rope_divisors.assign(24, 2.0f);
  EXPECT_THROW(TileStore(model, options), Error) << "frequencies divided one by one";

  // A share of the budget that fits the arena.
  options.policy = "ems";
  options.tokens = 0;
  options.arena_bytes = 65536;
  options.settings = parse_settings("recent=25%");
  const TileStore scored(model, options);
  const Policy& policy = scored.cache().policy();
  EXPECT_GT(policy.tokens, 64u);
  EXPECT_EQ(policy.recent, policy.tokens / 4);
  EXPECT_LE(scored.cache().usage().arena_bytes, 65536u);
  EXPECT_EQ(scored.max_chunk(), kTileSlots);
  EXPECT_EQ(policy.sinks, 4u);

  // One budget that is valid for none of them, and one whose windows need more space
  // than the arena has.
  options.settings = parse_settings("recent=100%");
  EXPECT_THROW(TileStore(model, options), Error);
  options.settings = parse_settings("recent=5000");
  try {
    const TileStore too_large(model, options);
    FAIL() << "an arena of 65,536 bytes cannot hold 5,000 recent tokens";
  } catch (const Error& error) {
    Policy least = ems(4 + 5000 + kTileSlots);  // a tile beside the sinks and the window, because of the tail
    least.recent = 5000;
    Shape shape = scored.cache().shape();
    shape.max_chunk = 1;
    const std::string bytes = std::to_string(footprint(shape, least));
    const std::string expected = "an arena of 65536 bytes is too small; the smallest has " + bytes;
    EXPECT_EQ(std::string(error.what()).substr(0, expected.size()), expected);
  }
}

TEST(PolicySettings, WideLayersAreTheFirstOnesOrNamed) {
  const auto wide = [](const std::string& value) {
    Policy policy = ems(100);
    apply_settings(parse_settings("wide=" + value), policy);
    return policy.wide;
  };
  LayerSet expected;
  EXPECT_EQ(wide("0"), expected);
  expected.add(0);
  EXPECT_EQ(wide("1"), expected);
  expected.add(1);
  EXPECT_EQ(wide("2"), expected);
  expected.add(70);
  EXPECT_EQ(wide("0:1:70"), expected);
  EXPECT_EQ(wide("70:0:1"), expected);
  expected = {};
  expected.add(8);
  EXPECT_EQ(wide("8:8"), expected);
  for (const char* wrong : {"", ":", "1:", ":1", "257", "1:256", "-1", "a:b"})
    EXPECT_THROW(parse_settings("wide=" + std::string(wrong)), UsageError) << wrong;
  Policy policy = ems(100);
  apply_settings(parse_settings("wide_storage=q8"), policy);
  EXPECT_EQ(policy.wide_storage, Storage::kQ8);
  EXPECT_THROW(parse_settings("wide_storage=f32"), UsageError);
  EXPECT_TRUE(reads_setting("full", "wide"));
  EXPECT_FALSE(reads_setting("minicache", "wide"));
}

}  // namespace
}  // namespace nibkv::llm
