#include "bench/runner/stores/policy_notes.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "bench/runner/stores/policy_settings.hpp"
#include "tests/support/rig.hpp"

namespace nibkv::llm {
namespace {

Config narrow_model() {
  Config config;
  config.layers = 8;
  config.query_heads = 4;
  config.kv_heads = 2;
  config.head_dim = 32;
  return config;
}

StoreOptions options_of(const std::string& policy, const std::string& settings = "") {
  StoreOptions options;
  options.policy = policy;
  options.tokens = 256;
  if (!settings.empty()) options.settings = parse_settings(settings);
  options.profile = nibkv::test::make_profile(shape_of(narrow_model(), {}), 3);
  return options;
}

// All notes, a line each.
std::string notes_of(const StoreOptions& options) {
  std::string lines;
  for (const std::string& note : policy_notes(options, plan_cache(narrow_model(), options))) lines += note + '\n';
  return lines;
}

// What a cache is refused for, whatever its size.
std::string refusal(StoreOptions options) {
  std::string first;
  for (const std::uint64_t arena : {0, 1000, 1 << 20}) {
    options.tokens = arena == 0 ? 256 : 0;
    options.arena_bytes = arena;
    try {
      const TileStore store(narrow_model(), options);
      return "";
    } catch (const Error& error) {
      if (first.empty()) first = error.what();
      EXPECT_EQ(error.what(), first) << arena;
    }
  }
  return first;
}

TEST(PolicyNotes, SayThatHeadsWithoutScoresShareEqually) {
  const std::string same =
      " gives all heads the same budget: the profile has no head scores (nibkv-eval head-scores)\n";
  EXPECT_EQ(notes_of(options_of("head_kv")), "policy 'head_kv'" + same);
  EXPECT_EQ(notes_of(options_of("ems", "budget=scores")), "policy 'ems budget=scores'" + same);
  StoreOptions scored = options_of("head_kv");
  std::vector<float> scores(narrow_model().layers * narrow_model().kv_heads);
  scores.back() = 0.5f;
  require(set_head_scores(scored.profile, shape_of(narrow_model(), {}), scores), "head scores");
  EXPECT_EQ(notes_of(scored), "");
  EXPECT_EQ(notes_of(options_of("ems")), "");
  EXPECT_EQ(notes_of(options_of("full")), "");
  EXPECT_EQ(notes_of(options_of("duo")),
            "policy 'duo' takes the first heads for those that retrieve: the profile has no head scores (nibkv-eval "
            "head-scores)\n");
  scored.policy = "duo";
  EXPECT_EQ(notes_of(scored), "");
}

TEST(PolicyNotes, SayThatNoLayersFoldAndWhy) {
  const std::string advice = " (--set fold=direct folds all the same)\n";
  for (const std::string policy : {"minicache", "ems_fold"}) {
    const std::string none = "policy '" + policy + "' folds no layers: ";
    StoreOptions options = options_of(policy);
    EXPECT_EQ(notes_of(options), none + "no neighbouring layers are similar enough in the profile" + advice);
    options.profile.clear();
    EXPECT_EQ(notes_of(options), none + "without a profile no layers are known to be similar" + advice);
    EXPECT_EQ(notes_of(options_of(policy, "fold=direct")), "");
    EXPECT_EQ(notes_of(options_of(policy, "fold_min_cosine=0")), "") << "the gate is open";
  }
  EXPECT_EQ(
      notes_of(options_of("minicache", "fold=direct,fold_start=7")),
      "policy 'minicache fold=direct,fold_start=7' folds no layers: there are no two layers from fold_start on\n");
  StoreOptions small = options_of("minicache", "fold=direct,fold_start=6");
  small.tokens = 32;
  EXPECT_EQ(notes_of(small), "policy 'minicache fold=direct,fold_start=6' folds no layers: 6+7 would save no bytes\n");
}

TEST(PolicyNotes, WhatAProfileLacksIsAnErrorAndNoQuestionOfTheArena) {
  const std::string maps = " needs a profile with maps (nibkv-eval profile --align)";
  EXPECT_EQ(refusal(options_of("minicache", "fold=aligned")), "policy 'minicache fold=aligned'" + maps);
  StoreOptions none = options_of("minicache", "fold=aligned");
  none.profile.clear();
  EXPECT_EQ(refusal(none), "policy 'minicache fold=aligned'" + maps);
  none = options_of("head_kv");
  none.profile.clear();
  EXPECT_EQ(refusal(none), "policy 'head_kv' needs a profile with head scores (nibkv-eval profile, then head-scores)");
  none.policy = "duo";
  EXPECT_EQ(refusal(none), "policy 'duo' needs a profile with head scores (nibkv-eval profile, then head-scores)");
  for (const std::string policy : {"prefix_kv", "fast_gen"}) {
    for (const bool empty : {false, true}) {
      StoreOptions lacking = options_of(policy);
      if (empty) lacking.profile.clear();
      EXPECT_EQ(refusal(lacking),
                "policy '" + policy + "' needs a profile with attention (nibkv-eval profile --attention)");
    }
  }
}

}  // namespace
}  // namespace nibkv::llm
