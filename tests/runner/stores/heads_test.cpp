#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "bench/runner/stores/kept_map.hpp"
#include "bench/runner/stores/tile_store.hpp"
#include "bench/runner/text/builtin_text.hpp"
#include "bench/runner/text/tokenizer.hpp"

namespace nibkv::llm {
namespace {

SlotInfo slot(std::uint32_t position, std::uint8_t merged = 0) {
  SlotInfo info;
  info.position = position;
  info.merged = merged;
  return info;
}

std::size_t count_of(const std::string& text, const std::string& part) {
  std::size_t count = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

TEST(KeptMap, DrawsRunsOfNeighboursAsOne) {
  KeptMap map;
  map.title = "a title";
  map.tokens = 100;
  map.kv_heads = 1;
  map.rows = {{slot(0), slot(1), slot(2), slot(7), slot(8, 1), slot(9, 200), slot(20)}, {slot(99)}};
  const std::string svg = as_svg(map);
  EXPECT_TRUE(svg.starts_with("<svg "));
  EXPECT_TRUE(svg.ends_with("</svg>\n"));
  EXPECT_NE(svg.find("a title"), std::string::npos);
  EXPECT_NE(svg.find("d=\"M0 0h3v4h-3zM7 0h1v4h-1zM20 0h1v4h-1zM99 6h1v4h-1z\""), std::string::npos) << svg;
  EXPECT_NE(svg.find("d=\"M8 0h2v4h-2z\""), std::string::npos) << svg;
}

TEST(KeptMap, IsDrawnAsTextOverAllHeadsOfALayer) {
  KeptMap map;
  map.tokens = 8;
  map.kv_heads = 2;
  map.sinks = 1;
  map.recent = 2;
  map.rows = {{slot(0), slot(2), slot(6), slot(7)},
              {slot(0), slot(3, 4), slot(6), slot(7)},
              {slot(0), slot(1), slot(6), slot(7)},
              {slot(0), slot(1), slot(6), slot(7, 1)}};
  EXPECT_EQ(
      as_text(map),
      "    layer  0      7\n"
      "        0 |# --  ##|\n"
      "        1 |##    ##|\n"
      "  at a position: held by all heads #, over 3/4 =, 1/2 -, 1/4 :, fewer .\n"
      "  a head holds 4 of 8 tokens (mean): 1 sinks, 2 recent, 1 between;\n  others are merged into 0.5 of them\n");
  map.tokens = 0;
  EXPECT_EQ(as_text(map), "  the cache is empty\n");
}

TEST(KeptMap, IsDrawnAsTextOfAFewRowsAndColumnsHoweverLargeItIs) {
  KeptMap map;
  map.tokens = 6400;
  map.kv_heads = 1;
  map.rows.assign(33, {});
  for (auto& row : map.rows) {
    for (std::uint32_t position = 0; position < 100; ++position) row.push_back(slot(position));
    for (std::uint32_t position = 3200; position < 3201; ++position) row.push_back(slot(position));
    row.push_back(slot(kNoPosition));
  }
  const std::string text = as_text(map);
  EXPECT_EQ(count_of(text, "|\n"), 11u) << text;
  EXPECT_EQ(count_of(text, " |#" + std::string(31, ' ') + "." + std::string(31, ' ') + "|\n"), 11u) << text;
  EXPECT_NE(text.find("      0-2 |"), std::string::npos) << text;
  EXPECT_NE(text.find("    30-32 |"), std::string::npos) << text;
  EXPECT_NE(text.find("a head holds 102 of 6400 tokens (mean): 0 sinks, 0 recent, 101 between"), std::string::npos);
  EXPECT_NE(text.find("not drawn, since layers share them: 1\n"), std::string::npos) << text;
  std::size_t longest = 0;
  for (std::size_t at = 0; at < text.size(); at = text.find('\n', at) + 1) {
    longest = std::max(longest, text.find('\n', at) - at);
  }
  EXPECT_LE(longest, 79u) << text;
}

TEST(KeptMap, HasALegendAndLabelsThatDoNotTouch) {
  for (const std::size_t kv_heads : {1u, 3u, 8u}) {
    KeptMap map;
    map.tokens = 10;
    map.kv_heads = kv_heads;
    map.rows.assign(30 * kv_heads, {slot(0)});
    const std::string svg = as_svg(map);
    for (const char* words : {">layer<", ">position of the token<", ">held as it came<", ">others were merged into it<",
                              ">not held<", ">a row: a KV head<"}) {
      EXPECT_EQ(count_of(svg, words), 1u) << words;
    }
    // Labels of layers are at x = 52.
    double last = -100;
    std::size_t labels = 0;
    const std::string mark = "<text x=\"52\" y=\"";
    for (std::size_t at = svg.find(mark); at != std::string::npos; at = svg.find(mark, at + 1)) {
      const double y = std::stod(svg.substr(at + mark.size()));
      EXPECT_GE(y - last, 14) << kv_heads;
      last = y;
      ++labels;
    }
    EXPECT_EQ(labels, kv_heads == 1 ? 6u : 30u) << kv_heads;
  }
}

TEST(KeptMap, OfNothingIsAPicture) {
  const std::string svg = as_svg({});
  EXPECT_TRUE(svg.starts_with("<svg "));
  EXPECT_TRUE(svg.ends_with("</svg>\n"));
}

class HeadsTest : public testing::Test {
 protected:
  KeptMap map_of(const std::string& policy, std::uint32_t tokens) {
    StoreOptions options;
    options.policy = policy;
    options.tokens = tokens;
    options.workers = 2;
    TileStore store(model_.config(), options);
    const auto ids = Tokenizer::from(file_).encode(builtin_text()[1], false, false);
    model_.forward(std::span(ids).first(kTokens), 0, store, nullptr, 0);
    return kept_map_of(store.cache(), policy);
  }

  static constexpr std::size_t kTokens = 300;
  Gguf file_ = Gguf::open(NIBKV_TINY_MODEL);
  ThreadPool pool_{2};
  Model model_{file_, pool_};
};

TEST_F(HeadsTest, AFullCacheIsOneRectangleARow) {
  const KeptMap map = map_of("full", 320);
  EXPECT_EQ(map.tokens, kTokens);
  ASSERT_EQ(map.rows.size(), model_.config().layers * model_.config().kv_heads);
  for (const auto& row : map.rows) EXPECT_EQ(row.size(), kTokens);
  EXPECT_EQ(count_of(as_svg(map), "h300v4h-300z"), map.rows.size());
}

TEST_F(HeadsTest, AWindowHasItsSinksAndItsEnd) {
  const KeptMap map = map_of("streaming_llm", 128);
  EXPECT_NE(as_text(map).find(": 4 sinks, "), std::string::npos) << as_text(map);
  EXPECT_NE(as_text(map).find(" recent, 0 between;"), std::string::npos) << as_text(map);
  for (const auto& row : map.rows) {
    ASSERT_GT(row.size(), 5u);
    EXPECT_EQ(row[3].position, 3u);
    EXPECT_GT(row[4].position, 100u);
    EXPECT_EQ(row.back().position, kTokens - 1);
    for (const SlotInfo& info : row) EXPECT_EQ(info.merged, 0);
  }
}

TEST_F(HeadsTest, AScoredCacheHoldsDifferentTokensInDifferentHeads) {
  const KeptMap map = map_of("ems", 128);
  bool differs = false;
  std::size_t merged = 0;
  for (const auto& row : map.rows) {
    EXPECT_LT(row.size(), 200u);
    EXPECT_TRUE(std::is_sorted(row.begin(), row.end(),
                               [](const SlotInfo& a, const SlotInfo& b) { return a.position < b.position; }));
    for (const SlotInfo& info : row) merged += info.merged;
    differs = differs || !std::equal(row.begin(), row.end(), map.rows[0].begin(), map.rows[0].end(),
                                     [](const SlotInfo& a, const SlotInfo& b) { return a.position == b.position; });
  }
  EXPECT_TRUE(differs);
  EXPECT_GT(merged, 0u);
}

}  // namespace
}  // namespace nibkv::llm
