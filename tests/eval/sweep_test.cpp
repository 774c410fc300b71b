#include "bench/eval/metrics/sweep.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "bench/eval/metrics/perplexity.hpp"
#include "bench/eval/metrics/retrieval.hpp"
#include "bench/eval/report/sweep_report.hpp"
#include "bench/runner/programs/arguments.hpp"
#include "bench/runner/text/builtin_text.hpp"
#include "bench/runner/text/tokenizer.hpp"

namespace nibkv::llm::sweep_test {
namespace {

/// The tiny model and some text, one token per byte.
class SweepTest : public testing::Test {
 protected:
  SweepTest() {
    std::string text;
    for (const std::string_view part : builtin_text()) text += std::string(part) + "\n";
    tokens_ = Tokenizer::from(file_).encode(text, false, false);
    options_.context = 256;
    options_.score_from = 128;
    options_.store.workers = pool_.workers();
  }

  std::vector<SweepRow> measure(const std::vector<SweepCase>& cases) {
    std::vector<SweepRow> rows;
    measure_sweep(model_, pool_, tokens_, options_, cases,
                  [&](const std::vector<SweepRow>& more, double reference) {
                    rows.insert(rows.end(), more.begin(), more.end());
                    references_.push_back(reference);
                  },
                  {});
    return rows;
  }

