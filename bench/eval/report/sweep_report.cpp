#include "bench/eval/report/sweep_report.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "bench/eval/report/svg.hpp"
#include "bench/runner/programs/json.hpp"
#include "bench/runner/programs/json_reader.hpp"

namespace nibkv::llm {
namespace {

// Calls visit(name, field) for everything that a file holds, in its order.
template <typename Report, typename F>
void for_each_common(Report& report, F&& visit) {
  visit("model", report.model);
  visit("text", report.text);
  visit("text_from", report.text_from);
  visit("context", report.context);
  visit("score_from", report.score_from);
  visit("windows", report.windows);
  visit("profile", report.profile);
  visit("outlier_channels", report.outlier_channels);
}

template <typename Row, typename F>
void for_each_field(Row& row, F&& visit) {
  visit("policy", row.what.policy);
  visit("setting", row.what.setting);
  visit("budget", row.budget);
  visit("budget_given", row.what.budget);
  visit("context", row.context);
  visit("cross_entropy", row.cross_entropy);
  visit("standard_error", row.standard_error);
  visit("kl_divergence", row.kl_divergence);
  visit("top1_agreement", row.top1_agreement);
  visit("peak_bytes", row.peak_bytes);
  visit("arena_bytes", row.arena_bytes);
  visit("bits_per_channel", row.bits_per_channel);
  visit("tokens_per_second", row.tokens_per_second);
  visit("mode", row.mode);
}

// The same for what a file also holds if needles were asked for.
template <typename Report, typename F>
void for_each_asked(Report& report, F&& visit) {
  visit("retrieval", report.retrieval);
  visit("needles", report.needles);
}

template <typename Row, typename F>
void for_each_found(Row& row, F&& visit) {
  visit("retrieval_correct", row.retrieval_correct);
  visit("retrieval_asked", row.retrieval_asked);
}

struct ReadMember {
  const JsonValue& json;

