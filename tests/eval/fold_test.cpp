// The effect of sharing codes between layers on a model that was trained for it, and
// on one that was not.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "bench/eval/metrics/sweep.hpp"
#include "bench/runner/profile/profile_maker.hpp"
#include "bench/runner/stores/policy_settings.hpp"
#include "bench/runner/text/builtin_text.hpp"
#include "bench/runner/text/tokenizer.hpp"
#include "tests/support/effort.hpp"

namespace nibkv::llm::fold_test {
namespace {

struct FoldedModel {
  explicit FoldedModel(const std::string& path, bool align = true)
      : file(Gguf::open(path)), tokenizer(Tokenizer::from(file)) {
    std::string text;
    for (const std::string_view part : builtin_text()) text += std::string(part) + "\n";
    tokens = tokenizer.encode(text, false, false);
    while (tokens.size() < 3000) tokens.insert(tokens.end(), tokens.begin(), tokens.end());
    options.context = 800;
    options.score_from = 100;
    options.store.workers = pool.workers();
    options.store.profile = make_profile(model, pool, std::span(tokens).first(1600), 800, {}, align);
    options.tokenizer = &tokenizer;
    options.needles = NeedleKind::kCode;
  }

  std::vector<SweepRow> measure(const std::vector<SweepCase>& cases) {
    std::vector<SweepRow> rows;
    measure_sweep(model, pool, tokens, options, cases,
                  [&](const std::vector<SweepRow>& more, double) { rows.insert(rows.end(), more.begin(), more.end()); },
                  {});
    return rows;
  }

  std::string shared(const SweepCase& what) {
    return SweepStore(model.config(), options.store, what, options.context).fold();
  }

  Gguf file;
  Tokenizer tokenizer;
  ThreadPool pool{2};
  Model model{file, pool};
  std::vector<std::int32_t> tokens;
  SweepOptions options;
};

const PolicySettings kFromOne = {{"fold_start", "1"}};

TEST(FoldedModel, OneThatWasTrainedToFoldIsNearLossless) {
  FoldedModel tiny(NIBKV_TINY_FOLD_MODEL);
  const unsigned needles = test::turns(40, 4);
  tiny.options.retrieval = needles;
  const std::vector<SweepRow> rows = tiny.measure({{"full", "100%", {}, ""},
                                                   {"minicache", "100%", kFromOne, ""},
                                                   {"ems", "60%", {}, ""},
                                                   {"ems_fold", "60%", kFromOne, ""}});
  EXPECT_EQ(tiny.shared(rows[1].what), "1+2, 3+4");
  EXPECT_LE(rows[1].cross_entropy, rows[0].cross_entropy + 0.02);
  EXPECT_LE(rows[0].retrieval_correct, rows[1].retrieval_correct + (3 * needles + 39) / 40) << "of " << needles;
  EXPECT_GE(rows[0].retrieval_correct, needles * 9 / 10);
  EXPECT_GE(rows[1].compression, 5.0);
  EXPECT_LE(rows[0].compression, 3.9);
  EXPECT_LT(rows[3].peak_bytes, rows[2].peak_bytes * 0.85) << "as many tokens in less";
  EXPECT_LE(rows[3].cross_entropy, rows[2].cross_entropy + 0.03);
}

TEST(FoldedModel, WithoutFourBitsItIsNearerAndLarger) {
  FoldedModel tiny(NIBKV_TINY_FOLD_MODEL);
  tiny.options.retrieval = 10;
  const std::vector<SweepRow> rows = tiny.measure({{"minicache", "100%", kFromOne, ""},
                                                   {"f16_fold", "100%", kFromOne, ""},
                                                   {"f16_fold_tokens", "100%", kFromOne, ""}});
  for (const SweepRow& row : std::span(rows).subspan(1)) {
    EXPECT_EQ(tiny.shared(row.what), "1+2, 3+4");
    EXPECT_GT(row.compression, 1.45);
    EXPECT_LT(row.compression, 5.0 / 3) << "one set for both layers of a pair";
    EXPECT_LT(row.kl_divergence, rows[0].kl_divergence);
    EXPECT_GE(row.retrieval_correct, 8u) << "of 10";
  }
}

TEST(FoldedModel, WhatIsFarApartMustBeRetained) {
  FoldedModel tiny(NIBKV_TINY_FOLD_MODEL);
  const unsigned needles = test::turns(20, 5);
  tiny.options.retrieval = needles;
  const PolicySettings near = {{"fold_start", "1"}, {"fold_retain", "near"}};
  const std::vector<SweepRow> rows =
      tiny.measure({{"minicache", "100%", kFromOne, ""}, {"minicache", "100%", near, "near"}});
  EXPECT_GT(rows[0].retrieval_correct, rows[1].retrieval_correct + 8 * needles / 20);
}

TEST(FoldedModel, TheGateRefusesOneThatWasNotTrainedToFold) {
  FoldedModel tiny(NIBKV_TINY_MODEL, false);
  const PolicySettings forced = {{"fold_start", "1"}, {"fold", "direct"}};
  const SweepCase gate = {"minicache", "100%", kFromOne, ""};
  const SweepCase force = {"minicache", "100%", forced, "forced"};
  EXPECT_EQ(tiny.shared(gate), "none");
  EXPECT_EQ(tiny.shared(force), "1+2, 3+4");
  const std::vector<SweepRow> rows = tiny.measure({{"full", "100%", {}, ""}, gate, force});
  EXPECT_EQ(rows[1].peak_bytes, rows[0].peak_bytes);
  EXPECT_EQ(rows[1].cross_entropy, rows[0].cross_entropy) << "the default makes nothing worse";
  EXPECT_GT(rows[2].kl_divergence, 3 * rows[0].kl_divergence);
}

TEST(FoldedModel, TheGateTakesValuesThatAreAlikeThroughTheMaps) {
  FoldedModel tiny(NIBKV_TINY_MODEL);
  const SweepCase gate = {"minicache", "100%", kFromOne, ""};
  EXPECT_NE(tiny.shared(gate).find(" values aligned"), std::string::npos) << tiny.shared(gate);
  EXPECT_EQ(tiny.shared(gate).find("keys"), std::string::npos);
  EXPECT_EQ(tiny.shared({"f16_fold", "100%", kFromOne, ""}), "none") << "it aligns no layers";
  const std::vector<SweepRow> rows = tiny.measure({{"full", "100%", {}, ""}, gate});
  EXPECT_LT(rows[1].peak_bytes, rows[0].peak_bytes * 0.9);
  EXPECT_LE(rows[1].cross_entropy, rows[0].cross_entropy + 0.02);
}

}  // namespace
}  // namespace nibkv::llm::fold_test
