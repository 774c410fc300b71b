#include "tests/tiny/tiny_llama.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "bench/runner/model/model.hpp"
#include "bench/runner/stores/tile_store.hpp"
#include "tests/tiny/tiny_recall.hpp"

namespace nibkv::llm {
namespace {

struct alignas(32) Block {
  std::byte bytes[32];
};

/// The tiny model's file, aligned as TinyLlama wants it.
std::vector<Block> tiny_file() {
  std::ifstream stream(NIBKV_TINY_MODEL, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
  std::vector<Block> file((text.size() + sizeof(Block) - 1) / sizeof(Block));
  std::memcpy(file.data(), text.data(), text.size());
  return file;
}

TEST(TinyLlama, ComputesTheLogitsOfTheRunnerToTheLastBit) {
  const std::vector<Block> bytes = tiny_file();
  metal::TinyLlama tiny;
  ASSERT_TRUE(tiny.open(std::as_bytes(std::span(bytes))));
  StoreOptions options;
  options.policy = "ems";
  options.tokens = 64;
  const Gguf file = Gguf::open(NIBKV_TINY_MODEL);
  ThreadPool pool(1);
  Model model(file, pool);
  TileStore store(model.config(), options);
  ASSERT_EQ(model.config().vocabulary, tiny.vocabulary());
  // The runner's store takes chunks. With one token at a time it is the tiny model's cache,
  // except for the scratch.
  std::vector<std::byte> memory(footprint(tiny.shape(), ems(64)) + kArenaAlignment);
  const std::size_t skip =
      (kArenaAlignment - reinterpret_cast<std::uintptr_t>(memory.data()) % kArenaAlignment) % kArenaAlignment;
  Cache cache;
  ASSERT_EQ(cache.init(std::span(memory).subspan(skip, footprint(tiny.shape(), ems(64))), tiny.shape(), ems(64)),
            Status::kOk);
  std::vector<float> logits(tiny.vocabulary());
  for (std::size_t i = 0; i < 200; ++i) {
    const std::int32_t token = i == 0 ? 1 : static_cast<unsigned char>(metal::kTinyPrompt[i - 1]) + 3;
    model.forward({&token, 1}, i, store, logits.data(), 1);
    ASSERT_EQ(tiny.feed(static_cast<std::uint32_t>(token), cache), Status::kOk);
    ASSERT_EQ(std::memcmp(logits.data(), tiny.logits().data(), logits.size() * sizeof(float)), 0) << "token " << i;
  }
}

TEST(TinyLlama, RefusesFilesThatAreCutOrOfAnotherKind) {
  std::vector<Block> bytes = tiny_file();
  metal::TinyLlama tiny;
  const auto whole = std::as_bytes(std::span(bytes));
  for (const std::size_t size :
       {std::size_t{0}, std::size_t{3}, std::size_t{100}, std::size_t{9000}, whole.size() - 64}) {
    EXPECT_FALSE(tiny.open(whole.first(size))) << size << " bytes";
  }
  EXPECT_FALSE(tiny.open(whole.subspan(1))) << "not aligned";
  bytes[0].bytes[0] = std::byte{'g'};
  EXPECT_FALSE(tiny.open(whole)) << "another magic";
}

}  // namespace
}  // namespace nibkv::llm
