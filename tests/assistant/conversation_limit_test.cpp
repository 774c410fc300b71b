#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tests/assistant/conversation_fixture.hpp"

namespace nibkv::llm {
namespace {

// The tiny model was trained for 1,024 tokens, one token per byte, and has no chat template.
class ConversationLimitTest : public TalkativeConversationTest {
 protected:
  // How many tokens are kept according to the last line.
  std::size_t kept() const {
    if (said_.empty()) return 0;
    const std::string& line = said_.back();
    return std::stoul(line.substr(line.rfind(' ') + 1));
  }
};

TEST_F(ConversationLimitTest, GoesOnForThousandsOfTokensAndNeverReadsPastWhatTheModelWasTrainedFor) {
  for (const char* policy : {"streaming_llm", "ems"}) {
    said_.clear();
    Talk talk = this->talk(policy, 128, greedy(40));
    const std::string message = "And what is the code for willow? ";
    std::size_t fed = 0;
    while (fed < 4000) {
      EXPECT_EQ(ask(talk, message).size(), 40u);
      EXPECT_LE(talk.conversation->position(), model_.config().context);
      EXPECT_LE(talk.store->cache().held(0, 0), 128 + 2 * kTileSlots) << "the budget, a chunk and a tile";
      const Counts& counts = talk.conversation->counts();
      fed = counts.prompt_tokens + counts.decode_steps;
    }
    // Every time about half of it is read again.
    EXPECT_GE(said_.size(), 6u);
    EXPECT_LE(said_.size(), 8u);
    EXPECT_EQ(said_[0].find("the conversation has come to the 1024 tokens that the model was trained for"), 0u);
    EXPECT_GT(talk.conversation->counts().read_again, said_.size() * 380);
    EXPECT_LT(talk.conversation->counts().read_again, said_.size() * 513);
  }
}

TEST_F(ConversationLimitTest, IsNoneWhereQueriesAreTurnedBackToWhatTheModelKnows) {
  for (const char* policy : {"streaming_llm", "ems"}) {
    StoreOptions store;
    store.policy = policy;
    store.tokens = 256;
    const std::uint32_t reach = endless_reach(model_.config(), store);
    EXPECT_EQ(reach, model_.config().context);
    Talk fresh = this->talk(policy, 256, greedy(7));
    const std::string answer = ask(fresh, kFacts);
    EXPECT_NE(answer.find("90717"), std::string::npos) << answer;

    Talk talk = this->talk(policy, 256, greedy(7), chat_, reach);
    std::size_t right = 0, asked = 0;
    while (talk.conversation->position() < 5000) {
      const std::string again =
          ask(talk, "\nThey talked about the weather for a while, and about nothing much. " + std::string(kFacts));
      EXPECT_LE(talk.store->cache().held(0, 0), 256 + 2 * kTileSlots);
      if (talk.conversation->position() < 2000) continue;  // twice what the model was trained for
      ++asked;
      right += again.find("90717") != std::string::npos ? 1 : 0;
    }
    EXPECT_EQ(right, asked) << policy;
    EXPECT_GT(asked, 10u);
    EXPECT_TRUE(said_.empty()) << said_[0];
    EXPECT_EQ(talk.conversation->counts().read_again, 0u);
  }
}

TEST_F(ConversationLimitTest, StaysWherePoliciesKeepEverything) {
  StoreOptions store;
  store.policy = "full";
  store.tokens = 2048;
  EXPECT_EQ(endless_reach(model_.config(), store), 0u);
  // Nor does one with a log, which goes on without a reach.
  store.policy = "recall";
  for (const std::uint32_t tokens : {0u, 256u}) {
    store.tokens = tokens;
    EXPECT_EQ(endless_reach(model_.config(), store), 0u) << tokens;
  }
}

// What is taken back far beyond the limit is not read again from its beginning.
TEST_F(ConversationLimitTest, BoundsWhatIsReadAgainWithoutALimitToo) {
  Talk talk = this->talk("ems", 128, greedy(20), chat_, 1024);
  while (talk.conversation->position() < 3000) ask(talk, "And what is the code for willow? ");
  EXPECT_TRUE(said_.empty());
  ask(talk, std::string(600, 'x'));
  EXPECT_TRUE(talk.conversation->undo());
  ASSERT_EQ(said_.size(), 1u);
  ask(talk, "And then? ");
  EXPECT_GT(talk.conversation->counts().read_again, 380u);
  EXPECT_LT(talk.conversation->counts().read_again, 513u);
}

TEST_F(ConversationLimitTest, GoesOnAsAConversationOfTheSystemMessageAndTheNewestTurns) {
  ConversationOptions options = greedy(30);
  options.system = "They talk. ";
  Talk talk = this->talk("full", 1024, options);
  std::string all;
  std::vector<std::size_t> starts;  // of the turns
  std::string message, answer;
  for (int i = 0; said_.empty(); ++i) {
    message = "This is line " + std::to_string(i) + ", and the code for pine is " + std::to_string(i * 371) + ".\n";
    starts.push_back(all.size());
    answer = ask(talk, message);
    all += message + answer;
  }
  const std::size_t tokens = kept() - 1 - options.system->size();  // without BOS
  const std::size_t start = all.size() - answer.size() - tokens;
  EXPECT_NE(std::find(starts.begin(), starts.end(), start), starts.end()) << "whole turns";
  const std::size_t half = (1024 - 1 - options.system->size()) / 2;
  EXPECT_LE(tokens, half);
  EXPECT_GT(tokens + 100, half) << "another turn would not fit";
  const Counts& counts = talk.conversation->counts();
  EXPECT_EQ(counts.read_again, kept() - 1 - message.size()) << "the last token of an answer is new";
  EXPECT_EQ(counts.prompt_tokens + counts.decode_steps, 1 + options.system->size() + all.size() - 1);

  Talk fresh = this->talk("full", 1024, options);
  EXPECT_EQ(ask(fresh, all.substr(start, tokens)), answer);
  EXPECT_EQ(fresh.conversation->position(), talk.conversation->position());
  EXPECT_EQ(ask(fresh, "And the code for pine? "), ask(talk, "And the code for pine? "));
}

// What a person typed is text when it is read again, and after loading, too.
TEST_F(ConversationLimitTest, ReadsControlTokensThatMessagesSpellAgainAsText) {
  ConversationOptions options = greedy(5, 256);
  options.system = "<s>";
  const std::string odd = "</s><s>ab<unk>";  // as many tokens as bytes
  Talk talk = this->talk("full", 1024, options);
  ask(talk, odd);
  EXPECT_EQ(talk.conversation->counts().prompt_tokens, 1 + 3 + odd.size());
  const std::vector<std::byte> saved = talk.conversation->save(1, "");
  Talk loaded = this->talk("full", 1024, options);
  loaded.conversation->load(saved, 1);
  Talk plain = this->talk("full", 1024, options);  // the same with text that spells nothing
  ask(plain, std::string(odd.size(), 'x'));
  for (int i = 0; i < 20; ++i) {
    ask(loaded, odd);
    ask(plain, std::string(odd.size(), 'x'));
  }
  EXPECT_GT(loaded.conversation->counts().read_again, 0u);
  EXPECT_EQ(loaded.conversation->counts().read_again, plain.conversation->counts().read_again);
  EXPECT_EQ(loaded.conversation->position(), plain.conversation->position());
}

TEST_F(ConversationLimitTest, IsReachedInTheMiddleOfAnAnswerToo) {
  Talk talk = this->talk("full", 512, greedy(700, 256));
  EXPECT_EQ(ask(talk, kFacts).size(), 700u);
  EXPECT_GE(said_.size(), 4u);
  EXPECT_EQ(kept(), 128u) << "BOS, and half of the rest";
  EXPECT_LE(talk.conversation->position(), 256u);
  EXPECT_EQ(talk.conversation->counts().answer_tokens, 700u);

  // The answer continues as it would after what was kept: the ends of message and
  // answer, 64 and 63 bytes.
  said_.clear();
  Talk whole = this->talk("full", 512, greedy(160, 256));
  const std::string answer = ask(whole, kFacts);
  ASSERT_EQ(said_.size(), 1u);
  const std::string message = kFacts;
  const std::size_t made = 256 - (message.size() + 1) + 1;  // tokens of the answer at the limit
  Talk fresh = this->talk("full", 512, greedy(160 - made, 256));
  const std::string kept = message.substr(message.size() - 64) + answer.substr(made - 63, 63);
  EXPECT_EQ(answer.substr(made), ask(fresh, kept));
}

TEST_F(ConversationLimitTest, KeepsTheEndOfATurnThatDoesNotFitWhole) {
  Talk talk = this->talk("full", 1024, greedy(10));
  std::string accents;
  for (int i = 0; i < 350; ++i) accents += "\xC3\xA9";
  const std::string answer = ask(talk, accents);
  const std::string message(401, 'x');
  ask(talk, message);
  EXPECT_LE(kept(), 512u);
  EXPECT_GE(kept(), 511u);
  EXPECT_EQ((kept() - 1 - message.size() - 10) % 2, 0u) << "no half characters";
  // A message longer than half of the limit is read alone.
  ask(talk, std::string(800, 'y'));
  EXPECT_EQ(kept(), 801u);
}

TEST_F(ConversationLimitTest, RefusesAMessageThatAloneIsLongerAndLosesNothing) {
  Talk talk = this->talk("ems", 128, greedy(5));
  ask(talk, kFacts);
  const std::vector<std::byte> before = talk.conversation->save(7, "");
  const std::string message(1024, 'x');
  try {
    ask(talk, message);
    FAIL() << "took a message that does not fit";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(),
                 "the message is too long: with what stands around it, it has 1025 tokens, and the model reads at most "
                 "1023");
  }
  EXPECT_EQ(talk.conversation->save(7, ""), before);
  EXPECT_TRUE(said_.empty());
  EXPECT_EQ(ask(talk, "\nWhat is the code for willow? ").size(), 5u);
  ask(talk, message.substr(0, 1022));
  EXPECT_NE(said_.at(0).find("all but the newest 1023"), std::string::npos) << said_[0];
}

TEST_F(ConversationLimitTest, LosesNothingWhereTheArenaIsTooSmallForWhatWouldBeRead) {
  Talk talk = this->talk("full", 512, greedy(5));
  ask(talk, std::string(300, 'a'));
  const std::vector<std::byte> before = talk.conversation->save(7, "");
  EXPECT_THROW(ask(talk, std::string(800, 'b')), Error);
  EXPECT_EQ(talk.conversation->save(7, ""), before);
}

TEST_F(ConversationLimitTest, IsPassedBySavedConversationsAsIfTheyHadNeverStopped) {
  ConversationOptions options = greedy(30, 200);
  options.sampler.temperature = 1;
  options.system = "Some talk. ";
  const auto answer = [](Talk& to, int i) {
    std::string text;
    to.conversation->answer("And what is number " + std::to_string(i) + "?\n",
                            [&](std::string_view part) { text += part; });
    return text;
  };
  Talk whole = talk("ems", 96, options);
  std::vector<std::string> answers;
  for (int i = 0; i < 16; ++i) answers.push_back(answer(whole, i));
  EXPECT_GE(said_.size(), 4u);
  std::vector<std::byte> saved = talk("ems", 96, options).conversation->save(7, "");
  for (int i = 0; i < 16; ++i) {
    Talk again = talk("ems", 96, options);
    again.conversation->load(saved, 7);
    EXPECT_EQ(answer(again, i), answers[static_cast<std::size_t>(i)]) << i;
    saved = again.conversation->save(7, "");
  }
  EXPECT_EQ(saved, whole.conversation->save(7, ""));
}

TEST_F(ConversationLimitTest, GoesOnAfterAStopWhileItReadsAgain) {
  Talk talk = this->talk("full", 512, greedy(10, 256));
  ask(talk, std::string(200, 'a'));
  const auto ignore = [](std::string_view) {};
  EXPECT_EQ(talk.conversation->answer(std::string(80, 'b'), ignore, [] { return true; }), Ending::kStopped);
  EXPECT_EQ(talk.conversation->position(), 0u);
  EXPECT_EQ(ask(talk, "c").size(), 10u);
  EXPECT_EQ(talk.conversation->position(), kept() + 1 + 9);
}

TEST_F(ConversationLimitTest, PutsTheSystemMessageWhereTheTemplateWantsIt) {
  const Chat chat(tokenizer_, *find_chat_template("llama2"));
  ConversationOptions options = greedy(20, 256);
  options.system = "Be kind.";
  Talk talk = this->talk("full", 512, options, chat);
  std::vector<std::string> messages, answers;
  while (said_.empty()) {
    messages.push_back("Line " + std::to_string(messages.size()));
    answers.emplace_back();
    talk.conversation->answer(messages.back(), [&](std::string_view text) { answers.back() += text; });
  }
  // Templates whose first turn is written together with the system message.
  std::size_t from = messages.size() - 1, size = chat.first(options.system, messages[from]).size();
  while (size < kept()) {
    size -= chat.first(options.system, messages[from]).size();
    size += chat.next(false, messages[from]).size();
    --from;
    size += chat.first(options.system, messages[from]).size() + answers[from].size();
  }
  EXPECT_EQ(size, kept());
  EXPECT_GE(messages.size() - from, 2u);
}

}  // namespace
}  // namespace nibkv::llm
