#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bench/runner/model/model.hpp"
#include "bench/runner/stores/plain_store.hpp"
#include "tests/support/gguf_writer.hpp"

namespace nibkv::llm {
namespace {

/// A small random model with f32 weights, and the options of its architecture.
struct Sketch {
  std::string architecture = "llama";
  std::uint32_t layers = 2, width = 24, ffn_width = 28, query_heads = 4, kv_heads = 2, vocabulary = 23;
  std::uint32_t head_dim = 0;        // 0: width / query_heads, and the file has no key for it
  std::uint32_t rotary = 0;          // 0: all of a head, and the file has no key for it
  float rope_base = 0;               // 0: 10000, and the file has no key for it
  float rope_factor = 0;             // 0: none
  std::string rope_type = "linear";  // of the factor; empty: the file has no key for it
  std::string rope_key = "rope.scaling.factor";
  bool biases = false, untied = false, divisors = false;
  std::function<void(test::GgufWriter&)> more;  // metadata

  std::map<std::string, std::vector<float>> tensors;
  std::map<std::string, std::vector<std::uint64_t>> shapes;

  std::uint32_t dim() const { return head_dim != 0 ? head_dim : width / query_heads; }

  void add(const std::string& name, const std::vector<std::uint64_t>& shape, float spread, float mean = 0) {
    std::mt19937 random(static_cast<unsigned>(tensors.size() + 1));
    std::normal_distribution<float> normal(mean, spread);
    std::vector<float> values(shape[0] * (shape.size() > 1 ? shape[1] : 1));
    for (float& value : values) value = normal(random);
    tensors[name] = values;
    shapes[name] = shape;
  }

  Sketch& fill() {
    add("token_embd.weight", {width, vocabulary}, 1);
    add("output_norm.weight", {width}, 0.2f, 1);
    if (untied) add("output.weight", {width, vocabulary}, 1);
    if (divisors) {
      add("rope_freqs.weight", {(rotary != 0 ? rotary : dim()) / 2}, 0.1f, 3);
    }
    for (std::uint32_t layer = 0; layer < layers; ++layer) {
      const std::string prefix = "blk." + std::to_string(layer) + ".";
      const std::uint64_t queries = query_heads * dim(), keys = kv_heads * dim();
      add(prefix + "attn_norm.weight", {width}, 0.2f, 1);
      add(prefix + "ffn_norm.weight", {width}, 0.2f, 1);
      add(prefix + "attn_q.weight", {width, queries}, 0.5f);
      add(prefix + "attn_k.weight", {width, keys}, 0.5f);
      add(prefix + "attn_v.weight", {width, keys}, 0.3f);
      add(prefix + "attn_output.weight", {queries, width}, 0.3f);
      add(prefix + "ffn_gate.weight", {width, ffn_width}, 0.3f);
      add(prefix + "ffn_up.weight", {width, ffn_width}, 0.3f);
      add(prefix + "ffn_down.weight", {ffn_width, width}, 0.3f);
      if (!biases) continue;
      add(prefix + "attn_q.bias", {queries}, 0.5f);
      add(prefix + "attn_k.bias", {keys}, 0.5f);
      add(prefix + "attn_v.bias", {keys}, 0.5f);
    }
    return *this;
  }

  /// `skipped` is a key that the file lacks.
  std::vector<std::byte> file(const std::string& skipped = {}) const {
    test::GgufWriter writer;
    if (skipped != "general.architecture") writer.set("general.architecture", architecture);
    const auto set = [&](const std::string& key, auto value) {
      if (key != skipped) writer.set(architecture + "." + key, value);
    };
    set("block_count", layers);
    set("context_length", std::uint32_t{64});
    set("embedding_length", width);
    set("feed_forward_length", ffn_width);
    set("attention.head_count", query_heads);
    set("attention.head_count_kv", kv_heads);
    set("attention.layer_norm_rms_epsilon", 1e-4f);
    if (head_dim != 0) set("attention.key_length", head_dim);
    if (rotary != 0) set("rope.dimension_count", rotary);
    if (rope_base != 0) set("rope.freq_base", rope_base);
    if (rope_factor != 0) {
      if (!rope_type.empty()) set("rope.scaling.type", rope_type);
      set(rope_key, rope_factor);
    }
    if (more) more(writer);
    for (const auto& [name, values] : tensors) {
      writer.add_tensor(name, TensorType::kF32, shapes.at(name), std::as_bytes(std::span(values)));
    }
    return writer.bytes();
  }
};

/// The same model in double precision, one token at a time, written only from the papers' formulas.
class Reference {
 public:
  explicit Reference(const Sketch& sketch) : sketch_(sketch), keys_(sketch.layers), values_(sketch.layers) {}