  Gguf file_ = Gguf::open(NIBKV_TINY_MODEL);
  ThreadPool pool_{2};
  Model model_{file_, pool_};
  std::vector<std::int32_t> tokens_;
  SweepOptions options_;
  std::vector<double> references_;
};

TEST_F(SweepTest, AgreesWithPerplexityWhereTheyMeasureTheSame) {
  options_.windows = 2;
  const std::vector<SweepRow> rows =
      measure({{"full", "100%", {}, ""}, {"streaming_llm", "96", {}, ""}, {"streaming_llm", "37.5%", {}, "again"}});
  ASSERT_EQ(rows.size(), 3u);
  PerplexityOptions same;
  same.context = 256;
  same.windows = 2;
  same.store.workers = 2;
  same.store.tokens = 256;
  const auto expect_same = [&](const SweepRow& row) {
    const PerplexityFigures figures = measure_perplexity(model_, pool_, tokens_, same, {});
    EXPECT_NEAR(row.cross_entropy, figures.cross_entropy, 1e-12);
    EXPECT_NEAR(row.standard_error, figures.standard_error, 1e-12);
    EXPECT_NEAR(row.kl_divergence, figures.kl_divergence, 1e-12);
    EXPECT_EQ(row.top1_agreement, figures.top1_agreement);
    EXPECT_EQ(row.peak_bytes, figures.peak_bytes);
    EXPECT_EQ(row.arena_bytes, figures.arena_bytes);
    EXPECT_EQ(row.bits_per_channel, figures.bits_per_channel);
    EXPECT_NEAR(references_.at(0), figures.cross_entropy_f32, 1e-12);
  };
  expect_same(rows[0]);
  same.store.policy = "streaming_llm";
  same.store.tokens = 96;
  expect_same(rows[1]);
  EXPECT_EQ(rows[2].cross_entropy, rows[1].cross_entropy);
  EXPECT_EQ(rows[2].budget, 96u);
  EXPECT_EQ(rows[2].what.budget, "37.5%");
}

TEST_F(SweepTest, DoesNotDependOnWhatIsFedBeside) {
  const std::vector<SweepCase> cases = {
      {"streaming_llm", "64", {}, ""}, {"f16_last", "64", {}, ""}, {"streaming_llm", "40", {}, ""}};
  const std::vector<SweepRow> together = measure(cases);
  options_.side_by_side = 1;
  const std::vector<SweepRow> alone = measure(cases);
  ASSERT_EQ(alone.size(), together.size());
  for (std::size_t i = 0; i < alone.size(); ++i) {
    EXPECT_EQ(alone[i].cross_entropy, together[i].cross_entropy);
    EXPECT_EQ(alone[i].kl_divergence, together[i].kl_divergence);
  }
  EXPECT_EQ(references_, std::vector<double>(4, references_.at(0)));
}

TEST_F(SweepTest, GivesTheLastTokensInF16TheBytesOfTheTiles) {
  const Config& config = model_.config();
  const std::uint64_t token_bytes = 4 * config.layers * config.kv_heads * config.head_dim;
  for (const char* budget : {"20", "64", "100", "128K"}) {
    const std::vector<SweepRow> rows =
        measure({{"streaming_llm", budget, {}, ""}, {"f16_last", budget, {}, ""}, {"f16_sinks", budget, {}, ""}});
    for (std::size_t i = 1; i < 3; ++i) {
      EXPECT_EQ(rows[i].budget, rows[0].peak_bytes / token_bytes) << budget;
      EXPECT_EQ(rows[i].peak_bytes, rows[i].budget * token_bytes);
      EXPECT_EQ(rows[i].bits_per_channel, 16);
    }
    EXPECT_GT(rows[1].kl_divergence, rows[0].kl_divergence) << "it sees a third of the tokens";
    EXPECT_NE(rows[1].cross_entropy, rows[2].cross_entropy);
  }
}

TEST_F(SweepTest, MeasuresPoliciesThatScoreWithAnyNumberOfWorkers) {
  const std::vector<SweepCase> cases = {{"ems", "25%", {}, ""}, {"h2o", "25%", {{"recent", "25%"}}, "recent=25%"}};
  const std::vector<SweepRow> two = measure(cases);
  options_.store.workers = 1;
  ThreadPool one(1);
  Model model(file_, one);
  std::vector<SweepRow> alone;
  measure_sweep(model, one, tokens_, options_, cases, [&](const auto& rows, double) { alone = rows; }, {});
  for (std::size_t i = 0; i < cases.size(); ++i) {
    EXPECT_EQ(alone[i].cross_entropy, two[i].cross_entropy);
    EXPECT_GT(alone[i].kl_divergence, 0);
    EXPECT_LT(alone[i].kl_divergence, 1);
  }
}

TEST_F(SweepTest, AsksEveryCacheAsItWasMeasured) {
  const std::vector<SweepCase> cases = {{"full", "100%", {}, ""},
                                        {"ems", "50%", {{"recent", "25%"}}, "recent=25%"},
                                        {"streaming_llm", "64", {}, ""},
                                        {"f16_sinks", "64", {}, ""}};
  options_.windows = 2;
  const std::vector<SweepRow> unasked = measure(cases);
  options_.retrieval = 7;
  options_.needles = NeedleKind::kCode;
  const Tokenizer tokenizer = Tokenizer::from(file_);
  options_.tokenizer = &tokenizer;
  const std::vector<SweepRow> rows = measure(cases);
  ASSERT_EQ(rows.size(), 4u);
  const Haystack haystack(tokenizer, tokens_);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    EXPECT_EQ(rows[i].cross_entropy, unasked[i].cross_entropy);
    EXPECT_EQ(rows[i].peak_bytes, unasked[i].peak_bytes);
    EXPECT_EQ(rows[i].bits_per_channel, unasked[i].bits_per_channel);
    EXPECT_EQ(unasked[i].retrieval_asked, 0u);
    EXPECT_EQ(rows[i].retrieval_asked, 7u);
    std::uint64_t right = 0;
    for (std::size_t place = 0; place < 7; ++place) {
      SweepStore store(model_.config(), options_.store, cases[i], options_.context);
      Hiding hiding;
      hiding.kind = NeedleKind::kCode;
      hiding.length = 256 - kAnswerTokens;
      hiding.depth = static_cast<double>(place) / 6;
      right += hide_and_ask(model_, tokenizer, haystack, store.store(), hiding, 1, {}).right ? 1 : 0;
    }
    EXPECT_EQ(rows[i].retrieval_correct, right) << name_of(cases[i]);
  }
  EXPECT_GE(rows[0].retrieval_correct, 6u);
  EXPECT_LE(rows[2].retrieval_correct, 3u) << "a window of a quarter";
  EXPECT_LE(rows[3].retrieval_correct, rows[2].retrieval_correct);
}

TEST_F(SweepTest, SaysThatANeedleDoesNotFitBeforeItMeasures) {
  const Tokenizer tokenizer = Tokenizer::from(file_);
  options_.tokenizer = &tokenizer;
  options_.retrieval = 1;
  for (const std::size_t context : {8u, 64u, 256u}) {
    options_.context = context;
    options_.score_from = 4;
    options_.needles = NeedleKind::kSeveral;
    EXPECT_THROW(measure({{"full", "100%", {}, ""}}), Error) << context;
    EXPECT_TRUE(references_.empty());
  }
}

TEST_F(SweepTest, CutsAWholePromptBackAtOnce) {
  StoreOptions options = options_.store;
  options.policy = "ems";
  options.tokens = 256;
  options.settings = {{"recent", "16"}};
  TileStore store(model_.config(), options);
  EXPECT_EQ(store.max_chunk(), kTileSlots);
  model_.forward(std::span(tokens_).first(200), 0, store, nullptr, 0);
  EXPECT_EQ(store.cache().held(0, 0), 200u);
  store.compact_now(64);
  EXPECT_LE(store.cache().held(0, 0), 64u);
  EXPECT_EQ(store.cache().seen(0), 200u);
  EXPECT_THROW(store.compact_now(3), Error);
}

TEST_F(SweepTest, SaysWhatIsWrongBeforeItMeasures) {
  const std::vector<SweepCase> full = {{"full", "100%", {}, ""}};
  EXPECT_THROW(measure({{"full", "100%", {}, ""}, {"streaming_llm", "3", {}, ""}}), Error);
  EXPECT_TRUE(references_.empty());
  EXPECT_THROW(measure({{"f16_fold", "100%", {{"fold", "aligned"}}, ""}}), UsageError);
  options_.context = model_.config().context + 1;
  EXPECT_THROW(measure(full), Error);
  options_.context = 128;
  EXPECT_THROW(measure(full), Error) << "nothing to score";
  options_.context = 256;
  tokens_.resize(255);
  EXPECT_THROW(measure(full), Error);
}

TEST(SweepBudget, ReadsTokensSharesAndBytes) {
  StoreOptions options;
  const auto tokens = [&](const std::string& budget) {
    set_budget(budget, 4096, options);
    return options.tokens;
  };
  EXPECT_EQ(tokens("410"), 410u);
  EXPECT_EQ(tokens("10%"), 410u);
  EXPECT_EQ(tokens("2.5%"), 102u);
  EXPECT_EQ(tokens("0.001%"), 1u);
  EXPECT_EQ(tokens("100%"), 4096u);
  EXPECT_EQ(tokens("1M"), 0u);
  EXPECT_EQ(options.arena_bytes, 1u << 20);
  for (const char* wrong : {"", "0", "0%", "101%", "%", "x", "-1", "1T", "5%%", "99999999", "1e3"}) {
    EXPECT_THROW(tokens(wrong), UsageError) << wrong;
  }
}

SweepReport some_report() {
  SweepReport report;
  report.model = "a \"model\"";
  report.text = "text";
  report.profile = "none";
  report.context = 4096;
  report.score_from = 512;
  report.windows = 1;
  report.reference_cross_entropy = 3.1;
  SweepRow row;
  row.what = {"ems", "10%", {{"merge", "none"}}, "merge=none"};
  row.budget = 410;
  row.context = 4096;
  row.cross_entropy = 1.0 / 3;
  row.peak_bytes = 123456789;
  report.rows = {row};
  row.what.budget = "5%";
  row.peak_bytes = 60000000;
  report.rows.push_back(row);
  return report;
}

TEST(SweepReport, ComesBackFromItsFile) {
  const SweepReport report = some_report();
  const SweepReport read = SweepReport::parse(report.as_json());
  EXPECT_EQ(read.as_json(), report.as_json());
  EXPECT_EQ(read.rows.at(0).cross_entropy, 1.0 / 3);
  EXPECT_TRUE(read.has({"ems", "10%", {}, "merge=none"}));
  EXPECT_FALSE(read.has({"ems", "10%", {}, ""}));
  EXPECT_FALSE(read.has({"ems", "25%", {}, "merge=none"}));
  EXPECT_THROW(SweepReport::parse("{}"), Error);
  EXPECT_THROW(SweepReport::parse(report.as_json().substr(0, 300)), Error);
}

TEST(SweepReport, GoesOnOnlyFromRowsOfTheSame) {
  SweepReport now = some_report();
  now.rows.clear();
  now.go_on_from(some_report());
  EXPECT_EQ(now.rows.size(), 2u);
  SweepReport older = some_report();
  older.context = 2048;
  try {
    now.go_on_from(older);
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "its rows are of context 2048, not of context 4096");
  }
}

