#pragma once

#include <string>
#include <utility>
#include <vector>

namespace nibkv::llm {

/// Points joined by a line.
struct ChartLine {
  std::string name;
  std::vector<std::pair<double, double>> points;  ///< in the order in which they are joined
};

struct LineChart {
  std::string title, x_title, y_title;
  bool log_x = false, log_y = false;  ///< all values above 0
  std::vector<ChartLine> lines;
  std::vector<std::pair<std::string, double>> levels;  ///< dashed horizontal lines: name, y
};

/// A table of values drawn as colours.
struct HeatMap {
  std::string title, x_title, y_title;
  std::string scale_title;                 ///< the meaning of 0 to 1
  std::vector<std::string> columns, rows;  ///< labels
  std::vector<std::vector<double>> cells;  ///< [row][column], [0, 1]; others are drawn as empty
};

/// The chart as an SVG file: self-contained, and as wide as its names need. Points that are not
/// finite, or not above 0 on a logarithmic axis, are left out.
std::string line_chart(const LineChart& chart);

/// The map as an SVG file, with a scale next to it. Missing cells are drawn as empty.
std::string heat_map(const HeatMap& map);

}  // namespace nibkv::llm
