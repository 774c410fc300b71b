// The options that the programs take, and what they say of wrong ones.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "nibkv/version.h"
#include "tests/programs/program.hpp"

namespace {

namespace fs = std::filesystem;

using nibkv::test::columns_of;
using nibkv::test::count_of;
using nibkv::test::in_quotes;
using nibkv::test::Result;

class AssistantOptionsTest : public nibkv::test::ProgramTest {
 protected:
  AssistantOptionsTest() : ProgramTest("nibkv-assistant") {}
};

TEST_F(AssistantOptionsTest, PrintsItsHelp) {
  const Result result = run("--help");
  EXPECT_EQ(result.status, 0);
  EXPECT_EQ(result.err, "");
  EXPECT_LE(columns_of(result.out), 100u) << result.out;
  EXPECT_EQ(run("-h").out, result.out);
  EXPECT_EQ(run("--help hello --policy lru").out, result.out) << "before anything else is read";
  for (const char* option :
       {"--prompt", "--prompt-file", "--version", "--arena", "--tokens", "--policy", "--profile", "--port", "--seed"}) {
    EXPECT_NE(result.out.find(option), std::string::npos) << option;
  }
}

TEST_F(AssistantOptionsTest, ListsItsPortsOfWhichScalarRunsAnywhere) {
  const Result result = run("--list-ports");
  EXPECT_EQ(result.status, 0);
  EXPECT_NE(result.out.find("scalar\n"), std::string::npos) << result.out;
}

TEST_F(AssistantOptionsTest, PrintsItsVersion) {
  const Result result = run("--version");
  EXPECT_EQ(result.status, 0);
  EXPECT_EQ(result.out, "nibkv-assistant " NIBKV_VERSION_STRING "\n");
  EXPECT_EQ(result.err, "");
}

TEST_F(AssistantOptionsTest, SaysThatItCannotPrint) {
  if (!fs::exists("/dev/full")) GTEST_SKIP() << "there is no /dev/full here, which is always full: Linux has one";
  for (const char* words : {"--help", "--version", "--list-ports"}) {
    const Result result = shell(command_line(words) + " >/dev/full");
    EXPECT_EQ(result.status, 1) << words;
    EXPECT_EQ(result.err, "nibkv-assistant: cannot write to standard output\n");
  }
}

TEST_F(AssistantOptionsTest, SaysThatItCannotPrintWhereOutputIsClosed) {
  const std::string error = "nibkv-assistant: cannot write to standard output\n";
  for (const char* words : {"--help", "--version", "--list-ports"}) {
    const Result result = shell(command_line(words) + " >&-");
    EXPECT_EQ(result.status, 1) << words;
    EXPECT_EQ(result.err, error);
  }
  const Result answer = shell(
      command_line("--model " + in_quotes(model_) + " --profile none --tokens 64 --max-tokens 2 --prompt x") + " >&-");
  EXPECT_EQ(answer.status, 1);
  EXPECT_EQ(count_of(answer.err, error), 1u) << answer.err;
}

TEST_F(AssistantOptionsTest, StopsAnAnswerThatCannotBePrinted) {
  const Result answer = shell(command_line("--model " + in_quotes(model_) +
                                           " --profile none --tokens 64 --max-tokens 500 --greedy --prompt x") +
                              " >&-");
  EXPECT_EQ(answer.status, 1);
  const std::string tokens = figure(answer.err, "tokens, prompt / answer");
  EXPECT_LE(std::stoi(tokens.substr(tokens.find('/') + 1)), 4) << "the first character that is whole";
}

TEST_F(AssistantOptionsTest, ReadsAMessageThatAShellWouldHaveTroubleWithFromAFileOrStandardInput) {
  const std::string odd = "It's \"so\" $HOME `x` \\ !\n\n--greedy\n";
  const std::string options = "--model " + in_quotes(model_) + " --profile none --greedy --max-tokens 5";
  std::ofstream(folder_ + "/message", std::ios::binary) << odd << '\n';
  const Result file = run(options + " --prompt-file " + in_quotes(folder_ + "/message"));
  EXPECT_EQ(file.status, 0) << file.err;
  // BOS, and a token for each byte but the last line break.
  EXPECT_EQ(figure(file.err, "tokens, prompt / answer"), std::to_string(1 + odd.size()) + " / 5");
  const Result pipe = run(options + " --prompt-file=-", odd + "\r\n");
  EXPECT_EQ(pipe.out, file.out);
  EXPECT_EQ(figure(pipe.err, "tokens, prompt / answer"), figure(file.err, "tokens, prompt / answer"));

  expect_error(run(options + " --prompt-file -", "\n"), 1, "standard input has no message in it");
  expect_error(run(options + " --prompt-file /no/such"), 1, "cannot read /no/such: No such file or directory");
  expect_error(run(options + " --prompt-file " + in_quotes(folder_)), 1, folder_ + ": Is a directory");
  expect_error(shell(command_line(options + " --prompt-file -") + " </"), 1,
               "cannot read standard input: Is a directory");
  expect_error(run(options + " --prompt-file - --prompt x"), 2, "--prompt and --prompt-file exclude each other");
}

TEST_F(AssistantOptionsTest, CallsWrongOptionsUsageErrors) {
  expect_error(run("--modle x"), 2, "unknown option --modle; did you mean --model?");
  expect_error(run("-m x"), 2, "unknown option -m");
  expect_error(run("hello"), 2, "unexpected argument 'hello'; a message goes after --prompt");
  expect_error(run("--prompt ''"), 2, "option --prompt needs a value, not ''");
  expect_error(run("--model --greedy"), 2, "option --model needs a value before --greedy");
  expect_error(run("--seed=1 --seed 2"), 2, "option --seed is given twice");
  expect_error(run("--prompt"), 2, "--prompt needs a value");
  expect_error(run("--arena 2M --tokens 512"), 2, "--arena and --tokens exclude each other");
  expect_error(run("--greedy --temperature 1"), 2, "--greedy and --temperature exclude each other");
  expect_error(run("--port sse9"), 2, "unknown port 'sse9'");
  expect_error(run("--policy lru"), 2, "unknown policy 'lru'; there are full, streaming_llm");
  expect_error(run("--policy ems --set merge=keys"), 2, "--set merge takes none, values or both, not 'keys'");
  expect_error(run("--policy full --set sinks=4"), 2, "policy 'full' has no 'sinks' to set");
  expect_error(run("--outliers 5"), 2, "--outliers takes 0, 4, 8, 12 or 16");
  expect_error(run("--outliers 8 --profile none"), 2, "--outliers needs a profile");
  expect_error(run("--threads 257"), 2, "--threads takes a whole number from 1 to 256");
  expect_error(run("--tokens 0"), 2, "--tokens");
  expect_error(run("--arena 2Q"), 2, "--arena takes a size such as 65536, 512K, 2M or 1G, not '2Q'");
  expect_error(run("--top-p 1.5"), 2, "--top-p");
  expect_error(run("--repeat-penalty 0.9"), 2, "--repeat-penalty takes a number from 1 to 10, not '0.9'");
  expect_error(run("--temperature warm"), 2, "--temperature");
}

class EvalOptionsTest : public nibkv::test::ProgramTest {
 protected:
  EvalOptionsTest() : ProgramTest("nibkv-eval") {}

