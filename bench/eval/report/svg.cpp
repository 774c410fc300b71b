#include "bench/eval/report/svg.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <limits>
#include <sstream>

namespace nibkv::llm {
namespace {

constexpr const char* kColours[] = {"#1f77b4", "#d62728", "#2ca02c", "#ff7f0e", "#9467bd", "#8c564b",
                                    "#e377c2", "#17becf", "#bcbd22", "#393b79", "#637939", "#7f7f7f"};

constexpr std::size_t kColourCount = sizeof kColours / sizeof kColours[0];

// About the width of a sans-serif font, and a little more, so that nothing is cut off.
double width_of(const std::string& text, int size = 12) {
  return 0.62 * size * static_cast<double>(text.size());
}

// The position nearest to `middle` where a word begins, at or after `first`.
double centre(double middle, double first, const std::string& text, int size = 12) {
  return std::max(middle, first + width_of(text, size) / 2);
}

std::string decimal(double value, const char* format = "%.4g") {
  char digits[40];
  std::snprintf(digits, sizeof digits, format, value);
  return digits;
}

// Control characters are not allowed in XML.
std::string escaped(const std::string& text) {
  std::string out;
  for (const char letter : text) {
    switch (letter) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += static_cast<unsigned char>(letter) < 0x20 ? ' ' : letter;
    }
  }
  return out;
}

/// A drawing, written from top to bottom of the file; later shapes cover earlier ones.
class Drawing {
 public:
  Drawing(double width, double height) {
    text_ << "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"" << width << "\" height=\"" << height
          << "\" viewBox=\"0 0 " << width << ' ' << height << "\" font-family=\"sans-serif\" font-size=\"12\">\n";
    box(0, 0, width, height, "fill=\"#ffffff\"");
  }

  void line(double x1, double y1, double x2, double y2, const std::string& style) {
    text_ << "<line x1=\"" << x1 << "\" y1=\"" << y1 << "\" x2=\"" << x2 << "\" y2=\"" << y2 << "\" " << style
          << "/>\n";
  }

  void box(double x, double y, double width, double height, const std::string& style) {
    text_ << "<rect x=\"" << x << "\" y=\"" << y << "\" width=\"" << width << "\" height=\"" << height << "\" " << style
          << "/>\n";
  }

  /// @param anchor  "start", "middle" or "end"
  /// @param turned  whether it reads from bottom to top
  void words(double x, double y, const std::string& text, const char* anchor, bool turned = false, int size = 12) {
    text_ << "<text x=\"" << x << "\" y=\"" << y << "\" text-anchor=\"" << anchor << "\" font-size=\"" << size << '"';
    if (turned) text_ << " transform=\"rotate(-90 " << x << ' ' << y << ")\"";
    text_ << '>' << escaped(text) << "</text>\n";
  }

  /// @param dashes  any number: there are three, the first none
  void path(const std::vector<std::pair<double, double>>& points, const std::string& colour, std::size_t dashes) {
    static constexpr const char* kDashes[] = {"", " stroke-dasharray=\"7 3\"", " stroke-dasharray=\"2 3\""};
    text_ << "<polyline fill=\"none\" stroke=\"" << colour << "\" stroke-width=\"1.5\"" << kDashes[dashes % 3]
          << " points=\"";
    for (const auto& [x, y] : points) text_ << x << ',' << y << ' ';
    text_ << "\"/>\n";
  }

  /// @param shape  any number: there are four
  void marker(double x, double y, std::size_t shape, const std::string& colour) {
    if (shape % 4 == 0) {
      text_ << "<circle cx=\"" << x << "\" cy=\"" << y << "\" r=\"3.5\"";
    } else {
      // A square, a diamond, a triangle.
      static constexpr std::array<std::array<double, 8>, 3> kCorners = {
          {{-3, -3, 3, -3, 3, 3, -3, 3}, {0, -4.5, 4.5, 0, 0, 4.5, -4.5, 0}, {0, -4, 4, 3.5, -4, 3.5, 0, -4}}};
      const auto& corners = kCorners[shape % 4 - 1];
      text_ << "<polygon points=\"";
      for (std::size_t i = 0; i < corners.size(); i += 2) text_ << x + corners[i] << ',' << y + corners[i + 1] << ' ';
      text_ << '"';
    }
    text_ << " fill=\"" << colour << "\"/>\n";
  }

  std::string text() const { return text_.str() + "</svg>\n"; }

 private:
  std::ostringstream text_;
};

/// An axis: maps values to positions, and has ticks.
class Axis {
 public:
  Axis(bool logarithmic, double start, double end) : logarithmic_(logarithmic), start_(start), end_(end) {}

  void include(double value) {
    if (!takes(value)) return;
    low_ = std::min(low_, scaled(value));
    high_ = std::max(high_, scaled(value));
  }

