#include "bench/runner/model/model_config.hpp"

#include <cmath>
#include <cstring>
#include <string>

#include "bench/runner/gguf/blocks.hpp"
#include "bench/runner/gguf/fingerprint.hpp"
#include "bench/runner/gguf/gguf_cursor.hpp"
#include "bench/runner/model/model_keys.hpp"

namespace nibkv::llm {
namespace {

/// The keys of one architecture.
class Keys {
 public:
  Keys(const Gguf& file, std::string architecture) : file_(file), architecture_(std::move(architecture)) {}

  std::string name(const char* key) const { return architecture_ + "." + key; }

  [[noreturn]] void fail(const char* key, const char* why) const {
    throw Error(file_.path() + ": " + name(key) + ": " + why);
  }

  /// An integer in [1, limit].
  std::optional<std::size_t> find_size(const char* key, std::uint64_t limit) const {
    const std::optional<std::uint64_t> value = file_.integer(name(key));
    if (!value) return std::nullopt;
    if (*value == 0 || *value > limit) fail(key, "out of range");
    return static_cast<std::size_t>(*value);
  }

  std::size_t size(const char* key, std::uint64_t limit) const {
    const std::optional<std::size_t> value = find_size(key, limit);
    if (!value) fail(key, "missing");
    return *value;
  }

  /// A positive finite number.
  std::optional<double> find_positive(const char* key) const {
    const std::optional<double> value = file_.number(name(key));
    if (value && !(*value > 0 && std::isfinite(*value))) fail(key, "out of range");
    return value;
  }

  std::optional<std::string_view> text(const char* key) const { return file_.text(name(key)); }

 private:
  const Gguf& file_;
  std::string architecture_;
};

void read_rope(const Gguf& file, const Keys& keys, Config& config) {
  config.rope_base = keys.find_positive("rope.freq_base").value_or(10000.0);
  const std::size_t turning = keys.find_size("rope.dimension_count", config.head_dim).value_or(config.head_dim);
  if (turning % 2 != 0) keys.fail("rope.dimension_count", "odd");
  config.rope_pairs = turning / 2;

  // A factor without a type is a linear one; older files spell it differently.
  const std::string_view scaling = keys.text("rope.scaling.type").value_or("linear");
  const double older_factor = keys.find_positive("rope.scale_linear").value_or(1);
  const double factor = keys.find_positive("rope.scaling.factor").value_or(older_factor);
  if (scaling == "linear") {
    config.rope_scale = 1 / factor;
  } else if (scaling != "none") {
    keys.fail("rope.scaling.type", "not one of none, linear");
  }

  if (const Tensor* tensor = file.find("rope_freqs.weight")) {
    if (tensor->type != TensorType::kF32 || tensor->rows() != 1 || tensor->columns() != config.rope_pairs ||
        tensor->data.size() != config.rope_pairs * sizeof(float)) {
      throw Error(file.path() + ": tensor rope_freqs.weight: not one F32 number for each pair of rotary dimensions");
    }
    config.rope_divisors.resize(config.rope_pairs);
    std::memcpy(config.rope_divisors.data(), tensor->data.data(), tensor->data.size());
    for (const float divisor : config.rope_divisors) {
      if (!(divisor > 0 && std::isfinite(divisor)))
        throw Error(file.path() + ": tensor rope_freqs.weight: not positive");
    }
  }
}

}  // namespace

Config Config::from(const Gguf& file) {
  const std::optional<std::string_view> architecture = file.text("general.architecture");
  if (!architecture) throw Error(file.path() + ": general.architecture: missing");
  if (*architecture != "llama" && *architecture != "qwen2") {
    throw Error(file.path() + ": general.architecture: " + detail::quoted(*architecture) +
                " is not one of llama, qwen2");
  }
  if (const std::string_view type = file.text("general.type").value_or("model"); type != "model") {
    throw Error(file.path() + ": general.type: " + detail::quoted(type) + " is not a model");
  }
  const Keys keys(file, std::string(*architecture));

  Config config;
  config.layers = keys.size("block_count", 4096);
  config.width = keys.size("embedding_length", 32768);
  config.ffn_width = keys.size("feed_forward_length", 32768);
  config.query_heads = keys.size("attention.head_count", 1024);
  config.kv_heads = keys.find_size("attention.head_count_kv", config.query_heads).value_or(config.query_heads);
  if (config.query_heads % config.kv_heads != 0)
    keys.fail("attention.head_count_kv", "does not divide the query heads");
  if (const std::optional<std::size_t> length = keys.find_size("attention.key_length", 1024)) {
    config.head_dim = *length;
  } else {
    if (config.width % config.query_heads != 0) keys.fail("attention.head_count", "does not divide the width");
    config.head_dim = config.width / config.query_heads;
  }
  if (config.query_heads * config.head_dim > 32768) keys.fail("attention.key_length", "out of range");
  if (keys.find_size("attention.value_length", 1024).value_or(config.head_dim) != config.head_dim) {
    keys.fail("attention.value_length", "differs from the length of keys");
  }
  config.context = keys.size("context_length", 1u << 30);
  const std::optional<double> epsilon = keys.find_positive("attention.layer_norm_rms_epsilon");
  if (!epsilon) keys.fail("attention.layer_norm_rms_epsilon", "missing");
  config.norm_epsilon = static_cast<float>(*epsilon);
  config.rope_adjacent = *architecture == "llama";
  read_rope(file, keys, config);
  check_other_keys(file, std::string(*architecture), config);

  const std::uint64_t weights = weights_fingerprint(file);
  config.weights = static_cast<std::uint32_t>(weights ^ weights >> 32) | 1;

  const Tensor& embedding = file.tensor("token_embd.weight");
  if (embedding.columns() != config.width)
    throw Error(file.path() + ": tensor token_embd.weight: rows are not as long as the width");
  if (embedding.rows() == 0 || embedding.rows() > (1u << 22))
    throw Error(file.path() + ": tensor token_embd.weight: wrong size");
  config.vocabulary = static_cast<std::size_t>(embedding.rows());
  return config;
}

}  // namespace nibkv::llm