  Result perplexity(const std::string& options) const { return run("perplexity --text x " + options); }
};

constexpr const char* kCommands[] = {"perplexity", "kld",         "speed",     "stream",      "profile", "sweep",
                                     "ablate",     "speculative", "retrieval", "head-scores", "heads",   "layers"};

TEST_F(EvalOptionsTest, ListsItsCommands) {
  const Result result = run("--help");
  EXPECT_EQ(result.status, 0);
  EXPECT_EQ(result.err, "");
  for (const char* command : kCommands) {
    EXPECT_NE(result.out.find("\n  " + std::string(command) + " "), std::string::npos) << command;
  }
  EXPECT_LE(columns_of(result.out), 100u) << result.out;
  EXPECT_EQ(run("-h").out, result.out);
}

TEST_F(EvalOptionsTest, PrintsTheHelpOfACommandWithAllOfItsOptions) {
  for (const char* command : kCommands) {
    const Result result = run(std::string(command) + " --help");
    EXPECT_EQ(result.status, 0);
    EXPECT_EQ(result.err, "");
    EXPECT_EQ(result.out.find("nibkv-eval " + std::string(command) + " "), 0u) << result.out;
    EXPECT_EQ(result.out.find("as above"), std::string::npos) << result.out;
    EXPECT_EQ(run(std::string(command) + " -h").out, result.out);
    EXPECT_LE(columns_of(result.out), 100u) << result.out;
    // Each option that it takes is described once, and an option that it does not take is not.
    for (const char* option :
         {"model",      "text",    "context", "windows",      "storage",      "policy",     "set",
          "force-fold", "tokens",  "arena",   "profile",      "outliers",     "port",       "threads",
          "json",       "decode",  "out",     "header",       "policies",     "budgets",    "from",
          "together",   "needles", "prompt",  "resume",       "svg",          "retrieval",  "score-from",
          "mode",       "lengths", "depths",  "seeds",        "align",        "min-cosine", "length",
          "drafts",     "right",   "seed",    "within-space", "replay",       "bin",        "reach",
          "turns",      "base",    "tested",  "write",        "chunks",       "media",      "ruler",
          "babilong",   "task",    "samples", "instructions", "answer-tokens"}) {
      const std::string name = std::string("--") + option;
      // Flags say that they take no value, options that they need one; what a command does not have is unknown.
      const bool is_taken =
          run(std::string(command) + " " + name + "=").err.find("unknown option") == std::string::npos;
      const std::size_t times =
          count_of(result.out, "\n  " + name + " ") + count_of(result.out, "\n  -o, " + name + " ");
      EXPECT_EQ(times, is_taken ? 1u : 0u) << command << " " << name;
    }
  }
}

TEST_F(EvalOptionsTest, PrintsItsVersion) {
  for (const char* words : {"--version", "speed --version"}) {
    const Result result = run(words);
    EXPECT_EQ(result.status, 0);
    EXPECT_EQ(result.out, "nibkv-eval " NIBKV_VERSION_STRING "\n");
    EXPECT_EQ(result.err, "");
  }
}

TEST_F(EvalOptionsTest, SaysThatItCannotPrintWhereOutputIsClosed) {
  for (const std::string& words : {std::string("--help"), std::string("--version"), std::string("speed --help"),
                                   on_text("speed") + " --context 32 --decode 1 --threads 1"}) {
    const Result result = shell(command_line(words) + " >&-");
    EXPECT_EQ(result.status, 1) << words;
    EXPECT_EQ(result.err, "nibkv-eval: cannot write to standard output\n") << words;
  }
}

TEST_F(EvalOptionsTest, CallsWrongCommandsAndOptionsUsageErrors) {
  expect_error(run(""), 2, "no command");
  expect_error(run("perplexities"), 2,
               "unknown command 'perplexities'; the commands are perplexity, kld, speed, stream, profile");
  expect_error(run("--modle x"), 2, "unknown option --modle");
  expect_error(run("perplexity --header x"), 2, "unknown option --header");
  expect_error(run("perplexity --modle=x"), 2,
               "unknown option --modle; did you mean --model? (perplexity --help lists the options)");
  expect_error(run("perplexity more --text x"), 2, "unexpected argument 'more'");
  expect_error(run("perplexity"), 2, "--text is missing");
  expect_error(run("profile --text x"), 2, "--out is missing");
  expect_error(perplexity("--context"), 2, "--context needs a value");
  expect_error(perplexity("--context 1"), 2, "--context takes a whole number");
  expect_error(perplexity("--windows 0"), 2, "--windows takes a whole number");
  expect_error(perplexity("--storage q3"), 2, "--storage takes q4, q8, q8q4, q4q2, q2 or f32, not 'q3'");
  expect_error(perplexity("--policy lru"), 2, "unknown policy 'lru'; there are full, streaming_llm");
  expect_error(perplexity("--policy streaming_llm"), 2, "policy 'streaming_llm' needs --tokens or --arena");
  expect_error(perplexity("--tokens 64 --arena 1M"), 2, "--arena and --tokens exclude each other");
  expect_error(perplexity("--outliers 5 --profile x"), 2, "--outliers takes 0, 4, 8, 12 or 16");
  expect_error(perplexity("--outliers 8 --profile none"), 2, "--outliers needs a profile");
  expect_error(perplexity("--outliers 8 --storage f32"), 2, "--outliers needs a profile");
  expect_error(perplexity("--storage f32 --profile x"), 2, "--storage f32 takes no --profile");
  expect_error(perplexity("--port sse9"), 2, "unknown port 'sse9'");
  expect_error(perplexity("--threads 257"), 2, "--threads takes a whole number from 1 to 256");
}

}  // namespace
