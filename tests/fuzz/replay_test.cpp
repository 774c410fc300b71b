// Without a fuzzer: the seeds of each target, some mutations of them, and all inputs that ever
// found something, in findings/TARGET/.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "tests/fuzz/targets.hpp"
#include "tests/support/effort.hpp"
#include "tests/support/random.hpp"

namespace nibkv::fuzz {
namespace {

TEST(Fuzz, TheSeedsOfAllTargetsRun) {
  for (const Target& target : targets()) {
    const std::vector<Input> seeds = target.seeds();
    EXPECT_GE(seeds.size(), 4u);
    for (std::size_t i = 0; i < seeds.size(); i += test::kShorter) {
      SCOPED_TRACE(target.name + ", seed " + std::to_string(i));
      target.run(seeds[i]);
    }
  }
}

TEST(Fuzz, SoDoSomeChangesToThem) {
  for (const Target& target : targets()) {
    const std::vector<Input> seeds = target.seeds();
    test::Random random(7);
    for (unsigned round = 0; round < 300 / test::kShorter && !HasFailure(); ++round) {
      SCOPED_TRACE(target.name + ", round " + std::to_string(round));
      Input input = seeds[random.below(static_cast<std::uint32_t>(seeds.size()))];
      for (std::uint32_t change = random.within(1, 4); change != 0; --change) {
        const std::uint32_t at = random.below(static_cast<std::uint32_t>(input.size()));
        if (random.below(8) == 0) input.resize(at + 1);
        if (at < input.size()) input[at] = static_cast<std::byte>(random.below(256));
      }
      target.run(input);
    }
  }
}

TEST(Fuzz, WhatWasFoundIsFoundNoMore) {
  for (const Target& target : targets()) {
    const std::filesystem::path folder = std::filesystem::path(NIBKV_FUZZ_FINDINGS) / target.name;
    if (!std::filesystem::is_directory(folder)) continue;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      SCOPED_TRACE(entry.path().string());
      std::ifstream file(entry.path(), std::ios::binary);
      const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
      target.run(std::as_bytes(std::span(text)));
    }
  }
}

}  // namespace
}  // namespace nibkv::fuzz
