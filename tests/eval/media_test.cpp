#include "bench/eval/speed/media.hpp"

#include <gtest/gtest.h>

#include <array>
#include <string>
#include <thread>
#include <vector>

#include "bench/eval/speed/speed.hpp"
#include "bench/runner/programs/arguments.hpp"
#include "bench/runner/text/builtin_text.hpp"
#include "bench/runner/text/tokenizer.hpp"

namespace nibkv::llm {
namespace {

const Medium& medium(const std::string& name) {
  return *parse_media(name).front();
}

TEST(Media, AreChosenByNameOnce) {
  std::string all;
  for (const Medium& each : media()) all += (all.empty() ? "" : ",") + std::string(each.name);
  EXPECT_EQ(all, "memory,sd,emmc,ufs");
  EXPECT_EQ(parse_media(all).size(), media().size());
  EXPECT_EQ(parse_media("ufs,sd")[0]->name, "ufs");
  for (const char* wrong : {"", "disk", "sd,", "sd,sd"}) EXPECT_THROW(parse_media(wrong), UsageError) << wrong;
}

TEST(Media, TakeARequestsTimeAndThatOfFurtherBlocks) {
  PageTraffic traffic;
  traffic.reads = 3;
  traffic.read_blocks = 5;
  traffic.writes = 2;
  traffic.written_blocks = 2;
  EXPECT_DOUBLE_EQ(seconds_of(traffic, medium("sd")), 3.0 / 1500 + 2 * 4096.0 / 10e6 + 2.0 / 500);
  EXPECT_DOUBLE_EQ(seconds_of(traffic, medium("emmc")), 3.0 / 7000 + 2 * 4096.0 / 250e6 + 2.0 / 13000);
  EXPECT_EQ(seconds_of(traffic, medium("memory")), 0);
  for (const Medium& each : media()) EXPECT_EQ(seconds_of({}, each), 0) << each.name;
}

TEST(PageMeter, PassesPagesOnAndCountsTheBlocksThatTheyTouch) {
  std::vector<std::byte> memory(16384);
  PageMeter meter;
  const ColdStore store = meter.over(memory_store(memory.data(), 7));
  EXPECT_EQ(store.identity, 7u);
  EXPECT_EQ(store.prefetch, nullptr);
  std::array<std::byte, 3000> page{}, back{};
  page[2999] = std::byte{5};
  ASSERT_TRUE(store.write(store.context, 3000, page.data(), page.size()));  // over a border
  EXPECT_EQ(memory[5999], std::byte{5});
  const PageTraffic before = meter.traffic();
  EXPECT_EQ(before.writes, 1u);
  EXPECT_EQ(before.written_bytes, 3000u);
  EXPECT_EQ(before.written_blocks, 2u);
  ASSERT_TRUE(store.read(store.context, 3000, back.data(), back.size()));
  EXPECT_EQ(back, page);
  ASSERT_TRUE(store.read(store.context, 4096, back.data(), 1096));  // within one
  const PageTraffic more = meter.traffic() - before;
  EXPECT_EQ(more.writes, 0u);
  EXPECT_EQ(more.reads, 2u);
  EXPECT_EQ(more.read_bytes, 4096u);
  EXPECT_EQ(more.read_blocks, 3u);
}

TEST(PageMeter, SaysWhatTheStoreSaysAndCountsOnSeveralThreads) {
  ColdStore broken;
  broken.read = [](void*, std::uint64_t offset, void*, std::size_t) { return offset != 0; };
  broken.write = [](void*, std::uint64_t, const void*, std::size_t) { return false; };
  broken.prefetch = [](void* context, std::uint64_t, std::size_t) { ++*static_cast<int*>(context); };
  int fetched = 0;
  broken.context = &fetched;
  PageMeter meter;
  const ColdStore store = meter.over(broken);
  store.prefetch(store.context, 0, 64);
  EXPECT_EQ(fetched, 1);
  EXPECT_FALSE(store.write(store.context, 0, nullptr, 64));
  EXPECT_FALSE(store.read(store.context, 0, nullptr, 64));
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&store] {
      for (int k = 0; k < 2000; ++k) EXPECT_TRUE(store.read(store.context, 64, nullptr, 64));
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(meter.traffic().reads, 8001u);
  EXPECT_EQ(meter.traffic().read_bytes, 8001u * 64);
}

TEST(Speed, OnAMediumIsThatOfTheRunAndTheTimeOfItsPages) {
  const Gguf file = Gguf::open(NIBKV_TINY_MODEL);
  ThreadPool pool(2);
  Model model(file, pool);
  std::string text;
  for (const std::string_view part : builtin_text()) text += std::string(part) + "\n";
  const std::vector<std::int32_t> tokens = Tokenizer::from(file).encode(text, false, false);
  StoreOptions options;
  options.policy = "recall";
  options.tokens = 128;
  options.settings = {{"indexed", "256"}};
  options.workers = pool.workers();
  const SpeedFigures figures = measure_speed(model, tokens, 400, 40, options);
  ASSERT_EQ(figures.decode_pages.size(), 40u);
  PageTraffic sum;
  for (const PageTraffic& pages : figures.decode_pages) {
    sum.reads += pages.reads;
    sum.writes += pages.writes;
  }
  EXPECT_GT(sum.reads, 0u);
  EXPECT_GT(sum.writes, 0u);
  EXPECT_EQ(sum.reads, figures.decode_recall.read_pages) << "what the store saw, and what the cache counts";
  EXPECT_EQ(sum.writes, figures.decode_recall.written_pages);
  EXPECT_EQ(figures.decode_recall.lost_pages, 0u);

  const MediumFigures memory = on_medium(figures, 400, medium("memory")), sd = on_medium(figures, 400, medium("sd"));
  EXPECT_EQ(memory.wait, 0);
  EXPECT_NEAR(memory.decode_tokens_per_second, figures.decode_tokens_per_second,
              1e-9 * figures.decode_tokens_per_second);
  EXPECT_NEAR(sd.pages_read * 40, static_cast<double>(sum.reads), 1e-6);
  EXPECT_GT(sd.hit_rate, 0);
  EXPECT_LT(sd.hit_rate, 1);
  EXPECT_GE(sd.wait * 40, static_cast<double>(sum.reads) / 1500 + static_cast<double>(sum.writes) / 500 - 1e-9);
  EXPECT_GE(sd.longest_wait, sd.wait);
  EXPECT_NEAR(1 / sd.decode_tokens_per_second - 1 / memory.decode_tokens_per_second, sd.wait, 1e-9);
  EXPECT_LT(sd.prefill_tokens_per_second, memory.prefill_tokens_per_second);
}

}  // namespace
}  // namespace nibkv::llm
