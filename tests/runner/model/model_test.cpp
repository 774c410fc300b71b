#include "bench/runner/model/model.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "bench/runner/matmul/elementwise.hpp"
#include "bench/runner/stores/plain_store.hpp"
#include "bench/runner/stores/tile_store.hpp"
#include "tests/reference/attention.hpp"
#include "tests/reference/rotary.hpp"
#include "tests/support/outside_data.hpp"

namespace nibkv::llm {
namespace {

constexpr char kProse[] =
    "The old man walked slowly along the road to the village, and his dog went before him. It was a fine morning in "
    "the "
    "month of May; the sun was shining upon the fields, and the birds were singing in the trees. He had not been there "
    "for many years, and he looked at every house with great attention, as if he hoped to see some face that he knew. "
    "\"Good morning, sir,\" said a young woman at the door of the inn. \"You have come a long way, I think.\" He took "
    "off "
    "his hat, and answered that he had come from the sea, and that he should be glad of a little bread and a place to "
    "sit "
    "down. She looked at him for a moment without speaking, and then she went into the house and called her father.";

/// Tokens of the tiny model: the beginning of a sequence, then one token per byte.
std::vector<std::int32_t> byte_tokens(std::string_view text) {
  std::vector<std::int32_t> tokens = {1};
  for (const char c : text) tokens.push_back(static_cast<unsigned char>(c) + 3);
  return tokens;
}

PlainStore store_for(const Model& model, std::size_t max_chunk = 1 << 20) {
  const Config& config = model.config();
  return PlainStore(config.layers, config.query_heads, config.kv_heads, config.head_dim, max_chunk);
}

/// The logits after every token.
std::vector<float> logits_of(Model& model, std::span<const std::int32_t> tokens, KvStore& store,
                             std::size_t first_position = 0) {
  std::vector<float> logits(tokens.size() * model.config().vocabulary);
  model.forward(tokens, first_position, store, logits.data(), tokens.size());
  return logits;
}

/// Mean of -log(probability of the next token) over the tokens from `first` on.
double cross_entropy(const std::vector<float>& logits, std::span<const std::int32_t> tokens, std::size_t first) {
  const std::size_t vocabulary = logits.size() / tokens.size();
  double total = 0;
  for (std::size_t t = first; t < tokens.size(); ++t) {
    const float* row = logits.data() + (t - 1) * vocabulary;
    double sum = 0;
    for (std::size_t i = 0; i < vocabulary; ++i) sum += std::exp(static_cast<double>(row[i] - row[tokens[t]]));
    total += std::log(sum);
  }
  return total / static_cast<double>(tokens.size() - first);
}

/// The most likely tokens after `prompt`, until `stop` or `limit` of them.
std::vector<std::int32_t> continue_greedily(Model& model, std::vector<std::int32_t> prompt, std::size_t limit,
                                            std::int32_t stop) {
  PlainStore store = store_for(model);
  std::vector<std::int32_t> result;
  std::vector<float> logits(model.config().vocabulary);
  std::size_t position = 0;
  while (result.size() < limit) {
    model.forward(prompt, position, store, logits.data(), 1);
    position += prompt.size();
    const auto best = std::max_element(logits.begin(), logits.end()) - logits.begin();
    prompt = {static_cast<std::int32_t>(best)};
    if (prompt[0] == stop) break;
    result.push_back(prompt[0]);
  }
  return result;
}

class TinyModel : public testing::Test {
 protected:
  Gguf file_ = Gguf::open(NIBKV_TINY_MODEL);
  ThreadPool pool_{2};
  std::vector<std::int32_t> tokens_ = byte_tokens(kProse);
};

TEST_F(TinyModel, PredictsProse) {
  Model model(file_, pool_);
  EXPECT_EQ(model.config().layers, 5u);
  EXPECT_EQ(model.config().head_dim, 64u);
  EXPECT_EQ(model.config().kv_heads, 2u);
  PlainStore store = store_for(model);
  const double loss = cross_entropy(logits_of(model, tokens_, store), tokens_, 100);
  RecordProperty("cross_entropy", std::to_string(loss));
  // A uniform guess has log(259) = 5.6; letter frequencies alone give about 2.9.
  EXPECT_LT(loss, 1.9);
  EXPECT_GT(loss, 0.8);
}

/// Keeps the keys of the first layer; attention is zero.
class FirstKeys : public KvStore {
 public:
  explicit FirstKeys(const Config& config) : config_(config) {}
  std::size_t max_chunk() const override { return 64; }
  void reads_only(std::size_t count) override { only_read.push_back(count); }
  void append(int layer, std::size_t count, const float* keys, const float*, ThreadPool&) override {
    if (layer == 0) keys_.insert(keys_.end(), keys, keys + count * row());
  }
  void attend(int, std::size_t count, const float*, float* out, ThreadPool&) override {
    std::fill_n(out, count * config_.query_heads * config_.head_dim, 0.0f);
  }
  std::vector<std::size_t> only_read;  // of each batch

