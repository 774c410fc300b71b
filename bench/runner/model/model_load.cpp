#include <cmath>

#include "bench/runner/gguf/blocks.hpp"
#include "bench/runner/gguf/gguf_cursor.hpp"
#include "bench/runner/model/model.hpp"

namespace nibkv::llm {

const Tensor& Model::take(const std::string& name) {
  taken_.insert(name);
  return file_.tensor(name);
}

std::vector<float> Model::take_vector(const std::string& name, std::size_t length, bool optional) {
  if (optional && file_.find(name) == nullptr) return {};
  const Tensor& tensor = take(name);
  if (tensor.columns() != length || tensor.rows() != 1 || tensor.data.size() != row_bytes(tensor.type, length)) {
    throw Error(file_.path() + ": tensor " + name + ": not " + std::to_string(length) + " numbers");
  }
  std::vector<float> values(length);
  dequantise(tensor.type, tensor.data.data(), values.data(), length);
  file_.give_back(tensor.data);
  for (const float value : values) {
    if (!std::isfinite(value)) throw Error(file_.path() + ": tensor " + name + ": not finite");
  }
  return values;
}

Matrix Model::take_matrix(const std::string& name, std::size_t rows, std::size_t columns) {
  const Tensor& tensor = take(name);
  if (tensor.columns() != columns || tensor.rows() != rows) {
    throw Error(file_.path() + ": tensor " + name + ": not " + std::to_string(rows) + " rows of " +
                std::to_string(columns));
  }
  return Matrix(tensor, pool_, &file_);
}

void Model::load_layer(std::size_t index) {
  const std::string prefix = "blk." + std::to_string(index) + ".";
  const std::size_t query_width = config_.query_heads * config_.head_dim;
  const std::size_t kv_width = config_.kv_heads * config_.head_dim;
  Layer layer;
  layer.attention_norm = take_vector(prefix + "attn_norm.weight", config_.width, false);
  layer.query = take_matrix(prefix + "attn_q.weight", query_width, config_.width);
  layer.key = take_matrix(prefix + "attn_k.weight", kv_width, config_.width);
  layer.value = take_matrix(prefix + "attn_v.weight", kv_width, config_.width);
  layer.query_bias = take_vector(prefix + "attn_q.bias", query_width, true);
  layer.key_bias = take_vector(prefix + "attn_k.bias", kv_width, true);
  layer.value_bias = take_vector(prefix + "attn_v.bias", kv_width, true);
  layer.attention_out = take_matrix(prefix + "attn_output.weight", config_.width, query_width);
  layer.ffn_norm = take_vector(prefix + "ffn_norm.weight", config_.width, false);
  layer.gate = take_matrix(prefix + "ffn_gate.weight", config_.ffn_width, config_.width);
  layer.up = take_matrix(prefix + "ffn_up.weight", config_.ffn_width, config_.width);
  layer.down = take_matrix(prefix + "ffn_down.weight", config_.width, config_.ffn_width);
  layers_.push_back(std::move(layer));
}

void Model::load() {
  embedding_ = &take("token_embd.weight");
  for (std::size_t index = 0; index < config_.layers; ++index) load_layer(index);
  output_norm_ = take_vector("output_norm.weight", config_.width, false);
  const bool tied = file_.find("output.weight") == nullptr;
  output_ = take_matrix(tied ? "token_embd.weight" : "output.weight", config_.vocabulary, config_.width);
  taken_.insert("rope_freqs.weight");  // read with the configuration
  for (const Tensor& tensor : file_.tensors()) {
    // A tensor that was not read means another kind of model, which would compute nonsense.
    if (taken_.find(tensor.name) == taken_.end())
      throw Error(file_.path() + ": tensor " + detail::quoted(tensor.name) + ": not expected");
  }
  taken_.clear();
  file_.give_back();
}

}  // namespace nibkv::llm
