#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "bench/eval/metrics/sweep.hpp"

namespace nibkv::llm {

/// The rows of one model, text and context, as a file holds them.
struct SweepReport {
  // What all rows have in common.
  std::string model, text, profile;
  std::uint64_t text_from = 0;  ///< characters of the text that were skipped
  std::uint64_t context = 0;
  std::uint64_t score_from = 0;
  std::uint64_t windows = 0;
  std::uint64_t outlier_channels = 0;
  std::uint64_t retrieval = 0;  ///< needles that each cache was asked for; 0: not in the file
  std::string needles;          ///< needle_name

  double reference_cross_entropy = 0;  ///< of an f32 cache that keeps everything
  std::vector<SweepRow> rows;

  /// Whether there is a row of that policy, budget and setting.
  bool has(const SweepCase& what) const;

  std::string as_json() const;
  /// @throws Error for a text that is not such a report
  static SweepReport parse(std::string_view json);
  /// Takes over the rows of an older report.
  /// @throws Error naming the difference if it is a report of something else
  void go_on_from(const SweepReport& older);

  /// A chart of how far the cross-entropy is above the reference's, against bytes, with a line for
  /// each policy and setting.
  std::string as_svg() const;
};

/// A table for a terminal: its head, and the lines of `rows`. @param asked  whether needles were asked for
std::string table_head(bool asked);
std::string table_lines(const std::vector<SweepRow>& rows, double reference_cross_entropy);
/// How far the cross-entropy of each policy is above that of the first one at the same budget: the mean over the windows,
/// and its standard error. Empty where no two rows have the same budget and several windows.
std::string paired_table(const std::vector<SweepRow>& rows);

}  // namespace nibkv::llm
