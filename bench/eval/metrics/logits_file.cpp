#include "bench/eval/metrics/logits_file.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <string_view>

#include "bench/runner/gguf/gguf.hpp"

namespace nibkv::llm {
namespace {

static_assert(std::endian::native == std::endian::little, "the file is read and written in place");

constexpr std::string_view kMagic = "_logits_";
constexpr std::size_t kHeaderBytes = kMagic.size() + 3 * sizeof(std::uint32_t);
constexpr float kLevels = 65535;
// What is less likely than the first choice by this factor, a logarithm, has level 0.
constexpr float kRange = 16;

// False at the end of the file, and after an error.
bool read(std::ifstream& stream, std::span<std::byte> bytes) {
  stream.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  return static_cast<bool>(stream);
}

}  // namespace

double log_sum(std::span<const float> logits) {
  const double most = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - most);
  return most + std::log(sum);
}

void pack_row(std::span<const float> logits, double sum, std::span<std::uint16_t> row) {
  const auto [smallest, largest] = std::minmax_element(logits.begin(), logits.end());
  const float lowest = std::max(*smallest, *largest - kRange);
  const float head[2] = {(*largest - lowest) / kLevels, static_cast<float>(lowest - sum)};
  std::fill(row.begin(), row.end(), std::uint16_t{0});
  std::memcpy(row.data(), head, sizeof head);
  if (head[0] == 0) return;
  const float levels_each = 1 / head[0];
  const auto levels = row.subspan(kHeadWords);
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const float level = std::nearbyint(levels_each * (logits[i] - lowest));
    levels[i] = static_cast<std::uint16_t>(std::clamp(level, 0.0f, kLevels));
  }
}

PackedRow::PackedRow(std::span<const std::uint16_t> row, std::size_t vocabulary)
    : levels_(row.subspan(kHeadWords, vocabulary)) {
  std::memcpy(&step_, row.data(), sizeof step_);
  std::memcpy(&lowest_, row.data() + kHeadWords / 2, sizeof lowest_);
}

std::size_t PackedRow::top() const {
  return static_cast<std::size_t>(std::max_element(levels_.begin(), levels_.end()) - levels_.begin());
}

bool PackedRow::is_sound() const {
  // The sum of exponentials is at most the vocabulary times that of the first choice.
  const double least = -kRange - std::log(static_cast<double>(vocabulary())) - 1;
  if (!(step_ >= 0 && step_ <= 1 && lowest_ >= least && lowest_ <= 1)) return false;
  double sum = 0;
  for (std::size_t i = 0; i < vocabulary(); ++i) sum += std::exp(log_probability(i));
  // Levels round, and level 0 stands for more than there was: 2^20 tokens may add 0.12.
  return sum >= 0.99 && sum <= 1.2;
}

std::vector<std::byte> logits_header(const LogitsShape& shape, std::span<const std::int32_t> tokens) {
  const auto narrow = [](std::size_t count) { return static_cast<std::uint32_t>(count); };
  const std::array counts = {narrow(shape.context), narrow(shape.vocabulary), narrow(shape.chunks)};
  std::vector<std::byte> bytes(kHeaderBytes + tokens.size_bytes());
  std::memcpy(bytes.data(), kMagic.data(), kMagic.size());
  std::memcpy(bytes.data() + kMagic.size(), counts.data(), sizeof counts);
  std::memcpy(bytes.data() + kHeaderBytes, tokens.data(), tokens.size_bytes());
  return bytes;
}

LogitsFile::LogitsFile(const std::string& path) : path_(path), stream_(path, std::ios::binary) {
  if (!stream_) throw Error("cannot read " + path + ": " + std::strerror(errno));
  std::error_code failed;
  const std::uintmax_t size = std::filesystem::file_size(path, failed);
  if (failed) throw Error("cannot read " + path + ": " + failed.message());
  std::array<char, kMagic.size()> magic = {};
  if (!read(stream_, std::as_writable_bytes(std::span(magic))) || std::string_view(magic.data(), 8) != kMagic) {
    fail("it does not begin with " + std::string(kMagic) + ", as files of log-probabilities do");
  }
  std::array<std::uint32_t, 3> counts = {};
  if (!read(stream_, std::as_writable_bytes(std::span(counts)))) fail("it is cut short, before its counts end");
  const auto [context, vocabulary, chunks] = counts;
  constexpr std::uint32_t kMost = 0x7fffffff;
  if (context < 3 || vocabulary < 1 || chunks < 1 || context > kMost || vocabulary > kMost || chunks > kMost) {
    fail("there cannot be " + std::to_string(chunks) + " chunks of " + std::to_string(context) +
         " tokens of a vocabulary of " + std::to_string(vocabulary));
  }
  shape_ = {context, vocabulary, chunks};
  // Below 2^33 + 2^30 * (2^32 + 8), so it fits 64 bits; the size of all chunks might not.
  const std::uint64_t chunk_bytes =
      std::uint64_t{context} * sizeof(std::int32_t) + std::uint64_t{shape_.rows()} * shape_.row_words() * 2;
  const std::uint64_t rest = size - kHeaderBytes;
  if (rest / chunk_bytes < chunks) {
    fail("it is cut short: " + std::to_string(size) + " bytes cannot hold " + std::to_string(chunks) + " chunks of " +
         std::to_string(chunk_bytes));
  }
  if (rest != chunk_bytes * chunks) {
    fail(std::to_string(rest - chunk_bytes * chunks) + " bytes are left after its last row");
  }
  tokens_.resize(shape_.chunks * shape_.context);
  if (!read(stream_, std::as_writable_bytes(std::span(tokens_)))) fail("it is cut short, before its tokens end");
  for (std::size_t i = 0; i < tokens_.size(); ++i) {
    if (tokens_[i] < 0 || static_cast<std::uint32_t>(tokens_[i]) >= vocabulary) {
      fail("token " + std::to_string(i) + " is " + std::to_string(tokens_[i]) + ", outside its vocabulary of " +
           std::to_string(vocabulary));
    }
  }
}

void LogitsFile::read_rows(std::size_t count, ThreadPool& pool, std::vector<std::uint16_t>& rows) {
  const std::size_t words = shape_.row_words();
  rows.resize(count * words);
  if (!read(stream_, std::as_writable_bytes(std::span(rows)))) fail("it is cut short, before its rows end");
  pool.run(count, [&](std::size_t index, std::size_t) {
    if (PackedRow(std::span(rows).subspan(index * words, words), shape_.vocabulary).is_sound()) return;
    const std::size_t row = next_row_ + index;
    fail("row " + std::to_string(row % shape_.rows()) + " of chunk " + std::to_string(row / shape_.rows()) +
         " is damaged: its probabilities do not add up to 1");
  });
  next_row_ += count;
}

void LogitsFile::fail(const std::string& what) const {
  throw Error(path_ + ": " + what);
}

}  // namespace nibkv::llm
