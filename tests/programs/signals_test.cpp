// What a user loses by a signal, or by an output that nobody reads: clice-io/clice#592.
#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include "tests/programs/child.hpp"
#include "tests/programs/program.hpp"

namespace {

namespace fs = std::filesystem;

using nibkv::test::Child;
using nibkv::test::contents;
using nibkv::test::count_of;
using nibkv::test::in_quotes;
using nibkv::test::Result;

class AssistantSignalsTest : public nibkv::test::ProgramTest {
 protected:
  AssistantSignalsTest() : ProgramTest("nibkv-assistant") {}

  static std::string saved() { return folder_ + "/saved"; }

  // As started by a shell that waits for it to end.
  std::string chat(int tokens_of_an_answer) const {
    return "exec env " +
           command_line("--model " + in_quotes(model_) + " --profile none --greedy --tokens 96 --max-tokens " +
                        std::to_string(tokens_of_an_answer) + " --save " + in_quotes(saved())) +
           " 2>" + in_quotes(folder_ + "/err");
  }

  void expect_saved() const {
    EXPECT_EQ(contents(folder_ + "/err").find("cannot write " + saved()), std::string::npos);
    const Result next = run("--model " + in_quotes(model_) + " --profile none --greedy --tokens 96 --load " +
                            in_quotes(saved()) + " --max-tokens 2 --prompt x");
    EXPECT_EQ(next.status, 0) << next.err;
    EXPECT_EQ(parts(), 0u);
    fs::remove(saved());
  }
};

TEST_F(AssistantSignalsTest, AClosedStandardInputIsItsEnd) {
  const std::string options =
      "--model " + in_quotes(model_) + " --profile none --tokens 96 --save " + in_quotes(saved());
  const Result result = shell("timeout 60 env " + command_line(options) + " <&-");
  EXPECT_EQ(result.status, 0) << result.err;
  fs::remove(saved());
}

TEST_F(AssistantSignalsTest, ThatComeAtThePromptEndItAndTheConversationIsSaved) {
  Child whole(chat(5));
  whole.write("abc\n/quit\n");
  whole.read();
  EXPECT_EQ(whole.wait(), 0);
  const std::string expected = contents(saved());
  fs::remove(saved());
  struct Case {
    int signal, status;
  };
  for (const auto& [signal, status] : {Case{SIGTERM, 143}, Case{SIGHUP, 129}, Case{SIGINT, 0}}) {
    Child child(chat(5));
    child.write("abc\n");
    child.read();
    child.signal_until_it_ends(signal);
    EXPECT_EQ(child.wait(), status);
    EXPECT_EQ(contents(saved()), expected) << "signal " << signal;
    expect_saved();
  }
}

TEST_F(AssistantSignalsTest, ThatComeInAnAnswerEndItAndTheConversationIsSaved) {
  for (const int signal : {SIGTERM, SIGHUP}) {
    Child child(chat(1000000));
    child.write("abc\n");
    EXPECT_EQ(child.read(8).size(), 8u);
    child.signal(signal);
    EXPECT_EQ(child.wait(), 128 + signal);
    expect_saved();
  }
}

TEST_F(AssistantSignalsTest, AnOutputThatNobodyReadsEndsItAndTheConversationIsSaved) {
  Child child(chat(1000000));
  child.write("abc\n");
  EXPECT_EQ(child.read(8).size(), 8u);
  child.stop_reading();
  EXPECT_EQ(child.wait(), 128 + SIGPIPE);
  expect_saved();
}

TEST_F(AssistantSignalsTest, ThatWereIgnoredBeforeStillAre) {
  Child child("trap '' HUP; " + chat(5));
  child.write("abc\n");
  child.read();
  child.signal(SIGHUP);
  child.write("def\n");
  EXPECT_FALSE(child.read().empty());
  child.signal(SIGTERM);
  EXPECT_EQ(child.wait(), 128 + SIGTERM);
  expect_saved();
}

class EvalSignalsTest : public nibkv::test::ProgramTest {
 protected:
  EvalSignalsTest() : ProgramTest("nibkv-eval") {}

  static std::string sweep(const std::string& json) {
    return on_text("sweep") + " --context 128 --together 1 --budgets 48,64,80 --policies streaming_llm --json " +
           quoted(json);
  }

  static std::size_t rows(const std::string& json) { return count_of(contents(at(json)), "\"budget\""); }
};

TEST_F(EvalSignalsTest, LeaveWhatWasMeasuredToGoOnFrom) {
  ASSERT_EQ(run(sweep("whole")).status, 0);
  for (const int signal : {SIGTERM, SIGHUP, SIGINT, SIGPIPE}) {
    fs::remove(at("part"));
    Child child("exec env " + command_line(sweep("part")));
    while (rows("part") == 0) ASSERT_FALSE(child.read().empty());
    if (signal == SIGPIPE) {
      child.stop_reading();
    } else {
      child.signal(signal);
    }
    child.wait();
    EXPECT_GE(rows("part"), 1u);
    EXPECT_EQ(run(sweep("part") + " --resume").status, 0);
    EXPECT_EQ(rows("part"), rows("whole"));
  }
}

TEST_F(EvalSignalsTest, WritesTheFileBeforeTheLinesThatNobodyMayRead) {
  for (const char* const command : {"perplexity --windows 1", "speed --decode 4"}) {
    const std::string words = on_text(command) + " --context 64 --json " + quoted("json");
    Child other("exec env " + command_line(words));
    other.stop_reading();
    EXPECT_EQ(other.wait(), SIGPIPE - 1000);
    EXPECT_GT(contents(at("json")).size(), 100u) << command;
    fs::remove(at("json"));
  }
}

}  // namespace
