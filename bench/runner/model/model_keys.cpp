#include "bench/runner/model/model_keys.hpp"

#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>

#include "bench/runner/gguf/gguf_cursor.hpp"

namespace nibkv::llm {
namespace {

// The keys that Config::from reads.
constexpr std::string_view kRead[] = {
    "block_count",          "context_length",         "embedding_length",
    "feed_forward_length",  "attention.head_count",   "attention.head_count_kv",
    "attention.key_length", "attention.value_length", "attention.layer_norm_rms_epsilon",
    "rope.dimension_count", "rope.freq_base",         "rope.scaling.type",
    "rope.scaling.factor",  "rope.scale_linear"};

// Keys that do not affect this runner. Those of a sliding window's details: it has none.
constexpr std::string_view kWithoutEffect[] = {"vocab_size",
                                               "rope.scaling.original_context_length",
                                               "rope.scaling.finetuned",
                                               "attention.sliding_window_pattern",
                                               "attention.key_length_swa",
                                               "attention.value_length_swa",
                                               "rope.freq_base_swa",
                                               "rope.dimension_count_swa"};

// Keys that have no effect, but only with these values. A scale of 0 means none.
struct Off {
  std::string_view key;
  double value, other;
};
constexpr Off kOff[] = {{"attn_logit_softcapping", 0, 0},
                        {"final_logit_softcapping", 0, 0},
                        {"router_logit_softcapping", 0, 0},
                        {"logit_scale", 1, 0},
                        {"residual_scale", 1, 0},
                        {"embedding_scale", 1, 0},
                        {"attention.output_scale", 1, 0},
                        {"attention.value_scale", 1, 0},
                        {"attention.temperature_scale", 0, 0},
                        {"attention.clamp_kqv", 0, 0},
                        {"attention.max_alibi_bias", 0, 0},
                        {"rope.scaling.attn_factor", 1, 0},
                        {"rope.scaling.yarn_log_multiplier", 0, 0},
                        {"expert_count", 0, 0},
                        {"expert_used_count", 0, 0},
                        {"expert_shared_count", 0, 0},
                        {"expert_feed_forward_length", 0, 0},
                        {"leading_dense_block_count", 0, 0},
                        {"interleave_moe_layer_step", 0, 0},
                        {"nextn_predict_layers", 0, 0},
                        {"pooling_type", 0, 0}};

struct Flag {
  std::string_view key;
  bool value;
};
constexpr Flag kFlags[] = {{"attention.causal", true}, {"use_parallel_residual", false}, {"swin_norm", false}};

template <typename Range>
bool lists(const Range& keys, std::string_view key) {
  return std::find(std::begin(keys), std::end(keys), key) != std::end(keys);
}

/// Whether the key, `key` without its architecture, has no effect.
bool asks_for_nothing(const Gguf& file, const std::string& name, std::string_view key, const Config& config) {
  if (lists(kWithoutEffect, key)) return true;
  for (const Off& off : kOff) {
    if (key != off.key) continue;
    const std::optional<double> value = file.number(name);
    return value == off.value || value == off.other;
  }
  for (const Flag& flag : kFlags) {
    if (key == flag.key) return file.boolean(name) == flag.value;
  }
  if (key == "attention.sliding_window") {
    const std::uint64_t window = file.integer(name).value_or(0);
    return window == 0 || window >= config.context;
  }
  if (key == "attention.scale") {
    const double scale = file.number(name).value_or(0);
    return scale == 0 || std::abs(scale * std::sqrt(static_cast<double>(config.head_dim)) - 1) < 1e-5;
  }
  // The order of rows of queries and keys.
  return key == "tensor_data_layout" && file.text(name) == "Meta AI original pth";
}

}  // namespace

void check_other_keys(const Gguf& file, const std::string& architecture, const Config& config) {
  const std::string prefix = architecture + ".";
  for (const std::string_view name : file.keys()) {
    if (!name.starts_with(prefix)) continue;
    const std::string_view key = name.substr(prefix.size());
    if (lists(kRead, key) || asks_for_nothing(file, std::string(name), key, config)) continue;
    throw Error(file.path() + ": metadata " + detail::quoted(name) +
                " changes what the model computes, in a way that this program does not know");
  }
}

}  // namespace nibkv::llm
