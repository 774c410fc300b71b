#include "bench/runner/stores/tile_store.hpp"

#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

#include "tests/support/random.hpp"

namespace nibkv::llm {
namespace {

Config config() {
  Config model;
  model.layers = 2;
  model.query_heads = 6;
  model.kv_heads = 3;
  model.head_dim = 32;
  return model;
}

// What attention gives for a prompt of many chunks, longer than a block, and then token by token.
std::vector<float> outputs(const std::string& policy, std::size_t workers, std::size_t threads,
                           const std::string& cold_file = "") {
  StoreOptions options;
  options.cold_file = cold_file;
  if (policy == "recall") options.settings = {{"indexed", "256"}};
  options.policy = policy;
  options.tokens = policy == "recall" ? 256 : 1200;
  options.workers = workers;
  const Config model = config();
  TileStore store(model, options);
  ThreadPool pool(threads);
  test::Random random(5);
  std::vector<float> all;
  for (std::size_t token = 0; token < 1100;) {
    const std::size_t count = token < 1090 ? std::min<std::size_t>(store.max_chunk(), 1090 - token) : 1;
    for (int layer = 0; layer < 2; ++layer) {
      const auto keys = random.bells(count * 3 * 32), values = random.bells(count * 3 * 32);
      const auto queries = random.bells(count * 6 * 32);
      std::vector<float> out(queries.size());
      store.append(layer, count, keys.data(), values.data(), pool);
      store.attend(layer, count, queries.data(), out.data(), pool);
      all.insert(all.end(), out.begin(), out.end());
    }
    token += count;
  }
  EXPECT_EQ(store.cache().seen(1), 1100u);
  return all;
}

TEST(TileStore, GivesTheSameBytesOnAnyNumberOfThreads) {
  for (const std::string policy : {"full", "streaming_llm", "ems"}) {
    const std::vector<float> expected = outputs(policy, 1, 1);
    for (const std::size_t workers : {1, 2, 4}) {
      for (const std::size_t threads : {1, 2, 4}) {
        if (threads > workers) continue;  // a store has scratch for each thread
        EXPECT_EQ(outputs(policy, workers, threads), expected) << policy << ", " << workers << ", " << threads;
      }
    }
  }
}

TEST(TileStore, KeepsALogInAFileThatNothingElseIsIn) {
  const std::string path = testing::TempDir() + "nibkv-tile-store.pages";
  std::remove(path.c_str());
  EXPECT_EQ(outputs("recall", 2, 2, path), outputs("recall", 1, 1));
  EXPECT_EQ(outputs("recall", 1, 1, path), outputs("recall", 1, 1)) << "in the place of old pages";
  EXPECT_GT(std::ifstream(path, std::ios::ate).tellg(), 100000);
  std::ofstream(path) << "dear reader";
  const auto error = [&](const std::string& where) {
    try {
      outputs("recall", 1, 1, where);
    } catch (const Error& thrown) {
      return std::string(thrown.what());
    }
    return std::string("none");
  };
  EXPECT_EQ(error(path), path + ": there already, and no file of pages");
  EXPECT_EQ(error("/dev/null"), "/dev/null: not a file, so no place for pages");
  EXPECT_EQ(error("/none/pages"), "/none/pages: No such file or directory");
  std::remove(path.c_str());
}

}  // namespace
}  // namespace nibkv::llm
