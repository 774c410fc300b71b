// How much of a model the assistant holds in memory.
#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "bench/runner/gguf/blocks.hpp"
#include "bench/runner/gguf/gguf.hpp"
#include "tests/programs/child.hpp"
#include "tests/programs/program.hpp"
#include "tests/support/gguf_writer.hpp"

namespace {

namespace fs = std::filesystem;

using nibkv::llm::Gguf;
using nibkv::llm::TensorType;
using nibkv::llm::test::GgufWriter;
using nibkv::test::Child;
using nibkv::test::contents;
using nibkv::test::in_quotes;

constexpr std::uint32_t kWidth = 512, kFfn = 2048, kLayers = 40;

/// Writes a model of zeros with the tiny model's vocabulary. Its file is sparse,
/// except for the header.
class LargeModel {
 public:
  explicit LargeModel(const std::string& path) {
    const Gguf tiny = Gguf::open(NIBKV_TINY_MODEL);
    const std::vector<std::string_view> tokens = tiny.texts("tokenizer.ggml.tokens");
    writer_.set("general.architecture", "llama").set("llama.block_count", kLayers);
    writer_.set("llama.embedding_length", kWidth).set("llama.feed_forward_length", kFfn);
    writer_.set("llama.attention.head_count", std::uint32_t{8}).set("llama.attention.head_count_kv", std::uint32_t{2});
    writer_.set("llama.context_length", std::uint32_t{1024}).set("llama.attention.layer_norm_rms_epsilon", 1e-5f);
    writer_.set("tokenizer.ggml.model", "llama").set_array("tokenizer.ggml.tokens", tokens);
    writer_.set_array("tokenizer.ggml.scores", tiny.numbers("tokenizer.ggml.scores"));
    writer_.set_array("tokenizer.ggml.token_type", tiny.integers("tokenizer.ggml.token_type"));
    add("token_embd.weight", TensorType::kQ8_0, kWidth, tokens.size());
    add("output_norm.weight", TensorType::kF32, kWidth, 1);
    for (std::uint32_t layer = 0; layer < kLayers; ++layer) {
      const std::string prefix = "blk." + std::to_string(layer) + ".";
      add(prefix + "attn_norm.weight", TensorType::kF32, kWidth, 1);
      add(prefix + "attn_q.weight", TensorType::kQ5_0, kWidth, kWidth);
      add(prefix + "attn_k.weight", TensorType::kQ8_0, kWidth, kWidth / 4);
      add(prefix + "attn_v.weight", TensorType::kF16, kWidth, kWidth / 4);
      add(prefix + "attn_output.weight", TensorType::kQ4_1, kWidth, kWidth);
      add(prefix + "ffn_norm.weight", TensorType::kF32, kWidth, 1);
      add(prefix + "ffn_gate.weight", TensorType::kQ4_K, kWidth, kFfn);
      add(prefix + "ffn_up.weight", TensorType::kQ5_K, kWidth, kFfn);
      add(prefix + "ffn_down.weight", TensorType::kQ6_K, kFfn, kWidth);
    }
    const std::vector<std::byte> head = writer_.bytes();
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(head.data()), static_cast<std::streamsize>(head.size()));
    bytes_ = head.size() + 31 + offset_;
    fs::resize_file(path, bytes_);
  }

  std::size_t bytes() const { return bytes_; }

 private:
  void add(const std::string& name, TensorType type, std::size_t columns, std::size_t rows) {
    writer_.describe_tensor(name, static_cast<std::uint32_t>(type), {columns, rows}, offset_);
    offset_ += nibkv::llm::row_bytes(type, columns) * rows;
    offset_ = (offset_ + 31) / 32 * 32;
  }

  GgufWriter writer_;
  std::uint64_t offset_ = 0;
  std::size_t bytes_ = 0;
};

class MemoryTest : public nibkv::test::ProgramTest {
 protected:
  MemoryTest() : ProgramTest("nibkv-assistant") {}
};

// ggml-org/llama.cpp#19578: repacked weights and the mapped file take the memory twice.
TEST_F(MemoryTest, IsLittleMoreThanTheFileAndTheArena) {
#ifdef NIBKV_SANITIZED
  GTEST_SKIP() << "sanitizers take memory of their own: build without -fsanitize";
#endif
  if (std::string_view(NIBKV_EMULATOR) != "")
    GTEST_SKIP() << "emulators take memory of their own: build for this machine";
  const std::string path = folder_ + "/large.gguf";
  const LargeModel model(path);
  Child child("exec env " +
              command_line("--model " + in_quotes(path) +
                           " --profile none --tokens 64 --threads 2 --greedy --max-tokens 4 --prompt abc") +
              " 2>" + in_quotes(folder_ + "/err"));
  ASSERT_EQ(child.wait(), 0) << contents(folder_ + "/err");
  const std::string figures = figure(contents(folder_ + "/err"), "arena bytes, used / total");
  std::string arena = figures.substr(figures.find('/') + 1);
  std::erase(arena, ',');
  EXPECT_LE(static_cast<double>(child.peak_bytes()), 1.15 * static_cast<double>(model.bytes()) + std::stod(arena));
  EXPECT_GT(child.peak_bytes(), model.bytes() * 8 / 10) << "all of it was read";
  fs::remove(path);
}

}  // namespace