TEST(SweepReport, SaysWhatWasFoundOnlyWhenAsked) {
  SweepReport report = some_report();
  EXPECT_EQ(report.as_json().find("retrieval"), std::string::npos);
  EXPECT_EQ(report.as_json().find("needles"), std::string::npos);
  SweepReport asked = report;
  asked.retrieval = 9;
  asked.needles = "passkey";
  for (SweepRow& row : asked.rows) row.retrieval_asked = 9;
  asked.rows[1].retrieval_correct = 4;
  const SweepReport read = SweepReport::parse(asked.as_json());
  EXPECT_EQ(read.as_json(), asked.as_json());
  EXPECT_EQ(read.rows[1].retrieval_correct, 4u);
  EXPECT_EQ(read.rows[1].retrieval_asked, 9u);
  EXPECT_NE(asked.as_json().find("\"retrieval_correct\": 4"), std::string::npos);
  EXPECT_THROW(report.go_on_from(asked), Error);
  EXPECT_THROW(asked.go_on_from(some_report()), Error);
  EXPECT_NO_THROW(asked.go_on_from(read));
  const std::string lines = table_lines(asked.rows, 3.1);
  EXPECT_NE(lines.find("    4/9\n"), std::string::npos) << lines;
  EXPECT_EQ(lines.find('\n'), table_head(true).size() - 1);
}

