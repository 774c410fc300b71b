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

#include "tests/support/effort.hpp"
#include "tests/support/gguf_writer.hpp"
#include "tests/support/program.hpp"

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

}  // namespace