  void operator()(const char* name, std::string& field) const { field = json.at(name).text(); }
  void operator()(const char* name, double& field) const { field = json.at(name).number(); }
  void operator()(const char* name, std::uint64_t& field) const {
    const double number = json.at(name).number();
    if (!(number >= 0 && number < 0x1p53)) throw Error(std::string("JSON: '") + name + "' is not a count");
    field = static_cast<std::uint64_t>(number);
  }
};

}  // namespace

bool SweepReport::has(const SweepCase& what) const {
  return std::any_of(rows.begin(), rows.end(), [&](const SweepRow& row) {
    return row.what.policy == what.policy && row.what.budget == what.budget && row.what.setting == what.setting;
  });
}

std::string SweepReport::as_json() const {
  JsonWriter json;
  const auto write = [&json](const char* name, const auto& field) { json.member(name, field); };
  json.begin_object();
  for_each_common(*this, write);
  if (retrieval != 0) for_each_asked(*this, write);
  json.member("reference_cross_entropy", reference_cross_entropy);
  json.key("rows");
  json.begin_array();
  for (const SweepRow& row : rows) {
    json.begin_object();
    for_each_field(row, write);
    json.member("compression", row.compression);
    json.key("window_cross_entropies");
    json.begin_array();
    for (const double one : row.window_cross_entropies) json.value(one);
    json.end_array();
    if (retrieval != 0) for_each_found(row, write);
    json.end_object();
  }
  json.end_array();
  json.end_object();
  return json.text();
}

SweepReport SweepReport::parse(std::string_view text) {
  const JsonValue json = JsonValue::parse(text);
  SweepReport report;
  for_each_common(report, ReadMember{json});
  if (json.has("retrieval")) for_each_asked(report, ReadMember{json});
  report.reference_cross_entropy = json.at("reference_cross_entropy").number();
  for (const JsonValue& element : json.at("rows").elements()) {
    SweepRow& row = report.rows.emplace_back();
    for_each_field(row, ReadMember{element});
    if (element.has("compression")) row.compression = element.at("compression").number();
    if (element.has("window_cross_entropies")) {
      for (const JsonValue& one : element.at("window_cross_entropies").elements())
        row.window_cross_entropies.push_back(one.number());
    }
    if (report.retrieval != 0) for_each_found(row, ReadMember{element});
  }
  return report;
}

void SweepReport::go_on_from(const SweepReport& older) {
  std::vector<std::string> mine, theirs;
  const auto into = [](std::vector<std::string>& texts) {
    return [&texts](const char* name, const auto& field) {
      if constexpr (std::is_same_v<decltype(field), const std::string&>) {
        texts.push_back(std::string(name) + " '" + field + "'");
      } else {
        texts.push_back(std::string(name) + " " + std::to_string(field));
      }
    };
  };
  for_each_common(*this, into(mine));
  for_each_asked(*this, into(mine));
  for_each_common(older, into(theirs));
  for_each_asked(older, into(theirs));
  for (std::size_t i = 0; i < mine.size(); ++i) {
    if (mine[i] != theirs[i]) throw Error("its rows are of " + theirs[i] + ", not of " + mine[i]);
  }
  reference_cross_entropy = older.reference_cross_entropy;
  rows = older.rows;
}

std::string SweepReport::as_svg() const {
  // What is within noise of the reference, or below it, has no position of its own on
  // a logarithmic axis.
  constexpr double kLeast = 0.001;
  char reference[40];
  std::snprintf(reference, sizeof reference, "%.3f", reference_cross_entropy);
  LineChart chart;
  chart.title = "Context " + std::to_string(context) + ", tokens from " + std::to_string(score_from) +
                " on; f32 of everything: " + reference + " nats per token";
  chart.x_title = "bytes in use at the peak";
  chart.y_title = "cross-entropy above that of f32, nats per token (0.001: or less)";
  chart.log_x = chart.log_y = true;
  for (const SweepRow& row : rows) {
    const std::string name = name_of(row.what);
    const auto same = [&](const ChartLine& line) { return line.name == name; };
    auto line = std::find_if(chart.lines.begin(), chart.lines.end(), same);
    if (line == chart.lines.end()) line = chart.lines.insert(line, ChartLine{name, {}});
    line->points.emplace_back(static_cast<double>(row.peak_bytes),
                              std::max(kLeast, row.cross_entropy - reference_cross_entropy));
  }
  for (ChartLine& line : chart.lines) std::sort(line.points.begin(), line.points.end());
  return line_chart(chart);
}

std::string table_head(bool asked) {
  char line[160];
  std::snprintf(line, sizeof line, "%-32s %8s %7s %11s %6s %6s %9s %8s %8s %8s %7s %9s", "policy", "budget", "tokens",
                "peak bytes", "f16 /", "bits", "CE", "+-", "CE-f32", "KL", "same 1", "tokens/s");
  return std::string(line) + (asked ? "     found\n" : "\n");
}

std::string table_lines(const std::vector<SweepRow>& rows, double reference_cross_entropy) {
  std::string lines;
  for (const SweepRow& row : rows) {
    char figures[160];
    std::snprintf(figures, sizeof figures, " %8s %7llu %11llu %6.2f %6.2f %9.4f %8.4f %+8.4f %8.4f %6.1f%% %9.1f",
                  row.what.budget.substr(0, 16).c_str(), static_cast<unsigned long long>(row.budget),
                  static_cast<unsigned long long>(row.peak_bytes), row.compression, row.bits_per_channel,
                  row.cross_entropy, row.standard_error, row.cross_entropy - reference_cross_entropy, row.kl_divergence,
                  100 * row.top1_agreement, row.tokens_per_second);
    std::string name = name_of(row.what);
    name.resize(std::max<std::size_t>(name.size(), 32), ' ');
    lines += name + figures;
    if (row.retrieval_asked != 0) {
      const std::string found = std::to_string(row.retrieval_correct) + "/" + std::to_string(row.retrieval_asked);
      lines += std::string(found.size() < 10 ? 10 - found.size() : 1, ' ') + found;
    }
    lines += '\n';
  }
  return lines;
}

std::string paired_table(const std::vector<SweepRow>& rows) {
  std::string lines;
  for (const SweepRow& row : rows) {
    const std::size_t count = row.window_cross_entropies.size();
    const auto can_pair = [&](const SweepRow& other) {
      return other.what.budget == row.what.budget && other.window_cross_entropies.size() == count;
    };
    const SweepRow& first = *std::find_if(rows.begin(), rows.end(), can_pair);
    if (&first == &row || count < 2) continue;
    const auto above = [&](std::size_t window) {
      return row.window_cross_entropies[window] - first.window_cross_entropies[window];
    };
    double sum = 0, squares = 0;
    for (std::size_t window = 0; window < count; ++window) sum += above(window);
    const double mean = sum / static_cast<double>(count);
    for (std::size_t window = 0; window < count; ++window) squares += (above(window) - mean) * (above(window) - mean);
    const double error = std::sqrt(squares / static_cast<double>(count * (count - 1)));
    char figures[80];
    std::snprintf(figures, sizeof figures, " %8s %+9.4f %8.4f  ", row.what.budget.substr(0, 16).c_str(), mean, error);
    std::string name = name_of(row.what);
    name.resize(std::max<std::size_t>(name.size(), 32), ' ');
    lines += name + figures + name_of(first.what) + '\n';
  }
  if (lines.empty()) return "";
  char head[120];
  std::snprintf(head, sizeof head, "\n%-32s %8s %9s %8s  %s\n", "paired over windows", "budget", "CE above", "+-",
                "that of");
  return head + lines;
}

}  // namespace nibkv::llm
