// Model files that are damaged, forged or incomplete: one line names the file, and nothing is
// allocated for sizes that a file only claims.
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <fstream>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tests/programs/program.hpp"
#include "tests/support/effort.hpp"
#include "tests/support/gguf_writer.hpp"

namespace {

using nibkv::llm::TensorType;
using nibkv::llm::test::GgufWriter;
using nibkv::test::contents;
using nibkv::test::in_quotes;
using nibkv::test::Result;

class ModelFilesTest : public nibkv::test::ProgramTest {
 protected:
  ModelFilesTest() : ProgramTest("nibkv-assistant") {}

  void expect_refusal(std::span<const std::byte> bytes, const std::string& why) const {
    const std::string path = folder_ + "/odd.gguf";
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
#if defined(__x86_64__) && !defined(NIBKV_SANITIZED)
    const std::string little_memory = "ulimit -v 200000; ";
#else
    const std::string little_memory;  // emulators and sanitizers need more for themselves
#endif
    const Result result = run("--profile none --prompt x --model " + in_quotes(path), "", little_memory);
    expect_error(result, 1, path + ": " + why);
  }
};

TEST_F(ModelFilesTest, RefuseADimensionOfZero) {  // ggml-org/ggml#1517
  GgufWriter writer;
  writer.set("general.architecture", "llama").describe_tensor("token_embd.weight", 0, {128, 0}, 0);
  expect_refusal(writer.bytes(), "tensor 'token_embd.weight' has a dimension of zero");
}

TEST_F(ModelFilesTest, RefuseCountsSizesAndTypesThatCannotBe) {  // ggml-org/ggml#709
  const auto head = [](std::uint64_t tensors, std::uint64_t entries) {
    return GgufWriter().claim_tensors(tensors).claim_metadata(entries).bytes();
  };
  ASSERT_EQ(head(1, 0).size(), 24u);
  expect_refusal(head((std::uint64_t{1} << 48) - 1, 0), "the number of tensors");
  expect_refusal(head(0, ~std::uint64_t{0}), "the number of metadata entries");
  const auto tensor = [](std::uint32_t type, const std::vector<std::uint64_t>& shape) {
    return GgufWriter().describe_tensor("odd", type, shape, 0).bytes();
  };
  constexpr std::uint64_t kHuge = ~std::uint64_t{0} - 31;
  expect_refusal(tensor(0, {1, 1, 1, 1, 1}), "tensor 'odd' has 5 dimensions");
  expect_refusal(tensor(999, {32}), "tensor 'odd' has type 999");
  expect_refusal(tensor(0, {kHuge}), "tensor 'odd' has an impossible size");
  expect_refusal(tensor(2, {kHuge / 32 * 32, 32}), "tensor 'odd' has an impossible size");
  expect_refusal(tensor(2, {32, std::uint64_t{1} << 40}), "tensor 'odd' runs past the end");
  nibkv::llm::test::ByteWriter length;
  length.number(kHuge);
  expect_refusal(GgufWriter().set_raw("odd", GgufWriter::kText, length.bytes()).bytes(), "metadata 'odd'");
}

TEST_F(ModelFilesTest, RefuseEveryCut) {  // ggml-org/ggml#709
  const std::string whole = contents(model_);
  const auto bytes = std::as_bytes(std::span(whole));
  // The header in small steps, then some places in the weights.
  for (std::size_t size = 0; size < 8192; size += 64 * 7 * nibkv::test::kEvery) expect_refusal(bytes.first(size), "");
  for (std::size_t part = 1; part < 8; ++part) {
    expect_refusal(bytes.first(bytes.size() * part / 8), "");
  }
  expect_refusal(bytes.first(bytes.size() - 1), "tensor '");
}

TEST_F(ModelFilesTest, RefuseBothPartsOfAModelInTwo) {  // vllm-project/vllm-metal#720
  for (std::uint16_t part = 0; part < 2; ++part) {
    GgufWriter writer;
    if (part == 0) writer.set("general.architecture", "llama").set("llama.block_count", std::uint32_t{4});
    writer.set("split.no", part).set("split.count", std::uint16_t{2}).set("split.tensors.count", std::int32_t{2});
    const std::vector<std::byte> weights(32 * 4);
    writer.add_tensor("blk." + std::to_string(part) + ".attn_norm.weight", TensorType::kF32, {32}, weights);
    expect_refusal(writer.bytes(),
                   "is part " + std::to_string(part + 1) + " of a model in 2 parts; only a model in one");
  }
}

// Parts of a model that say it by their names alone: tensors are missing, or the file is cut.
TEST_F(ModelFilesTest, SaysOfAFileThatIsNamedLikeAPartThatItIsOne) {
  const std::string whole = contents(model_);
  GgufWriter first;
  first.set("general.architecture", "llama").set("llama.block_count", 1u).set("llama.context_length", 64u);
  first.set("llama.embedding_length", 64u).set("llama.feed_forward_length", 64u);
  first.set("llama.attention.head_count", 1u).set("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  first.set("tokenizer.ggml.model", "gpt2").set_array("tokenizer.ggml.tokens", std::vector<std::string>{"a", "b"});
  first.add_tensor("token_embd.weight", TensorType::kF32, {64, 2}, std::vector<std::byte>(64 * 2 * 4));
  const auto bytes = first.bytes();
  const std::string missing(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  const auto error_of = [&](const std::string& name, const std::string& bytes_of_it) {
    const std::string path = folder_ + "/" + name;
    std::ofstream(path, std::ios::binary) << bytes_of_it;
    const Result result = run("--profile none --max-tokens 1 --prompt x --model " + in_quotes(path));
    EXPECT_EQ(result.status, 1);
    return result.err;
  };
  for (const std::string& odd : {missing, whole.substr(0, whole.size() / 2), whole.substr(whole.size() / 2)}) {
    EXPECT_NE(error_of("m-00002-of-00013.gguf", odd)
                  .find("; by its name it is part 2 of a model in 13 parts; only a model in one "),
              std::string::npos)
        << error_of("m-00002-of-00013.gguf", odd);
    for (const char* name : {"m-00001-of-00001.gguf", "m-0002-of-0013.gguf", "m-00002-of-00013.ggux", "m.gguf"}) {
      EXPECT_EQ(error_of(name, odd).find("by its name"), std::string::npos) << name;
    }
  }
  EXPECT_NE(error_of("m.gguf", missing).find("m.gguf: has no tensor '"), std::string::npos) << error_of("m", missing);
  std::ofstream(folder_ + "/w-00001-of-00003.gguf", std::ios::binary) << whole;
  EXPECT_EQ(
      run("--profile none --max-tokens 1 --prompt x --model " + in_quotes(folder_ + "/w-00001-of-00003.gguf")).status,
      0)
      << "a whole model under such a name is taken";
}

}  // namespace