  bool takes(double value) const { return std::isfinite(value) && (!logarithmic_ || value > 0); }

  /// Adds a margin around what was included.
  void finish() {
    if (low_ > high_) low_ = 0, high_ = 1;
    const double room = high_ > low_ ? 0.05 * (high_ - low_) : std::max(1e-3, 0.05 * std::abs(low_));
    low_ -= room;
    high_ += room;
  }

  double place(double value) const { return start_ + (scaled(value) - low_) / (high_ - low_) * (end_ - start_); }

  std::vector<double> ticks() const {
    std::vector<double> out;
    if (logarithmic_) {
      for (double power = std::floor(low_); power <= high_; ++power) {
        for (const double digit : {1.0, 2.0, 5.0}) keep(digit * std::pow(10, power), out);
      }
      if (out.size() >= 2) return out;
      out.clear();
    }
    const double low = logarithmic_ ? std::pow(10, low_) : low_;
    const double high = logarithmic_ ? std::pow(10, high_) : high_;
    const double unit = std::pow(10, std::floor(std::log10((high - low) / 5)));
    const double rough = (high - low) / 5 / unit;
    const double step = unit * (rough > 5 ? 10 : rough > 2 ? 5 : rough > 1 ? 2 : 1);
    // Counted, so that the loop also ends if the step is tiny relative to the values.
    const double first = std::ceil(low / step);
    for (int i = 0; i < 20; ++i) keep((first + i) * step, out);
    return out;
  }

 private:
  double scaled(double value) const { return logarithmic_ ? std::log10(value) : value; }

  void keep(double value, std::vector<double>& out) const {
    if (takes(value) && scaled(value) >= low_ && scaled(value) <= high_) out.push_back(value);
  }

  bool logarithmic_;
  double start_, end_;
  double low_ = std::numeric_limits<double>::infinity();
  double high_ = -std::numeric_limits<double>::infinity();
};

std::string tick_text(double value) {
  const double size = std::abs(value);
  if (size >= 1e9) return decimal(value / 1e9) + "G";
  if (size >= 1e6) return decimal(value / 1e6) + "M";
  if (size >= 1e4) return decimal(value / 1e3) + "k";
  return decimal(size < 1e-12 ? 0 : value, "%.5g");
}

constexpr double kLeft = 80, kTop = 40, kRight = 660, kBottom = 440, kWidth = 860, kHeight = 500;

void draw_frame(Drawing& drawing, const LineChart& chart, const Axis& x, const Axis& y) {
  const std::string grid = "stroke=\"#dddddd\"";
  for (const double tick : x.ticks()) {
    drawing.line(x.place(tick), kTop, x.place(tick), kBottom, grid);
    drawing.words(x.place(tick), kBottom + 18, tick_text(tick), "middle");
  }
  for (const double tick : y.ticks()) {
    drawing.line(kLeft, y.place(tick), kRight, y.place(tick), grid);
    drawing.words(kLeft - 6, y.place(tick) + 4, tick_text(tick), "end");
  }
  drawing.box(kLeft, kTop, kRight - kLeft, kBottom - kTop, "fill=\"none\" stroke=\"#000000\"");
  drawing.words(centre((kLeft + kRight) / 2, 10, chart.title, 14), 24, chart.title, "middle", false, 14);
  drawing.words((kLeft + kRight) / 2, kBottom + 42, chart.x_title, "middle");
  drawing.words(20, (kTop + kBottom) / 2, chart.y_title, "middle", true);
}

/// From dark blue for 0, through green, to yellow for 1.
std::string colour_of(double share) {
  static constexpr double kStops[][3] = {{68, 1, 84}, {59, 82, 139}, {33, 145, 140}, {94, 201, 98}, {253, 231, 37}};
  const double place = std::clamp(share, 0.0, 1.0) * 4;
  const std::size_t stop = std::min<std::size_t>(static_cast<std::size_t>(place), 3);
  const double rest = place - static_cast<double>(stop);
  std::string colour = "#";
  for (int channel = 0; channel < 3; ++channel) {
    const double value = kStops[stop][channel] + rest * (kStops[stop + 1][channel] - kStops[stop][channel]);
    char digits[8];
    std::snprintf(digits, sizeof digits, "%02x", static_cast<unsigned>(std::lround(value)) & 0xFFu);
    colour += digits;
  }
  return colour;
}

std::string fill(const std::string& colour) {
  return "fill=\"" + colour + '"';
}

// There is space for only one in this many labels.
std::size_t label_step(double cell) {
  return cell >= 12 ? 1 : static_cast<std::size_t>(std::ceil(12 / cell));
}

}  // namespace

