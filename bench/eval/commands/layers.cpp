#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "bench/eval/commands/commands.hpp"
#include "bench/eval/report/svg.hpp"
#include "bench/runner/programs/json.hpp"

// nibkv-eval layers

namespace nibkv::llm {
namespace {

constexpr const char* kHelp =
    R"(nibkv-eval layers --profile PATH [options]
  How similar the keys and values of neighbouring layers are, and which layers may share codes:
  those whose mean cosine is large enough, as they are (direct) or through the maps of the profile
  (aligned); others may not (refuse).

  --profile PATH       made with --align, or only the direct cosines are known
  --min-cosine X       of layers that may share (default 0.7)
  --svg PATH           the cosines as a picture
  --json PATH          the table as JSON; - prints it
)";

/// One kind of rows of a pair of layers.
struct Likeness {
  std::int16_t direct, aligned;

  const char* verdict(double least) const {
    const auto reaches = [&](std::int16_t cosine) { return cosine != kUnknownCosine && cosine / 32768.0 >= least; };
    return reaches(direct) ? "direct" : reaches(aligned) ? "aligned" : "refuse";
  }
};

Likeness keys_of(const LayerCosines& cosines) {
  return {cosines.keys, cosines.aligned_keys};
}
Likeness values_of(const LayerCosines& cosines) {
  return {cosines.values, cosines.aligned_values};
}

class LayersJob {
 public:
  explicit LayersJob(const Arguments& arguments)
      : profile_(required(arguments, "profile")),
        svg_(arguments.text("svg", "")),
        json_(arguments.text("json", "")),
        least_(arguments.number("min-cosine", 0.7, -1, 1)) {}
  void operator()() const;

 private:
  std::vector<LayerCosines> read() const;
  std::string table(const std::vector<LayerCosines>& pairs) const;
  std::string as_json(const std::vector<LayerCosines>& pairs) const;
  std::string chart(const std::vector<LayerCosines>& pairs) const;

  std::string profile_, svg_, json_;
  double least_ = 0;
};

// Of layer 1 and the one below, and so on. A profile contains its shape.
std::vector<LayerCosines> LayersJob::read() const {
  const std::string bytes = read_text(profile_);
  ProfileHeader header{};
  if (bytes.size() >= sizeof header) std::memcpy(&header, bytes.data(), sizeof header);
  const Shape shape = {.layers = header.layers,
                       .query_heads = header.kv_heads,
                       .kv_heads = header.kv_heads,
                       .head_dim = header.head_dim};
  ProfileView view;
  require(view.open(std::as_bytes(std::span(bytes)), shape), profile_);
  std::vector<LayerCosines> pairs;
  for (std::uint32_t layer = 1; layer < shape.layers; ++layer) pairs.push_back(view.cosines(layer));
  return pairs;
}

std::string cell(std::int16_t cosine) {
  char text[16];
  std::snprintf(text, sizeof text, "%8.3f", cosine / 32768.0);
  return cosine == kUnknownCosine ? "       -" : text;
}

std::string LayersJob::table(const std::vector<LayerCosines>& pairs) const {
  std::string lines =
      "  layers    keys aligned          values aligned          raw keys\n"
      "---------------------------------------------------------------\n";
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    const Likeness keys = keys_of(pairs[i]), values = values_of(pairs[i]);
    char line[160];
    std::snprintf(line, sizeof line, "%3zu %4zu%s%s %-7s%s%s %-7s%s\n", i, i + 1, cell(keys.direct).c_str(),
                  cell(keys.aligned).c_str(), keys.verdict(least_), cell(values.direct).c_str(),
                  cell(values.aligned).c_str(), values.verdict(least_), cell(pairs[i].raw_keys).c_str());
    lines += line;
  }
  return lines;
}

std::string LayersJob::as_json(const std::vector<LayerCosines>& pairs) const {
  JsonWriter json;
  const auto cosine = [&](const char* name, std::int16_t value) {
    json.key(name);
    if (value == kUnknownCosine) return json.null();
    json.value(value / 32768.0);
  };
  const auto likeness = [&](const char* name, const Likeness& rows) {
    json.key(name);
    json.begin_object();
    cosine("direct", rows.direct);
    cosine("aligned", rows.aligned);
    json.member("gate", rows.verdict(least_));
    json.end_object();
  };
  json.begin_object();
  json.member("min_cosine", least_);
  json.key("pairs");
  json.begin_array();
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    json.begin_object();
    json.member("lower", std::uint64_t{i});
    json.member("upper", std::uint64_t{i + 1});
    likeness("keys", keys_of(pairs[i]));
    likeness("values", values_of(pairs[i]));
    cosine("raw_keys", pairs[i].raw_keys);
    json.end_object();
  }
  json.end_array();
  json.end_object();
  return json.text();
}

std::string LayersJob::chart(const std::vector<LayerCosines>& pairs) const {
  LineChart chart{
      "Keys and values of neighbouring layers", "upper layer of the pair", "mean cosine", false, {}, {}, {}};
  const std::pair<const char*, std::int16_t LayerCosines::*> kinds[] = {
      {"keys", &LayerCosines::keys},
      {"values", &LayerCosines::values},
      {"keys, aligned", &LayerCosines::aligned_keys},
      {"values, aligned", &LayerCosines::aligned_values},
      {"keys with their mean", &LayerCosines::raw_keys}};
  for (const auto& [name, of] : kinds) {
    ChartLine line{name, {}};
    for (std::size_t i = 0; i < pairs.size(); ++i) {
      const std::int16_t cosine = pairs[i].*of;
      if (cosine != kUnknownCosine) line.points.emplace_back(static_cast<double>(i + 1), cosine / 32768.0);
    }
    if (!line.points.empty()) chart.lines.push_back(line);
  }
  chart.levels.emplace_back("may share", least_);
  return line_chart(chart);
}

void LayersJob::operator()() const {
  if (!svg_.empty()) check_place(svg_);
  if (!json_.empty() && json_ != "-") check_place(json_);
  const std::vector<LayerCosines> pairs = read();
  if (!svg_.empty()) write_file(svg_, chart(pairs));
  if (!json_.empty() && json_ != "-") write_file(json_, as_json(pairs));
  print(json_ == "-" ? as_json(pairs) : table(pairs));
}

}  // namespace

Command layers_command() {
  return {"layers", "how similar neighbouring layers are, and which may share codes",
          kHelp,    {"profile", "svg", "json", "min-cosine"},
          {},       [](const Arguments& arguments) -> Job {
            return LayersJob(arguments); }};
}

}  // namespace nibkv::llm
