#include "bench/eval/report/retrieval_report.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <set>

#include "bench/eval/metrics/retrieval.hpp"
#include "bench/eval/report/svg.hpp"
#include "bench/runner/gguf/gguf.hpp"
#include "bench/runner/programs/json.hpp"
#include "bench/runner/programs/json_reader.hpp"

namespace nibkv::llm {
namespace {

/// The rows of one cache, or those of one length.
struct Sum {
  RetrievalRow first;
  std::uint64_t length = 0;  ///< 0: of all
  std::size_t right = 0, of = 0;
  std::uint64_t arena_bytes = 0;  ///< the most
};

// Those of one cache follow one another, ordered by length, and end with that of all lengths.
std::vector<Sum> sums_of(const std::vector<RetrievalRow>& rows) {
  std::vector<Sum> sums;
  std::vector<RetrievalRow> caches;
  for (const RetrievalRow& row : rows) {
    if (std::none_of(caches.begin(), caches.end(), [&](const auto& cache) { return cache.same_cache(row); })) {
      caches.push_back(row);
    }
  }
  for (const RetrievalRow& cache : caches) {
    std::set<std::uint64_t> lengths;
    for (const RetrievalRow& row : rows) {
      if (row.same_cache(cache)) lengths.insert(row.length);
    }
    std::vector<std::uint64_t> wanted(lengths.begin(), lengths.end());
    wanted.push_back(0);
    for (const std::uint64_t length : wanted) {
      Sum sum;
      sum.first = cache;
      sum.length = length;
      for (const RetrievalRow& row : rows) {
        if (!row.same_cache(cache) || (length != 0 && row.length != length)) continue;
        ++sum.of;
        sum.right += row.right ? 1 : 0;
        sum.arena_bytes = std::max(sum.arena_bytes, row.arena_bytes);
      }
      sums.push_back(sum);
    }
  }
  return sums;
}

void write_cache(JsonWriter& json, const RetrievalRow& row) {
  json.member("policy", row.policy);
  json.member("mode", row.mode);
  json.member("tokens", row.tokens);
  json.member("needle", row.needle);
}

std::uint64_t whole(const JsonValue& value) {
  const double number = value.number();
  if (!(number >= 0 && number < 9e15) || number != std::floor(number)) throw Error("a count is not a whole number");
  return static_cast<std::uint64_t>(number);
}

std::string cache_name(const RetrievalRow& row) {
  return llm::cache_name(row.policy, row.mode, row.tokens);
}

// Of letters, digits, '_' and '-'.
std::string as_suffix(const RetrievalRow& row) {
  std::string suffix = row.policy;
  if (row.tokens != 0) suffix.append("-").append(std::to_string(row.tokens));
  if (row.mode != mode_name(AskMode::kEither)) suffix.append("-").append(row.mode);
  suffix.append("-").append(row.needle);
  for (char& letter : suffix) {
    const bool plain = (letter >= '0' && letter <= '9') || (letter >= 'a' && letter <= 'z') ||
                       (letter >= 'A' && letter <= 'Z') || letter == '_';
    if (!plain) letter = '-';
  }
  return suffix;
}

std::string map_of(const std::vector<RetrievalRow>& rows, const RetrievalRow& cache) {
  std::set<std::uint64_t> lengths;
  std::set<double> depths;
  for (const RetrievalRow& row : rows) {
    if (!row.same_cache(cache)) continue;
    lengths.insert(row.length);
    depths.insert(row.depth);
  }
  HeatMap map;
  map.title = cache_name(cache) + ": needle " + cache.needle;
  map.x_title = "tokens of the prompt";
  map.y_title = "depth of the needle";
  map.scale_title = "share of correct answers";
  for (const std::uint64_t length : lengths) map.columns.push_back(std::to_string(length));
  for (const double depth : depths) {
    map.rows.push_back(std::to_string(std::lround(depth * 100)) + " %");
    std::vector<double>& cells = map.cells.emplace_back();
    for (const std::uint64_t length : lengths) {
      std::size_t right = 0, of = 0;
      for (const RetrievalRow& row : rows) {
        if (!row.same_cache(cache) || row.length != length || row.depth != depth) continue;
        ++of;
        right += row.right ? 1 : 0;
      }
      cells.push_back(of == 0 ? std::numeric_limits<double>::quiet_NaN()
                              : static_cast<double>(right) / static_cast<double>(of));
    }
  }
  return heat_map(map);
}

}  // namespace

std::string cache_name(const std::string& policy, const std::string& mode, std::uint64_t tokens) {
  std::string name = policy;
  if (tokens != 0) name.append(", ").append(std::to_string(tokens)).append(" tokens a head");
  if (mode != mode_name(AskMode::kEither)) name.append(", question ").append(mode);
  return name;
}

bool RetrievalRow::same_cache(const RetrievalRow& other) const {
  return policy == other.policy && mode == other.mode && tokens == other.tokens && needle == other.needle;
}

bool RetrievalRow::same_case(const RetrievalRow& other) const {
  return same_cache(other) && length == other.length && seed == other.seed && depth == other.depth;
}

bool RetrievalReport::has(const RetrievalRow& row) const {
  return std::any_of(rows.begin(), rows.end(), [&](const RetrievalRow& other) { return other.same_case(row); });
}

std::string RetrievalReport::as_json() const {
  JsonWriter json;
  json.begin_object();
  json.member("model", model);
  json.member("text", text);
  json.member("profile", profile);
  json.member("prompt", prompt);
  json.member("outlier_channels", outlier_channels);
  json.key("sums");
  json.begin_array();
  for (const Sum& sum : sums_of(rows)) {
    const Proportion accuracy = wilson(static_cast<double>(sum.right), sum.of);
    json.begin_object();
    write_cache(json, sum.first);
    json.member("length", sum.length);
    json.member("right", std::uint64_t{sum.right});
    json.member("of", std::uint64_t{sum.of});
    json.member("accuracy", accuracy.share);
    json.member("low", accuracy.low);
    json.member("high", accuracy.high);
    json.member("arena_bytes", sum.arena_bytes);
    json.end_object();
  }
  json.end_array();
  json.key("rows");
  json.begin_array();
  for (const RetrievalRow& row : rows) {
    json.begin_object();
    write_cache(json, row);
    json.member("length", row.length);
    json.member("depth", row.depth);
    json.member("seed", row.seed);
    json.member("right", row.right ? 1 : 0);
    json.member("arena_bytes", row.arena_bytes);
    json.end_object();
  }
  json.end_array();
  json.end_object();
  return json.text();
}

RetrievalReport RetrievalReport::parse(std::string_view text) {
  const JsonValue json = JsonValue::parse(text);
  RetrievalReport report;
  report.model = json.at("model").text();
  report.text = json.at("text").text();
  report.profile = json.at("profile").text();
  report.prompt = json.at("prompt").text();
  report.outlier_channels = whole(json.at("outlier_channels"));
  for (const JsonValue& element : json.at("rows").elements()) {
    RetrievalRow row;
    row.policy = element.at("policy").text();
    row.mode = element.at("mode").text();
    row.tokens = whole(element.at("tokens"));
    row.needle = element.at("needle").text();
    row.length = whole(element.at("length"));
    row.depth = element.at("depth").number();
    row.seed = whole(element.at("seed"));
    row.right = whole(element.at("right")) != 0;
    row.arena_bytes = whole(element.at("arena_bytes"));
    report.rows.push_back(row);
  }
  return report;
}

void RetrievalReport::go_on_from(const RetrievalReport& older) {
  const auto compare = [](const char* what, const std::string& before, const std::string& now) {
    if (before != now) throw Error(std::string("it is of another ") + what + ", " + before + " instead of " + now);
  };
  compare("model", older.model, model);
  compare("text", older.text, text);
  compare("profile", older.profile, profile);
  compare("prompt", older.prompt, prompt);
  compare("number of outlier channels", std::to_string(older.outlier_channels), std::to_string(outlier_channels));
  rows.insert(rows.begin(), older.rows.begin(), older.rows.end());
}

std::string RetrievalReport::as_table() const {
  const std::vector<Sum> sums = sums_of(rows);
  std::size_t width = 5;
  for (const Sum& sum : sums) width = std::max(width, cache_name(sum.first).size());
  std::string table =
      "cache" + std::string(width - 5, ' ') + "  needle    length  right   of  accuracy  95 % interval\n";
  for (const Sum& sum : sums) {
    const std::string name = cache_name(sum.first);
    const Proportion accuracy = wilson(static_cast<double>(sum.right), sum.of);
    char figures[120];
    std::snprintf(figures, sizeof figures, "  %-8s  %6s  %5zu  %3zu  %6.1f %%  %.1f to %.1f %%\n",
                  sum.first.needle.c_str(), sum.length == 0 ? "all" : std::to_string(sum.length).c_str(), sum.right,
                  sum.of, 100 * accuracy.share, 100 * accuracy.low, 100 * accuracy.high);
    table += name + std::string(width - name.size(), ' ') + figures;
  }
  return table;
}

std::vector<std::pair<std::string, std::string>> RetrievalReport::as_svgs() const {
  std::vector<std::pair<std::string, std::string>> maps;
  for (const Sum& sum : sums_of(rows)) {
    if (sum.length == 0) maps.emplace_back(as_suffix(sum.first), map_of(rows, sum.first));
  }
  return maps;
}

}  // namespace nibkv::llm