std::string line_chart(const LineChart& chart) {
  Axis x(chart.log_x, kLeft, kRight), y(chart.log_y, kBottom, kTop);
  for (const ChartLine& line : chart.lines) {
    for (const auto& [px, py] : line.points) {
      if (!x.takes(px) || !y.takes(py)) continue;
      x.include(px);
      y.include(py);
    }
  }
  for (const auto& level : chart.levels) y.include(level.second);
  x.finish();
  y.finish();

  const double rows = static_cast<double>(chart.lines.size() + chart.levels.size());
  double width = std::max(kWidth, 20 + width_of(chart.title, 14));
  for (const auto& level : chart.levels) width = std::max(width, kRight + 54 + width_of(level.first));
  for (const ChartLine& line : chart.lines) width = std::max(width, kRight + 54 + width_of(line.name));
  Drawing drawing(width, std::max(kHeight, kTop + 30 + 18 * rows));
  draw_frame(drawing, chart, x, y);
  double legend = kTop + 10;
  for (const auto& [name, level] : chart.levels) {
    if (!y.takes(level)) continue;
    const std::string dashed = "stroke=\"#000000\" stroke-dasharray=\"6 4\"";
    drawing.line(kLeft, y.place(level), kRight, y.place(level), dashed);
    drawing.line(kRight + 14, legend, kRight + 38, legend, dashed);
    drawing.words(kRight + 44, legend + 4, name, "start");
    legend += 18;
  }
  for (std::size_t i = 0; i < chart.lines.size(); ++i) {
    // When the colours repeat, the markers and dashes differ.
    const std::string colour = kColours[i % kColourCount];
    const std::size_t round = i / kColourCount, shape = i + round;
    std::vector<std::pair<double, double>> places;
    for (const auto& [px, py] : chart.lines[i].points) {
      if (x.takes(px) && y.takes(py)) places.emplace_back(x.place(px), y.place(py));
    }
    if (places.size() > 1) drawing.path(places, colour, round);
    for (const auto& [px, py] : places) drawing.marker(px, py, shape, colour);
    drawing.path({{kRight + 14, legend}, {kRight + 38, legend}}, colour, round);
    drawing.marker(kRight + 26, legend, shape, colour);
    drawing.words(kRight + 44, legend + 4, chart.lines[i].name, "start");
    legend += 18;
  }
  return drawing.text();
}

std::string heat_map(const HeatMap& map) {
  const auto cell_of = [](std::size_t count) {
    return std::clamp(560.0 / static_cast<double>(std::max<std::size_t>(count, 1)), 4.0, 32.0);
  };
  const std::size_t rows = std::max(map.rows.size(), map.cells.size());
  const double cell_width = cell_of(map.columns.size()), cell_height = cell_of(rows);
  const double left = 110, top = 40;
  const double right = left + cell_width * static_cast<double>(map.columns.size());
  const double bottom = top + cell_height * static_cast<double>(rows);
  const double scale = std::max({right, left + 200, left + width_of(map.x_title)}) + 20;
  const double width = std::max(scale + 70, 20 + width_of(map.title, 14));
  const double height =
      std::max({bottom, top + width_of(map.y_title), top + width_of(map.scale_title), top + 120}) + 80;
  Drawing drawing(width, height);
  drawing.words(width / 2, 24, map.title, "middle", false, 14);
  drawing.words(centre((left + right) / 2, left - 50, map.x_title), bottom + 64, map.x_title, "middle");
  drawing.words(20, centre((top + bottom) / 2, top, map.y_title), map.y_title, "middle", true);
  drawing.words(scale + 52, centre(top + 50, top, map.scale_title), map.scale_title, "middle", true);
  for (std::size_t r = 0; r < rows; ++r) {
    const double y = top + cell_height * static_cast<double>(r);
    for (std::size_t c = 0; c < map.columns.size(); ++c) {
      const bool is_there =
          r < map.cells.size() && c < map.cells[r].size() && map.cells[r][c] >= 0 && map.cells[r][c] <= 1;
      drawing.box(left + cell_width * static_cast<double>(c), y, cell_width, cell_height,
                  fill(is_there ? colour_of(map.cells[r][c]) : "#ffffff") + " stroke=\"#ffffff\"");
    }
    if (r < map.rows.size() && r % label_step(cell_height) == 0) {
      drawing.words(left - 6, y + cell_height / 2 + 4, map.rows[r], "end", false, 10);
    }
  }
  for (std::size_t c = 0; c < map.columns.size(); c += label_step(cell_width)) {
    drawing.words(left + cell_width * (static_cast<double>(c) + 0.5) + 4, bottom + 6, map.columns[c], "end", true, 10);
  }
  for (int i = 0; i < 50; ++i) {
    drawing.box(scale, top + 2 * (49 - i), 14, 2, fill(colour_of((i + 0.5) / 50)));
  }
  drawing.words(scale + 20, top + 8, "1", "start");
  drawing.words(scale + 20, top + 100, "0", "start");
  return drawing.text();
}

}  // namespace nibkv::llm
