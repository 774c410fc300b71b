#include "bench/eval/metrics/retrieval.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <string>
#include <vector>

#include "bench/eval/report/retrieval_report.hpp"
#include "bench/runner/profile/needles.hpp"
#include "bench/runner/programs/arguments.hpp"
#include "bench/runner/stores/f16_store.hpp"
#include "bench/runner/text/builtin_text.hpp"

namespace nibkv::llm::retrieval_test {
namespace {

TEST(Needles, HaveNames) {
  for (const char* name : {"passkey", "sentence", "several", "code"}) {
    EXPECT_EQ(needle_name(parse_needle(name)), name);
  }
  EXPECT_THROW(parse_needle("pin"), UsageError);
  EXPECT_THROW(parse_needle(""), UsageError);
  EXPECT_EQ(parse_prompt_form("plain"), PromptForm::kPlain);
  EXPECT_EQ(parse_prompt_form("chat"), PromptForm::kChatMl);
  EXPECT_THROW(parse_prompt_form("html"), UsageError);
}

TEST(Needles, CanBeAnsweredFromTheFirstFactAndNoOther) {
  for (const char* name : {"passkey", "sentence", "several", "code"}) {
    std::set<std::string> answers;
    for (std::uint64_t seed = 0; seed < 50; ++seed) {
      const Needle needle = make_needle(parse_needle(name), seed);
      ASSERT_EQ(needle.facts.size(), name == std::string("several") ? 3u : 1u);
      EXPECT_NE(needle.facts[0].find(needle.answer), std::string::npos) << needle.facts[0];
      for (std::size_t i = 1; i < needle.facts.size(); ++i) {
        EXPECT_EQ(needle.facts[i].find(needle.answer), std::string::npos) << needle.facts[i];
        EXPECT_EQ(needle.facts[i].find(needle.lead), std::string::npos) << needle.facts[i];
      }
      EXPECT_EQ((needle.question + needle.lead).find(needle.answer), std::string::npos) << needle.question;
      EXPECT_TRUE(is_right(needle, " it is " + needle.answer + "."));
      EXPECT_FALSE(is_right(needle, needle.answer.substr(1)));
      EXPECT_EQ(make_needle(parse_needle(name), seed).facts, needle.facts);
      answers.insert(needle.answer);
    }
    EXPECT_GE(answers.size(), name == std::string("sentence") ? 6u : 45u) << name;
  }
}

TEST(Needles, AreTheSameOnEveryMachine) {
  EXPECT_EQ(make_needle(NeedleKind::kPasskey, 1).answer, "72465");
  EXPECT_EQ(make_needle(NeedleKind::kSeveral, 1).lead, "The pass key of Boris is");
}

TEST(Lengths, AreNumbersBetweenCommas) {
  EXPECT_EQ(parse_lengths("1024"), (std::vector<std::size_t>{1024}));
  EXPECT_EQ(parse_lengths("16,4096,512"), (std::vector<std::size_t>{16, 4096, 512}));
  for (const char* wrong : {"", "15", "1024,", "x", "-1", "1e3", "99999999"}) {
    EXPECT_THROW(parse_lengths(wrong), UsageError) << wrong;
  }
}

TEST(Wilson, IsThatOfTheBook) {
  // E. B. Wilson, J. Am. Stat. Assoc. 22 (1927), with z = 1.96.
  const Proportion none = wilson(0, 10), half = wilson(5, 10), most = wilson(81, 263);
  EXPECT_EQ(none.share, 0);
  EXPECT_EQ(none.low, 0);
  EXPECT_NEAR(none.high, 0.2775, 1e-4);
  EXPECT_NEAR(half.low, 0.2366, 1e-4);
  EXPECT_NEAR(half.high, 0.7634, 1e-4);
  EXPECT_NEAR(most.low, 0.2553, 1e-4);
  EXPECT_NEAR(most.high, 0.3662, 1e-4);
  EXPECT_NEAR(wilson(10, 10).high, 1, 1e-12);
  const Proportion unknown = wilson(0, 0);
  EXPECT_EQ(unknown.low, 0);
  EXPECT_EQ(unknown.high, 1);
}

/// The tiny model and some text, one token per byte.
class RetrievalTest : public testing::Test {
 protected:
  static std::string text() {
    std::string text;
    for (const std::string_view part : builtin_text()) text += std::string(part) + "\n";
    return text;
  }

