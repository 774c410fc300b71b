#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace nibkv::llm {

/// What one cache made of one question of a benchmark.
struct BenchmarkRow {
  std::string policy;        ///< its name and its settings, or "f32"
  std::string mode;          ///< mode_name
  std::uint64_t tokens = 0;  ///< budget of a head; 0: all are kept
  std::uint64_t number = 0;  ///< of the question in its file, from 1
  std::uint64_t length = 0;  ///< tokens of the prompt
  double score = 0;          ///< [0, 1]
  std::string said;
  std::uint64_t arena_bytes = 0;
};

struct BenchmarkReport {
  std::string model, benchmark, file, task, prompt, profile;
  std::uint64_t outlier_channels = 0;
  std::vector<BenchmarkRow> rows;  ///< those of a cache one after the other

  /// The rows, and a sum for each cache with the mean of its scores and a 95 % interval.
  std::string as_json() const;
  /// The sums, for a terminal.
  std::string as_table() const;
};

}  // namespace nibkv::llm
