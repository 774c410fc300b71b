#include "bench/runner/gguf/gguf.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <numeric>
#include <string>
#include <string_view>
#include <vector>

#include "bench/runner/gguf/blocks.hpp"
#include "tests/support/effort.hpp"
#include "tests/support/gguf_writer.hpp"
#include "tests/support/outside_data.hpp"

namespace nibkv::llm {
namespace {

using test::ByteWriter;
using test::GgufWriter;
using test::TemporaryFile;

constexpr std::uint64_t kHuge = std::uint64_t{1} << 60;

std::vector<std::byte> counted_bytes(std::size_t count) {
  std::vector<std::byte> bytes(count);
  for (std::size_t i = 0; i < count; ++i) bytes[i] = static_cast<std::byte>(i * 7 + 1);
  return bytes;
}

// A file with the content of `writer`, then every value type, and three tensors, the last
// of which ends the file.
GgufWriter small_file(GgufWriter writer = {}) {
  writer.set("u8", std::uint8_t{200}).set("i8", std::int8_t{-100});
  writer.set("u16", std::uint16_t{60000}).set("i16", std::int16_t{-30000});
  writer.set("u32", std::uint32_t{4000000000}).set("i32", std::int32_t{-2000000000});
  writer.set("u64", std::uint64_t{1} << 63).set("i64", std::numeric_limits<std::int64_t>::min());
  writer.set("f32", 0.1f).set("f64", 0.1).set("true", true).set("false", false).set("text", "a text");
  writer.set_array("texts", std::vector<std::string>{"one", "", "three"});
  writer.set_array("floats", std::vector<float>{1.5f, -2.0f});
  writer.set_array("bytes", std::vector<std::uint8_t>{0, 255});
  writer.set_array("ints", std::vector<std::int32_t>{-1, 2147483647});
  writer.set_array("longs", std::vector<std::int64_t>{-2147483648, 5});
  writer.set_array("booleans", std::vector<bool>{true, false});
  writer.add_tensor("first", TensorType::kF32, {3, 2}, counted_bytes(24));
  writer.add_tensor("second", TensorType::kQ4_0, {64, 1, 2, 2}, counted_bytes(144));
  writer.add_tensor("third", TensorType::kF16, {5}, counted_bytes(10));
  return writer;
}

// The file may be deleted once it is mapped.
Gguf opened(const GgufWriter& writer) {
  const TemporaryFile stored(writer.bytes());
  return Gguf::open(stored.path());
}

// The message of the Error that opening `bytes` throws; empty if it opens.
std::string problem_of(const std::vector<std::byte>& bytes, const TemporaryFile& file = TemporaryFile()) {
  file.rewrite(bytes);
  try {
    Gguf::open(file.path());
  } catch (const Error& error) {
    const std::string message = error.what();
    EXPECT_EQ(message.rfind(file.path() + ": ", 0), 0u) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    return message;
  }
  return {};
}

bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

void expect_problem(const GgufWriter& writer, std::string_view part) {
  EXPECT_PRED2(contains, problem_of(writer.bytes()), part);
}

double sum_of(const auto& elements) {
  return std::accumulate(elements.begin(), elements.end(), 0.0);
}

// Reads everything, touches every byte of it, and accepts only Error as an
// exception. Returns a checksum.
double read_everything(const Gguf& file) {
  double sum = 0;
  const auto attempt = [&sum](const auto& read) {
    try {
      sum += read();
    } catch (const Error&) {
      sum += 1;
    }
  };
  for (const char* key :
       {"u8",   "i8",   "u16",   "i16",    "u32",   "i32",  "u64",   "i64",      "f32",    "f64",
        "true", "text", "texts", "floats", "bytes", "ints", "longs", "booleans", "nested", "absent"}) {
    attempt([&] { return static_cast<double>(file.integer(key).value_or(0)); });
    attempt([&] { return file.number(key).value_or(0); });
    attempt([&] { return static_cast<double>(file.boolean(key).value_or(false)); });
    attempt([&] { return sum_of(file.text(key).value_or(std::string_view())); });
    attempt([&] {
      double texts = 0;
      for (const std::string_view text : file.texts(key)) texts += sum_of(text);
      return texts;
    });
    attempt([&] { return sum_of(file.numbers(key)); });
    attempt([&] { return sum_of(file.integers(key)); });
  }
  for (const Tensor& tensor : file.tensors()) {
    for (const std::byte byte : tensor.data) sum += std::to_integer<int>(byte);
    const std::uint64_t blocks = tensor.data.size() / block_bytes(tensor.type);
    EXPECT_EQ(blocks * block_length(tensor.type), tensor.columns() * tensor.rows()) << tensor.name;
    EXPECT_EQ(&file.tensor(tensor.name), &tensor);
  }
  return sum;
}

TEST(Gguf, ReadsEveryTypeOfSingleValue) {
  const Gguf file = opened(small_file());
  EXPECT_EQ(file.integer("u8"), 200u);
  EXPECT_EQ(file.integer("u16"), 60000u);
  EXPECT_EQ(file.integer("u32"), 4000000000u);
  EXPECT_EQ(file.integer("u64"), std::uint64_t{1} << 63);
  EXPECT_EQ(file.number("u64"), 0x1p63);
  EXPECT_EQ(file.number("i8"), -100);
  EXPECT_EQ(file.number("i16"), -30000);
  EXPECT_EQ(file.number("i32"), -2000000000);
  EXPECT_EQ(file.number("i64"), -0x1p63);
  EXPECT_EQ(file.number("f32"), static_cast<double>(0.1f));
  EXPECT_EQ(file.number("f64"), 0.1);
  EXPECT_TRUE(file.boolean("true") == true && file.boolean("false") == false);
  EXPECT_EQ(file.text("text"), "a text");
}

TEST(Gguf, ReadsArrays) {
  const Gguf file = opened(small_file());
  EXPECT_EQ(file.texts("texts"), (std::vector<std::string_view>{"one", "", "three"}));
  EXPECT_EQ(file.numbers("floats"), (std::vector<float>{1.5f, -2.0f}));
  EXPECT_EQ(file.integers("bytes"), (std::vector<std::int32_t>{0, 255}));
  EXPECT_EQ(file.integers("ints"), (std::vector<std::int32_t>{-1, 2147483647}));
  EXPECT_EQ(file.integers("longs"), (std::vector<std::int32_t>{-2147483647 - 1, 5}));
}

TEST(Gguf, AnswersAbsentKeysWithNothing) {
  const Gguf file = opened(small_file());
  EXPECT_FALSE(file.integer("absent") || file.number("absent") || file.boolean("absent") || file.text("absent"));
  EXPECT_TRUE(file.texts("absent").empty() && file.numbers("absent").empty() && file.integers("absent").empty());
}

TEST(Gguf, RefusesValuesThatDoNotFitTheQuestion) {
  GgufWriter writer = small_file();
  writer.set_array("large", std::vector<std::uint64_t>{~std::uint64_t{0}});
  writer.set_array("larger", std::vector<std::int64_t>{2147483648});
  writer.set_array("no texts", std::vector<std::string>{});
  const Gguf file = opened(writer);
  EXPECT_THROW(file.integer("i8"), Error) << "negative";
  EXPECT_THROW(file.integer("f32"), Error);
  EXPECT_THROW(file.integer("true"), Error);
  EXPECT_THROW(file.integer("bytes"), Error) << "an array";
  EXPECT_THROW(file.number("text"), Error);
  EXPECT_THROW(file.number("true"), Error);
  EXPECT_THROW(file.boolean("u8"), Error);
  EXPECT_THROW(file.text("u8"), Error);
  EXPECT_THROW(file.text("texts"), Error);
  EXPECT_THROW(file.texts("text"), Error) << "not an array";
  EXPECT_THROW(file.texts("floats"), Error);
  EXPECT_THROW(file.numbers("ints"), Error);
  EXPECT_THROW(file.integers("floats"), Error);
  EXPECT_THROW(file.integers("booleans"), Error);
  EXPECT_THROW(file.integers("no texts"), Error);
  EXPECT_THROW(file.integers("large"), Error);
  EXPECT_THROW(file.integers("larger"), Error);
}

TEST(Gguf, ReadsTensors) {
  const Gguf file = opened(small_file());
  ASSERT_EQ(file.tensors().size(), 3u);
  EXPECT_EQ(file.tensors()[0].name, "first");
  const Tensor& second = file.tensor("second");
  EXPECT_EQ(&second, file.find("second"));
  EXPECT_EQ(second.type, TensorType::kQ4_0);
  EXPECT_EQ(second.shape, (std::array<std::uint64_t, 4>{64, 1, 2, 2}));
  EXPECT_EQ(second.rows(), 4u);
  const std::vector<std::byte> expected = counted_bytes(144);
  EXPECT_TRUE(std::equal(second.data.begin(), second.data.end(), expected.begin(), expected.end()));
  EXPECT_EQ(file.tensor("third").data.size(), 10u);
  EXPECT_EQ(file.find("fourth"), nullptr);
  EXPECT_THROW(file.tensor("fourth"), Error);
}

// The bytes of mapped files that are in memory for this process.
std::size_t held_of_files() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind("RssFile:", 0) == 0) return std::stoul(line.substr(8)) * 1024;
  }
  return 0;
}