  static Hiding hiding(std::size_t length, double depth, std::uint64_t seed, NeedleKind kind = NeedleKind::kCode) {
    Hiding out;
    out.kind = kind;
    out.length = length;
    out.depth = depth;
    out.seed = seed;
    return out;
  }

  // How many of 12 codes are found among 400 tokens.
  std::size_t found(TileStore& store, std::uint32_t compact_to) {
    std::size_t right = 0;
    for (std::uint64_t i = 0; i < 12; ++i) {
      const Needle needle = make_needle(NeedleKind::kCode, i);
      const Prompt prompt = haystack_.hide(needle, hiding(400, static_cast<double>(i) / 11, i));
      store.clear();
      const auto compact = [&] {
        if (compact_to != 0) store.compact_now(compact_to);
      };
      right += ask_for_needle(model_, tokenizer_, store, prompt, needle, compact).right ? 1 : 0;
    }
    return right;
  }

  StoreOptions options(const std::string& policy, std::uint32_t tokens) const {
    StoreOptions out;
    out.policy = policy;
    out.tokens = tokens;
    out.workers = pool_.workers();
    return out;
  }

  Gguf file_ = Gguf::open(NIBKV_TINY_MODEL);
  Tokenizer tokenizer_ = Tokenizer::from(file_);
  ThreadPool pool_{2};
  Model model_{file_, pool_};
  std::vector<std::int32_t> tokens_ = tokenizer_.encode(text(), false, false);
  Haystack haystack_{tokenizer_, tokens_};
};

TEST_F(RetrievalTest, PromptsHaveTheLengthAndTheNeedleWhereItIsSaid) {
  for (const char* kind : {"passkey", "sentence", "several", "code"}) {
    for (const double depth : {0.0, 0.3, 0.5, 1.0}) {
      const Hiding where = hiding(900, depth, 5, parse_needle(kind));
      const Needle needle = make_needle(where.kind, 5);
      const Prompt prompt = haystack_.hide(needle, where);
      ASSERT_EQ(prompt.tokens.size(), 900u);
      const std::span<const std::int32_t> all(prompt.tokens);
      EXPECT_EQ(tokenizer_.decode(all.subspan(prompt.needle_first, prompt.needle_count)), needle.facts[0]);
      const std::string text = tokenizer_.decode(all);
      for (const std::string& fact : needle.facts) EXPECT_NE(text.find(fact), std::string::npos) << fact;
      EXPECT_TRUE(
          text.ends_with(needle.question + (where.kind == NeedleKind::kCode ? "" : "\nAnswer: ") + needle.lead));
      const std::string question = tokenizer_.decode(all.subspan(prompt.question));
      EXPECT_EQ(question.find(needle.facts[0]), std::string::npos);
      EXPECT_NE(question.find(needle.question), std::string::npos);
    }
  }
}

TEST_F(RetrievalTest, DeeperNeedlesLieFurtherBack) {
  const Needle needle = make_needle(NeedleKind::kCode, 3);
  std::size_t last = 0;
  for (int place = 0; place <= 8; ++place) {
    const Prompt prompt = haystack_.hide(needle, hiding(1000, place / 8.0, 3));
    const double depth =
        static_cast<double>(prompt.needle_first) / static_cast<double>(prompt.question - prompt.needle_count);
    EXPECT_NEAR(depth, place / 8.0, 0.07) << "up to 64 tokens earlier";
    EXPECT_LE(depth, place / 8.0 + 5e-3);
    EXPECT_TRUE(place == 0 || prompt.needle_first > last);
    last = prompt.needle_first;
  }
}

TEST_F(RetrievalTest, SeedsChooseOtherStretchesAndTheSameSeedTheSame) {
  const Needle needle = make_needle(NeedleKind::kCode, 3);
  const Prompt first = haystack_.hide(needle, hiding(500, 0.5, 1));
  EXPECT_EQ(haystack_.hide(needle, hiding(500, 0.5, 1)).tokens, first.tokens);
  EXPECT_NE(haystack_.hide(needle, hiding(500, 0.5, 2)).tokens, first.tokens);
}

TEST_F(RetrievalTest, RefusesLengthsThatDoNotFit) {
  const Needle needle = make_needle(NeedleKind::kSeveral, 1);
  EXPECT_THROW(haystack_.hide(needle, hiding(100, 0.5, 1, NeedleKind::kSeveral)), Error);
  EXPECT_THROW(haystack_.hide(needle, hiding(tokens_.size() + 2000, 0.5, 1, NeedleKind::kSeveral)), Error);
  EXPECT_THROW(prompt_length(1025, model_.config()), Error);
}

TEST_F(RetrievalTest, PromptsLeaveRoomForAnAnswerInTheContext) {
  EXPECT_EQ(prompt_length(600, model_.config()), 600u);
  EXPECT_EQ(prompt_length(1014, model_.config()), 1014u);
  EXPECT_EQ(prompt_length(1015, model_.config()), 1014u);
  EXPECT_EQ(prompt_length(1024, model_.config()), 1014u);
  StoreOptions exact = options("full", 1024);
  exact.storage = Storage::kF32;
  TileStore store(model_.config(), exact);
  const Needle needle = make_needle(NeedleKind::kPasskey, 1);
  const Prompt prompt = haystack_.hide(needle, hiding(1014, 0.5, 1, NeedleKind::kPasskey));
  // It was not trained on pass keys, so it continues to the last token of an answer.
  EXPECT_NO_THROW(ask_for_needle(model_, tokenizer_, store, prompt, needle, {}));
  EXPECT_EQ(store.cache().seen(0), 1014 + kAnswerTokens - 1);
}

TEST(Depths, AreEquallyFarFromOneAnother) {
  EXPECT_EQ(depth_of(0, 1), 0.5);
  EXPECT_EQ(depth_of(0, 5), 0);
  EXPECT_EQ(depth_of(1, 5), 0.25);
  EXPECT_EQ(depth_of(4, 5), 1);
}

TEST_F(RetrievalTest, EveryStoreIsAskedTheSame) {
  StoreOptions exact = options("full", 420);
  exact.storage = Storage::kF32;
  TileStore one(model_.config(), exact);
  std::set<std::string> texts;
  for (std::uint64_t which = 1; which <= 3; ++which) {
    one.clear();
    F16Store window(model_.config(), kF16Last, 1 << 30);
    const Hiding where = hiding(400, 0.25, 99);
    const Answer exactly = hide_and_ask(model_, tokenizer_, haystack_, one, where, which, {});
    const Answer half = hide_and_ask(model_, tokenizer_, haystack_, window.store, where, which, {});
    EXPECT_EQ(half.text, exactly.text) << "f16 of everything changes no answer";
    texts.insert(exactly.text);
  }
  EXPECT_EQ(texts.size(), 3u) << "other needles";
}

TEST_F(RetrievalTest, AFullCacheFindsNearlyAllCodes) {
  StoreOptions exact = options("full", 420);
  exact.storage = Storage::kF32;
  TileStore f32(model_.config(), exact);
  EXPECT_GE(found(f32, 0), 11u);
  TileStore q4(model_.config(), options("full", 420));
  EXPECT_GE(found(q4, 0), 10u);
}

TEST_F(RetrievalTest, ASmallWindowFindsOnlyTheLastOnes) {
  TileStore store(model_.config(), options("streaming_llm", 64));
  EXPECT_LE(found(store, 0), 6u);
}

TEST_F(RetrievalTest, AWholeStoreGivesNothingUpBeforeItIsTold) {
  for (const char* policy : {"ems", "h2o", "snapkv", "pyramid_kv", "ada_kv"}) {
    TileStore store = make_whole_store(model_.config(), options(policy, 96), 420);
    const Needle needle = make_needle(NeedleKind::kCode, 1);
    const Prompt prompt = haystack_.hide(needle, hiding(400, 0.2, 1));
    bool was_asked = false;
    ask_for_needle(model_, tokenizer_, store, prompt, needle, [&] {
      was_asked = true;
      std::uint64_t held = 0;
      const Shape& shape = store.cache().shape();
      for (std::uint32_t layer = 0; layer < shape.layers; ++layer) {
        for (std::uint32_t head = 0; head < shape.kv_heads; ++head) {
          EXPECT_EQ(store.cache().held(layer, head), 399u) << policy;
        }
      }
      store.compact_now(96);
      for (std::uint32_t layer = 0; layer < shape.layers; ++layer) {
        for (std::uint32_t head = 0; head < shape.kv_heads; ++head) held += store.cache().held(layer, head);
      }
      // Heads with less than the mean still keep what is never dropped.
      EXPECT_LE(held, 112u * shape.layers * shape.kv_heads) << policy;
    });
    EXPECT_TRUE(was_asked);
  }
}

TEST_F(RetrievalTest, AQuestionSeenWithRoomForNearlyAllIsAnswered) {
  TileStore store = make_whole_store(model_.config(), options("ems", 396), 420);
  EXPECT_GE(found(store, 396), 9u);
}

RetrievalReport some_report() {
  RetrievalReport report;
  report.model = "m.gguf";
  report.text = "t.txt";
  report.profile = "none";
  report.prompt = "plain";
  report.outlier_channels = 8;
  for (const char* policy : {"ems merge=none", "f32"}) {
    for (const std::uint64_t length : {2048, 1024}) {
      for (int place = 0; place < 3; ++place) {
        for (std::uint64_t seed = 1; seed <= 2; ++seed) {
          const bool full = policy == std::string("f32");
          report.rows.push_back({policy, full ? "either" : "seen", full ? 0u : 256u, "passkey", length, place / 7.0,
                                 seed, full || place == 2, 1000 + length});
        }
      }
    }
  }
  return report;
}

TEST(RetrievalReport, ComesBackFromItsJson) {
  const RetrievalReport report = some_report();
  const RetrievalReport again = RetrievalReport::parse(report.as_json());
  EXPECT_EQ(again.as_json(), report.as_json());
  ASSERT_EQ(again.rows.size(), report.rows.size());
  for (const RetrievalRow& row : report.rows) EXPECT_TRUE(again.has(row));
  RetrievalRow other = report.rows[0];
  other.seed = 3;
  EXPECT_FALSE(again.has(other));
  for (const std::string& text : {std::string("{}"), std::string("x"), report.as_json().substr(0, 200)}) {
    EXPECT_THROW(RetrievalReport::parse(text), Error);
  }
}

TEST(RetrievalReport, GoesOnOnlyFromTheSameModelTextAndPrompt) {
  const RetrievalReport older = some_report();
  RetrievalReport report = some_report();
  report.rows.clear();
  report.go_on_from(older);
  EXPECT_EQ(report.rows.size(), older.rows.size());
  for (std::string RetrievalReport::*member :
       {&RetrievalReport::model, &RetrievalReport::text, &RetrievalReport::profile, &RetrievalReport::prompt}) {
    RetrievalReport another = some_report();
    another.*member = "other";
    EXPECT_THROW(another.go_on_from(older), Error);
    EXPECT_EQ(another.rows.size(), older.rows.size());
  }
}

TEST(RetrievalReport, SumsUpByLengthAndInAll) {
  const std::string json = some_report().as_json();
  EXPECT_NE(json.find("\"accuracy\": 0.3333"), std::string::npos) << json;
  const std::string table = some_report().as_table();
  EXPECT_NE(table.find("ems merge=none, 256 tokens a head, question seen  passkey     1024      2    6    33.3 %"),
            std::string::npos)
      << table;
  EXPECT_NE(table.find("passkey      all     12   12   100.0 %  75.8 to 100.0 %"), std::string::npos) << table;
}

TEST(RetrievalReport, DrawsAMapForEachCache) {
  const auto maps = some_report().as_svgs();
  ASSERT_EQ(maps.size(), 2u);
  EXPECT_EQ(maps[0].first, "ems-merge-none-256-seen-passkey");
  EXPECT_EQ(maps[1].first, "f32-passkey");
  for (const auto& [name, svg] : maps) {
    EXPECT_TRUE(svg.starts_with("<svg ")) << name;
    EXPECT_NE(svg.find("2048"), std::string::npos) << name;
  }
  EXPECT_NE(maps[0].second.find("question seen"), std::string::npos);
}

}  // namespace
}  // namespace nibkv::llm::retrieval_test