  std::vector<double> next(std::int32_t token) {
    std::vector<double> hidden(sketch_.width);
    for (std::size_t i = 0; i < hidden.size(); ++i) {
      hidden[i] = sketch_.tensors.at("token_embd.weight")[static_cast<std::size_t>(token) * sketch_.width + i];
    }
    for (std::uint32_t layer = 0; layer < sketch_.layers; ++layer) {
      const std::string prefix = "blk." + std::to_string(layer) + ".";
      add_to(hidden, attention(layer, prefix, norm(hidden, prefix + "attn_norm.weight")));
      const std::vector<double> normed = norm(hidden, prefix + "ffn_norm.weight");
      std::vector<double> gate = product(prefix + "ffn_gate.weight", normed);
      const std::vector<double> up = product(prefix + "ffn_up.weight", normed);
      for (std::size_t i = 0; i < gate.size(); ++i) gate[i] = gate[i] / (1 + std::exp(-gate[i])) * up[i];
      add_to(hidden, product(prefix + "ffn_down.weight", gate));
    }
    ++position_;
    return product(sketch_.untied ? "output.weight" : "token_embd.weight", norm(hidden, "output_norm.weight"));
  }

 private:
  using Vector = std::vector<double>;

  static void add_to(Vector& target, const Vector& addend) {
    for (std::size_t i = 0; i < target.size(); ++i) target[i] += addend[i];
  }

  Vector product(const std::string& name, const Vector& input, const std::string& bias = {}) const {
    const std::vector<float>& weights = sketch_.tensors.at(name);
    Vector output(weights.size() / input.size());
    for (std::size_t r = 0; r < output.size(); ++r) {
      if (!bias.empty() && sketch_.biases) output[r] = sketch_.tensors.at(bias)[r];
      for (std::size_t c = 0; c < input.size(); ++c) output[r] += weights[r * input.size() + c] * input[c];
    }
    return output;
  }

  Vector norm(const Vector& input, const std::string& name) const {
    double squares = 0;
    for (const double value : input) squares += value * value;
    Vector output = input;
    for (std::size_t i = 0; i < input.size(); ++i) {
      output[i] *= sketch_.tensors.at(name)[i] / std::sqrt(squares / static_cast<double>(input.size()) + 1e-4);
    }
    return output;
  }

  void rotate(Vector& heads) const {
    const std::size_t rotary = sketch_.rotary != 0 ? sketch_.rotary : sketch_.dim();
    for (std::size_t head = 0; head < heads.size(); head += sketch_.dim()) {
      for (std::size_t pair = 0; pair < rotary / 2; ++pair) {
        const double base = sketch_.rope_base != 0 ? static_cast<double>(sketch_.rope_base) : 10000.0;
        double angle = static_cast<double>(position_) / std::pow(base, 2.0 * static_cast<double>(pair) / rotary);
        if (sketch_.rope_factor != 0 && sketch_.rope_type != "none") angle /= sketch_.rope_factor;
        if (sketch_.divisors) angle /= sketch_.tensors.at("rope_freqs.weight")[pair];
        const bool adjacent = sketch_.architecture == "llama";
        double& a = heads[head + (adjacent ? 2 * pair : pair)];
        double& b = heads[head + (adjacent ? 2 * pair + 1 : pair + rotary / 2)];
        const double turned = a * std::cos(angle) - b * std::sin(angle);
        b = a * std::sin(angle) + b * std::cos(angle);
        a = turned;
      }
    }
  }

