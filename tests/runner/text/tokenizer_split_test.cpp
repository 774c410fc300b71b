#include <gtest/gtest.h>

#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "bench/runner/text/tokenizer_encoders.hpp"
#include "tests/runner/text/vocabularies.hpp"

namespace nibkv::llm {
namespace {

using Words = std::vector<std::string>;

constexpr PreSplitter kAllSplitters[] = {PreSplitter::kGpt2, PreSplitter::kSmolLm, PreSplitter::kLlama3,
                                         PreSplitter::kQwen2};

Words split(PreSplitter splitter, std::string_view text) {
  Words words;
  while (!text.empty()) {
    const std::size_t length = first_word(splitter, text);
    if (length == 0 || length > text.size()) return {"a word of wrong length"};
    words.emplace_back(text.substr(0, length));
    text.remove_prefix(length);
  }
  return words;
}

struct Case {
  std::string_view text;
  Words gpt2, smollm, llama3, qwen2;
};

const Case kCases[] = {
    {"", {}, {}, {}, {}},
    {" ", {" "}, {" "}, {" "}, {" "}},
    {"Hello world", {"Hello", " world"}, {"Hello", " world"}, {"Hello", " world"}, {"Hello", " world"}},
    {"  two   gaps  ",
     {" ", " two", "  ", " gaps", "  "},
     {" ", " two", "  ", " gaps", "  "},
     {" ", " two", "  ", " gaps", "  "},
     {" ", " two", "  ", " gaps", "  "}},
    {"12345", {"12345"}, {"1", "2", "3", "4", "5"}, {"123", "45"}, {"1", "2", "3", "4", "5"}},
    {" 12", {" 12"}, {" ", "1", "2"}, {" ", "12"}, {" ", "1", "2"}},
    {"a  1", {"a", " ", " 1"}, {"a", "  ", "1"}, {"a", " ", " ", "1"}, {"a", " ", " ", "1"}},
    {"w0rd", {"w", "0", "rd"}, {"w", "0", "rd"}, {"w", "0", "rd"}, {"w", "0", "rd"}},
    {"I'm you'll we've 'tis",
     {"I", "'m", " you", "'ll", " we", "'ve", " '", "tis"},
     {"I", "'m", " you", "'ll", " we", "'ve", " '", "tis"},
     {"I", "'m", " you", "'ll", " we", "'ve", " '", "tis"},
     {"I", "'m", " you", "'ll", " we", "'ve", " '", "tis"}},
    {"WE'VE it'Sx",
     {"WE", "'", "VE", " it", "'", "Sx"},
     {"WE", "'", "VE", " it", "'", "Sx"},
     {"WE", "'VE", " it", "'S", "x"},
     {"WE", "'VE", " it", "'S", "x"}},
    {"'", {"'"}, {"'"}, {"'"}, {"'"}},
    {"'r 'l", {"'", "r", " '", "l"}, {"'", "r", " '", "l"}, {"'r", " '", "l"}, {"'r", " '", "l"}},
    {"(a) b!!",
     {"(", "a", ")", " b", "!!"},
     {"(", "a", ")", " b", "!!"},
     {"(a", ")", " b", "!!"},
     {"(a", ")", " b", "!!"}},
    {"end.\n\nNext",
     {"end", ".", "\n", "\n", "Next"},
     {"end", ".", "\n", "\n", "Next"},
     {"end", ".\n\n", "Next"},
     {"end", ".\n\n", "Next"}},
    {"a \n \n b", {"a", " \n \n", " b"}, {"a", " \n \n", " b"}, {"a", " \n \n", " b"}, {"a", " \n \n", " b"}},
    {"a\r\n\tb", {"a", "\r\n", "\t", "b"}, {"a", "\r\n", "\t", "b"}, {"a", "\r\n", "\tb"}, {"a", "\r\n", "\tb"}},
    {"x = 3\n",
     {"x", " =", " 3", "\n"},
     {"x", " =", " ", "3", "\n"},
     {"x", " =", " ", "3", "\n"},
     {"x", " =", " ", "3", "\n"}},
    {"\xC2\xA0\xC3\xA9\xC2\xBD",
     {"\xC2\xA0", "\xC3\xA9", "\xC2\xBD"},
     {"\xC2\xA0", "\xC3\xA9", "\xC2\xBD"},
     {"\xC2\xA0\xC3\xA9", "\xC2\xBD"},
     {"\xC2\xA0\xC3\xA9", "\xC2\xBD"}},
    {"\xF0\x9F\x98\x80\xEF\xB8\x8F ok",
     {"\xF0\x9F\x98\x80\xEF\xB8\x8F", " ok"},
     {"\xF0\x9F\x98\x80\xEF\xB8\x8F", " ok"},
     {"\xF0\x9F\x98\x80\xEF\xB8\x8F", " ok"},
     {"\xF0\x9F\x98\x80\xEF\xB8\x8F", " ok"}},
    {"a\xFF\x80!b", {"a", "\xFF\x80!", "b"}, {"a", "\xFF\x80!", "b"}, {"a", "\xFF\x80!", "b"}, {"a", "\xFF\x80!", "b"}},
    {" \xE2\x82", {" \xE2\x82"}, {" \xE2\x82"}, {" \xE2\x82"}, {" \xE2\x82"}},
};

TEST(PreSplitter, CutsAsGpt2Does) {
  for (const Case& c : kCases) EXPECT_EQ(split(PreSplitter::kGpt2, c.text), c.gpt2) << '[' << c.text << ']';
}

TEST(PreSplitter, CutsAsSmolLmDoesWithEveryDigitApart) {
  for (const Case& c : kCases) EXPECT_EQ(split(PreSplitter::kSmolLm, c.text), c.smollm) << '[' << c.text << ']';
}

TEST(PreSplitter, CutsAsLlama3DoesWithThreeDigitsTogether) {
  for (const Case& c : kCases) EXPECT_EQ(split(PreSplitter::kLlama3, c.text), c.llama3) << '[' << c.text << ']';
}

TEST(PreSplitter, CutsAsQwen2DoesWithEveryDigitApart) {
  for (const Case& c : kCases) EXPECT_EQ(split(PreSplitter::kQwen2, c.text), c.qwen2) << '[' << c.text << ']';
}

TEST(PreSplitter, LosesNoByteOfAnyText) {
  std::mt19937 random(1);
  for (int i = 0; i < 200; ++i) {
    const std::string text = i % 2 == 0 ? test::random_utf8(random, 100) : test::random_bytes(random, 100);
    for (const PreSplitter splitter : kAllSplitters) {
      std::string joined;
      for (const std::string& word : split(splitter, text)) joined += word;
      ASSERT_EQ(joined, text) << "splitter " << static_cast<int>(splitter);
    }
  }
}

TEST(PreSplitter, NeverCutsACodePoint) {
  std::mt19937 random(2);
  for (int i = 0; i < 200; ++i) {
    const std::string text = test::random_utf8(random, 100);
    for (const PreSplitter splitter : kAllSplitters) {
      for (const std::string& word : split(splitter, text)) ASSERT_NE(word[0] & 0xC0, 0x80);
    }
  }
}

}  // namespace
}  // namespace nibkv::llm
