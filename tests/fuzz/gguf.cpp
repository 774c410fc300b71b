// A GGUF file: an Error, or a model, a tokenizer and a chat made from it.
#include "bench/runner/gguf/gguf.hpp"

#include <gtest/gtest.h>

#include "bench/assistant/conversation.hpp"
#include "bench/runner/gguf/fingerprint.hpp"
#include "bench/runner/model/model.hpp"
#include "bench/runner/text/chat.hpp"
#include "tests/fuzz/targets.hpp"
#include "tests/runner/text/vocabularies.hpp"
#include "tests/support/gguf_writer.hpp"

namespace nibkv::fuzz {
namespace {

using namespace llm;

// Calls `use`; an Error is an acceptable result.
template <typename Use>
void allow_error(Use use) {
  try {
    use();
  } catch (const Error& error) {
    EXPECT_NE(std::string_view(error.what()), "");
    EXPECT_EQ(std::string_view(error.what()).find('\n'), std::string_view::npos) << error.what();
  }
}

void use_tensors(const Gguf& file) {
  unsigned sum = 0;
  for (const Tensor& tensor : file.tensors()) {
    EXPECT_EQ(file.find(tensor.name) != nullptr, true);
    if (tensor.data.empty()) continue;
    sum += std::to_integer<unsigned>(tensor.data.front()) + std::to_integer<unsigned>(tensor.data.back());
  }
  EXPECT_LT(sum, ~0u);
}

test::GgufWriter model_file(TensorType type) {
  test::GgufWriter writer = test::metadata_of(test::byte_pairs(PreSplitter::kSmolLm, {"a b", "ab c"}));
  writer.set("tokenizer.ggml.model", "gpt2").set("tokenizer.ggml.pre", "smollm");
  writer.set("general.architecture", "llama").set("llama.block_count", 1u).set("llama.context_length", 64u);
  writer.set("llama.embedding_length", 32u).set("llama.feed_forward_length", 32u);
  writer.set("llama.attention.head_count", 2u).set("llama.attention.head_count_kv", 1u);
  writer.set("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  const std::size_t row = type == TensorType::kF32 ? 32 * 4 : 34;  // Q8_0: 2 + 32
  const auto add = [&](const std::string& name, std::uint64_t rows) {
    writer.add_tensor(name, type, {32, rows}, std::vector<std::byte>(row * rows, std::byte{0x31}));
  };
  const auto add_norm = [&](const std::string& name) {
    writer.add_tensor(name, TensorType::kF32, {32}, std::vector<std::byte>(128, std::byte{0x3f}));
  };
  add("token_embd.weight", 258);
  add_norm("output_norm.weight");
  add_norm("blk.0.attn_norm.weight");
  add_norm("blk.0.ffn_norm.weight");
  add("blk.0.attn_q.weight", 32);
  add("blk.0.attn_k.weight", 16);
  add("blk.0.attn_v.weight", 16);
  for (const char* name : {"attn_output", "ffn_gate", "ffn_up", "ffn_down"}) {
    add("blk.0." + std::string(name) + ".weight", 32);
  }
  return writer;
}

}  // namespace

void gguf(std::span<const std::byte> input) {
  static const test::TemporaryFile place;
  static ThreadPool pool(1);
  place.rewrite(input);
  allow_error([] {
    const Gguf file = Gguf::open(place.path());
    use_tensors(file);
    allow_error([&] { (void)model_fingerprint(file); });
    allow_error([&] {
      const Tokenizer tokenizer = Tokenizer::from(file);
      const std::vector<std::int32_t> ids = tokenizer.encode("abc, <|im_end|>\n \xff", true, true);
      for (const std::int32_t id : ids) (void)tokenizer.decode(id);
      (void)Chat::from(file, tokenizer).first("Be brief.", "What?");
    });
    allow_error([&] { const Model model(file, pool); });
  });
}

std::vector<Input> gguf_seeds() {
  test::GgufWriter values;
  values.set("u8", std::uint8_t{200}).set("i64", std::int64_t{-1}).set("f64", 0.1).set("true", true);
  values.set_array("texts", std::vector<std::string>{"one", "", "three"});
  values.set_array("booleans", std::vector<bool>{true, false}).align(8);
  values.add_tensor("a", TensorType::kF16, {5}, std::vector<std::byte>(10));
  test::GgufWriter pieces = test::metadata_of(test::sentence_pieces());
  pieces.set("tokenizer.ggml.model", "llama");
  return {model_file(TensorType::kQ8_0).bytes(), model_file(TensorType::kF32).bytes(), values.bytes(), pieces.bytes(),
          test::GgufWriter().bytes()};
}

}  // namespace nibkv::fuzz
