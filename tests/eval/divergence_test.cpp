#include "bench/eval/metrics/divergence.hpp"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "bench/eval/report/divergence_report.hpp"
#include "bench/runner/text/builtin_text.hpp"
#include "bench/runner/text/tokenizer.hpp"

namespace nibkv::llm::divergence_test {
namespace {

namespace fs = std::filesystem;

TEST(CompareRow, AgreesWithPlainFormulas) {
  const std::vector<float> base = {1, 3, 0.5f, -2, -30}, tested = {2, 2.5f, 1, -4, -3};
  std::vector<std::uint16_t> packed(4 + 6);
  pack_row(base, log_sum(base), packed);
  double base_sum = 0, sum = 0;
  for (std::size_t i = 0; i < 5; ++i) base_sum += std::exp(double{base[i]});
  for (std::size_t i = 0; i < 5; ++i) sum += std::exp(double{tested[i]});
  double divergence = 0;
  for (std::size_t i = 0; i < 4; ++i) {  // the last one is too unlikely
    const double p = std::exp(double{base[i]}) / base_sum, q = std::exp(double{tested[i]}) / sum;
    divergence += p * std::log(p / q);
  }
  for (const std::int32_t target : {0, 1, 2, 3}) {
    const auto at = static_cast<std::size_t>(target);
    const double p = std::exp(double{base[at]}) / base_sum, q = std::exp(double{tested[at]}) / sum;
    const RowDivergence row = compare_row(tested, log_sum(tested), PackedRow(packed, 5), target);
    const double half_a_step = 8.0 / 65535;
    EXPECT_NEAR(row.loss, -std::log(q), 1e-9);
    EXPECT_NEAR(row.base_loss, -std::log(p), half_a_step);
    EXPECT_NEAR(row.divergence, divergence, half_a_step * 2);
    EXPECT_NEAR(row.change, q - p, half_a_step);
    EXPECT_TRUE(row.same_top);
  }
  const std::vector<float> other = {3, 2.5f, 1, -4, -3};
  EXPECT_FALSE(compare_row(other, log_sum(other), PackedRow(packed, 5), 0).same_top);
}

// Four rows, with figures that can be computed by hand.
const std::vector<RowDivergence> kRows = {
    {1.0, 1.5, 0.3, 0.2, true}, {2.0, 2.0, 0.1, -0.1, true}, {4.0, 3.0, 0.2, 0.0, false}, {3.0, 3.5, 0.6, 0.4, true}};

TEST(Summarise, AgreesWithPlainFormulas) {
  const DivergenceFigures figures = summarise(kRows);
  EXPECT_EQ(figures.rows, 4u);
  // Means 2.5 and 2.5; mean squares 7.5 and 6.875; mean product 7.0. Variances of means: / 3.
  const double variance = (7.5 - 6.25) / 3, base_variance = (6.875 - 6.25) / 3, shared = (7.0 - 6.25) / 3;
  EXPECT_NEAR(figures.perplexity.value, std::exp(2.5), 1e-12);
  EXPECT_NEAR(figures.perplexity.error, std::exp(2.5) * std::sqrt(variance), 1e-12);
  EXPECT_NEAR(figures.base_perplexity.value, std::exp(2.5), 1e-12);
  EXPECT_NEAR(figures.base_perplexity.error, std::exp(2.5) * std::sqrt(base_variance), 1e-12);
  EXPECT_NEAR(figures.correlation, shared / std::sqrt(variance * base_variance), 1e-12);
  const double error = std::sqrt(variance + base_variance - 2 * shared);
  EXPECT_NEAR(figures.log_ratio.value, 0, 1e-12);
  EXPECT_NEAR(figures.log_ratio.error, error, 1e-12);
  EXPECT_NEAR(figures.ratio.value, 1, 1e-12);
  EXPECT_NEAR(figures.ratio.error, error, 1e-12);
  EXPECT_NEAR(figures.difference.value, 0, 1e-9);
  EXPECT_NEAR(figures.difference.error, std::exp(2.5) * error, 1e-9);

  EXPECT_NEAR(figures.divergence.value, 0.3, 1e-12);
  EXPECT_NEAR(figures.divergence.error, std::sqrt((0.5 / 4 - 0.09) / 3), 1e-12);
  EXPECT_NEAR(figures.change.value, 0.125, 1e-12);
  EXPECT_NEAR(figures.change.error, std::sqrt((0.21 / 4 - 0.015625) / 3), 1e-12);
  const double square = 0.21 / 4, fourth = (0.0016 + 0.0001 + 0.0256) / 4;
  EXPECT_NEAR(figures.change_rms.value, std::sqrt(square), 1e-12);
  EXPECT_NEAR(figures.change_rms.error, std::sqrt((fourth - square * square) / 3) / (2 * std::sqrt(square)), 1e-12);
  EXPECT_NEAR(figures.same_top.value, 0.75, 1e-12);
  EXPECT_NEAR(figures.same_top.error, std::sqrt(0.75 * 0.25 / 3), 1e-12);
}

TEST(Summarise, JoinsRowsWithLinesForPercentiles) {
  const DivergenceFigures figures = summarise(kRows);
  // Sorted: 0.1, 0.2, 0.3, 0.6 at places 0 to 3.
  const double divergences[] = {0.6, 0.5991, 0.591, 0.555, 0.51, 0.25, 0.13, 0.115, 0.103, 0.1003, 0.1};
  for (std::size_t i = 0; i < std::size(divergences); ++i) {
    EXPECT_NEAR(figures.divergences[i], divergences[i], 1e-12) << kDivergenceLevels[i];
  }
  // Sorted: -0.1, 0, 0.2, 0.4.
  EXPECT_NEAR(figures.changes[0], 0.4, 1e-12);
  EXPECT_NEAR(figures.changes[5], 0.25, 1e-12) << kChangeLevels[5];
  EXPECT_NEAR(figures.changes[6], 0.1, 1e-12) << kChangeLevels[6];
  EXPECT_NEAR(figures.changes[7], -0.025, 1e-12) << kChangeLevels[7];
  EXPECT_NEAR(figures.changes[12], -0.1, 1e-12);
}

TEST(Summarise, HasNoErrorsForASingleRowAndNoCorrelationOfWhatIsAlwaysTheSame) {
  const DivergenceFigures one = summarise(std::span(kRows).first(1));
  EXPECT_EQ(one.perplexity.error, 0);
  EXPECT_EQ(one.correlation, 0);
  EXPECT_EQ(one.divergences.front(), one.divergences.back());
  const DivergenceFigures same = summarise(std::vector<RowDivergence>(3));
  EXPECT_EQ(same.correlation, 0);
  EXPECT_EQ(same.change_rms.error, 0);
}

TEST(Table, HasTheLinesOfTheTool) {
  const std::string table = as_table(summarise(kRows));
  for (const char* line :
       {"====== Perplexity statistics ======\n", "Mean PPL(Q)                   :  12.182494 +/-   7.863",
        "PPL(base)   ", "\nCor(ln(PPL(Q)), ln(PPL(base))):  84.85%\n",
        "\nMean ln(PPL(Q)/PPL(base))     :   0.000000 +/-   0.353553\n", "\nMean    KLD:   0.300000 +/-   0.108012\n",
        "\nMaximum KLD:   0.600000\n", "\n99.9%   KLD:   0.599100\n", "\nMedian  KLD:   0.250000\n",
        "\n 5.0%   KLD:   0.115000\n", "\nMinimum KLD:   0.100000\n", "\nMean    Delta p: 12.500 +/- 11.087 %\n",
        "\n25.0%   Delta p: -2.500%\n", "\nRMS Delta p    : 22.913 +/- 8.",
        "\nSame top p     : 75.000 +/- 25.000 %\n"}) {
    EXPECT_NE(table.find(line), std::string::npos) << line << "in\n" << table;
  }
}

/// The tiny model, which asks for BOS, and some text, one token per byte.
class DivergenceTest : public testing::Test {
 protected:
  DivergenceTest() : folder_((fs::temp_directory_path() / "nibkv-divergence-XXXXXX").string()) {
    if (::mkdtemp(folder_.data()) == nullptr) throw std::runtime_error("cannot create " + folder_);
    std::string text;
    for (const std::string_view part : builtin_text()) text += std::string(part) + "\n";
    const Tokenizer tokenizer = Tokenizer::from(file_);
    bos_ = tokenizer.bos();
    tokens_ = tokenizer.encode(text, false, false);
    tokens_.resize(shape_.context * shape_.chunks);
  }
  ~DivergenceTest() override {
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }

