// Conversations that the assistant saves and goes on with.
#include <gtest/gtest.h>

#include <fstream>
#include <string>

#include "tests/programs/program.hpp"

namespace {

using nibkv::test::contents;
using nibkv::test::in_quotes;
using nibkv::test::Result;

constexpr const char* kQuestion =
    "It was a fine morning, and they walked along the river.\nThe code for willow is 90717.\nShe said nothing.\n"
    "What is the code for willow? ";

class SavedTest : public nibkv::test::ProgramTest {
 protected:
  SavedTest() : ProgramTest("nibkv-assistant") {}

  Result ask(const std::string& options) const {
    return run("--model " + in_quotes(model_) + " --prompt " + in_quotes(kQuestion) + " " + options);
  }
};

TEST_F(SavedTest, FeedsOnlyTheNewTurnAfterLoad) {
  const std::string options = "--model " + in_quotes(model_) + " --profile none --greedy --max-tokens 5 --tokens 512";
  const std::string file = quoted("two-turns");
  const Result first = run(options + " --save " + file, kQuestion);
  const Result second = run(options + " --load " + file, "And again?\n");
  ASSERT_EQ(second.status, 0) << second.err;
  // The last token of the previous answer, and ten bytes; then four of five tokens of the answer.
  EXPECT_EQ(figure(second.err, "tokens, prompt / answer"), "11 / 5");
  const std::string held = figure(first.err, "tokens, held / seen");
  EXPECT_EQ(figure(second.err, "tokens, held / seen"),
            std::to_string(std::stoi(held) + 15) + " / " + std::to_string(std::stoi(held) + 15));
}

TEST_F(SavedTest, GoesOnWithASavedConversationAsIfItHadNeverStopped) {
  const std::string options =
      "--model " + in_quotes(model_) + " --temperature 1 --seed 5 --repeat-penalty 1.2 --max-tokens 20 --tokens 96";
  const std::string file = quoted("talk"), whole_file = quoted("whole");
  const std::string messages[] = {"The code for willow is 90717. They walked along the river.\n", "What then?\n",
                                  "And what is the code for willow?\n", "Why?\n"};
  std::string all, pieces;
  for (const std::string& message : messages) all += message;
  const Result whole = run(options + " --save " + whole_file, all);
  ASSERT_EQ(whole.status, 0) << whole.err;
  for (int i = 0; i < 4; ++i) {
    const std::string threads = " --threads " + std::to_string(i + 1) + (i % 2 == 0 ? "" : " --port scalar");
    const Result piece = run(options + threads + (i == 0 ? "" : " --load " + file) + " --save " + file, messages[i]);
    ASSERT_EQ(piece.status, 0) << piece.err;
    EXPECT_EQ(piece.err.find("goes on after ") != std::string::npos, i != 0) << piece.err;
    pieces += piece.out;
  }
  EXPECT_EQ(pieces, whole.out);
  EXPECT_EQ(contents(at("talk")), contents(at("whole")));
}

TEST_F(SavedTest, SaysWhyASavedConversationCannotGoOn) {
  const std::string file = at("kept");
  const Result saved = ask("--greedy --max-tokens 3 --profile none --tokens 96 --save " + in_quotes(file));
  ASSERT_EQ(saved.status, 0) << saved.err;
  const std::string load = "--profile none --load " + in_quotes(file);
  expect_error(
      ask(load + " --tokens 128"), 1,
      "it was saved with a cache of 96 tokens, policy ems, 0 outlier channels, no profile; this one is of 128");
  expect_error(
      ask(load + " --tokens 96 --policy full"), 1,
      "of another policy, size or number of outlier channels; it was saved with a cache of 96 tokens, policy ems");
  expect_error(ask("--tokens 96 --outliers 0 --load " + in_quotes(file)), 1, "another profile");
  for (const std::string& unreadable : {std::string("/no/such.file"), folder_}) {
    const Result refused = ask("--load " + in_quotes(unreadable));
    expect_error(refused, 1, "cannot read " + unreadable);
    EXPECT_EQ(nibkv::test::count_of(refused.err, "\n"), 1u) << "before the model is read: " << refused.err;
  }
  expect_error(ask("--save /no/such/folder/file"), 1, "cannot write /no/such/folder/file");
  std::ofstream(at("half"), std::ios::binary) << contents(file).substr(0, 500);
  expect_error(ask("--profile none --tokens 96 --load " + quoted("half")), 1, "damaged");
  std::string other = contents(model_);
  other[other.size() - 1] = static_cast<char>(other[other.size() - 1] ^ 1);
  std::ofstream(at("other.gguf"), std::ios::binary) << other;
  expect_error(run("--model " + quoted("other.gguf") + " --tokens 96 --prompt x " + load), 1,
               "a conversation with another model");
}

}  // namespace
