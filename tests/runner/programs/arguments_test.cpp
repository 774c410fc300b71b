#include "bench/runner/programs/arguments.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace nibkv::llm {
namespace {

Arguments parsed(const std::vector<const char*>& words) {
  return {static_cast<int>(words.size()), words.data(), {"model", "seed", "system", "out"}, {"greedy"}, {"system"}};
}

std::string refusal(const std::vector<const char*>& words) {
  try {
    (void)parsed(words);
  } catch (const UsageError& error) {
    return error.what();
  }
  return "";
}

TEST(Arguments, TakeAValueAfterASpaceOrAnEqualsSign) {
  for (const Arguments& arguments :
       {parsed({"--model", "a=b", "--seed", "3", "--greedy"}), parsed({"--model=a=b", "--seed=3", "--greedy"})}) {
    EXPECT_EQ(arguments.text("model"), "a=b");
    EXPECT_EQ(arguments.integer("seed", 1, 0, 9), 3u);
    EXPECT_TRUE(arguments.flag("greedy"));
    EXPECT_TRUE(arguments.words().empty());
  }
  EXPECT_EQ(parsed({"-o", "x"}).text("out"), "x");
  EXPECT_EQ(parsed({"--model=--greedy"}).text("model"), "--greedy");
  EXPECT_EQ(parsed({"--model", "--- a/file"}).text("model"), "--- a/file");
}

TEST(Arguments, HaveHelpAndVersionInEveryProgram) {
  EXPECT_TRUE(parsed({"-h"}).flag("help"));
  EXPECT_TRUE(parsed({"--help"}).flag("help"));
  EXPECT_TRUE(parsed({"--version"}).flag("version"));
  EXPECT_FALSE(parsed({}).flag("help"));
}

TEST(Arguments, AreWordsAfterTwoDashes) {
  const Arguments arguments = parsed({"one", "--greedy", "--", "--model", "-h", "--"});
  EXPECT_EQ(arguments.words(), (std::vector<std::string>{"one", "--model", "-h", "--"}));
  EXPECT_EQ(parsed({"-"}).words(), std::vector<std::string>{"-"});
}

TEST(Arguments, ThatAreUnknownNameTheNearest) {
  EXPECT_EQ(refusal({"--modle", "x"}), "unknown option --modle; did you mean --model?");
  EXPECT_EQ(refusal({"--mod=x"}), "unknown option --mod; did you mean --model?");
  EXPECT_EQ(refusal({"--versoin"}), "unknown option --versoin; did you mean --version?");
  EXPECT_EQ(refusal({"--suds=1"}), "unknown option --suds") << "two letters of four are too many";
  EXPECT_EQ(refusal({"--klingon"}), "unknown option --klingon");
  EXPECT_EQ(refusal({"-x"}), "unknown option -x");
}

TEST(Arguments, AreRefusedWithoutTheirValueAndGivenTwice) {
  EXPECT_EQ(refusal({"--model"}), "option --model needs a value");
  EXPECT_EQ(refusal({"--model", ""}), "option --model needs a value, not ''");
  EXPECT_EQ(refusal({"--model="}), "option --model needs a value, not ''");
  EXPECT_EQ(refusal({"--model", "--seed=3"}),
            "option --model needs a value before --seed=3 (--model=--seed=3 if that is its value)");
  EXPECT_EQ(refusal({"--greedy=1"}), "option --greedy takes no value");
  EXPECT_EQ(refusal({"--model", "x", "--model=y"}), "option --model is given twice");
  EXPECT_EQ(refusal({"--greedy", "--greedy"}), "");
  EXPECT_EQ(parsed({"--system", ""}).text("system"), "");
  EXPECT_EQ(parsed({"--system="}).text("system"), "");
}

}  // namespace
}  // namespace nibkv::llm
