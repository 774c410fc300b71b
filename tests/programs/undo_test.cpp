// /undo and /regenerate of the assistant.
#include <gtest/gtest.h>

#include <csignal>
#include <string>

#include "tests/programs/child.hpp"
#include "tests/programs/program.hpp"

namespace {

using nibkv::test::Child;
using nibkv::test::contents;
using nibkv::test::count_of;
using nibkv::test::in_quotes;
using nibkv::test::Result;

class UndoTest : public nibkv::test::ProgramTest {
 protected:
  UndoTest() : ProgramTest("nibkv-assistant") {}

  static std::string options(const std::string& more) {
    return "--model " + in_quotes(model_) + " --profile none --max-tokens 12 --tokens 512 " + more;
  }
  static constexpr const char* kFirst = "The code for willow is 90717. What is the code for willow? \n";
};

TEST_F(UndoTest, TakesBackTurnByTurnAndSaysWhatIsLeft) {
  const std::string words = options("--greedy --policy full");
  const std::string question = "And what then?\n";
  const Result never = run(words, kFirst + question);
  const Result undone = run(words, std::string("/undo\n") + kFirst + "Two.\n/undo\n" + question);
  ASSERT_EQ(undone.status, 0) << undone.err;
  const std::size_t second = never.out.size() - never.out.rfind('\n', never.out.size() - 2) - 1;
  EXPECT_TRUE(undone.out.ends_with(never.out.substr(never.out.size() - second))) << undone.out << never.out;
  EXPECT_EQ(count_of(undone.err, "nibkv-assistant: nothing was said that could be taken back\n"), 1u) << undone.err;
  EXPECT_EQ(
      count_of(undone.err, "nibkv-assistant: the last question and its answer are taken back; 1 question is left\n"),
      1u)
      << undone.err;
  EXPECT_EQ(figure(undone.err, "tokens, held / seen"), figure(never.err, "tokens, held / seen"));

  const Result empty = run(words, std::string(kFirst) + "Two.\n/undo\n/undo\n/undo\n" + kFirst);
  const std::string first = run(words, kFirst).out;
  EXPECT_TRUE(empty.out.starts_with(first) && empty.out.ends_with("\n" + first)) << empty.out;
  EXPECT_EQ(count_of(empty.err, "taken back; nothing is left of the conversation\n"), 1u) << empty.err;
  EXPECT_EQ(count_of(empty.err, "nothing was said that could be taken back\n"), 1u) << empty.err;
}

TEST_F(UndoTest, AnswersAgainTheSameWhenGreedyAndOtherwiseWithTheNextDraws) {
  const Result greedy = run(options("--greedy --policy full"), std::string("/regenerate\n") + kFirst + "/regenerate\n");
  ASSERT_EQ(greedy.status, 0) << greedy.err;
  EXPECT_EQ(count_of(greedy.err, "nibkv-assistant: nothing was asked that could be answered again\n"), 1u);
  EXPECT_EQ(count_of(greedy.err, "the answer was cut after 12 tokens"), 2u) << greedy.err;
  const std::string half = greedy.out.substr(0, greedy.out.size() / 2);
  EXPECT_EQ(half + half, greedy.out);

  const std::string words = options("--temperature 1 --top-p 0.95 --seed 5");
  const std::string input = "They went to\n/regenerate\n/regenerate\n";
  const Result drawn = run(words, input);
  EXPECT_EQ(run(words, input).out, drawn.out);
  const std::string once = run(words, "They went to\n").out;
  EXPECT_TRUE(drawn.out.starts_with(once));
  EXPECT_EQ(count_of(drawn.out, once), 1u) << drawn.out;
}

TEST_F(UndoTest, AnswersAgainAndTakesBackWhatWasLoaded) {
  const std::string words = options("--greedy --policy full");
  const Result saved = run(words + " --save " + quoted("talk"), std::string(kFirst) + "Two.\n");
  ASSERT_EQ(saved.status, 0) << saved.err;
  const Result loaded = run(words + " --load " + quoted("talk"), "/regenerate\n/undo\n/regenerate\n");
  ASSERT_EQ(loaded.status, 0) << loaded.err;
  const std::string first = run(words, kFirst).out;
  EXPECT_EQ(loaded.out, saved.out.substr(first.size()) + first);
  EXPECT_EQ(figure(loaded.err, "tokens read again"), "2");
}

TEST_F(UndoTest, SaysThatItReadsAgainWhereTheCacheMadeSpace) {
  const std::string words = "--model " + in_quotes(model_) + " --profile none --greedy --max-tokens 12 --tokens 64";
  const Result result = run(words, kFirst + std::string(150, 'x') + "\n/undo\nAnd then?\n");
  ASSERT_EQ(result.status, 0) << result.err;
  const std::string line = "nibkv-assistant: the cache cannot go back so far: ";
  EXPECT_EQ(count_of(result.err, line), 1u) << result.err;
  // BOS, 59 bytes and the answer.
  EXPECT_EQ(figure(result.err, line), "72 tokens of the conversation will be read again before the next answer");
  EXPECT_EQ(figure(result.err, "tokens read again"), "72");
}

TEST_F(UndoTest, TakesBackAnAnswerThatCtrlCStopped) {
  const std::string words = "--model " + in_quotes(model_) + " --profile none --greedy --tokens 96 --max-tokens ";
  Child child("exec env " + command_line(words + "1000000") + " 2>" + quoted("err"));
  child.write("abc\n");
  EXPECT_EQ(child.read(8).size(), 8u);
  child.signal(SIGINT);
  while (!child.read().ends_with('\n')) {
  }
  child.write("/undo\n/undo\n/quit\n");
  EXPECT_EQ(child.wait(), 0);
  const std::string err = contents(at("err"));
  EXPECT_EQ(count_of(err, "taken back; nothing is left of the conversation\n"), 1u) << err;
  EXPECT_EQ(count_of(err, "nothing was said that could be taken back\n"), 1u) << err;
  EXPECT_EQ(figure(err, "tokens, held / seen"), "0 / 0");
}

}  // namespace