// ggml-org/llama.cpp#19578: repacked weights are held a second time in the mapped file.
TEST(Gguf, GivesMemoryBackAndReadsTheSameAgain) {
  constexpr std::size_t kBytes = std::size_t{8} << 20;
  GgufWriter writer;
  writer.add_tensor("before", TensorType::kF32, {8}, counted_bytes(32));
  writer.add_tensor("large", TensorType::kF32, {kBytes / 4}, counted_bytes(kBytes));
  const Gguf file = opened(writer);
  const std::span<const std::byte> large = file.tensor("large").data;
  const auto sum = [&] {
    std::size_t total = 0;
    for (const std::byte byte : large) total += std::to_integer<std::size_t>(byte);
    return total;
  };
  const std::size_t expected = sum();
  [[maybe_unused]] const std::size_t before = held_of_files();
  file.give_back(large);
#if defined(__x86_64__) && defined(__linux__)  // emulators do not forward the advice
  EXPECT_GE(before, held_of_files() + kBytes * 9 / 10);
#endif
  EXPECT_EQ(sum(), expected);

  const std::vector<std::byte> other(1 << 20, std::byte{7});
  file.give_back(other);
  file.give_back({});
  EXPECT_EQ(std::count(other.begin(), other.end(), std::byte{7}), 1 << 20) << "not of this file";
}