  Vector attention(std::uint32_t layer, const std::string& prefix, const Vector& input) {
    Vector queries = product(prefix + "attn_q.weight", input, prefix + "attn_q.bias");
    Vector keys = product(prefix + "attn_k.weight", input, prefix + "attn_k.bias");
    rotate(queries);
    rotate(keys);
    keys_[layer].push_back(keys);
    values_[layer].push_back(product(prefix + "attn_v.weight", input, prefix + "attn_v.bias"));
    const std::size_t dim = sketch_.dim();
    Vector output(queries.size());
    for (std::size_t head = 0; head < sketch_.query_heads; ++head) {
      const std::size_t kv_head = head * sketch_.kv_heads / sketch_.query_heads;
      Vector weights;
      double sum = 0;
      for (const Vector& key : keys_[layer]) {
        double score = 0;
        for (std::size_t d = 0; d < dim; ++d) score += queries[head * dim + d] * key[kv_head * dim + d];
        weights.push_back(std::exp(score / std::sqrt(static_cast<double>(dim))));
        sum += weights.back();
      }
      for (std::size_t t = 0; t < weights.size(); ++t) {
        for (std::size_t d = 0; d < dim; ++d) {
          output[head * dim + d] += weights[t] / sum * values_[layer][t][kv_head * dim + d];
        }
      }
    }
    return product(prefix + "attn_output.weight", output);
  }

