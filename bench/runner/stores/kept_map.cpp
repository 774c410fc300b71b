#include "bench/runner/stores/kept_map.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string_view>

#include "bench/runner/stores/tile_store.hpp"

namespace nibkv::llm {
namespace {

constexpr std::size_t kLeft = 60, kTop = 40, kBottom = 60, kRight = 20;
constexpr std::size_t kWidth = 960;
constexpr std::size_t kRow = 4, kGap = 2;  // height of a head's row, and the gap between layers
constexpr const char* kHeld = "#6baed6";
constexpr const char* kMerged = "#08306b";
constexpr const char* kGone = "#f2f2f2";

std::string number(double value) {
  char digits[32];
  std::snprintf(digits, sizeof digits, "%.6g", value);
  return digits;
}

std::string label(std::size_t x, std::size_t y, const char* anchor, const std::string& text) {
  return "<text x=\"" + std::to_string(x) + "\" y=\"" + std::to_string(y) + "\" text-anchor=\"" + anchor + "\">" +
         text + "</text>\n";
}

std::size_t top_of(const KeptMap& map, std::size_t row) {
  return row * kRow + row / map.kv_heads * kGap;
}

// There is space for a label once in this many layers.
std::size_t label_step(const KeptMap& map) {
  constexpr std::size_t kLine = 14;
  const std::size_t layer = map.kv_heads * kRow + kGap;
  for (const std::size_t step : {1, 2, 5, 10}) {
    if (step * layer >= kLine) return step;
  }
  return 20;
}

std::string swatch(std::size_t x, std::size_t y, const char* colour) {
  return "<rect x=\"" + std::to_string(x) + "\" y=\"" + std::to_string(y) + "\" width=\"12\" height=\"12\" fill=\"" +
         colour + "\"/>\n";
}

// The runs of equal neighbours, as rectangles of one path, in units of a position.
std::string runs(const KeptMap& map, bool merged) {
  std::string path;
  for (std::size_t row = 0; row < map.rows.size(); ++row) {
    const std::vector<SlotInfo>& slots = map.rows[row];
    for (std::size_t i = 0; i < slots.size();) {
      if ((slots[i].merged != 0) != merged) {
        ++i;
        continue;
      }
      const std::uint32_t first = slots[i].position;
      std::uint32_t count = 0;
      for (; i < slots.size() && slots[i].position == first + count && (slots[i].merged != 0) == merged; ++i) ++count;
      const std::string width = std::to_string(count);
      path.append("M").append(std::to_string(first)).append(" ").append(std::to_string(top_of(map, row)));
      path.append("h").append(width).append("v").append(std::to_string(kRow)).append("h-").append(width).append("z");
    }
  }
  return path;
}

// What is held of each position, all heads of the rows [first, last) together, as a character a column.
std::string picture(const KeptMap& map, std::size_t first, std::size_t last, std::size_t columns) {
  constexpr std::string_view kLevels = " .:-=#";  // none, up to a quarter, half, three quarters, not all, all
  std::vector<std::size_t> held(columns), all(columns);
  for (std::size_t position = 0; position < map.tokens; ++position) {
    all[position * columns / map.tokens] += last - first;
  }
  for (std::size_t row = first; row < last; ++row) {
    for (const SlotInfo& slot : map.rows[row]) {
      if (slot.position < map.tokens) ++held[slot.position * columns / map.tokens];
    }
  }
  std::string line;
  for (std::size_t i = 0; i < columns; ++i) {
    const std::size_t level = held[i] == 0 ? 0 : held[i] >= all[i] ? 5 : 1 + held[i] * 4 / all[i];
    line.push_back(kLevels[level]);
  }
  return line;
}

// Slots of all heads, by why they are there.
struct Kinds {
  std::size_t all = 0, sinks = 0, recent = 0, merged = 0, apart = 0;
};

Kinds kinds_of(const KeptMap& map) {
  Kinds kinds;
  for (const std::vector<SlotInfo>& row : map.rows) {
    for (const SlotInfo& slot : row) {
      ++kinds.all;
      kinds.merged += slot.merged != 0 ? 1 : 0;
      if (slot.position >= map.tokens) {
        ++kinds.apart;
      } else if (slot.position < map.sinks) {
        ++kinds.sinks;
      } else if (slot.position + std::size_t{map.recent} >= map.tokens) {
        ++kinds.recent;
      }
    }
  }
  return kinds;
}

}  // namespace

KeptMap kept_map_of(const Cache& cache, const std::string& title) {
  const Shape& shape = cache.shape();
  KeptMap map;
  map.title = title;
  map.tokens = cache.seen(0);
  map.kv_heads = shape.kv_heads;
  const Policy& policy = cache.policy();
  map.sinks = policy.sinks;
  // Without scores, all that is held after the sinks is there because it is new, even beyond the budget.
  map.recent = policy.keep == Keep::kScore ? recent_of(policy, cache.seen(0)) : cache.seen(0);
  for (std::uint32_t layer = 0; layer < shape.layers; ++layer) {
    for (std::uint32_t head = 0; head < shape.kv_heads; ++head) {
      std::vector<SlotInfo>& slots = map.rows.emplace_back(cache.held(layer, head));
      require(explain(cache, layer, head, slots), "explain");
    }
  }
  return map;
}

std::string as_svg(const KeptMap& map) {
  const std::size_t height = map.rows.empty() ? 0 : top_of(map, map.rows.size() - 1) + kRow;
  const std::size_t layers = map.rows.size() / map.kv_heads;
  const std::size_t tokens = map.tokens == 0 ? 1 : map.tokens;
  const auto size = [](std::size_t value) { return std::to_string(value); };
  std::string svg = "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 " + size(kLeft + kWidth + kRight) + " " +
                    size(kTop + height + kBottom) +
                    "\" font-family=\"sans-serif\" font-size=\"12\">\n"
                    "<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n";
  svg += label(kLeft + kWidth / 2, 24, "middle", map.title);
  svg += "<g transform=\"translate(" + size(kLeft) + " " + size(kTop) + ") scale(" +
         number(static_cast<double>(kWidth) / static_cast<double>(tokens)) + " 1)\">\n<rect width=\"" + size(tokens) +
         "\" height=\"" + size(height) + "\" fill=\"" + kGone + "\"/>\n";
  svg += std::string("<path fill=\"") + kHeld + "\" d=\"" + runs(map, false) + "\"/>\n";
  svg += std::string("<path fill=\"") + kMerged + "\" d=\"" + runs(map, true) + "\"/>\n</g>\n";
  for (std::size_t layer = 0; layer < layers; layer += label_step(map)) {
    svg += label(kLeft - 8, kTop + top_of(map, layer * map.kv_heads) + 10, "end", size(layer));
  }
  // With few rows, it is longer than they are high.
  const std::string at = size(std::max(kTop + height / 2, kTop + 20));
  svg +=
      "<text x=\"16\" y=\"" + at + "\" text-anchor=\"middle\" transform=\"rotate(-90 16 " + at + ")\">layer</text>\n";
  for (std::size_t tick = 0; tick <= 4; ++tick) {
    svg += label(kLeft + kWidth * tick / 4, kTop + height + 18, "middle", size(map.tokens * tick / 4));
  }
  svg += label(kLeft + kWidth / 2, kTop + height + 36, "middle", "position of the token");
  const std::size_t legend = kTop + height + 44;
  svg += swatch(kLeft, legend, kHeld) + label(kLeft + 18, legend + 10, "start", "held as it came");
  svg += swatch(kLeft + 140, legend, kMerged) + label(kLeft + 158, legend + 10, "start", "others were merged into it");
  svg += swatch(kLeft + 360, legend, kGone) + label(kLeft + 378, legend + 10, "start", "not held");
  svg += label(kLeft + kWidth, legend + 10, "end", "a row: a KV head");
  return svg + "</svg>\n";
}

std::string as_text(const KeptMap& map) {
  if (map.tokens == 0) return "  the cache is empty\n";
  constexpr std::size_t kMostColumns = 64, kMostRows = 16;
  const std::size_t columns = std::min(map.tokens, kMostColumns);
  const std::size_t layers = map.rows.size() / map.kv_heads;
  const std::size_t step = (layers + kMostRows - 1) / kMostRows;
  const std::string newest = std::to_string(map.tokens - 1);
  std::string text = "    layer  0" + std::string(columns - std::min(columns, newest.size() + 1), ' ') +
                     (columns > newest.size() ? newest : "") + "\n";
  for (std::size_t layer = 0; layer < layers; layer += step) {
    const std::size_t end = std::min(layer + step, layers);
    std::string name = std::to_string(layer);
    if (end - layer > 1) name.append("-").append(std::to_string(end - 1));
    text += std::string(9 - std::min<std::size_t>(name.size(), 9), ' ') + name + " |" +
            picture(map, layer * map.kv_heads, end * map.kv_heads, columns) + "|\n";
  }
  const Kinds kinds = kinds_of(map);
  const auto mean = [&map](std::size_t count) {
    return number(std::round(10 * static_cast<double>(count) / static_cast<double>(map.rows.size())) / 10);
  };
  text += "  at a position: held by all heads #, over 3/4 =, 1/2 -, 1/4 :, fewer .\n  a head holds " + mean(kinds.all) +
          " of " + std::to_string(map.tokens) + " tokens (mean): " + mean(kinds.sinks) + " sinks, " +
          mean(kinds.recent) + " recent, " + mean(kinds.all - kinds.sinks - kinds.recent - kinds.apart) +
          " between;\n  others are merged into " + mean(kinds.merged) + " of them\n";
  if (kinds.apart > 0) text += "  not drawn, since layers share them: " + mean(kinds.apart) + "\n";
  return text;
}

}  // namespace nibkv::llm