  std::size_t row() const { return config_.kv_heads * config_.head_dim; }
  std::vector<double> key(std::size_t position, std::size_t head) const {
    const float* start = keys_.data() + position * row() + head * config_.head_dim;
    return {start, start + config_.head_dim};
  }

 private:
  const Config& config_;
  std::vector<float> keys_;
};

// In the first layer, a token's key before rotary embedding is the same at every position.
TEST_F(TinyModel, CachesAreToldTheRotaryEmbeddingThatTheModelHas) {
  Model model(file_, pool_);
  const Rotary rotary = shape_of(model.config(), {}).rotary;
  ASSERT_TRUE(rotary.known());
  FirstKeys store(model.config());
  const std::vector<std::int32_t> tokens(300, 100);
  model.forward(tokens, 0, store, nullptr, 0);
  for (std::size_t head = 0; head < model.config().kv_heads; ++head) {
    const auto first = store.key(0, head);
    for (const std::size_t position : {1, 2, 63, 299}) {
      const auto key = store.key(position, head);
      const auto back = reference::turned(key, rotary, -static_cast<double>(position));
      EXPECT_LT(reference::distance(back, first), 1e-5 * reference::norm(first)) << position;
      EXPECT_GT(reference::distance(key, first), 0.1 * reference::norm(first)) << position;
    }
  }
}

// All but the last 64 before the first token of which an output is wanted.
TEST_F(TinyModel, SaysWhichTokensAreOnlyRead) {
  Model model(file_, pool_);
  FirstKeys store(model.config());
  const std::vector<std::int32_t> tokens(200, 100);
  std::vector<float> logits(100 * model.config().vocabulary);
  model.forward(tokens, 0, store, nullptr, 0);
  EXPECT_EQ(store.only_read, (std::vector<std::size_t>{64, 64, 8, 0}));
  store.only_read.clear();
  model.forward(std::span(tokens).first(1), 200, store, logits.data(), 1);
  EXPECT_EQ(store.only_read, std::vector<std::size_t>{0});
  store.only_read.clear();
  model.forward(tokens, 201, store, logits.data(), 100);
  EXPECT_EQ(store.only_read, (std::vector<std::size_t>{36, 0, 0, 0}));
}

TEST_F(TinyModel, GivesTheSameBitsHoweverTheTextIsCut) {
  const std::span<const std::int32_t> tokens = std::span(tokens_).first(100);
  Model model(file_, pool_);
  PlainStore whole = store_for(model);
  const std::vector<float> expected = logits_of(model, tokens, whole);

  PlainStore single = store_for(model);
  std::vector<float> one_by_one;
  for (std::size_t t = 0; t < tokens.size(); ++t) {
    const std::vector<float> logits = logits_of(model, tokens.subspan(t, 1), single, t);
    one_by_one.insert(one_by_one.end(), logits.begin(), logits.end());
  }
  EXPECT_EQ(one_by_one, expected);

  PlainStore small_chunks = store_for(model, 7);
  EXPECT_EQ(logits_of(model, tokens, small_chunks), expected) << "a store that takes 7 tokens at a time";
  EXPECT_EQ(small_chunks.size(), tokens.size());

  Model small_batches(file_, pool_, {.max_batch = 33});
  PlainStore other = store_for(small_batches);
  EXPECT_EQ(logits_of(small_batches, tokens, other), expected) << "batches of 33";
}

TEST_F(TinyModel, GivesTheSameBitsForEveryWorkerCountAndKernel) {
  const std::span<const std::int32_t> tokens = std::span(tokens_).first(100);
  Model model(file_, pool_);
  PlainStore store = store_for(model);
  const std::vector<float> expected = logits_of(model, tokens, store);
  for (const std::size_t workers : {1, 3}) {
    ThreadPool pool(workers);
    for (const MatmulKernels* kernels : available_matmul_kernels()) {
      Model other(file_, pool, {.kernels = kernels->name});
      PlainStore other_store = store_for(other);
      EXPECT_EQ(logits_of(other, tokens, other_store), expected) << workers << " workers, " << kernels->name;
    }
  }
}

TEST_F(TinyModel, GivesTheLogitsOfTheLastTokensOnly) {
  Model model(file_, pool_, {.max_batch = 10});
  const std::span<const std::int32_t> tokens = std::span(tokens_).first(25);
  PlainStore whole = store_for(model);
  const std::vector<float> expected = logits_of(model, tokens, whole);
  const std::size_t vocabulary = model.config().vocabulary;
  for (const std::size_t rows : {0, 1, 5, 6, 12, 24, 25}) {
    PlainStore store = store_for(model);
    std::vector<float> logits(rows * vocabulary + 1, 77.0f);
    model.forward(tokens, 0, store, logits.data(), rows);
    EXPECT_EQ(logits.back(), 77.0f);
    const std::vector<float> last(expected.end() - static_cast<std::ptrdiff_t>(rows * vocabulary), expected.end());
    logits.pop_back();
    EXPECT_EQ(logits, last) << rows << " rows";
  }
}

TEST_F(TinyModel, ShowsTheObserverWhatTheStoreGets) {
  struct Recorder final : AttentionObserver, KvStore {
    void observe(int layer, std::size_t first_position, std::size_t count, const float* queries, const float* keys,
                 const float* values) override {
      EXPECT_EQ(layer, next_layer);
      EXPECT_EQ(first_position, 40 + seen);
      seen_queries.assign(queries, queries + count * 4 * 64);
      seen_keys.assign(keys, keys + count * 2 * 64);
      seen_values.assign(values, values + count * 2 * 64);
    }
    std::size_t max_chunk() const override { return 4; }
    void append(int layer, std::size_t count, const float* keys, const float* values, ThreadPool&) override {
      EXPECT_EQ(layer, next_layer);
      EXPECT_EQ(seen_keys, std::vector<float>(keys, keys + count * 2 * 64));
      EXPECT_EQ(seen_values, std::vector<float>(values, values + count * 2 * 64));
    }
    void attend(int layer, std::size_t count, const float* queries, float* out, ThreadPool&) override {
      EXPECT_EQ(layer, next_layer);
      EXPECT_EQ(seen_queries, std::vector<float>(queries, queries + count * 4 * 64));
      std::fill_n(out, count * 4 * 64, 0.0f);
      next_layer = (next_layer + 1) % 5;
      if (next_layer == 0) seen += count;
    }
    int next_layer = 0;
    std::size_t seen = 0;
    std::vector<float> seen_queries, seen_keys, seen_values;
  };
  Model model(file_, pool_);
  Recorder recorder;
  model.forward(std::span(tokens_).first(10), 40, recorder, nullptr, 0, &recorder);
  EXPECT_EQ(recorder.seen, 10u);
}

TEST_F(TinyModel, RefusesTokensAndRowsOutOfRangeAndLeavesTheStoreAlone) {
  Model model(file_, pool_);
  PlainStore store = store_for(model);
  std::vector<float> logits(3 * model.config().vocabulary);
  const std::int32_t beyond = static_cast<std::int32_t>(model.config().vocabulary);
  EXPECT_THROW(model.forward(std::vector<std::int32_t>{1, -1}, 0, store, logits.data(), 1), Error);
  EXPECT_THROW(model.forward(std::vector<std::int32_t>{1, beyond}, 0, store, logits.data(), 1), Error);
  EXPECT_THROW(model.forward(std::vector<std::int32_t>{1, 2}, 0, store, logits.data(), 3), Error);
  EXPECT_EQ(store.size(), 0u);
  EXPECT_THROW(Model(file_, pool_, {.kernels = "abacus"}), Error);
}

TEST(Elementwise, RotateTurnsBothKindsOfPairs) {
  // Pair 0 rotates by a quarter turn, pair 1 not at all.
  const float cosines[] = {0, 1}, sines[] = {1, 0};
  float adjacent[] = {1, 2, 3, 4, 9};
  rotate(adjacent, cosines, sines, 2, true);
  EXPECT_EQ(std::vector<float>(adjacent, adjacent + 5), (std::vector<float>{-2, 1, 3, 4, 9}));
  float halves[] = {1, 2, 3, 4, 9};
  rotate(halves, cosines, sines, 2, false);
  EXPECT_EQ(std::vector<float>(halves, halves + 5), (std::vector<float>{-3, 2, 1, 4, 9}));
}

TEST(Elementwise, RmsNormFollowsItsFormula) {
  for (const std::size_t count : {1, 15, 16, 37, 64}) {
    std::vector<float> input(count), weight(count), output(count);
    double squares = 0;
    for (std::size_t i = 0; i < count; ++i) {
      input[i] = std::sin(static_cast<float>(i) * 1.7f + 1) * 3;
      weight[i] = std::cos(static_cast<float>(i));
      squares += static_cast<double>(input[i]) * input[i];
    }
    rms_norm(input.data(), weight.data(), 1e-5f, count, output.data());
    const double factor = 1 / std::sqrt(squares / static_cast<double>(count) + 1e-5);
    for (std::size_t i = 0; i < count; ++i) {
      EXPECT_NEAR(output[i], input[i] * factor * weight[i], 1e-6);
    }
  }
}

TEST(PlainStore, AttendsCausallyWithGroupedHeads) {
  constexpr std::size_t kTokens = 5, kQueryHeads = 4, kKvHeads = 2, kDim = 6;
  const auto wave = [](std::size_t count, float step) {
    std::vector<float> values(count);
    for (std::size_t i = 0; i < count; ++i) values[i] = std::sin(static_cast<float>(i) * step);
    return values;
  };
  const std::vector<float> keys = wave(kTokens * kKvHeads * kDim, 0.7f), values = wave(kTokens * kKvHeads * kDim, 1.3f);
  const std::vector<float> queries = wave(kTokens * kQueryHeads * kDim, 2.1f);
  std::vector<float> out(queries.size());
  ThreadPool pool(2);
  PlainStore store(1, kQueryHeads, kKvHeads, kDim);
  store.append(0, kTokens, keys.data(), values.data(), pool);
  store.attend(0, kTokens, queries.data(), out.data(), pool);
  for (std::size_t t = 0; t < kTokens; ++t) {
    for (std::size_t h = 0; h < kQueryHeads; ++h) {
      double sum = 0;
      std::vector<double> expected(kDim, 0.0);
      for (std::size_t i = 0; i <= t; ++i) {
        double score = 0;
        const std::size_t at = (i * kKvHeads + h / 2) * kDim;
        for (std::size_t d = 0; d < kDim; ++d) {
          score += static_cast<double>(queries[(t * kQueryHeads + h) * kDim + d]) * keys[at + d];
        }
        const double weight = std::exp(score / std::sqrt(static_cast<double>(kDim)));
        sum += weight;
        for (std::size_t d = 0; d < kDim; ++d) expected[d] += weight * values[at + d];
      }
      for (std::size_t d = 0; d < kDim; ++d) {
        EXPECT_NEAR(out[(t * kQueryHeads + h) * kDim + d], expected[d] / sum, 1e-5) << t << " " << h;
      }
    }
  }
}

TEST(StoriesModel, TellsItsKnownStory) {
  const auto folder = nibkv::test::named_by("NIBKV_TEST_DATA");
  if (!folder) GTEST_SKIP() << nibkv::test::needs_data("models/stories260K-v3.gguf, stories260K of ggml-org/models");
  const Gguf file = Gguf::open((*folder / "models/stories260K-v3.gguf").string());
  ThreadPool pool(1);
  Model model(file, pool);
  const std::vector<std::string_view> pieces = file.texts("tokenizer.ggml.tokens");
  std::string story;
  for (const std::int32_t token : continue_greedily(model, {1}, 60, 2)) {
    const std::string_view piece = pieces.at(static_cast<std::size_t>(token));
    for (std::size_t i = 0; i < piece.size();) {
      const bool space = piece.substr(i, 3) == "\xe2\x96\x81";
      story += space ? ' ' : piece[i];
      i += space ? 3 : 1;
    }
  }
  EXPECT_NE(story.find("Once upon a time, there was a little girl named Lily"), std::string::npos) << story;
}

TEST(RealModel, AnswersASum) {
  const auto path = nibkv::test::named_by("NIBKV_MODEL");
  if (!path) GTEST_SKIP() << nibkv::test::kNeedsModel;
  const Gguf file = Gguf::open(path->string());
  ThreadPool pool(2);
  Model model(file, pool);
  // "What is 2+2?" as SmolLM2's chat template and tokenizer encode it.
  if (model.config().vocabulary != 49152)
    GTEST_SKIP() << *path << " is not SmolLM2; this one " << nibkv::test::kNeedsModel;
  const std::vector<std::int32_t> answer =
      continue_greedily(model, {1, 4093, 198, 1780, 314, 216, 34, 27, 34, 47, 2, 198, 1, 520, 9531, 198}, 40, 2);
  const std::vector<std::string_view> pieces = file.texts("tokenizer.ggml.tokens");
  std::string text;
  for (const std::int32_t token : answer) text += pieces.at(static_cast<std::size_t>(token));
  std::printf("%s\n", text.c_str());
  EXPECT_FALSE(answer.empty());
  EXPECT_NE(text.find('4'), std::string::npos) << text;
}

}  // namespace
}  // namespace nibkv::llm
