#include "bench/runner/model/model.hpp"

#include <algorithm>
#include <cmath>

#include "bench/runner/gguf/blocks.hpp"
#include "bench/runner/matmul/elementwise.hpp"
#include "bench/runner/text/token_classes.hpp"

namespace nibkv::llm {
namespace {

constexpr std::size_t kTasksPerWorker = 4;

// The end of a text that is read may be a question, so it counts as if outputs were wanted of it.
constexpr std::size_t kQuestion = 64;  // tokens

}  // namespace

/// Calls fn(matrix) for each matrix.
template <typename F>
void Model::for_each_matrix(F&& fn) const {
  fn(output_);
  for (const Layer& layer : layers_) {
    for (const Matrix* matrix :
         {&layer.query, &layer.key, &layer.value, &layer.attention_out, &layer.gate, &layer.up, &layer.down}) {
      fn(*matrix);
    }
  }
}

Model::Model(const Gguf& file, ThreadPool& pool, const Options& options)
    : file_(file),
      pool_(pool),
      kernels_(find_matmul_kernels(options.kernels)),
      config_(Config::from(file)),
      max_batch_(std::clamp<std::size_t>(options.max_batch, 1, 4096)) {
  load();
}

// As many rows as are ever needed: a store may take far fewer than max_batch_.
void Model::make_room(std::size_t count) {
  if (count <= room_) return;
  room_ = count;
  const std::size_t query_width = config_.query_heads * config_.head_dim;
  const std::size_t kv_width = config_.kv_heads * config_.head_dim;
  const auto rows = [count](std::size_t width) { return std::vector<float>(count * width); };
  hidden_ = rows(config_.width);
  projected_ = rows(config_.width);
  normed_ = rows(config_.width);
  queries_ = rows(query_width);
  attended_ = rows(query_width);
  keys_ = rows(kv_width);
  values_ = rows(kv_width);
  gate_ = rows(config_.ffn_width);
  up_ = rows(config_.ffn_width);
  cosines_ = rows(config_.rope_pairs);
  sines_ = rows(config_.rope_pairs);

  bool codes = false, reals = false;
  for_each_matrix([&](const Matrix& matrix) { (matrix.is_real() ? reals : codes) = true; });
  const std::size_t widest = std::max({config_.width, query_width, config_.ffn_width});
  inputs_ = Activations(count, widest, codes, reals, kernels_);
}

std::size_t Model::weight_bytes() const {
  std::size_t bytes = 0;
  for_each_matrix([&](const Matrix& matrix) { bytes += matrix.bytes(); });
  return bytes;
}

void Model::forward(std::span<const std::int32_t> tokens, std::size_t first_position, KvStore& store, float* logits,
                    std::size_t logit_rows, AttentionObserver* observer) {
  if (logit_rows > tokens.size()) throw Error("more rows of logits than tokens");
  for (const std::int32_t token : tokens) {
    if (token < 0 || static_cast<std::size_t>(token) >= config_.vocabulary) {
      throw Error("token " + std::to_string(token) + " is not in the vocabulary");
    }
  }
  const std::size_t batch = std::min(max_batch_, store.max_batch());
  if (batch == 0) throw Error("the store takes no tokens");
  const std::size_t silent = tokens.size() - logit_rows;  // number of tokens whose logits are not wanted
  for (std::size_t first = 0; first < tokens.size(); first += batch) {
    const std::size_t count = std::min(batch, tokens.size() - first);
    const std::size_t rows = first + count <= silent ? 0 : std::min(count, first + count - silent);
    const std::size_t read_only = silent < kQuestion ? 0 : silent - kQuestion;
    store.reads_only(read_only <= first ? 0 : std::min(count, read_only - first));
    forward_batch(tokens.subspan(first, count), first_position + first, store, logits, rows, observer);
    if (rows > 0) logits += rows * config_.vocabulary;
  }
}

/// Calls fn(token) for each, with several tokens per task.
template <typename F>
void Model::for_each_token(std::size_t count, F&& fn) {
  const std::size_t tasks = std::min(count, pool_.workers() * kTasksPerWorker);
  pool_.run(tasks, [&](std::size_t task, std::size_t) {
    for (std::size_t token = count * task / tasks; token < count * (task + 1) / tasks; ++token) fn(token);
  });
}

void Model::forward_batch(std::span<const std::int32_t> tokens, std::size_t first_position, KvStore& store,
                          float* logits, std::size_t logit_rows, AttentionObserver* observer) {
  const std::size_t count = tokens.size();
  make_room(count);
  const std::size_t stride = row_bytes(embedding_->type, config_.width);
  for_each_token(count, [&](std::size_t t) {
    const std::byte* row = embedding_->data.data() + static_cast<std::size_t>(tokens[t]) * stride;
    dequantise(embedding_->type, row, hidden_.data() + t * config_.width, config_.width);
  });
  file_.give_back(embedding_->data);  // otherwise, in a long run, all of it would stay in memory next to
                                      // the packed weights
  prepare_rotation(first_position, count);
  if (store.reads_classes()) {
    if (classes_.empty()) classes_ = token_classes(Tokenizer::from(file_));
    store.expect(classes_of(classes_, tokens));
  }
  for (std::size_t index = 0; index < layers_.size(); ++index) {
    const Layer& layer = layers_[index];
    normalise(layer.attention_norm, index > 0, 0, count);
    attention(layer, static_cast<int>(index), first_position, count, store, observer);
    normalise(layer.ffn_norm, true, 0, count);
    feed_forward(layer, count);
  }
  if (logit_rows == 0) return;
  normalise(output_norm_, true, count - logit_rows, logit_rows);
  const Product products[] = {{&output_, logits}};
  multiply(products, inputs_, pool_);
}

void Model::normalise(const std::vector<float>& weight, bool add_projected, std::size_t first, std::size_t count) {
  inputs_.reset(count, config_.width);
  for_each_token(count, [&](std::size_t t) {
    const std::size_t at = (first + t) * config_.width;
    if (add_projected) add(hidden_.data() + at, projected_.data() + at, config_.width);
    rms_norm(hidden_.data() + at, weight.data(), config_.norm_epsilon, config_.width, normed_.data() + at);
    inputs_.set_row(t, normed_.data() + at);
  });
}

void Model::attention(const Layer& layer, int index, std::size_t first_position, std::size_t count, KvStore& store,
                      AttentionObserver* observer) {
  const Product inward[] = {
      {&layer.query, queries_.data()}, {&layer.key, keys_.data()}, {&layer.value, values_.data()}};
  multiply(inward, inputs_, pool_);
  for_each_token(count, [&](std::size_t t) { bias_and_rotate(layer, t); });
  if (observer != nullptr) {
    observer->observe(index, first_position, count, queries_.data(), keys_.data(), values_.data());
  }
  const std::size_t query_width = config_.query_heads * config_.head_dim;
  const std::size_t kv_width = config_.kv_heads * config_.head_dim;
  for (std::size_t first = 0; first < count; first += store.max_chunk()) {
    const std::size_t chunk = std::min(store.max_chunk(), count - first);
    store.append(index, chunk, keys_.data() + first * kv_width, values_.data() + first * kv_width, pool_);
    store.attend(index, chunk, queries_.data() + first * query_width, attended_.data() + first * query_width, pool_);
  }

  inputs_.reset(count, query_width);
  for_each_token(count, [&](std::size_t t) { inputs_.set_row(t, attended_.data() + t * query_width); });
  const Product outward[] = {{&layer.attention_out, projected_.data()}};
  multiply(outward, inputs_, pool_);
}

void Model::feed_forward(const Layer& layer, std::size_t count) {
  const Product inward[] = {{&layer.gate, gate_.data()}, {&layer.up, up_.data()}};
  multiply(inward, inputs_, pool_);
  inputs_.reset(count, config_.ffn_width);
  for_each_token(count, [&](std::size_t t) {
    const std::size_t at = t * config_.ffn_width;
    kernels_.swiglu(gate_.data() + at, up_.data() + at, config_.ffn_width);
    inputs_.set_row(t, gate_.data() + at);
  });
  const Product outward[] = {{&layer.down, projected_.data()}};
  multiply(outward, inputs_, pool_);
}

void Model::prepare_rotation(std::size_t first_position, std::size_t count) {
  const std::size_t pairs = config_.rope_pairs;
  for_each_token(count, [&](std::size_t t) {
    const double position = static_cast<double>(first_position + t) * config_.rope_scale;
    for (std::size_t i = 0; i < pairs; ++i) {
      double angle = position * std::pow(config_.rope_base, -static_cast<double>(i) / static_cast<double>(pairs));
      if (!config_.rope_divisors.empty()) angle /= static_cast<double>(config_.rope_divisors[i]);
      cosines_[t * pairs + i] = static_cast<float>(std::cos(angle));
      sines_[t * pairs + i] = static_cast<float>(std::sin(angle));
    }
  });
}

void Model::bias_and_rotate(const Layer& layer, std::size_t token) {
  const float* cosines = cosines_.data() + token * config_.rope_pairs;
  const float* sines = sines_.data() + token * config_.rope_pairs;
  const auto finish = [&](std::vector<float>& rows, std::size_t heads, const std::vector<float>& bias, bool turns) {
    float* row = rows.data() + token * heads * config_.head_dim;
    if (!bias.empty()) add(row, bias.data(), bias.size());
    for (std::size_t h = 0; turns && h < heads; ++h) {
      rotate(row + h * config_.head_dim, cosines, sines, config_.rope_pairs, config_.rope_adjacent);
    }
  };
  finish(queries_, config_.query_heads, layer.query_bias, true);
  finish(keys_, config_.kv_heads, layer.key_bias, true);
  finish(values_, config_.kv_heads, layer.value_bias, false);
}

}  // namespace nibkv::llm
