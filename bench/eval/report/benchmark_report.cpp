#include "bench/eval/report/benchmark_report.hpp"

#include <algorithm>
#include <cstdio>

#include "bench/eval/metrics/retrieval.hpp"
#include "bench/eval/report/retrieval_report.hpp"
#include "bench/runner/programs/json.hpp"

namespace nibkv::llm {
namespace {

struct CacheSum {
  BenchmarkRow first;
  std::uint64_t of = 0, right = 0;  // right: with the whole score
  std::uint64_t length = 0, arena_bytes = 0;
  double score = 0;
};

bool same_cache(const BenchmarkRow& one, const BenchmarkRow& other) {
  return one.policy == other.policy && one.mode == other.mode && one.tokens == other.tokens;
}

std::vector<CacheSum> sums_of(const std::vector<BenchmarkRow>& rows) {
  std::vector<CacheSum> sums;
  for (const BenchmarkRow& row : rows) {
    if (sums.empty() || !same_cache(sums.back().first, row)) sums.emplace_back().first = row;
    CacheSum& sum = sums.back();
    ++sum.of;
    sum.right += row.score == 1 ? 1 : 0;
    sum.score += row.score;
    sum.length += row.length;
    sum.arena_bytes = std::max(sum.arena_bytes, row.arena_bytes);
  }
  return sums;
}

void write_cache(JsonWriter& json, const BenchmarkRow& row) {
  json.member("policy", row.policy);
  json.member("mode", row.mode);
  json.member("tokens", row.tokens);
}

}  // namespace

std::string BenchmarkReport::as_json() const {
  JsonWriter json;
  json.begin_object();
  json.member("model", model);
  json.member("benchmark", benchmark);
  json.member("file", file);
  json.member("task", task);
  json.member("prompt", prompt);
  json.member("profile", profile);
  json.member("outlier_channels", outlier_channels);
  json.key("sums");
  json.begin_array();
  for (const CacheSum& sum : sums_of(rows)) {
    const Proportion score = wilson(sum.score, sum.of);
    json.begin_object();
    write_cache(json, sum.first);
    json.member("of", sum.of);
    json.member("right", sum.right);
    json.member("score", score.share);
    json.member("low", score.low);
    json.member("high", score.high);
    json.member("arena_bytes", sum.arena_bytes);
    json.end_object();
  }
  json.end_array();
  json.key("rows");
  json.begin_array();
  for (const BenchmarkRow& row : rows) {
    json.begin_object();
    write_cache(json, row);
    json.member("number", row.number);
    json.member("length", row.length);
    json.member("score", row.score);
    json.member("said", row.said);
    json.end_object();
  }
  json.end_array();
  json.end_object();
  return json.text();
}

std::string BenchmarkReport::as_table() const {
  const std::vector<CacheSum> sums = sums_of(rows);
  const auto name_of = [](const CacheSum& sum) {
    return cache_name(sum.first.policy, sum.first.mode, sum.first.tokens);
  };
  std::size_t width = 5;
  for (const CacheSum& sum : sums) width = std::max(width, name_of(sum).size());
  std::string table = benchmark + ", task " + task + "\ncache" + std::string(width - 5, ' ') +
                      "  tokens  right   of    score  95 % interval\n";
  for (const CacheSum& sum : sums) {
    const std::string name = name_of(sum);
    const Proportion score = wilson(sum.score, sum.of);
    char figures[120];
    std::snprintf(figures, sizeof figures, "  %6.0f  %5.0f  %3.0f  %5.1f %%  %.1f to %.1f %%\n",
                  static_cast<double>(sum.length) / static_cast<double>(sum.of), static_cast<double>(sum.right),
                  static_cast<double>(sum.of), 100 * score.share, 100 * score.low, 100 * score.high);
    table += name + std::string(width - name.size(), ' ') + figures;
  }
  return table;
}

}  // namespace nibkv::llm