TEST(Gguf, HonoursTheAlignmentOfTheFile) {
  for (const std::uint32_t alignment : {1u, 8u, 4096u}) {
    GgufWriter writer;
    writer.align(alignment);
    writer.add_tensor("a", TensorType::kF16, {3}, counted_bytes(6));
    writer.add_tensor("b", TensorType::kF16, {3}, counted_bytes(6));
    const Gguf file = opened(writer);
    for (const char* name : {"a", "b"}) {
      const Tensor& tensor = file.tensor(name);
      ASSERT_EQ(tensor.data.size(), 6u);
      EXPECT_EQ(tensor.data[0], std::byte{1}) << alignment;
      EXPECT_EQ(tensor.data[5], std::byte{36}) << alignment;
    }
  }
}

TEST(Gguf, ReadsVersionTwoAndFilesWithoutTensors) {
  EXPECT_EQ(problem_of(small_file().version(2).bytes()), "");
  EXPECT_EQ(problem_of(GgufWriter().bytes()), "");
  EXPECT_EQ(problem_of(GgufWriter().set("key", "value").bytes()), "");
}

TEST(Gguf, ViewsOutliveAMove) {
  Gguf first = opened(small_file());
  const std::string_view text = *first.text("text");
  const Tensor* tensor = first.find("second");
  Gguf second = std::move(first);
  Gguf third = opened(small_file());
  third = std::move(second);
  EXPECT_EQ(text, "a text");
  EXPECT_EQ(third.find("second"), tensor);
  EXPECT_EQ(tensor->data[1], std::byte{8});
}

TEST(Gguf, RefusesWhatIsNoGgufFile) {
  EXPECT_THROW(Gguf::open("/nonexistent/model.gguf"), Error);
  EXPECT_THROW(Gguf::open(std::filesystem::temp_directory_path().string()), Error);
  EXPECT_THROW(Gguf::open("/dev/null"), Error);
  EXPECT_NE(problem_of({}), "");
  EXPECT_NE(problem_of(counted_bytes(1000)), "");
  expect_problem(small_file().version(1), "version 1");
  expect_problem(small_file().version(4), "version 4");
  expect_problem(small_file().version(0), "version 0");
  expect_problem(small_file().version(0x03000000), "big-endian");
}

