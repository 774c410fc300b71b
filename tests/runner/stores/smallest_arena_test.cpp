#include "bench/runner/stores/smallest_arena.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <regex>
#include <string>
#include <utility>
#include <vector>

#include "bench/runner/stores/policy_settings.hpp"
#include "tests/support/rig.hpp"

namespace nibkv::llm {
namespace {

// SmolLM2-135M's.
Config model() {
  Config config;
  config.layers = 30;
  config.query_heads = 9;
  config.kv_heads = 3;
  config.head_dim = 64;
  config.rope_base = 1e5;
  config.rope_scale = 1;
  config.rope_pairs = 32;
  config.rope_adjacent = true;
  return config;
}

// Of that model, with head scores and attention.
const std::vector<std::byte>& profile() {
  static const std::vector<std::byte> made = [] {
    const Shape shape = shape_of(model(), {});
    std::vector<std::byte> profile = nibkv::test::make_profile(shape, 3);
    const std::vector<float> scores(std::size_t{shape.layers} * shape.kv_heads, 0.5f);
    require(set_head_scores(profile, shape, scores), "head scores");
    std::vector<std::byte> more(profile_bytes(shape, false, true));
    require(add_attention(profile, shape, std::vector<HeadAttention>(scores.size()), more), "attention");
    return more;
  }();
  return made;
}

StoreOptions options_of(const std::string& policy, std::size_t workers, std::uint16_t outliers) {
  StoreOptions options;
  options.policy = policy;
  options.workers = workers;
  options.outlier_channels = outliers;
  options.profile = profile();
  return options;
}

// What the error says, or nothing when there is none.
std::string error_of(const Config& config, const StoreOptions& options) {
  try {
    const TileStore store(config, options);
    EXPECT_TRUE(options.tokens != 0 || store.cache().usage().arena_bytes <= options.arena_bytes);
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

std::string error_of(StoreOptions options, std::uint64_t bytes) {
  options.arena_bytes = bytes;
  return error_of(model(), options);
}

/// Figures of a line that says "  BYTES (--arena nK) with WORDS".
struct Offer {
  std::uint64_t bytes, kilobytes;
  std::string words;
};

std::vector<Offer> offers_in(const std::string& lines) {
  std::vector<Offer> offers;
  const std::regex form(R"(\n  (\d+) \(--arena (\d+)K\) with ([^\n]+))");
  for (std::sregex_iterator at(lines.begin(), lines.end(), form), end; at != end; ++at) {
    offers.push_back({std::stoull((*at)[1]), std::stoull((*at)[2]), (*at)[3]});
  }
  return offers;
}

// Columns of the longest line.
std::size_t widest(const std::string& lines) {
  std::size_t most = 0, start = 0;
  for (std::size_t end = 0; end != std::string::npos; start = end + 1) {
    end = lines.find('\n', start);
    most = std::max(most, (end == std::string::npos ? lines.size() : end) - start);
  }
  return most;
}

// The options that an offer names.
StoreOptions changed(StoreOptions options, const std::string& words) {
  const bool all = words == "all of that";
  if (all || words == "--threads 1") options.workers = 1;
  if (all || words == "--outliers 0") options.outlier_channels = 0;
  if (all || words == "no --set") options.settings.clear();
  if (all) options.policy = "full";
  if (words.starts_with("--policy ")) options.policy = words.substr(9, words.find(' ', 9) - 9);
  return options;
}

TEST(SmallestArena, StartsWithTheBytesThatTheErrorNamesAndNotWithOneLess) {
  for (std::uint32_t i = 0; !policy_name(i).empty(); ++i) {
    for (const std::size_t workers : {1, 2, 3, 8}) {
      for (const std::uint16_t outliers : {0, 8}) {
        const StoreOptions options = options_of(std::string(policy_name(i)), workers, outliers);
        const std::uint64_t bytes = smallest_arena(model(), options);
        const std::string named =
            "the smallest has " + std::to_string(bytes) + " (--arena " + std::to_string((bytes + 1023) / 1024) + "K)";
        const std::string what = options.policy + ", workers " + std::to_string(workers);
        EXPECT_EQ(error_of(options, bytes), "") << what;
        for (const std::uint64_t less : {std::uint64_t{1}, bytes / 2, bytes - 1}) {
          EXPECT_NE(error_of(options, less).find(named), std::string::npos) << what << ": " << error_of(options, less);
        }
      }
    }
  }
}

TEST(SmallestArena, NamesWhatMakesItSmallerEachWithTheBytesThatItTakes) {
  for (const std::string policy : {"ems", "ada_kv", "streaming_llm", "full"}) {
    for (const std::size_t workers : {1, 4}) {
      const StoreOptions options = options_of(policy, workers, 8);
      const std::uint64_t now = smallest_arena(model(), options);
      const std::string line = error_of(options, 1000);
      const std::vector<Offer> offers = offers_in(line);
      ASSERT_FALSE(offers.empty()) << line;
      EXPECT_EQ(static_cast<std::size_t>(std::count(line.begin(), line.end(), '\n')), offers.size())
          << "a line each: " << line;
      EXPECT_LE(widest(line), 80u) << line;
      std::uint64_t last = now;
      for (const Offer& offer : offers) {
        const StoreOptions other = changed(options, offer.words);
        EXPECT_LT(offer.bytes, now) << line;
        EXPECT_LE(offer.bytes, last) << "the largest first: " << line;
        EXPECT_EQ(error_of(other, offer.bytes), "") << offer.words;
        EXPECT_NE(error_of(other, offer.bytes - 1), "") << offer.words;
        EXPECT_EQ(offer.kilobytes, (offer.bytes + 1023) / 1024);
        last = offer.bytes;
      }
      EXPECT_EQ(line.find("--threads 1") != std::string::npos, workers > 1) << line;
      EXPECT_NE(line.find("--outliers 0"), std::string::npos) << line;
      EXPECT_EQ(line.find("--policy full") != std::string::npos, policy != "full") << line;
      EXPECT_EQ(line.find("--set"), std::string::npos) << line;
    }
  }
}

TEST(SmallestArena, OffersNothingThatDoesNotHelp) {
  const std::string line = error_of(options_of("full", 1, 0), 1000);
  EXPECT_EQ(line.find('\n'), std::string::npos) << line;
  EXPECT_TRUE(offers_in(line).empty()) << line;
}

TEST(SmallestArena, KeepsWhatIsSetAndSaysWhatItCosts) {
  StoreOptions options = options_of("ems", 1, 0);
  options.settings = parse_settings("recent=300");
  const std::string line = error_of(options, 1000);
  const std::vector<Offer> offers = offers_in(line);
  bool unset = false;
  for (const Offer& offer : offers) {
    unset = unset || offer.words == "no --set";
    EXPECT_EQ(error_of(changed(options, offer.words), offer.bytes), "") << offer.words;
  }
  EXPECT_TRUE(unset) << line;
  EXPECT_EQ(line.find("--policy full"), std::string::npos) << "it has no recent tokens to set: " << line;
}

TEST(SmallestArena, TakesNoMoreForThreadsThatWouldHaveNoHeadToAttendTo) {
  for (const std::string policy : {"ems", "snapkv"}) {
    const std::uint64_t three = smallest_arena(model(), options_of(policy, 3, 8));
    EXPECT_LT(smallest_arena(model(), options_of(policy, 1, 8)), three) << policy;
    EXPECT_EQ(smallest_arena(model(), options_of(policy, 8, 8)), three) << policy;
  }
  // Here threads share the queries of a head, too.
  EXPECT_GT(smallest_arena(model(), options_of("full", 8, 8)), smallest_arena(model(), options_of("full", 4, 8)));
}

// SmolLM2 in the smallest arena that people think of.
TEST(SmallestArena, IsHalfAMebibyteUnderEmsWhateverTheThreads) {
  for (const std::size_t workers : {1, 2, 3, 4, 8, 64}) {
    EXPECT_LE(smallest_arena(model(), options_of("ems", workers, 8)), 512u << 10) << workers;
  }
}

TEST(LargestArena, IsWhatTheMachineHasAndNothingIsAllocatedForMore) {
  if (sizeof(std::size_t) < 8) GTEST_SKIP() << "no arena is larger than this machine's addresses";
  Config large = model();
  large.layers = 64;
  large.query_heads = large.kv_heads = 64;
  large.head_dim = 256;
  StoreOptions options;
  options.tokens = kMaxTokens;  // more than 10 TB
  const std::string error = error_of(large, options);
  const CachePlan plan = plan_cache(large, options);
  const std::string bytes = std::to_string(footprint(plan.shape, plan.policy));
  EXPECT_EQ(error.find("an arena of " + bytes + " bytes exceeds this machine's memory of "), 0u) << error;
  EXPECT_LE(widest(error), 83u) << error;
  options.tokens = 0;
  options.arena_bytes = std::uint64_t{1} << 40;
  if (physical_memory() < std::uint64_t{1} << 39) {
    EXPECT_NE(error_of(large, options), "");
  }

  // What it names instead fits half of the memory, and takes more than nine tenths of that.
  constexpr std::uint64_t kMemory = std::uint64_t{1} << 34;
  const std::string text = too_large_text(model(), options_of("ems", 2, 8), kMemory + 1, kMemory);
  const std::regex form(R"(\n  half of it holds --tokens (\d+) \(--arena (\d+)M\))");
  std::smatch found;
  ASSERT_TRUE(std::regex_search(text, found, form)) << text;
  EXPECT_EQ(std::stoull(found[2]), kMemory / 2 >> 20);
  StoreOptions named = options_of("ems", 2, 8);
  named.tokens = static_cast<std::uint32_t>(std::stoul(found[1]));
  const CachePlan half = plan_cache(model(), named);
  EXPECT_LE(footprint(half.shape, half.policy), kMemory / 2);
  EXPECT_GT(footprint(half.shape, half.policy), kMemory / 20 * 9);
}

TEST(LargestArena, MemoryOfThisMachineIsKnown) {
  EXPECT_GT(physical_memory(), std::uint64_t{64} << 20);
  EXPECT_LT(physical_memory(), std::uint64_t{1} << 50);
}

/// The tiny model on stores of any size.
class SmallStore : public testing::Test {
 protected:
  // Logits after a text that is fed in pieces, and a snapshot of what the store holds then.
  std::pair<std::vector<float>, std::vector<std::byte>> feed(const StoreOptions& options, std::size_t threads,
                                                             std::size_t piece) {
    ThreadPool pool(threads);
    Model model(file_, pool);
    StoreOptions used = options;
    used.workers = threads;
    TileStore store(model.config(), used);
    EXPECT_EQ(store.max_chunk() < kTileSlots, options.tokens == 0);
    if (piece == kChunk) piece = store.max_chunk();
    std::vector<float> logits(model.config().vocabulary);
    for (std::size_t at = 0; at < kTokens; at += piece) {
      const std::size_t count = std::min(piece, kTokens - at);
      std::vector<std::int32_t> tokens;
      for (std::size_t i = at; i < at + count; ++i) tokens.push_back(static_cast<std::int32_t>(97 + i * 7 % 26));
      model.forward(tokens, at, store, logits.data(), 1);
    }
    return {logits, store.save({})};
  }

  static constexpr std::size_t kTokens = 150;
  static constexpr std::size_t kChunk = 0;  // what the store takes
  Gguf file_ = Gguf::open(NIBKV_TINY_MODEL);
};

TEST_F(SmallStore, ReadsSmallChunksInBatchesWithTheSameBytes) {
  for (const std::string policy : {"ems", "streaming_llm", "snapkv"}) {
    StoreOptions options;
    options.policy = policy;
    options.workers = 2;
    options.arena_bytes = smallest_arena(Config::from(file_), options);
    EXPECT_EQ(feed(options, 2, kTokens), feed(options, 2, kChunk)) << policy;
  }
}

TEST_F(SmallStore, IsReadByMoreThreadsThanItHasScratchForWithTheSameBytes) {
  for (const std::string policy : {"ems", "streaming_llm"}) {
    StoreOptions options;
    options.policy = policy;
    options.tokens = 40;
    EXPECT_EQ(feed(options, 7, 50), feed(options, 1, 50)) << policy;
  }
}

TEST_F(SmallStore, TakesBatchesOnlyWhereNoLayerMayBeRefusedOrWaitsForAnother) {
  const Config config = Config::from(file_);
  StoreOptions options;
  options.policy = "ems";
  options.workers = 2;
  options.arena_bytes = smallest_arena(config, options);
  EXPECT_LT(TileStore(config, options).max_chunk(), kTileSlots);
  EXPECT_EQ(TileStore(config, options).max_batch(), kTileSlots);
  options.policy = "full";
  options.arena_bytes = smallest_arena(config, options);
  EXPECT_EQ(TileStore(config, options).max_batch(), 1u);
  options.policy = "ems_fold";
  options.settings = parse_settings("fold_keys=1-5,fold_values=1-5");
  options.arena_bytes = 1 << 20;
  const TileStore folds(config, options);
  EXPECT_EQ(folds.max_batch(), folds.max_chunk());
}

}  // namespace
}  // namespace nibkv::llm
