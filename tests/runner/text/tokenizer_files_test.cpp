#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "bench/runner/gguf/gguf.hpp"
#include "bench/runner/text/tokenizer.hpp"
#include "tests/runner/text/vocabularies.hpp"
#include "tests/support/outside_data.hpp"

// Tokenizers made from files: small ones written here, the tiny model, and, if
// the environment names them, reference vocabularies and texts (NIBKV_TEST_DATA, a folder) and
// SmolLM2-135M-Instruct (NIBKV_MODEL, a file).

namespace nibkv::llm {
namespace {

using Ids = std::vector<std::int32_t>;
using nibkv::test::kNeedsModel;
using nibkv::test::named_by;
using nibkv::test::needs_data;
using test::GgufWriter;
using test::metadata_of;

Tokenizer tokenizer_of(const GgufWriter& writer) {
  const test::TemporaryFile file(writer.bytes());
  return Tokenizer::from(Gguf::open(file.path()));
}

// The message that making a tokenizer from the file throws, or "" if nothing.
std::string refusal(const GgufWriter& writer) {
  try {
    tokenizer_of(writer);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

GgufWriter byte_pair_file() {
  return metadata_of(test::byte_pairs(PreSplitter::kGpt2, {"a b"})).set("tokenizer.ggml.model", "gpt2");
}

GgufWriter sentence_piece_file() {
  return metadata_of(test::sentence_pieces()).set("tokenizer.ggml.model", "llama");
}

std::string read_text(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) ADD_FAILURE() << "cannot read " << path;
  return {std::istreambuf_iterator<char>(stream), {}};
}

// Compares the ids of every text of `inputs` with its line of `outputs`. The text after the last
// separator is a case too: it is empty, and so is its line, which some files omit.
void expect_reference_ids(const Tokenizer& tokenizer, const std::filesystem::path& inputs,
                          const std::filesystem::path& outputs) {
  constexpr std::string_view kSeparator = "\n__ggml_vocab_test__\n";
  const std::string all = read_text(inputs);
  std::istringstream lines(read_text(outputs));
  std::string line;
  int cases = 0;
  for (std::size_t start = 0; start <= all.size(); ++cases) {
    const std::size_t end = std::min(all.find(kSeparator, start), all.size());
    const std::string text = all.substr(start, end - start);
    start = end + kSeparator.size();
    if (!std::getline(lines, line)) {
      ASSERT_EQ(text, "") << "no line for case " << cases;
      line.clear();
    }
    std::istringstream numbers(line);
    const Ids expected{std::istream_iterator<std::int32_t>(numbers), {}};
    const Ids ids = tokenizer.encode(text, false, false);
    EXPECT_EQ(ids, expected) << "case " << cases << " [" << text << ']';
    EXPECT_EQ(tokenizer.decode(ids), text) << "case " << cases;
  }
  EXPECT_EQ(cases, 47);
  EXPECT_FALSE(std::getline(lines, line)) << "a line without a case";
}

class ReferenceVocabulary : public testing::TestWithParam<const char*> {};

TEST_P(ReferenceVocabulary, GivesTheReferenceIds) {
  const auto folder = named_by("NIBKV_TEST_DATA");
  if (!folder) {
    GTEST_SKIP() << needs_data(
        "tokenizer/ggml-vocab-gpt-2.gguf, -llama-spm, -phi-3, and their .inp and .out, all of "
        "llama.cpp's folder models/");
  }
  const std::filesystem::path path = *folder / "tokenizer" / (std::string("ggml-vocab-") + GetParam() + ".gguf");
  expect_reference_ids(Tokenizer::from(Gguf::open(path.string())), path.string() + ".inp", path.string() + ".out");
}

INSTANTIATE_TEST_SUITE_P(Files, ReferenceVocabulary, testing::Values("gpt-2", "llama-spm", "phi-3"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::erase(name, '-');
                           return name;
                         });

TEST(SmolLm2, GivesTheReferenceIds) {
  const auto model = named_by("NIBKV_MODEL");
  const auto folder = named_by("NIBKV_TEST_DATA");
  if (!model) GTEST_SKIP() << kNeedsModel;
  if (!folder)
    GTEST_SKIP() << needs_data("tokenizer/smollm2.inp and .out, texts and the ids that llama.cpp gives them");
  const Tokenizer tokenizer = Tokenizer::from(Gguf::open(model->string()));
  expect_reference_ids(tokenizer, *folder / "tokenizer/smollm2.inp", *folder / "tokenizer/smollm2.out");
}

TEST(SmolLm2, ReadsSpecialTokensInATurn) {
  const auto model = named_by("NIBKV_MODEL");
  if (!model) GTEST_SKIP() << kNeedsModel;
  const Tokenizer tokenizer = Tokenizer::from(Gguf::open(model->string()));
  const std::string turn = "<|im_start|>user\nWhat is 2+2?<|im_end|>\n<|im_start|>assistant\n";
  const Ids ids = tokenizer.encode(turn, true, true);
  EXPECT_EQ(ids, (Ids{1, 4093, 198, 1780, 314, 216, 34, 27, 34, 47, 2, 198, 1, 520, 9531, 198}));
  EXPECT_EQ(tokenizer.decode(ids), turn);
  EXPECT_TRUE(tokenizer.ends_turn(2));
  EXPECT_TRUE(tokenizer.ends_turn(0)) << "<|endoftext|>";
  EXPECT_EQ(tokenizer.eos(), 2);
  EXPECT_FALSE(tokenizer.adds_bos());
  EXPECT_EQ(tokenizer.size(), 49152U);
}

TEST(SmolLm2, TokenisesAWholeTextAndBack) {
  const auto model = named_by("NIBKV_MODEL");
  const auto folder = named_by("NIBKV_TEST_DATA");
  if (!model) GTEST_SKIP() << kNeedsModel;
  if (!folder) GTEST_SKIP() << needs_data("text/wiki.test.raw, the raw test split of WikiText-2");
  const Tokenizer tokenizer = Tokenizer::from(Gguf::open(model->string()));
  const std::string text = read_text(*folder / "text/wiki.test.raw");
  const Ids ids = tokenizer.encode(text, false, true);
  ASSERT_GT(ids.size(), 8U);
  EXPECT_EQ(Ids(ids.begin(), ids.begin() + 8), (Ids{3717, 446, 6356, 389, 9226, 352, 446, 3717}));
  EXPECT_TRUE(tokenizer.decode(ids) == text);
}

#ifdef NIBKV_TINY_MODEL
TEST(TinyVocabulary, HasATokenForEveryByte) {
  const Tokenizer tokenizer = Tokenizer::from(Gguf::open(NIBKV_TINY_MODEL));
  EXPECT_EQ(tokenizer.size(), 259U);
  EXPECT_TRUE(tokenizer.adds_bos());
  EXPECT_EQ(tokenizer.encode("a b\n", false, true), (Ids{1, 'a' + 3, ' ' + 3, 'b' + 3, '\n' + 3}));
  std::string text;
  for (int byte = 0; byte < 256; ++byte) text.push_back(static_cast<char>(byte));
  const Ids ids = tokenizer.encode(text, true, false);
  EXPECT_EQ(ids.size(), 256U);
  EXPECT_EQ(tokenizer.decode(ids), text);
}
#endif

TEST(TokenizerFile, IsReadWithItsDefaults) {
  const Tokenizer pairs = tokenizer_of(byte_pair_file());
  EXPECT_EQ(pairs.encode("ab", false, true), Ids{256});
  EXPECT_EQ(pairs.bos(), std::nullopt);
  EXPECT_FALSE(pairs.adds_bos());

  const Tokenizer llama3 =
      tokenizer_of(byte_pair_file().set("tokenizer.ggml.pre", "llama-bpe").set("tokenizer.ggml.bos_token_id", 5U));
  EXPECT_TRUE(llama3.adds_bos());

  // SentencePiece puts BOS and a space first.
  const Tokenizer pieces = tokenizer_of(sentence_piece_file().set("tokenizer.ggml.bos_token_id", 1U));
  EXPECT_EQ(pieces.encode("a", false, true), (Ids{1, 0xE2 + 3, 0x96 + 3, 0x81 + 3, 'a' + 3}));
  const Tokenizer nameless = tokenizer_of(sentence_piece_file());
  EXPECT_FALSE(nameless.adds_bos());
}

TEST(TokenizerFile, IsReadWithEveryKey) {
  const Tokenizer tokenizer = tokenizer_of(sentence_piece_file()
                                               .set("tokenizer.ggml.bos_token_id", 1U)
                                               .set("tokenizer.ggml.eos_token_id", 2U)
                                               .set("tokenizer.ggml.eot_token_id", 4U)
                                               .set("tokenizer.ggml.eom_token_id", 5U)
                                               .set("tokenizer.ggml.unknown_token_id", 0U)
                                               .set("tokenizer.ggml.add_bos_token", false)
                                               .set("tokenizer.ggml.add_space_prefix", false));
  EXPECT_EQ(tokenizer.bos(), 1);
  EXPECT_EQ(tokenizer.eos(), 2);
  for (const std::int32_t id : {2, 4, 5}) EXPECT_TRUE(tokenizer.ends_turn(id)) << id;
  EXPECT_FALSE(tokenizer.ends_turn(3));
  EXPECT_EQ(tokenizer.encode("a", false, true), Ids{'a' + 3});
}

TEST(TokenizerFile, SplitsAsItsPreSplitterSays) {
  const auto ids_with = [](const char* name) {
    GgufWriter writer = metadata_of(test::byte_pairs(PreSplitter::kGpt2, {"1 2", "12 3"}));
    writer.set("tokenizer.ggml.model", "gpt2").set("tokenizer.ggml.pre", name);
    return tokenizer_of(writer).encode("0123", false, false);
  };
  EXPECT_EQ(ids_with("gpt-2"), (Ids{'0', 257}));
  EXPECT_EQ(ids_with("default"), (Ids{'0', 257}));
  EXPECT_EQ(ids_with("smollm"), (Ids{'0', '1', '2', '3'}));
  EXPECT_EQ(ids_with("qwen2"), (Ids{'0', '1', '2', '3'}));
  EXPECT_EQ(ids_with("llama-bpe"), (Ids{'0', 256, '3'}));
}

TEST(TokenizerFile, ThatIsUnknownOrWrongIsRefused) {
  const auto expect = [](const GgufWriter& writer, std::string_view part) {
    const std::string message = refusal(writer);
    EXPECT_NE(message.find(part), std::string::npos) << '[' << message << "] is to say: " << part;
  };
  const Vocabulary pairs = test::byte_pairs(PreSplitter::kGpt2);

  expect(GgufWriter(), "names no tokenizer.ggml.model");
  expect(metadata_of(pairs).set("tokenizer.ggml.model", "bert"), "unknown model 'bert'");
  expect(metadata_of(pairs).set("tokenizer.ggml.model", 7U), "tokenizer.ggml.model");
  expect(byte_pair_file().set("tokenizer.ggml.pre", "tekken"), "unknown pre-splitter 'tekken'");
  expect(GgufWriter().set("tokenizer.ggml.model", "gpt2"), "no tokens");
  expect(GgufWriter().set("tokenizer.ggml.model", "gpt2").set_array("tokenizer.ggml.tokens", std::vector<float>{1}),
         "tokenizer.ggml.tokens");
  expect(metadata_of(pairs).set("tokenizer.ggml.model", "llama"), "one score");
  for (const std::int32_t type : {-1, 7, 1 << 30}) {
    GgufWriter writer;
    writer.set("tokenizer.ggml.model", "gpt2").set_array("tokenizer.ggml.tokens", std::vector<std::string>{"a"});
    expect(writer.set_array("tokenizer.ggml.token_type", std::vector<std::int32_t>{type}), "unknown token type");
  }
  for (const std::uint32_t id : {257U, 0x7FFFFFFFU, 0x80000000U, 0xFFFFFFFFU}) {
    expect(byte_pair_file().set("tokenizer.ggml.bos_token_id", id), "out of range");
    expect(byte_pair_file().set("tokenizer.ggml.eos_token_id", id), "out of range");
    expect(byte_pair_file().set("tokenizer.ggml.eot_token_id", id), "out of range");
    expect(byte_pair_file().set("tokenizer.ggml.eom_token_id", id), "out of range");
    expect(byte_pair_file().set("tokenizer.ggml.unknown_token_id", id), "out of range");
  }
  expect(byte_pair_file().set("tokenizer.ggml.add_bos_token", true), "BOS");
  expect(byte_pair_file().set("tokenizer.ggml.add_bos_token", "yes"), "add_bos_token");
  expect(byte_pair_file().set("tokenizer.ggml.remove_extra_whitespaces", true),
         ": metadata 'tokenizer.ggml.remove_extra_whitespaces' changes texts");
  expect(byte_pair_file().set_array("tokenizer.ggml.precompiled_charsmap", std::vector<std::uint8_t>{1, 2}),
         ": metadata 'tokenizer.ggml.precompiled_charsmap' changes texts");
  GgufWriter unknown_merge = metadata_of(pairs).set("tokenizer.ggml.model", "gpt2");
  expect(unknown_merge.set_array("tokenizer.ggml.merges", std::vector<std::string>{"a b"}), "names an unknown token");
}

}  // namespace
}  // namespace nibkv::llm
