#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace nibkv::llm {

/// The name of a cache in a table.
/// @param mode    mode_name
/// @param tokens  budget of a head; 0: all are kept
std::string cache_name(const std::string& policy, const std::string& mode, std::uint64_t tokens);

/// One question to one cache.
struct RetrievalRow {
  std::string policy;        ///< its name and its settings, or "f32"
  std::string mode;          ///< mode_name
  std::uint64_t tokens = 0;  ///< budget budget of a head in tokens; 0: all are kept
  std::string needle;        ///< needle_name
  std::uint64_t length = 0;  ///< tokens of the prompt
  double depth = 0;          ///< of the needle
  std::uint64_t seed = 0;
  bool right = false;
  std::uint64_t arena_bytes = 0;

  /// Whether it is the same question to the same cache.
  bool same_case(const RetrievalRow& other) const;
  /// Whether it is the same cache, and the same kind of needle.
  bool same_cache(const RetrievalRow& other) const;
};

/// The rows of one model and text, as a file holds them.
struct RetrievalReport {
  // What all rows have in common.
  std::string model, text, profile, prompt;
  std::uint64_t outlier_channels = 0;

  std::vector<RetrievalRow> rows;

  bool has(const RetrievalRow& row) const;

  /// The rows, and their sums with 95 % intervals.
  std::string as_json() const;
  /// @throws Error for a text that is not such a report
  static RetrievalReport parse(std::string_view json);
  /// Takes over the rows of an older report.
  /// @throws Error naming the difference if it is a report of something else
  void go_on_from(const RetrievalReport& older);

  /// The accuracy of each cache by length and in total, for a terminal.
  std::string as_table() const;
  /// Depth against length, one map per cache: what distinguishes it from the others, and the SVG.
  std::vector<std::pair<std::string, std::string>> as_svgs() const;
};

}  // namespace nibkv::llm
