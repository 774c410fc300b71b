#include "bench/eval/metrics/logits_file.hpp"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "bench/runner/gguf/gguf.hpp"

namespace nibkv::llm::logits_file_test {
namespace {

namespace fs = std::filesystem;

std::vector<std::uint16_t> packed(const std::vector<float>& logits) {
  const LogitsShape shape = {3, logits.size(), 1};
  std::vector<std::uint16_t> row(shape.row_words(), 0xffff);
  pack_row(logits, log_sum(logits), row);
  return row;
}

TEST(PackRow, KeepsLogProbabilitiesToHalfAStepAndCutsWhatIsUnlikely) {
  std::mt19937 random(11);
  std::normal_distribution<float> normal(0, 5);
  for (const std::size_t size : {1u, 2u, 5u, 1000u}) {
    std::vector<float> logits(size);
    for (float& logit : logits) logit = normal(random);
    double sum = 0, largest = logits[0];
    for (const float logit : logits) sum += std::exp(static_cast<double>(logit));
    for (const float logit : logits) largest = std::max<double>(largest, logit);
    EXPECT_NEAR(log_sum(logits), std::log(sum), 1e-12);

    const std::vector<std::uint16_t> row = packed(logits);
    EXPECT_EQ(row.size(), 4 + size + size % 2);
    if (size % 2 == 1) {
      EXPECT_EQ(row.back(), 0) << "nothing of what was there before";
    }
    const PackedRow view(row, size);
    EXPECT_TRUE(view.is_sound()) << size;
    EXPECT_EQ(logits[view.top()], static_cast<float>(largest)) << size;
    for (std::size_t i = 0; i < size; ++i) {
      const double exact = std::max<double>(logits[i], largest - 16) - std::log(sum);
      EXPECT_NEAR(view.log_probability(i), exact, 8.0 / 65535 + 4e-6) << i << " of " << size;
    }
  }
}

TEST(PackRow, HasOneLevelForEqualLogitsAndItsFirstChoiceIsTheFirst) {
  const std::vector<std::uint16_t> row = packed({-3, -3, -3, -3});
  const PackedRow view(row, 4);
  EXPECT_EQ(view.log_probability(0), view.log_probability(3));
  EXPECT_NEAR(view.log_probability(2), std::log(0.25), 1e-6);
  EXPECT_EQ(view.top(), 0u);
  EXPECT_TRUE(view.is_sound());
}

TEST(PackedRow, IsNotSoundWithWhatCannotBeProbabilities) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kInf = std::numeric_limits<float>::infinity();
  const std::vector<std::uint16_t> good = packed({1, 2, 3, -40});
  const auto with = [&](std::size_t word, float value) {
    std::vector<std::uint16_t> row = good;
    std::memcpy(row.data() + word, &value, sizeof value);
    return PackedRow(row, 4).is_sound();
  };
  for (const float step : {kNan, kInf, -1e-4f, 0.0f, 1e30f}) EXPECT_FALSE(with(0, step)) << step;
  for (const float lowest : {kNan, kInf, -kInf, -1e30f, -30.0f, 0.0f}) EXPECT_FALSE(with(2, lowest)) << lowest;
  EXPECT_FALSE(PackedRow(std::vector<std::uint16_t>(8, 0), 4).is_sound()) << "four tokens that are certain";
}

/// Files of 2 chunks of 5 tokens of a vocabulary of 3: 2 rows a chunk, each 16 bytes.
class LogitsFileTest : public testing::Test {
 protected:
  LogitsFileTest() : folder_((fs::temp_directory_path() / "nibkv-logits-XXXXXX").string()) {
    if (::mkdtemp(folder_.data()) == nullptr) throw std::runtime_error("cannot create " + folder_);
    // Written number by number, as the format is described, so that it is not only what the writer makes of it.
    bytes_ = "_logits_";
    for (const std::int32_t number : {5, 3, 2}) put(number);
    for (const std::int32_t token : kTokens) put(token);
    for (int row = 0; row < 4; ++row) {
      put(0.0001f);
      put(-1.6094f + static_cast<float>(row) / 100);  // 0.3, 0.5 and 0.2, and more in later rows
      for (const int level : {4055, 9163, 0, 0}) put(static_cast<std::uint16_t>(level));
    }
  }
  ~LogitsFileTest() override {
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }

  template <typename T>
  void put(T number) {
    bytes_.append(reinterpret_cast<const char*>(&number), sizeof number);
  }

  std::string path() const { return folder_ + "/file"; }
  void write(const std::string& bytes) const { std::ofstream(path(), std::ios::binary) << bytes; }

  // The bytes with another number at a place.
  template <typename T>
  std::string with(std::size_t at, T number) const {
    std::string changed = bytes_;
    std::memcpy(changed.data() + at, &number, sizeof number);
    return changed;
  }

  // What is said of such a file after the path, up to its rows.
  std::string refusal(const std::string& bytes) const {
    write(bytes);
    try {
      LogitsFile file(path());
    } catch (const Error& error) {
      const std::string what = error.what();
      EXPECT_EQ(what.find(path() + ": "), 0u) << what;
      return what.substr(path().size() + 2);
    }
    return "nothing";
  }

