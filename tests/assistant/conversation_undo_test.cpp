#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/assistant/conversation_fixture.hpp"

namespace nibkv::llm {
namespace {

// The tiny model has no chat template: a token is a byte, and BOS comes before the first.
class ConversationUndoTest : public TalkativeConversationTest {
 protected:
  static std::string regenerate(Talk& talk, Ending ending = Ending::kCut) {
    std::string answer;
    EXPECT_EQ(talk.conversation->regenerate([&](std::string_view text) { answer += text; }), ending);
    return answer;
  }

  // Asks, and stops after so many calls of Stop.
  static std::string stopped(Talk& talk, const std::string& message, int calls) {
    std::string answer;
    EXPECT_EQ(talk.conversation->answer(
                  message, [&](std::string_view text) { answer += text; }, [&] { return calls-- == 0; }),
              Ending::kStopped);
    return answer;
  }

  // Tokens that were fed, whatever for.
  static std::uint64_t fed(const Talk& talk) {
    const Counts& counts = talk.conversation->counts();
    return counts.prompt_tokens + counts.decode_steps + counts.read_again;
  }
};

const std::vector<std::string> kMessages = {kFacts, "And then? ", "What is the code for willow? ", "Go on. "};

TEST_F(ConversationUndoTest, LeavesTheConversationAsIfTheTurnHadNeverBeen) {
  for (const bool has_system : {false, true}) {
    ConversationOptions options = greedy(20);
    if (has_system) options.system = "They talk. ";
    for (std::size_t at = 0; at < kMessages.size(); ++at) {  // where a turn comes that is taken back
      Talk never = talk("full", 1024, options), undone = talk("full", 1024, options);
      for (std::size_t i = 0; i < kMessages.size(); ++i) {
        if (i == at) {
          EXPECT_NE(ask(undone, "Something quite different, over more than one tile of the cache. "), "");
          EXPECT_TRUE(undone.conversation->undo());
          EXPECT_EQ(undone.conversation->turns(), i);
        }
        EXPECT_EQ(ask(undone, kMessages[i]), ask(never, kMessages[i])) << "turn " << i << ", undone before " << at;
        EXPECT_EQ(undone.conversation->position(), never.conversation->position());
      }
      // A snapshot says the peak of tiles, too, which a turn after the last one would raise.
      if (undone.store->cache().usage().peak_bytes == never.store->cache().usage().peak_bytes) {
        EXPECT_EQ(undone.conversation->save(7, ""), never.conversation->save(7, "")) << at;
      } else {
        EXPECT_EQ(at, kMessages.size() - 1);
      }
    }
  }
  EXPECT_TRUE(said_.empty()) << said_[0];
}

TEST_F(ConversationUndoTest, GoesBackTurnByTurnToTheEmptyConversation) {
  Talk talk = this->talk("full", 1024, greedy(20));
  const std::vector<std::byte> empty = talk.conversation->save(7, "");
  EXPECT_FALSE(talk.conversation->undo());
  std::vector<std::string> answers;
  std::vector<std::size_t> positions;
  for (const std::string& message : kMessages) {
    answers.push_back(ask(talk, message));
    positions.push_back(talk.conversation->position());
  }
  for (std::size_t left = kMessages.size(); left-- > 0;) {
    EXPECT_TRUE(talk.conversation->undo());
    EXPECT_EQ(talk.conversation->turns(), left);
    // The last token of the answer before was fed with the question.
    if (left > 0) {
      EXPECT_EQ(talk.conversation->position(), positions[left - 1] + 1);
    }
    EXPECT_EQ(ask(talk, kMessages[left]), answers[left]) << left;
    EXPECT_TRUE(talk.conversation->undo());
  }
  EXPECT_FALSE(talk.conversation->undo());
  EXPECT_EQ(talk.conversation->save(7, ""), empty);
  EXPECT_EQ(talk.store->cache().held(0, 0), 0u);
}

TEST_F(ConversationUndoTest, FeedsNothingTwiceAndCountsWhatWasDone) {
  Talk talk = this->talk("full", 512, greedy(3));
  ask(talk, "One.");
  ask(talk, "Two.");
  talk.conversation->undo();
  EXPECT_EQ(talk.conversation->position(), 1 + 4 + 3u);
  ask(talk, "Four.");
  const Counts& counts = talk.conversation->counts();
  // BOS and the messages, and what an answer left to be fed with the next message: once.
  EXPECT_EQ(counts.prompt_tokens, 1 + 4 + 4 + 5 + 1u);
  EXPECT_EQ(counts.answer_tokens, 9u);
  EXPECT_EQ(counts.decode_steps, 6u);
  EXPECT_EQ(counts.read_again, 0u);
  EXPECT_EQ(talk.conversation->position(), 1 + 4 + 3 + 5 + 2u);
}

TEST_F(ConversationUndoTest, RegeneratesTheSameGreedyAnswerAndReadsOneTokenForIt) {
  ConversationOptions options = greedy(24);
  options.system = "They talk. ";
  Talk talk = this->talk("full", 512, options);
  EXPECT_THROW(regenerate(talk), Error);
  for (const std::string& message : {kMessages[0], kMessages[1]}) {
    const std::string answer = ask(talk, message);
    const std::vector<std::byte> before = talk.conversation->save(7, "");
    const Counts counts = talk.conversation->counts();
    EXPECT_EQ(regenerate(talk), answer);
    EXPECT_EQ(regenerate(talk), answer);
    EXPECT_EQ(talk.conversation->save(7, ""), before);
    EXPECT_EQ(talk.conversation->counts().prompt_tokens, counts.prompt_tokens);
    EXPECT_EQ(talk.conversation->counts().read_again, counts.read_again + 2);
    EXPECT_EQ(talk.conversation->counts().answer_tokens, counts.answer_tokens + 48);
  }
  EXPECT_TRUE(said_.empty());
}

TEST_F(ConversationUndoTest, RegeneratesWithTheNextDrawsAndTheSameOnesEachTime) {
  ConversationOptions options = greedy(40);
  options.sampler = {1.0, 0.95, 5};
  const auto texts = [&] {
    Talk talk = this->talk("full", 512, options);
    std::vector<std::string> made = {ask(talk, "They went to")};
    for (int i = 0; i < 3; ++i) made.push_back(regenerate(talk));
    talk.conversation->undo();
    made.push_back(ask(talk, "They went to"));
    return made;
  };
  const std::vector<std::string> first = texts();
  EXPECT_EQ(texts(), first);
  for (std::size_t i = 0; i < first.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) EXPECT_NE(first[i], first[j]) << i << " and " << j;
  }
}

TEST_F(ConversationUndoTest, GoesOnWithTheAnswerThatWasGeneratedLast) {
  ConversationOptions options = greedy(30);
  options.sampler = {1.0, 0.95, 5};
  Talk talk = this->talk("full", 512, options);
  ask(talk, kFacts);
  const std::string answer = regenerate(talk);
  Talk plain = this->talk("full", 512, greedy(1));
  plain.conversation->load(talk.conversation->save(7, ""), 7);
  Talk fresh = this->talk("full", 512, greedy(1));
  EXPECT_EQ(ask(plain, "Why? "), ask(fresh, kFacts + answer + "Why? "));
  EXPECT_EQ(plain.conversation->position(), fresh.conversation->position());
}

// Stopped in the question (of three parts), and at each of some tokens of the answer.
TEST_F(ConversationUndoTest, TakesBackWhatWasStoppedAnywhereAndAnswersItWhole) {
  const std::string message = kFacts;
  Talk never = talk("full", 512, greedy(20));
  const std::string first = ask(never, "Well. "), answer = ask(never, message);
  for (int calls = 0; calls < 8; ++calls) {
    Talk undone = talk("full", 512, greedy(20)), again = talk("full", 512, greedy(20));
    for (Talk* each : {&undone, &again}) {
      EXPECT_EQ(ask(*each, "Well. "), first);
      const std::string part = stopped(*each, message, calls);
      EXPECT_LT(part.size(), answer.size());
    }
    EXPECT_EQ(regenerate(again), answer) << calls;
    EXPECT_EQ(again.conversation->save(7, ""), never.conversation->save(7, "")) << calls;
    EXPECT_TRUE(undone.conversation->undo());
    EXPECT_EQ(undone.conversation->turns(), 1u);
    EXPECT_EQ(ask(undone, message), answer) << calls;
    EXPECT_EQ(undone.conversation->save(7, ""), never.conversation->save(7, "")) << calls;
    EXPECT_EQ(undone.conversation->counts().read_again, 0u) << "nothing that was fed is fed again";
  }
}

TEST_F(ConversationUndoTest, CanBeStoppedWhileItRegeneratesAndThenRegeneratesWhole) {
  Talk talk = this->talk("full", 512, greedy(20));
  const std::string answer = ask(talk, kFacts);
  for (int calls : {0, 1, 5}) {
    std::string part;
    EXPECT_EQ(talk.conversation->regenerate([&](std::string_view text) { part += text; }, [&] { return calls-- == 0; }),
              Ending::kStopped);
    EXPECT_EQ(answer.find(part), 0u);
    EXPECT_LT(part.size(), answer.size());
    EXPECT_EQ(regenerate(talk), answer);
  }
}

TEST_F(ConversationUndoTest, MakesSpaceInAnArenaThatWasFull) {
  Talk talk = this->talk("full", 64, greedy(10));
  const std::string first = ask(talk, "abc");
  EXPECT_THROW(talk.conversation->answer(std::string(45, 'a'), [](std::string_view) {}), Error);
  EXPECT_EQ(talk.conversation->position(), 64u);
  EXPECT_THROW(talk.conversation->regenerate([](std::string_view) {}), Error) << "as full as before";
  EXPECT_EQ(talk.conversation->position(), 64u);
  EXPECT_TRUE(talk.conversation->undo());
  EXPECT_EQ(talk.conversation->position(), 1 + 3 + 10u);
  EXPECT_EQ(ask(talk, "b").size(), 10u);
}

TEST_F(ConversationUndoTest, TakesBackTurnsOfALoadedConversation) {
  for (const char* policy : {"full", "streaming_llm", "ems"}) {
    ConversationOptions options = greedy(20);
    options.system = "They talk. ";
    Talk whole = talk(policy, 512, options);
    for (const std::string& message : {kMessages[0], kMessages[1]}) ask(whole, message);
    const std::vector<std::byte> two = whole.conversation->save(7, "");
    const std::string answer = ask(whole, kMessages[2]);
    Talk loaded = talk(policy, 512, options);
    loaded.conversation->load(whole.conversation->save(7, ""), 7);
    EXPECT_EQ(loaded.conversation->turns(), 3u);
    if (std::string(policy) == "full") {
      EXPECT_EQ(regenerate(loaded), answer);
    }
    EXPECT_TRUE(loaded.conversation->undo());
    Talk before = talk(policy, 512, options);
    before.conversation->load(two, 7);
    EXPECT_EQ(loaded.conversation->position(), before.conversation->position() + 1);
    // Attention that was paid since stays in the scores of ems.
    if (std::string(policy) != "ems") {
      EXPECT_EQ(ask(loaded, "Why? "), ask(before, "Why? ")) << policy;
    }
    EXPECT_TRUE(loaded.conversation->undo());
  }
  EXPECT_TRUE(said_.empty()) << said_[0];
}

// The tokens of the last turn cannot be known.
TEST_F(ConversationUndoTest, ReadsAgainWhatWasLoadedWithAnotherSystemMessage) {
  Talk whole = talk("full", 512, greedy(20));
  ask(whole, kMessages[0]);
  ask(whole, kMessages[1]);
  ConversationOptions options = greedy(20);
  options.system = "They talk. ";
  Talk loaded = talk("full", 512, options), fresh = talk("full", 512, options);
  loaded.conversation->load(whole.conversation->save(7, ""), 7);
  EXPECT_TRUE(loaded.conversation->undo());
  ASSERT_EQ(said_.size(), 1u);
  const std::string message = kMessages[0];
  const std::string all = std::to_string(1 + options.system->size() + message.size() + 20);
  EXPECT_EQ(said_[0], "the cache cannot go back so far: " + all +
                          " tokens of the conversation will be read again before the next answer");
  whole.conversation->undo();
  Talk first = talk("full", 512, greedy(20));
  const std::string answer = ask(first, message);
  EXPECT_EQ(ask(loaded, "Why? "), ask(fresh, message + answer + "Why? "));
}

TEST_F(ConversationUndoTest, LosesNothingWhereTheArenaIsTooSmallForWhatWouldBeReadAgain) {
  Talk whole = talk("full", 64, greedy(4));
  ask(whole, std::string(50, 'a'));
  ask(whole, "b");
  ConversationOptions options = greedy(4);
  options.system = "This leaves too little.";
  Talk loaded = talk("full", 64, options);
  loaded.conversation->load(whole.conversation->save(7, ""), 7);
  const std::vector<std::byte> before = loaded.conversation->save(7, "");
  EXPECT_THROW(loaded.conversation->undo(), Error);
  EXPECT_EQ(loaded.conversation->save(7, ""), before);
  EXPECT_THROW(regenerate(loaded), Error);
  EXPECT_EQ(loaded.conversation->save(7, ""), before);
  EXPECT_TRUE(said_.empty());
}

// A budget of 64 at which each turn makes space.
TEST_F(ConversationUndoTest, ReadsAgainWhereTheCacheMadeSpaceAndSaysSo) {
  for (const char* policy : {"ems", "streaming_llm"}) {
    said_.clear();
    Talk undone = talk(policy, 64, greedy(20));
    const std::string facts = kFacts, first = ask(undone, facts);
    ask(undone, std::string(60, 'x') + std::string(60, 'y'));
    ASSERT_GT(oldest_reachable(undone.store->cache()), 1 + facts.size() + 20) << "the test's premise";
    const std::uint64_t prompt = undone.conversation->counts().prompt_tokens;
    EXPECT_TRUE(undone.conversation->undo());
    const std::size_t read = 1 + facts.size() + 20;
    EXPECT_EQ(said_, std::vector<std::string>{"the cache cannot go back so far: " + std::to_string(read) +
                                              " tokens of the conversation will be read again before the next answer"});
    EXPECT_EQ(undone.conversation->turns(), 1u);

    Talk fresh = talk(policy, 64, greedy(20));
    const std::string answer = ask(undone, "Go on. ");
    EXPECT_EQ(ask(fresh, facts + first + "Go on. "), answer) << "as if read for the first time";
    EXPECT_EQ(undone.conversation->counts().read_again, read);
    EXPECT_EQ(undone.conversation->counts().prompt_tokens, prompt + 7);
    EXPECT_EQ(undone.conversation->position(), fresh.conversation->position());

    // A conversation that waits to be read again can be taken back, saved and loaded.
    ask(undone, std::string(120, 'z'));
    EXPECT_TRUE(undone.conversation->undo());
    EXPECT_EQ(said_.size(), 2u);
    Talk loaded = talk(policy, 64, greedy(20));
    loaded.conversation->load(undone.conversation->save(7, ""), 7);
    for (Talk* each : {&undone, &loaded}) {
      EXPECT_TRUE(each->conversation->undo());
      EXPECT_EQ(each->conversation->turns(), 1u);
      EXPECT_EQ(ask(*each, "Go on. "), answer);
    }
    EXPECT_EQ(said_.size(), 2u) << "it was not in the cache";
    EXPECT_EQ(undone.conversation->counts().read_again, 2 * read) << "the last message was taken back and is new";
    EXPECT_EQ(loaded.conversation->counts().read_again, 0u) << "counts are of what was fed since";
  }
}

TEST_F(ConversationUndoTest, TakesBackWhatIsStillWholeThoughTheCacheMadeSpaceBefore) {
  for (const char* policy : {"ems", "streaming_llm"}) {
    Talk talk = this->talk(policy, 64, greedy(4));
    const std::string facts = kFacts;
    ask(talk, facts);
    ASSERT_GT(oldest_reachable(talk.store->cache()), 0u);
    for (int i = 0; i < 3; ++i) {
      ask(talk, "Why? ");
      EXPECT_TRUE(talk.conversation->undo());
      EXPECT_EQ(talk.conversation->position(), 1 + facts.size() + 4);
    }
    EXPECT_TRUE(said_.empty()) << said_[0];
    EXPECT_EQ(talk.conversation->counts().read_again, 0u);
  }
}

TEST_F(ConversationUndoTest, RegeneratesWhereTheAnswerMadeSpaceByReadingAgain) {
  Talk talk = this->talk("ems", 64, greedy(150));
  const std::string facts = kFacts, answer = ask(talk, facts);
  ASSERT_GT(oldest_reachable(talk.store->cache()), facts.size());
  const std::uint64_t before = fed(talk);
  EXPECT_EQ(regenerate(talk), answer) << "the whole conversation was one turn, and is read as it was";
  ASSERT_EQ(said_.size(), 1u);
  EXPECT_EQ(talk.conversation->counts().read_again, facts.size() + 1);
  EXPECT_EQ(fed(talk) - before, before);
}

TEST_F(ConversationUndoTest, KnowsWhatTheLimitLeftOfTheConversation) {
  ConversationOptions options = greedy(30, 256);
  options.system = "They talk. ";
  Talk talk = this->talk("full", 512, options);
  for (int i = 0; said_.empty(); ++i) ask(talk, "This is line " + std::to_string(i) + " of the talk. ");
  const std::size_t kept = talk.conversation->turns();
  ASSERT_GE(kept, 2u);
  Talk loaded = this->talk("full", 512, options);
  loaded.conversation->load(talk.conversation->save(7, ""), 7);
  const std::string answer = regenerate(talk);
  EXPECT_EQ(regenerate(loaded), answer);
  EXPECT_EQ(talk.conversation->save(7, ""), loaded.conversation->save(7, ""));
  for (std::size_t left = kept; left-- > 0;) {
    EXPECT_TRUE(talk.conversation->undo());
    EXPECT_EQ(talk.conversation->turns(), left);
  }
  EXPECT_FALSE(talk.conversation->undo());
  EXPECT_EQ(said_.size(), 1u) << "nothing is read again";
  Talk fresh = this->talk("full", 512, options);
  EXPECT_EQ(ask(talk, kFacts), ask(fresh, kFacts));
}

// The limit came in the answer, and left a part of the question.
TEST_F(ConversationUndoTest, RegeneratesFromTheWholeQuestionThoughTheLimitShortenedIt) {
  Talk talk = this->talk("full", 512, greedy(200, 256));
  const std::string facts = kFacts, answer = ask(talk, facts);
  ASSERT_EQ(said_.size(), 1u) << "the limit";
  EXPECT_EQ(regenerate(talk), answer);
  ASSERT_EQ(said_.size(), 3u) << "reading again, and the limit again";
  EXPECT_EQ(said_[1], "the cache cannot go back so far: " + std::to_string(facts.size() + 1) +
                          " tokens of the conversation will be read again before the next answer");
  EXPECT_TRUE(talk.conversation->undo());
  EXPECT_EQ(talk.conversation->position(), 0u);
}

TEST_F(ConversationUndoTest, TakesBackTurnsOfAChatTemplate) {
  const Chat chat(tokenizer_, *find_chat_template("llama2"));
  ConversationOptions options = greedy(20);
  options.system = "Be kind.";
  Talk undone = talk("full", 1024, options, chat), never = talk("full", 1024, options, chat);
  ask(undone, "One. ");
  ask(undone, "Another.");
  EXPECT_TRUE(undone.conversation->undo());
  ask(never, "One. ");
  EXPECT_EQ(ask(undone, "Two."), ask(never, "Two."));
  EXPECT_TRUE(undone.conversation->undo());
  EXPECT_TRUE(undone.conversation->undo());
  Talk fresh = talk("full", 1024, options, chat);
  EXPECT_EQ(ask(undone, "Two."), ask(fresh, "Two."));
}

}  // namespace
}  // namespace nibkv::llm