// ggml-org/ggml#709: sizes that a file claims are trusted.
TEST(Gguf, RefusesHugeCountsAndLengths) {
  const std::uint64_t counts[] = {kHuge, std::uint64_t{1} << 61, std::uint64_t{1} << 32, ~std::uint64_t{0}, 100000};
  for (const std::uint64_t count : counts) {
    expect_problem(small_file().claim_tensors(count), "number of tensors");
    expect_problem(small_file().claim_metadata(count), "number of metadata entries");
    expect_problem(small_file().set_raw("key", 8, ByteWriter().number(count).bytes()), "'key'");
    for (std::uint32_t element = 0; element <= 14; ++element) {
      expect_problem(small_file().set_raw("key", 9, ByteWriter().number(element).number(count).bytes()), "'key'");
    }
  }
  expect_problem(small_file().claim_tensors(4), "past the end of the file");
  expect_problem(GgufWriter().set(std::string(70000, 'k'), "value"), "70000 bytes long");
}

TEST(Gguf, RefusesUnknownValueTypesAndOddBooleans) {
  const std::vector<std::byte> zeros(64);
  expect_problem(GgufWriter().set_raw("key", 13, zeros), "unknown type 13");
  expect_problem(GgufWriter().set_raw("key", 0xffffffff, zeros), "unknown type 4294967295");
  expect_problem(GgufWriter().set_raw("key", 9, ByteWriter().number(99u).number(std::uint64_t{0}).bytes()),
                 "unknown type 99");
  expect_problem(GgufWriter().set_raw("key", 7, ByteWriter().number(std::uint8_t{2}).bytes()), "boolean");
}

TEST(Gguf, StepsOverNestedArraysUpToADepth) {
  const auto nested = [](int depth) {
    ByteWriter value;
    for (int level = 1; level < depth; ++level) value.number(GgufWriter::kArray).number(std::uint64_t{1});
    value.number(4u).number(std::uint64_t{2}).number(7u).number(8u);
    GgufWriter writer;
    writer.set_raw("nested", GgufWriter::kArray, value.bytes()).set("after", "it");
    return writer;
  };
  for (int depth = 1; depth <= 4; ++depth) {
    const Gguf file = opened(nested(depth));
    EXPECT_EQ(file.text("after"), "it");
    EXPECT_THROW(file.texts("nested"), Error);
  }
  expect_problem(nested(5), "too deeply");
  expect_problem(nested(1000000), "too deeply");
}

TEST(Gguf, RefusesWhatIsThereTwice) {
  expect_problem(small_file().set("u8", "again"), "'u8' is there twice");
  expect_problem(small_file().add_tensor("first", TensorType::kF32, {1}, counted_bytes(4)), "'first' is there twice");
}

TEST(Gguf, RefusesAlignmentsThatAreNone) {
  for (const std::uint32_t alignment : {0u, 3u, 33u, 0x80000000u}) {
    expect_problem(GgufWriter().set("general.alignment", alignment), "power of two");
  }
  expect_problem(GgufWriter().set("general.alignment", "32"), "not an integer");
  expect_problem(GgufWriter().set("general.alignment", std::int32_t{-32}), "negative");
}

// ggml-org/ggml#709, ggml-org/ggml#1517: sizes that a file claims are trusted.
TEST(Gguf, RefusesImpossibleTensors) {
  const auto expect = [](std::uint32_t type, const std::vector<std::uint64_t>& shape, std::uint64_t offset,
                         std::string_view part) {
    GgufWriter writer;
    writer.add_tensor("good", TensorType::kF32, {32}, counted_bytes(128)).describe_tensor("bad", type, shape, offset);
    expect_problem(writer, part);
  };
  expect(0, {1, 1, 1, 1, 1}, 0, "tensor 'bad' has 5 dimensions");
  expect(0, {4, 0}, 0, "tensor 'bad' has a dimension of zero");
  expect(4, {4}, 0, "tensor 'bad' has type 4");
  expect(77, {4}, 0, "tensor 'bad' has type 77");
  expect(2, {33}, 0, "not a whole number of Q4_0 blocks of 32");
  expect(12, {128}, 0, "not a whole number of Q4_K blocks of 256");
  expect(0, {kHuge, kHuge}, 0, "impossible size");
  expect(0, {std::uint64_t{1} << 62}, 0, "impossible size");
  expect(0, {std::uint64_t{1} << 61}, 0, "past the end");
  expect(2, {std::uint64_t{1} << 32, std::uint64_t{1} << 32}, 0, "impossible size");
  expect(0, {65536, 65536, 65536, 65536}, 0, "impossible size");
  expect(0, {1, ~std::uint64_t{0}, 1, 1}, 0, "impossible size");
  expect(0, {1}, 16, "not aligned");
  expect(0, {1}, 128, "past the end");
  expect(0, {33}, 0, "past the end");
  expect(0, {1}, kHuge, "past the end");
  expect(0, {8}, ~std::uint64_t{0} - 31, "past the end");
  expect(0, {1}, 0, "overlap");
  expect(0, {8}, 64, "overlap");
}