TEST(SweepReport, PairsPoliciesOverWindowsAtTheSameBudget) {
  SweepReport report = some_report();
  EXPECT_EQ(paired_table(report.rows), "") << "nothing to pair";
  report.rows[0].window_cross_entropies = {3.0, 4.0, 5.0};
  report.rows[1].window_cross_entropies = {3.5, 4.5, 5.5};
  EXPECT_EQ(paired_table(report.rows), "") << "budgets differ";
  SweepRow other = report.rows[0];
  other.what = {"h2o", "10%", {}, ""};
  other.window_cross_entropies = {3.1, 4.0, 5.2};
  report.rows.push_back(other);
  // 0.1, 0 and 0.2 more: 0.1 on average, with a standard error of 0.1 / sqrt(3).
  const std::string table = paired_table(report.rows);
  EXPECT_NE(table.find("\nh2o                                   10%   +0.1000   0.0577  ems merge=none\n"),
            std::string::npos)
      << table;
  EXPECT_EQ(std::count(table.begin(), table.end(), '\n'), 3);
  EXPECT_EQ(paired_table(SweepReport::parse(report.as_json()).rows), table);
  report.rows[0].window_cross_entropies = {};
  EXPECT_EQ(paired_table(report.rows), "") << "the only one of its kind";
  SweepRow third = report.rows[2];
  third.what.policy = "tova";
  report.rows.push_back(third);
  EXPECT_NE(paired_table(report.rows).find("+0.0000   0.0000  h2o\n"), std::string::npos)
      << "with the first that has as many windows: " << paired_table(report.rows);
}

TEST(SweepReport, PrintsALineForEachRowAndDrawsThem) {
  const SweepReport report = some_report();
  const std::string lines = table_lines(report.rows, report.reference_cross_entropy);
  EXPECT_EQ(lines.substr(0, 15), "ems merge=none ");
  EXPECT_EQ(lines.find('\n'), table_head(false).size() - 1);
  const std::string svg = report.as_svg();
  EXPECT_NE(svg.find(">ems merge=none<"), std::string::npos);
  EXPECT_NE(svg.find("f32 of everything: 3.100 nats"), std::string::npos);
  EXPECT_NE(svg.find(">0.001<"), std::string::npos) << "what is below f32's stands at the edge";
}

}  // namespace
}  // namespace nibkv::llm::sweep_test