  ChunkOptions options(Storage storage) const {
    ChunkOptions out;
    out.store.tokens = static_cast<std::uint32_t>(shape_.context);
    out.store.storage = storage;
    out.store.workers = pool_.workers();
    out.bos = bos_;
    return out;
  }

  std::string write(const std::string& name, Storage storage) {
    written_ = write_logits(folder_ + "/" + name, model_, pool_, tokens_, shape_, options(storage), {});
    return folder_ + "/" + name;
  }

  MeasuredDivergence measure(const std::string& path, Storage storage) {
    LogitsFile base(path);
    return measure_divergence(model_, pool_, base, base.shape().chunks, options(storage), {});
  }

  std::string folder_;
  Gguf file_ = Gguf::open(NIBKV_TINY_MODEL);
  ThreadPool pool_{2};
  Model model_{file_, pool_};
  LogitsShape shape_ = {131, model_.config().vocabulary, 3};
  std::optional<std::int32_t> bos_;
  std::vector<std::int32_t> tokens_;
  WrittenLogits written_;
};

TEST_F(DivergenceTest, ScoresTheSecondHalfOfChunksThatBeginWithBos) {
  ASSERT_TRUE(bos_);
  double loss = 0, squares = 0;
  std::size_t rows = 0;
  for (std::size_t chunk = 0; chunk < shape_.chunks; ++chunk) {
    std::vector<std::int32_t> fed(tokens_.begin() + static_cast<std::ptrdiff_t>(chunk * 131),
                                  tokens_.begin() + static_cast<std::ptrdiff_t>((chunk + 1) * 131));
    fed[0] = *bos_;
    TileStore store(model_.config(), options(Storage::kF32).store);
    std::vector<float> logits(131 * shape_.vocabulary);
    model_.forward(fed, 0, store, logits.data(), 131);
    for (std::size_t at = 65; at < 130; ++at, ++rows) {
      const float* row = logits.data() + at * shape_.vocabulary;
      double sum = 0;
      for (std::size_t i = 0; i < shape_.vocabulary; ++i) sum += std::exp(double{row[i]});
      const double own = std::log(sum) - row[static_cast<std::size_t>(fed[at + 1])];
      loss += own;
      squares += own * own;
    }
  }
  const std::string path = write("f32", Storage::kF32);
  const double mean = loss / static_cast<double>(rows);
  const double error = std::sqrt((squares / static_cast<double>(rows) - mean * mean) / static_cast<double>(rows - 1));
  EXPECT_EQ(written_.rows, rows);
  EXPECT_EQ(rows, 3u * 65);
  EXPECT_NEAR(written_.perplexity.value, std::exp(mean), 1e-9);
  EXPECT_NEAR(written_.perplexity.error, std::exp(mean) * error, 1e-9);

  LogitsFile file(path);
  EXPECT_EQ(file.shape(), shape_);
  EXPECT_TRUE(std::equal(tokens_.begin(), tokens_.end(), file.tokens().begin())) << "without BOS, as the text has them";
}

TEST_F(DivergenceTest, FindsNoDifferenceBetweenACacheAndItsFileButTheRoundingOfTheFile) {
  const std::string path = write("f32", Storage::kF32);
  const MeasuredDivergence same = measure(path, Storage::kF32);
  EXPECT_EQ(same.figures.perplexity.value, written_.perplexity.value);
  EXPECT_NEAR(same.figures.base_perplexity.value, written_.perplexity.value, 1e-3);
  EXPECT_NEAR(same.figures.divergence.value, 0, 1e-5);
  EXPECT_NEAR(same.figures.divergences.front(), 0, 1.3e-4);
  EXPECT_NEAR(same.figures.divergences.back(), 0, 1.3e-4);
  EXPECT_GT(same.figures.correlation, 0.9999);
  EXPECT_GE(same.cache.bits_per_channel, 32);

  const MeasuredDivergence q4 = measure(path, Storage::kQ4);
  EXPECT_GT(q4.figures.divergence.value, 1e-4);
  EXPECT_LT(q4.figures.divergence.value, 0.1);
  EXPECT_GT(q4.figures.change_rms.value, same.figures.change_rms.value * 10);
  EXPECT_LT(q4.cache.bits_per_channel, 7);
  EXPECT_LE(q4.cache.peak_bytes, q4.cache.arena_bytes);
}

TEST_F(DivergenceTest, SaysTheSameOfAFileAsOfTheCacheThatWroteItToThreeDigits) {
  const std::string base = write("f32", Storage::kF32), tested = write("q4", Storage::kQ4);
  const DivergenceFigures direct = measure(base, Storage::kQ4).figures;
  LogitsFile file(base), other(tested);
  const DivergenceFigures figures = compare_files(pool_, file, other, shape_.chunks, {});
  const auto near = [](const Estimate& a, const Estimate& b, double digits) {
    EXPECT_NEAR(a.value, b.value, std::abs(b.value) * digits);
    EXPECT_NEAR(a.error, b.error, std::abs(b.error) * digits);
  };
  EXPECT_EQ(figures.rows, direct.rows);
  near(figures.perplexity, direct.perplexity, 1e-4);
  near(figures.base_perplexity, direct.base_perplexity, 0);
  near(figures.divergence, direct.divergence, 1e-3);
  near(figures.change_rms, direct.change_rms, 1e-3);
  EXPECT_NEAR(figures.correlation, direct.correlation, 1e-4);
  EXPECT_NEAR(figures.same_top.value, direct.same_top.value, 0.01);
  EXPECT_NEAR(figures.divergences.front(), direct.divergences.front(), 3e-4);

  LogitsFile itself(base), again(base);
  const DivergenceFigures none = compare_files(pool_, itself, again, 2, {});
  EXPECT_EQ(none.rows, 2u * 65) << "of two chunks";
  EXPECT_EQ(none.divergences.front(), 0);
  EXPECT_EQ(none.divergences.back(), 0);
  EXPECT_EQ(none.same_top.value, 1);
}

TEST_F(DivergenceTest, GivesTheSameFiguresAndFilesWithAnyNumberOfWorkers) {
  const std::string path = write("two", Storage::kQ4);
  ThreadPool pool(3);
  Model model(file_, pool);
  ChunkOptions other = options(Storage::kQ4);
  other.store.workers = 3;
  write_logits(folder_ + "/three", model, pool, tokens_, shape_, other, {});
  const auto contents = [](const std::string& name) {
    std::ifstream file(name, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(file), {});
  };
  EXPECT_EQ(contents(folder_ + "/three"), contents(path));
  LogitsFile base(path);
  const DivergenceFigures three = measure_divergence(model, pool, base, shape_.chunks, other, {}).figures;
  EXPECT_EQ(three.divergence.value, measure(path, Storage::kQ4).figures.divergence.value);
}

TEST_F(DivergenceTest, CountsTokensUpToTheEnd) {
  const std::string path = write("f32", Storage::kF32);
  std::vector<std::size_t> seen;
  LogitsFile base(path);
  measure_divergence(model_, pool_, base, 2, options(Storage::kF32), [&](std::size_t done, std::size_t all) {
    EXPECT_EQ(all, 262u);
    seen.push_back(done);
  });
  EXPECT_EQ(seen, (std::vector<std::size_t>{64, 128, 131, 195, 259, 262}));
}

TEST_F(DivergenceTest, RefusesFilesOfOtherVocabulariesContextsAndTexts) {
  const std::string path = write("f32", Storage::kF32);
  LogitsShape other = shape_;
  other.vocabulary -= 1;
  EXPECT_THROW(write_logits(folder_ + "/x", model_, pool_, tokens_, other, options(Storage::kF32), {}), Error);
  other = shape_;
  other.context = model_.config().context + 1;
  EXPECT_THROW(write_logits(folder_ + "/x", model_, pool_, tokens_, other, options(Storage::kF32), {}), Error);
  EXPECT_FALSE(fs::exists(folder_ + "/x"));

  tokens_[7] = tokens_[7] == 5 ? 6 : 5;
  const std::string changed = write("changed", Storage::kF32);
  LogitsFile base(path), tested(changed);
  EXPECT_THROW(compare_files(pool_, base, tested, 1, {}), Error);
}

}  // namespace
}  // namespace nibkv::llm::divergence_test
