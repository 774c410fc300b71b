#include "bench/runner/text/tokenizer.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/runner/text/vocabularies.hpp"

namespace nibkv::llm {
namespace {

using Ids = std::vector<std::int32_t>;
using test::add_token;
using test::byte_pairs;
using test::sentence_pieces;

constexpr PreSplitter kSplitters[] = {PreSplitter::kGpt2, PreSplitter::kSmolLm, PreSplitter::kLlama3,
                                      PreSplitter::kQwen2};

Ids encode(const Tokenizer& tokenizer, std::string_view text) {
  return tokenizer.encode(text, false, false);
}

// The message that `make` throws, or "" if nothing.
template <typename Make>
std::string refusal(Make make) {
  try {
    make();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(BytePairs, MergeByRankAndThenFromTheLeft) {
  const Tokenizer left_first(byte_pairs(PreSplitter::kGpt2, {"a b", "b c", "ab c"}));
  EXPECT_EQ(encode(left_first, "abc"), Ids{258});
  const Tokenizer right_first(byte_pairs(PreSplitter::kGpt2, {"b c", "a b"}));
  EXPECT_EQ(encode(right_first, "abc"), (Ids{'a', 256}));
  const Tokenizer doubling(byte_pairs(PreSplitter::kGpt2, {"a a", "aa aa"}));
  EXPECT_EQ(encode(doubling, "aaa"), (Ids{256, 'a'}));
  EXPECT_EQ(encode(doubling, "aaaaaaa"), (Ids{257, 256, 'a'}));
}

TEST(BytePairs, NeverMergeAcrossWords) {
  const Tokenizer tokenizer(byte_pairs(PreSplitter::kGpt2, {"a \xC4\xA0", "\xC4\xA0 a"}));
  EXPECT_EQ(encode(tokenizer, "a a"), (Ids{'a', 257}));
  EXPECT_EQ(tokenizer.decode(257), " a");
}

TEST(BytePairs, TakeAWholeWordFirstOnlyForLlama3) {
  for (const PreSplitter splitter : kSplitters) {
    Vocabulary vocabulary = byte_pairs(splitter, {"a b"});
    const std::int32_t word = add_token(vocabulary, "abc");
    const Tokenizer tokenizer(std::move(vocabulary));
    EXPECT_EQ(encode(tokenizer, "abc"), splitter == PreSplitter::kLlama3 ? Ids{word} : (Ids{256, 'c'}));
  }
}

TEST(BytePairs, DropBytesWithoutAToken) {
  Vocabulary vocabulary = byte_pairs(PreSplitter::kGpt2);
  vocabulary.tokens['b'] = "instead of b";
  EXPECT_EQ(encode(Tokenizer(std::move(vocabulary)), "abc"), (Ids{'a', 'c'}));
}

TEST(BytePairs, StayFastInAWordOfAMegabyte) {
  const Tokenizer tokenizer(byte_pairs(PreSplitter::kGpt2, {"a a", "aa aa", "aaaa aaaa"}));
  EXPECT_EQ(encode(tokenizer, std::string(1 << 20, 'a')), Ids(1 << 17, 258));
}

TEST(SentencePiece, MergesByScoreAndThenFromTheLeft) {
  Vocabulary vocabulary = sentence_pieces();
  for (const char* letter : {"a", "b", "c"}) add_token(vocabulary, letter, TokenType::kNormal, -10);
  const std::int32_t ab = add_token(vocabulary, "ab", TokenType::kNormal, -2);
  const std::int32_t bc = add_token(vocabulary, "bc", TokenType::kNormal, -1);
  const std::int32_t cc = add_token(vocabulary, "cc", TokenType::kNormal, -1);
  const Tokenizer tokenizer(std::move(vocabulary));
  EXPECT_EQ(encode(tokenizer, "abc"), (Ids{259, bc}));
  EXPECT_EQ(encode(tokenizer, "aba"), (Ids{ab, 259}));
  EXPECT_EQ(encode(tokenizer, "ccc"), (Ids{cc, 261}));
  EXPECT_EQ(encode(tokenizer, "abcc"), (Ids{259, bc, 261}));
}

TEST(SentencePiece, FallsBackToBytesAndThenToTheUnknownToken) {
  Vocabulary vocabulary = sentence_pieces();
  EXPECT_EQ(encode(Tokenizer(vocabulary), "\xC3\xA9"), (Ids{0xC3 + 3, 0xA9 + 3}));
  vocabulary.types[0xA9 + 3] = TokenType::kUnused;
  EXPECT_EQ(encode(Tokenizer(vocabulary), "\xC3\xA9"), (Ids{0xC3 + 3, 0}));
  vocabulary.unknown.reset();
  EXPECT_EQ(encode(Tokenizer(vocabulary), "\xC3\xA9"), Ids{0xC3 + 3});
}

TEST(SentencePiece, PutsASpaceBeforeEveryStretchOfText) {
  Vocabulary vocabulary = sentence_pieces();
  vocabulary.add_space_prefix = true;
  const std::int32_t space = add_token(vocabulary, "\xE2\x96\x81");
  const std::int32_t a = add_token(vocabulary, "a");
  const Tokenizer tokenizer(std::move(vocabulary));
  EXPECT_EQ(encode(tokenizer, ""), Ids{});
  EXPECT_EQ(encode(tokenizer, "a"), (Ids{space, a}));
  EXPECT_EQ(encode(tokenizer, " a"), (Ids{space, space, a}));
  const Ids ids = tokenizer.encode("a</s>a", true, false);
  EXPECT_EQ(ids, (Ids{space, a, 2, space, a}));
  EXPECT_EQ(tokenizer.decode(ids), "a</s>a");
  EXPECT_EQ(tokenizer.decode(space), " ");
}

TEST(SentencePiece, StaysFastInATextOfAMegabyte) {
  Vocabulary vocabulary = sentence_pieces();
  add_token(vocabulary, "a");
  add_token(vocabulary, "aa", TokenType::kNormal, -1);
  const std::int32_t four = add_token(vocabulary, "aaaa", TokenType::kNormal, -2);
  EXPECT_EQ(encode(Tokenizer(std::move(vocabulary)), std::string(1 << 20, 'a')), Ids(1 << 18, four));
}

TEST(Tokenizer, RoundTripsRandomTextAndRandomBytes) {
  std::vector<Tokenizer> tokenizers;
  for (const PreSplitter splitter : kSplitters) {
    tokenizers.emplace_back(byte_pairs(splitter, {"\xC4\xA0 a", "e \xC4\xA0", "\xC3\x83 \xC2\xA9"}));
  }
  for (const bool prefix : {false, true}) {
    Vocabulary vocabulary = sentence_pieces();
    vocabulary.add_space_prefix = prefix;
    add_token(vocabulary, "\xE2\x96\x81");
    add_token(vocabulary, "\xE2\x96\x81\xE2\x96\x81", TokenType::kNormal, -1);
    tokenizers.emplace_back(std::move(vocabulary));
  }
  std::mt19937 random(3);
  for (int i = 0; i < 300; ++i) {
    const std::string text = i % 2 == 0 ? test::random_utf8(random, 60) : test::random_bytes(random, 60);
    // The symbol for a space is decoded to a space; random bytes practically never spell it.
    for (std::size_t t = 0; t < tokenizers.size(); ++t) {
      ASSERT_EQ(tokenizers[t].decode(encode(tokenizers[t], text)), text) << "tokenizer " << t << ", text " << i;
    }
  }
}

TEST(Tokenizer, GivesPiecesThatTogetherAreTheText) {
  const Tokenizer tokenizer(byte_pairs(PreSplitter::kQwen2, {"\xC3\x83 \xC2\xA9"}));
  std::string text;
  for (const std::int32_t id : encode(tokenizer, "caf\xC3\xA9 \xF0\x9F\x99\x82 \xFF")) text += tokenizer.decode(id);
  EXPECT_EQ(text, "caf\xC3\xA9 \xF0\x9F\x99\x82 \xFF");
}

TEST(SpecialTokens, AreFoundOnlyOnRequest) {
  Vocabulary vocabulary = byte_pairs(PreSplitter::kGpt2);
  const std::int32_t end = add_token(vocabulary, "<e>", TokenType::kControl);
  const Tokenizer tokenizer(std::move(vocabulary));
  EXPECT_EQ(tokenizer.encode("a<e>b<e", true, false), (Ids{'a', end, 'b', '<', 'e'}));
  EXPECT_EQ(tokenizer.encode("a<e>", false, false), (Ids{'a', '<', 'e', '>'}));
  EXPECT_TRUE(tokenizer.is_special(end));
  EXPECT_FALSE(tokenizer.is_special('a'));
  EXPECT_EQ(tokenizer.find("<e>"), end);
  EXPECT_EQ(tokenizer.find("a"), std::nullopt);
  EXPECT_EQ(tokenizer.decode(end), "<e>");
}

TEST(SpecialTokens, AreTakenLongestFirst) {
  Vocabulary vocabulary = byte_pairs(PreSplitter::kGpt2);
  const std::int32_t shorter = add_token(vocabulary, "<e", TokenType::kControl);
  const std::int32_t longer = add_token(vocabulary, "<e>", TokenType::kControl);
  const Tokenizer tokenizer(std::move(vocabulary));
  EXPECT_EQ(tokenizer.encode("<e><e", true, false), (Ids{longer, shorter}));
}

TEST(SpecialTokens, DefinedByTheUserAreAlwaysFound) {
  Vocabulary vocabulary = byte_pairs(PreSplitter::kGpt2);
  const std::int32_t gap = add_token(vocabulary, "   ", TokenType::kUserDefined);
  const Tokenizer tokenizer(std::move(vocabulary));
  EXPECT_EQ(tokenizer.encode("a    b", false, false), (Ids{'a', gap, ' ', 'b'}));
  EXPECT_FALSE(tokenizer.is_special(gap));
  EXPECT_EQ(tokenizer.decode(gap), "   ");
}

TEST(SpecialTokens, NeverComeOutOfMergesInPlainText) {
  Vocabulary vocabulary = sentence_pieces();
  for (const char* piece : {"</", "s", "s>", "<s", "<0", "x0", "A>", "<0x0", "<", ">"}) add_token(vocabulary, piece);
  const Tokenizer tokenizer(std::move(vocabulary));
  for (const std::string_view text : {"</s>", "<s>", "<unk>", "<0x0A>"}) {
    const Ids ids = encode(tokenizer, text);
    EXPECT_EQ(tokenizer.decode(ids), text);
    for (const std::int32_t id : ids) EXPECT_FALSE(tokenizer.is_special(id)) << text;
  }
}

TEST(SpecialTokens, EmptyOnesAreNeverFound) {
  Vocabulary vocabulary = byte_pairs(PreSplitter::kGpt2);
  add_token(vocabulary, "", TokenType::kControl);
  const Tokenizer tokenizer(std::move(vocabulary));
  EXPECT_EQ(tokenizer.encode("ab", true, false), (Ids{'a', 'b'}));
}

TEST(Tokenizer, AddsBosOnlyAtTheBeginningAndOnlyIfTheFileAsks) {
  Vocabulary vocabulary = sentence_pieces();
  EXPECT_EQ(Tokenizer(vocabulary).encode("a", false, true), Ids{'a' + 3});
  vocabulary.add_bos = true;
  const Tokenizer tokenizer(std::move(vocabulary));
  EXPECT_TRUE(tokenizer.adds_bos());
  EXPECT_EQ(tokenizer.encode("a", false, true), (Ids{1, 'a' + 3}));
  EXPECT_EQ(tokenizer.encode("a", false, false), Ids{'a' + 3});
  EXPECT_EQ(tokenizer.encode("", false, true), Ids{1});
}

TEST(Tokenizer, KnowsEveryEndOfATurnByIdAndByName) {
  Vocabulary vocabulary = byte_pairs(PreSplitter::kGpt2);
  const Tokenizer none(vocabulary);
  for (std::int32_t id = -1; id < 256; ++id) EXPECT_FALSE(none.ends_turn(id)) << id;
  const std::int32_t start = add_token(vocabulary, "<|im_start|>", TokenType::kControl);
  std::vector<std::int32_t> ends;
  for (const char* spelling : {"<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<end_of_turn>", "<|endoftext|>",
                               "<|end_of_text|>", "<eos>", "</s>"}) {
    ends.push_back(add_token(vocabulary, spelling, TokenType::kControl));
  }
  // Those that the file names end a turn beside them, not in place of them.
  for (auto* named : {&vocabulary.eos, &vocabulary.eot, &vocabulary.eom}) {
    *named = add_token(vocabulary, "<" + std::to_string(ends.size()) + ">", TokenType::kControl);
    ends.push_back(**named);
  }
  const Tokenizer tokenizer(std::move(vocabulary));
  for (const std::int32_t id : ends) EXPECT_TRUE(tokenizer.ends_turn(id)) << tokenizer.decode(id);
  EXPECT_FALSE(tokenizer.ends_turn(start));
}

TEST(Tokenizer, NeverMakesATokenOfTheProtocolFromTextWhateverItsType) {
  for (const TokenType type : {TokenType::kControl, TokenType::kUserDefined, TokenType::kNormal}) {
    Vocabulary pairs = byte_pairs(PreSplitter::kGpt2);
    const std::int32_t merged = add_token(pairs, "<x>", type);
    Vocabulary pieces = sentence_pieces();
    const std::int32_t piece = add_token(pieces, "<x>", type, 1);
    for (auto id : {&Vocabulary::bos, &Vocabulary::eos, &Vocabulary::eot, &Vocabulary::eom}) {
      Vocabulary named_pairs = pairs, named_pieces = pieces;
      named_pairs.*id = merged;
      named_pieces.*id = piece;
      for (const Tokenizer& tokenizer : {Tokenizer(named_pairs), Tokenizer(named_pieces)}) {
        const std::vector<std::int32_t> ids = tokenizer.encode("a<x>b", false, false);
        EXPECT_EQ(std::count(ids.begin(), ids.end(), merged) + std::count(ids.begin(), ids.end(), piece), 0);
        EXPECT_EQ(tokenizer.decode(ids), "a<x>b");
      }
    }
  }
  // Where merges would build it.
  for (const PreSplitter splitter : kSplitters) {
    for (const std::string spelling : {"<|>", "end"}) {
      const std::string one = spelling.substr(0, 1), two = spelling.substr(1, 1), three = spelling.substr(2);
      const Vocabulary text = byte_pairs(splitter, {one + " " + two, one + two + " " + three});
      ASSERT_EQ(encode(Tokenizer(text), spelling), Ids{257});
      for (auto id : {&Vocabulary::bos, &Vocabulary::eos, &Vocabulary::eot, &Vocabulary::eom}) {
        Vocabulary named = text;
        named.*id = 257;
        const Tokenizer tokenizer(std::move(named));
        EXPECT_EQ(encode(tokenizer, spelling), (Ids{256, three[0]})) << "what is below it merges as before";
        EXPECT_EQ(tokenizer.encode(spelling, true, false), Ids{257});
        EXPECT_TRUE(tokenizer.is_special(257));
      }
    }
  }
  // A line break that ends texts is text.
  Vocabulary lines = byte_pairs(PreSplitter::kGpt2);
  lines.eos = '\n';
  const Tokenizer tokenizer(std::move(lines));
  EXPECT_EQ(tokenizer.encode("a\n", false, false), (Ids{'a', '\n'}));
  EXPECT_TRUE(tokenizer.ends_turn('\n'));
}

TEST(Tokenizer, RefusesToReadIdsOutOfRange) {
  const Tokenizer tokenizer(byte_pairs(PreSplitter::kGpt2));
  for (const std::int32_t id : {-1, 256, std::numeric_limits<std::int32_t>::min()}) {
    EXPECT_THROW(tokenizer.decode(id), Error);
    EXPECT_THROW(tokenizer.decode(Ids{65, id}), Error);
    EXPECT_THROW(tokenizer.is_special(id), Error);
  }
  EXPECT_EQ(tokenizer.size(), 256U);
}

TEST(Tokenizer, OutlivesWhatItWasMadeFromAndCopies) {
  std::optional<Tokenizer> first(byte_pairs(PreSplitter::kGpt2, {"a b"}));
  const Tokenizer copy = *first;
  const Tokenizer moved = std::move(*first);
  first.reset();
  EXPECT_EQ(encode(copy, "ab"), Ids{256});
  EXPECT_EQ(encode(moved, "ab"), Ids{256});
  EXPECT_EQ(copy.decode(256), "ab");
}

TEST(Vocabulary, ThatContradictsItselfIsRefused) {
  const auto spoiled = [](Vocabulary vocabulary, auto spoil) {
    spoil(vocabulary);
    return refusal([&] { Tokenizer{vocabulary}; });
  };
  const Vocabulary pairs = byte_pairs(PreSplitter::kGpt2);
  const Vocabulary pieces = sentence_pieces();
  const auto expect = [](const std::string& message, std::string_view part) {
    EXPECT_NE(message.find(part), std::string::npos) << '[' << message << "] is to say: " << part;
  };

  expect(refusal([] { Tokenizer{Vocabulary{}}; }), "no tokens");
  expect(spoiled(pairs, [](auto& v) { v.types.pop_back(); }), "one type");
  expect(spoiled(pieces, [](auto& v) { v.scores.pop_back(); }), "one score");
  expect(spoiled(pieces, [](auto& v) { v.scores[5] = std::numeric_limits<float>::quiet_NaN(); }), "score");
  for (const std::int32_t id : {-1, 256, 1 << 30}) {
    expect(spoiled(pairs, [&](auto& v) { v.bos = id; }), "BOS");
    expect(spoiled(pairs, [&](auto& v) { v.eos = id; }), "EOS");
    expect(spoiled(pairs, [&](auto& v) { v.eot = id; }), "end-of-turn");
    expect(spoiled(pairs, [&](auto& v) { v.unknown = id; }), "unknown");
  }
  expect(spoiled(pairs, [](auto& v) { v.add_bos = true; }), "BOS");
  for (const char* merge : {"", " ", "a", "ab", " a", "a "}) {
    expect(spoiled(pairs, [&](auto& v) { v.merges = {merge}; }), "is not a pair");
  }
  for (const char* merge : {"a b", "no a", "a no", "a b c", "a  b"}) {
    expect(spoiled(pairs, [&](auto& v) { v.merges = {merge}; }), "names an unknown token");
  }
  for (const char* byte : {"", "<0x>", "<0xGG>", "<0x1>", "<0x123>", "<0x-1>", "<0x+1>", "x<0x41>"}) {
    expect(spoiled(pieces, [&](auto& v) { v.tokens[10] = byte; }), "is not a byte token");
  }
}

}  // namespace
}  // namespace nibkv::llm