  const Sketch& sketch_;
  std::vector<std::vector<Vector>> keys_, values_;
  std::size_t position_ = 0;
};

void expect_equal_to_reference(const Sketch& sketch) {
  const test::TemporaryFile path(sketch.file());
  const Gguf file = Gguf::open(path.path());
  ThreadPool pool(2);
  Model model(file, pool, {.max_batch = 8});
  const Config& config = model.config();
  ASSERT_EQ(config.head_dim, sketch.dim());
  PlainStore store(config.layers, config.query_heads, config.kv_heads, config.head_dim);
  std::vector<std::int32_t> tokens;
  for (std::int32_t i = 0; i < 20; ++i) tokens.push_back(i * i % 23);
  std::vector<float> logits(tokens.size() * config.vocabulary);
  model.forward(tokens, 0, store, logits.data(), tokens.size());
  Reference reference(sketch);
  for (std::size_t t = 0; t < tokens.size(); ++t) {
    const std::vector<double> expected = reference.next(tokens[t]);
    for (std::size_t i = 0; i < expected.size(); ++i) {
      ASSERT_NEAR(logits[t * config.vocabulary + i], expected[i], 2e-4) << "token " << t << ", logit " << i;
    }
  }
}

TEST(ModelReference, EqualsALlamaModelInDoublePrecision) {
  expect_equal_to_reference(Sketch().fill());
}

TEST(ModelReference, EqualsALlamaModelWithEveryOptionOfItsOwn) {
  Sketch sketch;
  sketch.head_dim = 8;
  sketch.rotary = 6;
  sketch.rope_base = 500;
  sketch.rope_factor = 1.7f;
  sketch.untied = true;
  sketch.divisors = true;
  expect_equal_to_reference(sketch.fill());
}

TEST(ModelReference, TurnsMoreSlowlyByALinearFactorHoweverTheFileSpellsIt) {
  for (const char* type : {"linear", "none", ""}) {
    for (const char* key : {"rope.scaling.factor", "rope.scale_linear"}) {
      Sketch sketch;
      sketch.rope_factor = 2.5f;
      sketch.rope_type = type;
      sketch.rope_key = key;
      expect_equal_to_reference(sketch.fill());
    }
  }
}

TEST(ModelReference, EqualsAQwen2ModelWithItsBiasesAndPairs) {
  Sketch sketch;
  sketch.architecture = "qwen2";
  sketch.biases = true;
  sketch.head_dim = 10;
  sketch.kv_heads = 1;
  expect_equal_to_reference(sketch.fill());
}

/// The message that making a Model from `bytes` throws, or "" if it throws nothing.
std::string complaint(const std::vector<std::byte>& bytes) {
  const test::TemporaryFile path(bytes);
  const Gguf file = Gguf::open(path.path());
  ThreadPool pool(1);
  try {
    Model model(file, pool);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(ModelReference, NamesTheTensorThatIsMissingUnknownOrOfAnotherShape) {
  Sketch full;
  full.biases = full.untied = full.divisors = true;
  full.fill();
  ASSERT_EQ(complaint(full.file()), "");
  for (const auto& [name, values] : full.tensors) {
    const bool optional = name.ends_with(".bias") || name == "output.weight" || name == "rope_freqs.weight";
    Sketch sketch = full;
    sketch.tensors.erase(name);
    if (!optional) {
      EXPECT_NE(complaint(sketch.file()).find(name), std::string::npos) << "without " << name;
    } else {
      EXPECT_EQ(complaint(sketch.file()), "") << "without " << name;
    }
    sketch = full;
    sketch.shapes[name][0] += 2;
    sketch.tensors[name].resize(values.size() + 2 * values.size() / full.shapes[name][0]);
    EXPECT_NE(complaint(sketch.file()).find(name), std::string::npos) << "longer rows of " << name;
    if (name == "token_embd.weight") continue;  // determines the vocabulary
    sketch = full;
    sketch.shapes[name] = {full.shapes[name][0], full.shapes[name].size() > 1 ? full.shapes[name][1] + 1 : 2};
    sketch.tensors[name].resize(sketch.shapes[name][0] * sketch.shapes[name][1]);
    EXPECT_NE(complaint(sketch.file()).find(name), std::string::npos) << "more rows of " << name;
  }
  for (const char* name :
       {"blk.0.attn_q_norm.weight", "blk.0.attn_output.bias", "blk.1.ffn_down.bias", "blk.0.attn_norm.bias",
        "blk.1.attn_sinks.weight", "blk.0.post_attention_norm.weight", "output.bias", "rope_factors_long.weight"}) {
    Sketch sketch = full;
    sketch.add(name, {5}, 1);
    const std::string line = complaint(sketch.file());
    EXPECT_NE(line.find(": tensor '" + std::string(name) + "': not expected"), std::string::npos) << line;
    EXPECT_EQ(line.find("/"), 0u) << "the file comes first: " << line;
  }
}

TEST(ModelReference, RefusesEveryKeyThatChangesWhatIsComputed) {
  const auto with = [](const std::string& key, auto value) {
    Sketch sketch = Sketch().fill();
    sketch.more = [key, value](test::GgufWriter& writer) { writer.set("llama." + key, value); };
    return complaint(sketch.file());
  };
  const auto expect_refused = [](const std::string& line, const std::string& key) {
    EXPECT_NE(line.find(": metadata 'llama." + key + "' changes what the model computes"), std::string::npos)
        << key << ": " << line;
    EXPECT_EQ(line.find("/"), 0u) << "the file comes first: " << line;
  };
  struct Number {
    const char* key;
    float off, on;
  };
  for (const Number& number : {Number{"attn_logit_softcapping", 0, 50},
                               {"final_logit_softcapping", 0, 30},
                               {"logit_scale", 1, 0.25f},
                               {"residual_scale", 1, 0.22f},
                               {"embedding_scale", 1, 12},
                               {"attention.clamp_kqv", 0, 8},
                               {"attention.max_alibi_bias", 0, 8},
                               {"attention.scale", 0, 0.1f},
                               {"attention.scale", 1 / std::sqrt(6.0f), 1},
                               {"attention.temperature_scale", 0, 0.1f},
                               {"attention.output_scale", 1, 2},
                               {"rope.scaling.attn_factor", 1, 1.2f},
                               {"rope.scaling.yarn_log_multiplier", 0, 0.1f}}) {
    EXPECT_EQ(with(number.key, number.off), "") << number.key;
    expect_refused(with(number.key, number.on), number.key);
  }
  for (const auto& [key, off, on] : {std::tuple("attention.sliding_window", 0u, 63u),
                                     {"attention.sliding_window", 64u, 1u},
                                     {"expert_count", 0u, 8u},
                                     {"expert_used_count", 0u, 2u},
                                     {"pooling_type", 0u, 1u},
                                     {"nextn_predict_layers", 0u, 1u}}) {
    EXPECT_EQ(with(key, off), "") << key;
    expect_refused(with(key, on), key);
  }
  for (const auto& [key, off] : {std::pair("attention.causal", true), {"use_parallel_residual", false}}) {
    EXPECT_EQ(with(key, off), "") << key;
    expect_refused(with(key, !off), key);
  }
  EXPECT_EQ(with("tensor_data_layout", "Meta AI original pth"), "");
  expect_refused(with("tensor_data_layout", "another"), "tensor_data_layout");
  for (const char* key : {"vocab_size", "rope.scaling.original_context_length", "attention.sliding_window_pattern"}) {
    EXPECT_EQ(with(key, 23u), "") << key;
  }
  expect_refused(with("attention.something_new", 0u), "attention.something_new");
  EXPECT_NE(with("rope.scaling.type", "yarn").find(": llama.rope.scaling.type: not one of none, linear"),
            std::string::npos);
  EXPECT_NE(with("attention.value_length", 12u).find("attention.value_length: differs"), std::string::npos);
  // Keys of other architectures are ignored.
  Sketch sketch = Sketch().fill();
  sketch.more = [](test::GgufWriter& writer) { writer.set("gemma3.attention.sliding_window", 512u); };
  EXPECT_EQ(complaint(sketch.file()), "");
  sketch.more = [](test::GgufWriter& writer) { writer.set("general.type", "adapter"); };
  EXPECT_NE(complaint(sketch.file()).find("general.type: 'adapter' is not a model"), std::string::npos);
}

TEST(ModelReference, NamesTheKeyThatIsMissingOrImpossible) {
  const Sketch full = Sketch().fill();
  for (const std::string key : {"general.architecture", "block_count", "context_length", "embedding_length",
                                "feed_forward_length", "attention.head_count", "attention.layer_norm_rms_epsilon"}) {
    EXPECT_NE(complaint(full.file(key)).find(key), std::string::npos) << "without " << key;
  }
  struct Case {
    const char* key;
    std::function<void(Sketch&)> change;
  };
  const Case cases[] = {
      {"general.architecture", [](Sketch& s) { s.architecture = "mamba"; }},
      {"block_count", [](Sketch& s) { s.layers = 0; }},
      {"block_count", [](Sketch& s) { s.layers = 1u << 31; }},
      {"embedding_length", [](Sketch& s) { s.width = 0; }},
      {"embedding_length", [](Sketch& s) { s.width = 0xffffffffu; }},
      {"feed_forward_length", [](Sketch& s) { s.ffn_width = 0; }},
      {"attention.head_count", [](Sketch& s) { s.query_heads = 0; }},
      {"attention.head_count", [](Sketch& s) { s.query_heads = 10; }},
      {"attention.head_count_kv", [](Sketch& s) { s.kv_heads = 3; }},
      {"attention.head_count_kv", [](Sketch& s) { s.kv_heads = 8; }},
      {"attention.key_length", [](Sketch& s) { s.head_dim = 100000; }},
      {"rope.dimension_count", [](Sketch& s) { s.rotary = 3; }},
      {"rope.dimension_count", [](Sketch& s) { s.rotary = 64; }},
      {"rope.freq_base", [](Sketch& s) { s.rope_base = -1; }},
      {"rope.freq_base", [](Sketch& s) { s.rope_base = std::nanf(""); }},
      {"rope.scaling.factor", [](Sketch& s) { s.rope_factor = -2; }},
  };
  for (const Case& item : cases) {
    Sketch sketch;
    sketch.head_dim = 6;
    sketch.fill();
    if (std::string(item.key) == "attention.head_count") sketch.head_dim = 0;
    item.change(sketch);
    EXPECT_NE(complaint(sketch.file()).find(item.key), std::string::npos)
        << item.key << ": " << complaint(sketch.file());
  }
}

}  // namespace
}  // namespace nibkv::llm
