#include "tests/tiny/tiny_llama.hpp"

#include <cmath>
#include <cstring>

#include "bench/runner/gguf/half.hpp"
#include "bench/runner/matmul/elementwise.hpp"
#include "bench/runner/matmul/kernels.hpp"

namespace nibkv::metal {
namespace {

constexpr std::size_t kBlock = 32;  // weights of Q8_0
constexpr std::size_t kBlockBytes = 2 + kBlock;
constexpr std::uint32_t kF32 = 0, kQ8 = 8;      // types of tensors
constexpr std::uint32_t kText = 8, kArray = 9;  // types of metadata

// Reads the bytes of a file in order. Past the end everything is 0, and `good` is false.
class Cursor {
 public:
  explicit Cursor(std::span<const std::byte> bytes) : bytes_(bytes) {}

  template <typename T>
  T number() {
    T value{};
    if (take(sizeof value)) std::memcpy(&value, bytes_.data() + at_ - sizeof value, sizeof value);
    return value;
  }
  std::string_view text() {
    const auto length = number<std::uint64_t>();
    if (!take(length)) return {};
    return {reinterpret_cast<const char*>(bytes_.data() + at_ - length), static_cast<std::size_t>(length)};
  }
  void skip_value(std::uint32_t type) {
    if (type == kText) {
      text();
    } else if (type == kArray) {
      const auto element = number<std::uint32_t>();
      const auto count = number<std::uint64_t>();
      for (std::uint64_t i = 0; i < count && good_; ++i) {
        if (element == kArray) good_ = false;
        if (element != kArray) skip_value(element);
      }
    } else {
      constexpr std::uint8_t kBytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
      if (type >= sizeof kBytes) good_ = false;
      if (good_) take(kBytes[type]);
    }
  }
  bool good() const { return good_; }
  std::size_t position() const { return at_; }

 private:
  bool take(std::uint64_t bytes) {
    good_ = good_ && bytes <= bytes_.size() - at_;
    if (good_) at_ += static_cast<std::size_t>(bytes);
    return good_;
  }

