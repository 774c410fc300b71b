#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "bench/eval/metrics/logits_file.hpp"
#include "bench/runner/model/model.hpp"
#include "bench/runner/programs/progress.hpp"
#include "bench/runner/stores/tile_store.hpp"

// What `llama-perplexity --kl-divergence` says of a model against a file of log-probabilities, for a nibkv cache.

namespace nibkv::llm {

/// How one row of log-probabilities differs from that of the base.
struct RowDivergence {
  double loss = 0;        ///< -log(probability of the next token), in nats
  double base_loss = 0;   ///< the same of the base
  double divergence = 0;  ///< KL(base || tested), in nats, over tokens that are likelier than e^-16 in the base
  double change = 0;      ///< probability of the next token, minus that in the base
  bool same_top = true;   ///< whether the most likely token is the same in both
};

/// @param tested  logits, [vocabulary], finite
/// @param sum     log_sum(tested), or 0 if they are log-probabilities
/// @param target  [0, vocabulary)
RowDivergence compare_row(std::span<const float> tested, double sum, const PackedRow& base, std::int32_t target);

/// A figure and its standard error, as if rows were independent; 0 for a single row.
struct Estimate {
  double value = 0;
  double error = 0;
};

/// Shares of the rows that are below a percentile; 1 is the maximum, 0 the minimum.
inline constexpr std::array kDivergenceLevels = {1.0, 0.999, 0.99, 0.95, 0.9, 0.5, 0.1, 0.05, 0.01, 0.001, 0.0};
inline constexpr std::array kChangeLevels = {1.0, 0.999, 0.99, 0.95, 0.9, 0.75, 0.5, 0.25, 0.1, 0.05, 0.01, 0.001, 0.0};

/// The statistics of the tool, with its definitions.
struct DivergenceFigures {
  std::size_t rows = 0;
  Estimate perplexity, base_perplexity;
  double correlation = 0;  ///< of the losses; 0 if one of them is the same in all rows
  Estimate log_ratio;      ///< log(perplexity / base_perplexity)
  Estimate ratio, difference;
  Estimate divergence;
  std::array<double, kDivergenceLevels.size()> divergences = {};  ///< percentiles
  Estimate change;
  std::array<double, kChangeLevels.size()> changes = {};  ///< percentiles
  Estimate change_rms;
  Estimate same_top;  ///< a share
};

/// @param rows  at least 1
DivergenceFigures summarise(std::span<const RowDivergence> rows);

/// What is fed chunk by chunk into an empty cache.
struct ChunkOptions {
  StoreOptions store;
  std::optional<std::int32_t> bos;  ///< replaces the first token of each chunk
};

/// What the cache was.
struct CacheFigures {
  double bits_per_channel = 0;  ///< TileStore::bits_per_channel, maximum over the chunks
  std::uint64_t arena_bytes = 0;
  std::uint64_t peak_bytes = 0;
  std::string fold;  ///< which layers share codes, in words
  std::uint32_t outlier_channels = 0;
  std::string port;
};

struct MeasuredDivergence {
  DivergenceFigures figures;
  CacheFigures cache;
};

/// Compares a model with some cache with the base, over the first chunks of the base.
/// @param base      of which no row has been read
/// @param chunks    [1, base.shape().chunks]
/// @param progress  counts tokens; may be empty
/// @throws Error if vocabulary or context do not fit the model, the file is damaged, or the store refuses
MeasuredDivergence measure_divergence(Model& model, ThreadPool& pool, LogitsFile& base, std::size_t chunks,
                                      const ChunkOptions& options, const TokensDone& progress);

/// Compares two files of the same text. Log-probabilities of the tested one are taken as they are: what its rounding
/// adds to their sum is not divided out.
/// @param base, tested  of which no row has been read
/// @throws Error if they are of different texts, or one of them is damaged
DivergenceFigures compare_files(ThreadPool& pool, LogitsFile& base, LogitsFile& tested, std::size_t chunks,
                                const TokensDone& progress);

struct WrittenLogits {
  std::size_t rows = 0;
  Estimate perplexity;
  CacheFigures cache;
};

/// Writes a file of log-probabilities.
/// @param tokens  [shape.chunks][shape.context]
/// @throws Error as measure_divergence does, or if the file cannot be written: then there is none, or the old one
WrittenLogits write_logits(const std::string& path, Model& model, ThreadPool& pool,
                           std::span<const std::int32_t> tokens, const LogitsShape& shape, const ChunkOptions& options,
                           const TokensDone& progress);

}  // namespace nibkv::llm
