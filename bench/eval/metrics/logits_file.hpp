#pragma once

#include <cstddef>
#include <cstdint>
#include <fstream>
#include <span>
#include <string>
#include <vector>

#include "bench/runner/model/threads.hpp"

// The file that `llama-perplexity --kl-divergence-base FILE` writes: what a model thinks of every token of its
// vocabulary, in the second half of each chunk of a text. Numbers are little-endian:
//
//   "_logits_"                   8 bytes
//   context, vocabulary, chunks  u32 each
//   tokens                       i32 [chunks][context], as the text has them: without the BOS that replaces the first
//                                token of a chunk when it is read
//   rows                         [chunks][context - 1 - context / 2]; the first is of the token at context / 2, and
//                                predicts the next one
//
// A row is step and lowest, f32, then u16 levels [vocabulary], and another u16 if the vocabulary is odd. Token i has the
// log-probability step * level[i] + lowest. Tokens that are e^16 times less likely than the first choice, or even less
// likely, have level 0.

namespace nibkv::llm {

/// Step and lowest of a row, in 16-bit words.
inline constexpr std::size_t kHeadWords = 4;

/// The sizes of such a file.
struct LogitsShape {
  std::size_t context = 0;     ///< tokens of a chunk: [3, 2^31)
  std::size_t vocabulary = 0;  ///< [1, 2^31)
  std::size_t chunks = 0;      ///< [1, 2^31)

  /// The position in a chunk of the first row.
  std::size_t first_row() const { return context / 2; }
  /// Of a chunk; at least 1.
  std::size_t rows() const { return context - 1 - first_row(); }
  /// The size of a row in 16-bit words.
  std::size_t row_words() const { return kHeadWords + (vocabulary + 1) / 2 * 2; }

  bool operator==(const LogitsShape&) const = default;
};

/// log(sum of exp(logits)). Cost: one exponential each, in double.
double log_sum(std::span<const float> logits);

/// Writes a row as the file has it.
/// @param logits  [vocabulary], finite
/// @param sum     log_sum(logits)
/// @param row     row_words() words
void pack_row(std::span<const float> logits, double sum, std::span<std::uint16_t> row);

/// A view of a row of the file.
class PackedRow {
 public:
  /// @param row  row_words() words, which must outlive this
  PackedRow(std::span<const std::uint16_t> row, std::size_t vocabulary);

  std::size_t vocabulary() const { return levels_.size(); }
  float log_probability(std::size_t token) const { return step_ * static_cast<float>(levels_[token]) + lowest_; }
  /// The most likely token; the first one if there are several.
  std::size_t top() const;
  /// Whether the probabilities are numbers and add up to 1, as far as levels can say.
  bool is_sound() const;

 private:
  float step_, lowest_;
  std::span<const std::uint16_t> levels_;
};

/// The beginning of a file, up to its rows.
/// @param tokens  [chunks][context]
std::vector<std::byte> logits_header(const LogitsShape& shape, std::span<const std::int32_t> tokens);

/// Reads such a file from its beginning to its end. Only the tokens are kept in memory.
class LogitsFile {
 public:
  /// Checks all but the rows. Nothing is allocated that is larger than the file.
  /// @throws Error naming the path for a file that cannot be read, that is not such a file, or whose size is not what
  ///         its counts say; and for a token outside its vocabulary
  explicit LogitsFile(const std::string& path);

  const std::string& path() const { return path_; }
  const LogitsShape& shape() const { return shape_; }
  /// [chunks][context]
  std::span<const std::int32_t> tokens() const { return tokens_; }
  std::span<const std::int32_t> chunk(std::size_t index) const {
    return tokens().subspan(index * shape_.context, shape_.context);
  }

  /// Reads the next rows.
  /// @param rows  gets [count][row_words()]
  /// @throws Error naming the row if it is not sound, or if the file is not as long as it was
  void read_rows(std::size_t count, ThreadPool& pool, std::vector<std::uint16_t>& rows);

 private:
  [[noreturn]] void fail(const std::string& what) const;

  std::string path_;
  std::ifstream stream_;
  LogitsShape shape_;
  std::vector<std::int32_t> tokens_;
  std::size_t next_row_ = 0;
};

}  // namespace nibkv::llm