  std::span<const std::byte> bytes_;
  std::size_t at_ = 0;
  bool good_ = true;
};

struct Header {
  std::uint64_t tensors = 0;
  std::uint64_t entries = 0;
};

Header read_header(Cursor& cursor) {
  const bool right = cursor.number<std::uint32_t>() == 0x46554747 && cursor.number<std::uint32_t>() == 3;
  Header header;
  header.tensors = cursor.number<std::uint64_t>();
  header.entries = cursor.number<std::uint64_t>();
  return right && cursor.good() ? header : Header{};
}

// The bits of a 32-bit number in the metadata; 0 if it is missing.
std::uint32_t metadata(std::span<const std::byte> file, std::string_view name) {
  Cursor cursor(file);
  const Header header = read_header(cursor);
  for (std::uint64_t i = 0; i < header.entries && cursor.good(); ++i) {
    const std::string_view key = cursor.text();
    const auto type = cursor.number<std::uint32_t>();
    if (key == name && (type == 4 || type == 6)) return cursor.number<std::uint32_t>();
    cursor.skip_value(type);
  }
  return 0;
}

// The data of a tensor of this type and shape; null if there is none.
const std::byte* tensor(std::span<const std::byte> file, std::string_view name, std::uint32_t type, std::size_t columns,
                        std::size_t rows) {
  Cursor cursor(file);
  const Header header = read_header(cursor);
  for (std::uint64_t i = 0; i < header.entries && cursor.good(); ++i) {
    cursor.text();
    cursor.skip_value(cursor.number<std::uint32_t>());
  }
  std::uint64_t found = 0;
  bool any = false;
  for (std::uint64_t i = 0; i < header.tensors && cursor.good(); ++i) {
    const bool same = cursor.text() == name;
    std::uint64_t shape[4] = {1, 1, 1, 1};
    const auto dimensions = cursor.number<std::uint32_t>();
    for (std::uint32_t d = 0; d < dimensions && d < 4; ++d) shape[d] = cursor.number<std::uint64_t>();
    const bool fits =
        cursor.number<std::uint32_t>() == type && dimensions <= 4 && shape[0] == columns && shape[1] == rows;
    const auto offset = cursor.number<std::uint64_t>();
    if (same && !fits) return nullptr;
    if (same) any = true, found = offset;
  }
  const std::size_t start = (cursor.position() + kBlock - 1) / kBlock * kBlock;  // the alignment of files of version 3
  const std::size_t bytes = type == kF32 ? columns * 4 : rows * columns / kBlock * kBlockBytes;
  const bool inside = any && cursor.good() && start <= file.size() && found <= file.size() - start &&
                      bytes <= file.size() - start - found;
  return inside ? file.data() + start + found : nullptr;
}

// blk.<index>.<name>.weight
struct Name {
  char text[40];
  Name(std::size_t index, const char* name) {
    std::strcpy(text, "blk.0.");
    text[4] = static_cast<char>('0' + index);
    std::strcat(text, name);
    std::strcat(text, ".weight");
  }
};

float block_scale(const std::byte* block) {
  std::uint16_t bits;
  std::memcpy(&bits, block, sizeof bits);
  return llm::f16_to_f32(bits);
}

}  // namespace

bool TinyLlama::open(std::span<const std::byte> file) {
  if (reinterpret_cast<std::uintptr_t>(file.data()) % kBlock != 0) return false;
  layer_count_ = metadata(file, "llama.block_count");
  width_ = metadata(file, "llama.embedding_length");
  ffn_ = metadata(file, "llama.feed_forward_length");
  query_heads_ = metadata(file, "llama.attention.head_count");
  kv_heads_ = metadata(file, "llama.attention.head_count_kv");
  head_dim_ = metadata(file, "llama.attention.key_length");
  vocabulary_ = metadata(file, "llama.vocab_size");
  const std::uint32_t epsilon = metadata(file, "llama.attention.layer_norm_rms_epsilon");
  const std::uint32_t base = metadata(file, "llama.rope.freq_base");
  std::memcpy(&norm_epsilon_, &epsilon, sizeof epsilon);
  float wide_base;
  std::memcpy(&wide_base, &base, sizeof base);
  rope_base_ = static_cast<double>(wide_base);
  if (layer_count_ == 0 || layer_count_ > kMostLayers || width_ == 0 || width_ > kMostWidth || width_ % kBlock != 0)
    return false;
  if (ffn_ == 0 || ffn_ > kMostFfn || ffn_ % kBlock != 0 || vocabulary_ == 0 || vocabulary_ > kMostVocabulary)
    return false;
  if (!valid(shape()) || query_heads_ * head_dim_ > kMostWidth || query_heads_ * head_dim_ % kBlock != 0) return false;
  if (metadata(file, "llama.rope.dimension_count") != head_dim_) return false;
  embedding_ = {tensor(file, "token_embd.weight", kQ8, width_, vocabulary_), vocabulary_, width_};
  output_norm_ = reinterpret_cast<const float*>(tensor(file, "output_norm.weight", kF32, width_, 1));
  if (embedding_.data == nullptr || output_norm_ == nullptr) return false;
  for (std::size_t i = 0; i < layer_count_; ++i) {
    if (!read_layer(file, i)) return false;
  }
  return true;
}

bool TinyLlama::read_layer(std::span<const std::byte> file, std::size_t index) {
  bool whole = true;
  const auto norm = [&](const char* name) {
    const std::byte* data = tensor(file, Name(index, name).text, kF32, width_, 1);
    whole = whole && data != nullptr;
    return reinterpret_cast<const float*>(data);
  };
  const auto matrix = [&](const char* name, std::size_t rows, std::size_t columns) {
    const Matrix read = {tensor(file, Name(index, name).text, kQ8, columns, rows), rows, columns};
    whole = whole && read.data != nullptr;
    return read;
  };
  const std::size_t query_width = query_heads_ * head_dim_, kv_width = kv_heads_ * head_dim_;
  Layer& layer = layers_[index];
  layer.attention_norm = norm("attn_norm");
  layer.query = matrix("attn_q", query_width, width_);
  layer.key = matrix("attn_k", kv_width, width_);
  layer.value = matrix("attn_v", kv_width, width_);
  layer.attention_out = matrix("attn_output", width_, query_width);
  layer.ffn_norm = norm("ffn_norm");
  layer.gate = matrix("ffn_gate", ffn_, width_);
  layer.up = matrix("ffn_up", ffn_, width_);
  layer.down = matrix("ffn_down", width_, ffn_);
  return whole;
}

Shape TinyLlama::shape() const {
  Shape shape;
  shape.layers = static_cast<std::uint16_t>(layer_count_);
  shape.query_heads = static_cast<std::uint16_t>(query_heads_);
  shape.kv_heads = static_cast<std::uint16_t>(kv_heads_);
  shape.head_dim = static_cast<std::uint16_t>(head_dim_);
  return shape;
}

void TinyLlama::set_inputs(const float* row, std::size_t columns) {
  llm::kScalarMatmul.quantise(row, columns, input_codes_, input_scales_, input_moments_, input_sums_);
}

// Groups are added in order, as the runner's kernels do.
void TinyLlama::multiply(const Matrix& matrix, float* out) const {
  const std::byte* block = matrix.data;
  for (std::size_t r = 0; r < matrix.rows; ++r) {
    float total = 0;
    for (std::size_t g = 0; g < matrix.columns / kBlock; ++g, block += kBlockBytes) {
      const auto* weights = reinterpret_cast<const std::int8_t*>(block + 2);
      const std::int8_t* inputs = input_codes_ + g * kBlock;
      std::int32_t dot = 0;
      for (std::size_t i = 0; i < kBlock; ++i) dot += weights[i] * inputs[i];
      total += static_cast<float>(dot) * (block_scale(block) * input_scales_[g]);
    }
    out[r] = total;
  }
}

Status TinyLlama::feed(std::uint32_t token, Cache& cache) {
  const std::size_t pairs = head_dim_ / 2;
  for (std::size_t i = 0; i < pairs; ++i) {
    const double angle = cache.seen(0) * std::pow(rope_base_, -static_cast<double>(i) / static_cast<double>(pairs));
    cosines_[i] = static_cast<float>(std::cos(angle));
    sines_[i] = static_cast<float>(std::sin(angle));
  }
  for (std::size_t c = 0; c < width_; ++c) {
    const std::byte* block = embedding_.data + (token * width_ + c) / kBlock * kBlockBytes;
    hidden_[c] = static_cast<float>(static_cast<std::int8_t>(block[2 + c % kBlock])) * block_scale(block);
  }
  for (std::size_t index = 0; index < layer_count_; ++index) {
    const Layer& layer = layers_[index];
    if (index > 0) llm::add(hidden_, projected_, width_);
    llm::rms_norm(hidden_, layer.attention_norm, norm_epsilon_, width_, normed_);
    set_inputs(normed_, width_);
    multiply(layer.query, queries_);
    multiply(layer.key, keys_);
    multiply(layer.value, values_);
    for (std::size_t h = 0; h < query_heads_; ++h) llm::rotate(queries_ + h * head_dim_, cosines_, sines_, pairs, true);
    for (std::size_t h = 0; h < kv_heads_; ++h) llm::rotate(keys_ + h * head_dim_, cosines_, sines_, pairs, true);
    const std::size_t query_width = query_heads_ * head_dim_, kv_width = kv_heads_ * head_dim_;
    Status status = append(cache, static_cast<std::uint32_t>(index), {keys_, kv_width}, {values_, kv_width});
    if (status != Status::kOk) return status;
    status = attend(cache, static_cast<std::uint32_t>(index), {queries_, query_width}, {attended_, query_width});
    if (status != Status::kOk) return status;
    set_inputs(attended_, query_width);
    multiply(layer.attention_out, projected_);

    llm::add(hidden_, projected_, width_);
    llm::rms_norm(hidden_, layer.ffn_norm, norm_epsilon_, width_, normed_);
    set_inputs(normed_, width_);
    multiply(layer.gate, gate_);
    multiply(layer.up, up_);
    llm::kScalarMatmul.swiglu(gate_, up_, ffn_);
    set_inputs(gate_, ffn_);
    multiply(layer.down, projected_);
  }
  llm::add(hidden_, projected_, width_);
  llm::rms_norm(hidden_, output_norm_, norm_epsilon_, width_, normed_);
  set_inputs(normed_, width_);
  multiply(embedding_, logits_);
  return Status::kOk;
}

}  // namespace nibkv::metal