  static constexpr std::int32_t kTokens[] = {0, 1, 2, 1, 0, 2, 2, 1, 0, 1};
  std::string folder_, bytes_;
  ThreadPool pool_{2};
};

TEST_F(LogitsFileTest, IsReadAsItIsDescribed) {
  write(bytes_);
  LogitsFile file(path());
  EXPECT_EQ(file.shape(), (LogitsShape{5, 3, 2}));
  EXPECT_EQ(file.shape().first_row(), 2u);
  EXPECT_EQ(file.shape().rows(), 2u);
  EXPECT_EQ(std::vector<std::int32_t>(file.tokens().begin(), file.tokens().end()),
            std::vector<std::int32_t>(std::begin(kTokens), std::end(kTokens)));
  EXPECT_EQ(file.chunk(1)[0], 2);
  std::vector<std::uint16_t> rows;
  for (const std::size_t first : {0u, 1u}) {
    file.read_rows(first == 0 ? 1 : 3, pool_, rows);
    for (std::size_t i = 0; i * 8 < rows.size(); ++i) {
      const PackedRow row{std::span(rows).subspan(i * 8, 8), 3};
      EXPECT_NEAR(row.log_probability(0), -1.2039 + static_cast<double>(first + i) / 100, 1e-6);
      EXPECT_NEAR(row.log_probability(2), -1.6094 + static_cast<double>(first + i) / 100, 1e-6);
      EXPECT_EQ(row.top(), 1u);
    }
  }
}

TEST_F(LogitsFileTest, HasTheHeaderThatIsWritten) {
  const std::vector<std::byte> header = logits_header({5, 3, 2}, kTokens);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(header.data()), header.size()), bytes_.substr(0, header.size()));
  EXPECT_EQ(header.size(), 20u + sizeof kTokens);
}

TEST_F(LogitsFileTest, IsRefusedWithAnyCutAndWithAByteMore) {
  for (std::size_t size = 0; size < bytes_.size(); ++size) {
    const std::string said = refusal(bytes_.substr(0, size));
    EXPECT_NE(said.find(size < 8 ? "it does not begin with _logits_" : "it is cut short"), std::string::npos)
        << size << ": " << said;
  }
  EXPECT_EQ(refusal(bytes_ + "x"), "1 bytes are left after its last row");
  EXPECT_EQ(refusal(bytes_), "nothing");
}

TEST_F(LogitsFileTest, IsRefusedWithAnotherBeginning) {
  EXPECT_NE(refusal(with(0, 'X')).find("it does not begin with _logits_"), std::string::npos);
  EXPECT_NE(refusal(with(7, '\0')).find("it does not begin with _logits_"), std::string::npos);
}

TEST_F(LogitsFileTest, IsRefusedWithCountsThatItCannotHaveBeforeMemoryIsTaken) {
  for (const std::size_t at : {8u, 12u, 16u}) {
    for (const std::uint32_t count : {0u, 0x80000000u, 0xffffffffu}) {
      EXPECT_EQ(refusal(with(at, count)).find("there cannot be "), 0u) << at << ", " << count;
    }
    EXPECT_EQ(refusal(with(at, 0x7fffffffu)).find("it is cut short: "), 0u) << at;
  }
  EXPECT_EQ(refusal(with(8, 2u)).find("there cannot be "), 0u) << "no row";
  std::string all = bytes_;
  for (const std::size_t at : {8u, 12u, 16u}) std::memcpy(all.data() + at, "\xff\xff\xff\x7f", 4);
  EXPECT_EQ(refusal(all).find("it is cut short: "), 0u);
  // Products that are small if they wrap at 32 or 64 bits.
  for (const std::size_t at : {8u, 12u, 16u}) std::memcpy(all.data() + at, "\0\0\0\x40", 4);
  EXPECT_EQ(refusal(all).find("it is cut short: "), 0u);
}

TEST_F(LogitsFileTest, IsRefusedWithTokensOutsideItsVocabulary) {
  EXPECT_EQ(refusal(with(20 + 4 * 6, std::int32_t{3})), "token 6 is 3, outside its vocabulary of 3");
  EXPECT_EQ(refusal(with(20, std::int32_t{-1})), "token 0 is -1, outside its vocabulary of 3");
}

TEST_F(LogitsFileTest, SaysWhichRowIsDamaged) {
  const std::size_t rows = 20 + sizeof kTokens;
  write(with(rows + 3 * 16, -1.0f));
  LogitsFile file(path());
  std::vector<std::uint16_t> read;
  file.read_rows(3, pool_, read);
  try {
    file.read_rows(1, pool_, read);
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.what(), path() + ": row 1 of chunk 1 is damaged: its probabilities do not add up to 1");
  }
}

TEST_F(LogitsFileTest, IsRefusedIfItBecomesShorterMeanwhile) {
  // Larger than what a stream reads in advance.
  const std::vector<std::byte> header = logits_header({3, 100000, 1}, std::vector<std::int32_t>(3));
  const std::string start(reinterpret_cast<const char*>(header.data()), header.size());
  write(start + std::string(200008, '\0'));
  LogitsFile file(path());
  fs::resize_file(path(), 100000);
  std::vector<std::uint16_t> rows;
  try {
    file.read_rows(1, pool_, rows);
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.what(), path() + ": it is cut short, before its rows end");
  }
}

TEST_F(LogitsFileTest, IsRefusedIfItCannotBeRead) {
  EXPECT_THROW(LogitsFile file(folder_ + "/none"), Error);
  EXPECT_THROW(LogitsFile file{folder_}, Error);
  EXPECT_THROW(LogitsFile file("/dev/null"), Error);
}

}  // namespace
}  // namespace nibkv::llm::logits_file_test
