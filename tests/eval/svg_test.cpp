#include "bench/eval/report/svg.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

namespace nibkv::llm::svg_test {
namespace {

std::size_t count(std::string_view text, std::string_view what) {
  std::size_t found = 0;
  for (std::size_t at = text.find(what); at != std::string_view::npos; at = text.find(what, at + 1)) ++found;
  return found;
}

// Checks what can be wrong in these drawings: tags must open and close in pairs, attributes must be
// quoted, and there must be no stray < or &.
void expect_xml(const std::string& text) {
  std::vector<std::string> open;
  for (std::size_t at = 0; at < text.size();) {
    if (text[at] == '&') {
      const std::string entity = text.substr(at, text.find(';', at) - at + 1);
      EXPECT_TRUE(entity == "&amp;" || entity == "&lt;" || entity == "&gt;" || entity == "&quot;") << entity;
    }
    ASSERT_GE(static_cast<unsigned char>(text[at]), text[at] == '\n' ? 0 : 0x20);
    if (text[at++] != '<') continue;
    const std::size_t end = text.find('>', at);
    ASSERT_NE(end, std::string::npos);
    const std::string tag = text.substr(at, end - at);
    EXPECT_EQ(tag.find('<'), std::string::npos) << tag;
    EXPECT_EQ(count(tag, "\"") % 2, 0u) << tag;
    if (tag[0] == '/') {
      ASSERT_FALSE(open.empty());
      EXPECT_EQ(open.back(), tag.substr(1));
      open.pop_back();
    } else if (tag.back() != '/') {
      open.push_back(tag.substr(0, tag.find(' ')));
    }
    at = end + 1;
  }
  EXPECT_TRUE(open.empty());
  EXPECT_EQ(count(text, "nan") + count(text, "inf"), 0u);
}

LineChart chart() {
  LineChart out;
  out.title = "a < b & \"c\"\x01";
  out.x_title = "bytes";
  out.y_title = "nats";
  out.log_x = true;
  out.lines = {{"one", {{1000, 3}, {100000, 2.5}, {1e7, 2}}}, {"two", {{50000, 2.75}}}};
  out.levels = {{"reference", 1.9}};
  return out;
}

TEST(LineChart, DrawsLinesMarkersLevelsAndALegend) {
  const std::string text = line_chart(chart());
  expect_xml(text);
  EXPECT_EQ(count(text, "<polyline"), 3u) << "one line, and two in the legend: a point makes none";
  EXPECT_EQ(count(text, "<circle"), 4u);
  EXPECT_EQ(count(text, "<polygon"), 2u);
  EXPECT_EQ(count(text, "stroke-dasharray"), 2u);
  for (const char* words :
       {">one<", ">two<", ">reference<", ">bytes<", ">nats<", ">1M<", "a &lt; b &amp; &quot;c&quot; <"}) {
    EXPECT_EQ(count(text, words), 1u) << words;
  }
}

TEST(LineChart, PutsEqualRatiosAtEqualDistancesOnALogarithmicAxis) {
  LineChart logarithmic;
  logarithmic.log_x = true;
  logarithmic.lines = {{"line", {{1, 0}, {10, 1}, {100, 2}}}};
  const std::string text = line_chart(logarithmic);
  std::vector<double> places;
  for (std::size_t at = text.find("cx=\""); places.size() < 3; at = text.find("cx=\"", at + 1)) {
    ASSERT_NE(at, std::string::npos);
    places.push_back(std::stod(text.substr(at + 4)));
  }
  EXPECT_NEAR(places[1] - places[0], places[2] - places[1], 0.01);
}

TEST(LineChart, LeavesOutWhatHasNoPlace) {
  LineChart odd = chart();
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  odd.lines[0].points.insert(odd.lines[0].points.end(), {{0, 2}, {-5, 2}, {100, kInfinity}, {kInfinity, 2}});
  odd.levels.emplace_back("lost", std::numeric_limits<double>::quiet_NaN());
  const std::string text = line_chart(odd);
  expect_xml(text);
  EXPECT_EQ(count(text, "<circle"), 4u);
}

TEST(LineChart, DrawsNothingAndSinglePoints) {
  expect_xml(line_chart({}));
  LineChart log;
  log.log_x = true;
  expect_xml(line_chart(log));
  log.lines = {{"point", {{5, 1e6}}}};
  expect_xml(line_chart(log));
  log.log_x = false;
  log.lines = {{"point", {{0, 0}}}};
  expect_xml(line_chart(log));
}

// Where a text begins and ends, with 0.62 of the font's size per letter: a wide font.
struct Extent {
  double first, last;
};

double attribute(const std::string& tag, const std::string& name) {
  const std::size_t at = tag.find(" " + name + "=\"");
  return at == std::string::npos ? 0 : std::stod(tag.substr(at + name.size() + 3));
}

// Nothing is outside the drawing.
void expect_all_texts_inside(const std::string& svg) {
  const std::string head = svg.substr(0, svg.find('>'));
  const double width = attribute(head, "width"), height = attribute(head, "height");
  ASSERT_GT(width, 0);
  for (std::size_t at = svg.find("<text"); at != std::string::npos; at = svg.find("<text", at + 1)) {
    const std::string tag = svg.substr(at, svg.find('>', at) - at);
    const std::string words = svg.substr(at + tag.size() + 1, svg.find('<', at + 1) - at - tag.size() - 1);
    const bool turned = tag.find("rotate") != std::string::npos;
    const double length = 0.62 * attribute(tag, "font-size") * static_cast<double>(words.size());
    const double share = tag.find("middle") != std::string::npos ? 0.5 : tag.find("\"end\"") != std::string::npos;
    // Rotated text runs upwards.
    const double place = turned ? -attribute(tag, "y") : attribute(tag, "x");
    const Extent extent = {place - share * length, place + (1 - share) * length};
    EXPECT_GE(extent.first, turned ? -height : 0) << words;
    EXPECT_LE(extent.last, turned ? 0 : width) << words;
  }
}

TEST(LineChart, IsAsWideAsItsNamesNeed) {
  LineChart wide = chart();
  expect_all_texts_inside(line_chart(wide));
  wide.title = std::string(200, 't');
  wide.lines[0].name = std::string(90, 'n');
  wide.levels[0].first = std::string(100, 'l');
  expect_all_texts_inside(line_chart(wide));
}

TEST(LineChart, DrawsNoTwoLinesAlike) {
  LineChart many;
  for (int i = 0; i < 36; ++i) many.lines.push_back({"line", {{1, 1.0 + i}, {2, 2.0 + i}}});
  const std::string text = line_chart(many);
  std::vector<std::string> looks;
  for (std::size_t at = text.find("<polyline"); at != std::string::npos; at = text.find("<polyline", at + 1)) {
    looks.push_back(text.substr(at, text.find(" points", at) - at));
  }
  ASSERT_EQ(looks.size(), 72u) << "each in the legend, too";
  std::sort(looks.begin(), looks.end());
  EXPECT_EQ(std::unique(looks.begin(), looks.end()) - looks.begin(), 36);
}

TEST(LineChart, PutsEqualRatiosAtEqualDistancesUpwards) {
  LineChart logarithmic;
  logarithmic.log_y = true;
  logarithmic.lines = {{"line", {{0, 0.01}, {1, 0.1}, {2, 1}, {3, 0}, {4, -1}}}};
  const std::string text = line_chart(logarithmic);
  expect_xml(text);
  std::vector<double> places;
  for (std::size_t at = text.find("cy=\""); at != std::string::npos; at = text.find("cy=\"", at + 1)) {
    places.push_back(std::stod(text.substr(at + 4)));
  }
  ASSERT_EQ(places.size(), 4u) << "three, and the legend's";
  EXPECT_NEAR(places[0] - places[1], places[1] - places[2], 0.01);
  EXPECT_GT(places[0], places[2]);
}

TEST(HeatMap, CutsNoWordsOff) {
  HeatMap map;
  map.title = std::string(80, 't');
  map.x_title = "tokens of the prompt";
  map.y_title = "depth of the needle";
  map.scale_title = "share of correct answers";
  map.columns = {"4096"};
  for (int rows = 1; rows < 12; ++rows) {
    map.rows.push_back("100 %");
    map.cells.push_back({0.5});
    const std::string text = heat_map(map);
    expect_xml(text);
    expect_all_texts_inside(text);
    EXPECT_EQ(count(text, ">share of correct answers<"), 1u);
  }
}

TEST(HeatMap, DrawsACellForEachValue) {
  HeatMap map;
  map.title = "needle";
  map.x_title = "context";
  map.y_title = "depth";
  map.columns = {"1k", "2k", "4k"};
  map.rows = {"0 %", "100 %"};
  map.cells = {{0, 0.5, 1}, {1, 2}};
  const std::string text = heat_map(map);
  expect_xml(text);
  EXPECT_EQ(count(text, "stroke=\"#ffffff\""), 6u);
  EXPECT_EQ(count(text, "fill=\"#440154\" stroke"), 1u) << "0";
  EXPECT_EQ(count(text, "fill=\"#fde725\" stroke"), 2u) << "1";
  EXPECT_EQ(count(text, "fill=\"#ffffff\" stroke"), 2u) << "missing, and out of range";
  for (const char* words : {">needle<", ">context<", ">depth<", ">2k<", ">100 %<"}) EXPECT_EQ(count(text, words), 1u);
  expect_xml(heat_map({}));
}

TEST(HeatMap, LeavesLabelsOutWhereThereIsNoRoom) {
  HeatMap map;
  for (int i = 0; i < 200; ++i) map.columns.push_back(std::to_string(i).insert(0, 1, 'c'));
  map.rows = {"row"};
  map.cells = {std::vector<double>(200, 0.25)};
  const std::string text = heat_map(map);
  expect_xml(text);
  EXPECT_LT(count(text, ">c"), 80u);
  EXPECT_GT(count(text, ">c"), 20u);
}

}  // namespace
}  // namespace nibkv::llm::svg_test