TEST(Gguf, NamesOddNamesOnOneLine) {
  expect_problem(GgufWriter().set_raw("line\nbreak\x01", 99, {}), "'line\\x0abreak\\x01'");
  expect_problem(GgufWriter().set_raw(std::string(5000, 'n'), 99, {}), "nnn...'");
}

// ggml-org/ggml#709: sizes that a file claims are trusted.
TEST(Gguf, RefusesEveryTruncation) {
  const std::vector<std::byte> whole = small_file().bytes();
  const TemporaryFile file;
  ASSERT_EQ(problem_of(whole, file), "");
  for (std::size_t length = 0; length < whole.size(); ++length) {
    ASSERT_NE(problem_of({whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length)}, file), "") << length;
  }
}

// Cut at a page's end, where a read beyond the file would access unmapped memory.
TEST(Gguf, TouchesNothingBehindTheFile) {
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  const std::size_t header = small_file().header_bytes();
  const TemporaryFile file;
  for (std::size_t kept = 50; kept < header; ++kept) {
    std::vector<std::byte> bytes = small_file(GgufWriter().set("filler", std::string(page - kept, ' '))).bytes();
    ASSERT_GT(bytes.size(), page);
    bytes.resize(page);
    ASSERT_NE(problem_of(bytes, file), "") << kept;
  }
}

TEST(Gguf, SurvivesEveryCorruptedByteOfTheHeader) {
  const std::vector<std::byte> whole = small_file().bytes();
  const std::size_t header = small_file().header_bytes();
  const TemporaryFile file;
  int opened = 0;
  for (std::size_t place = 0; place < header; place = nibkv::test::after(place, header - 1)) {
    for (const int change : {0x01, 0x08, 0x40, 0x80, 0xff}) {
      std::vector<std::byte> bytes = whole;
      bytes[place] ^= static_cast<std::byte>(change);
      file.rewrite(bytes);
      try {
        const Gguf parsed = Gguf::open(file.path());
        read_everything(parsed);
        ++opened;
      } catch (const Error&) {
      }
    }
  }
  EXPECT_GT(opened, 0) << "letters of keys and texts may change";
}

TEST(Gguf, OpensTheModelOfTheRepository) {
  const Gguf model = Gguf::open(NIBKV_TINY_MODEL);
  EXPECT_EQ(model.text("general.architecture"), "llama");
  EXPECT_EQ(model.integer("llama.embedding_length"), 128u);
  EXPECT_EQ(model.integer("llama.block_count"), 5u);
  EXPECT_EQ(model.texts("tokenizer.ggml.tokens").size(), 259u);
  EXPECT_EQ(model.tensors().size(), 47u);
  const Tensor& embedding = model.tensor("token_embd.weight");
  EXPECT_EQ(embedding.type, TensorType::kQ8_0);
  EXPECT_EQ(embedding.columns(), 128u);
  EXPECT_EQ(embedding.rows(), 259u);
  for (const Tensor& tensor : model.tensors()) {
    std::vector<float> weights(static_cast<std::size_t>(tensor.columns() * tensor.rows()));
    ASSERT_EQ(row_bytes(tensor.type, weights.size()), tensor.data.size()) << tensor.name;
    dequantise(tensor.type, tensor.data.data(), weights.data(), weights.size());
    for (const float weight : weights) ASSERT_TRUE(std::abs(weight) < 100) << tensor.name;
  }
}

TEST(Gguf, OpensEveryModelOfTheTestData) {
  const auto folder = nibkv::test::named_by("NIBKV_TEST_DATA");
  if (!folder) GTEST_SKIP() << nibkv::test::needs_data("GGUF files of any models");
  int models = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(*folder)) {
    if (entry.path().extension() != ".gguf") continue;
    ++models;
    const Gguf model = Gguf::open(entry.path().string());
    EXPECT_TRUE(model.text("general.architecture").has_value()) << entry.path();
    EXPECT_FALSE(model.texts("tokenizer.ggml.tokens").empty()) << entry.path();
    read_everything(model);
  }
  EXPECT_GT(models, 0) << *folder;
}

}  // namespace
}  // namespace nibkv::llm
