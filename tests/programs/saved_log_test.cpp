// Conversations with a log that the assistant saves and goes on with.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "tests/programs/program.hpp"

namespace {

using nibkv::test::contents;
using nibkv::test::in_quotes;
using nibkv::test::Result;

class SavedLogTest : public nibkv::test::ProgramTest {
 protected:
  SavedLogTest() : ProgramTest("nibkv-assistant") {
    for (const char* name : {"pages", "talk"}) std::filesystem::remove(at(name));
  }

  /// What the assistant is asked for, with a file of pages.
  std::string options(const std::string& pages) const {
    return "--model " + in_quotes(model_) +
           " --policy recall --set log=1024,indexed=256 --tokens 96 --temperature 1 --seed 5 --max-tokens 20 --cold " +
           quoted(pages);
  }
  static std::string message(int number) {
    return "The code for willow is 9071" + std::to_string(number) + ". They walked along the river, it was " +
           "a fine morning there, and she said nothing of what she had seen; nor did he. Then the day went on.\n";
  }
  static std::string messages(int from, int to) {
    std::string all;
    for (int i = from; i < to; ++i) all += message(i);
    return all;
  }
  static void write(const std::string& name, const std::string& bytes) {
    std::ofstream(at(name), std::ios::binary) << bytes;
  }
  /// The same conversation again, as it was saved.
  static void put_back(const std::string& pages, const std::string& talk) {
    write("pages", pages);
    write("talk", talk);
  }
};

TEST_F(SavedLogTest, GoesOnAsIfItHadNeverStopped) {
  const Result whole = run(options("whole-pages") + " --save " + quoted("whole"), messages(0, 8));
  ASSERT_EQ(whole.status, 0) << whole.err;
  std::string pieces;
  for (int i = 0; i < 4; ++i) {
    const std::string threads = " --threads " + std::to_string(i + 1) + (i % 2 == 0 ? "" : " --port scalar");
    const Result piece =
        run(options("pages") + threads + (i == 0 ? "" : " --load " + quoted("talk")) + " --save " + quoted("talk"),
            messages(2 * i, 2 * i + 2));
    ASSERT_EQ(piece.status, 0) << piece.err;
    EXPECT_EQ(piece.err.find(" lost") == std::string::npos, true) << piece.err;
    EXPECT_EQ(piece.err.find("goes on after ") != std::string::npos, i != 0) << piece.err;
    pieces += piece.out;
  }
  EXPECT_EQ(pieces, whole.out);
  EXPECT_EQ(contents(at("pages")), contents(at("whole-pages")));
  EXPECT_GT(contents(at("pages")).size(), 20000u);
  EXPECT_EQ(std::filesystem::file_size(at("talk")), std::filesystem::file_size(at("whole")));
}

TEST_F(SavedLogTest, SaysWhatIsNotInTheFileOfPages) {
  const Result first = run(options("pages") + " --save " + quoted("talk"), messages(0, 6));
  ASSERT_EQ(first.status, 0) << first.err;
  const std::string pages = contents(at("pages")), talk = contents(at("talk"));
  const std::string load = options("pages") + " --load " + quoted("talk");
  const auto ask = [&](const std::string& more = "") { return run(load + more, message(7)); };
  const Result right = ask();
  ASSERT_EQ(right.status, 0) << right.err;
  put_back(pages, talk);
  EXPECT_EQ(ask().out, right.out);
  // Nothing of it there: refused, and both files stay.
  const auto refused = [&](const std::string& others, const std::string& why) {
    put_back(others, talk);
    expect_error(ask(" --save " + quoted("talk")), 1, why);
    EXPECT_EQ(contents(at("pages")), others);
    EXPECT_EQ(contents(at("talk")), talk);
  };
  refused("", "the file of --cold has none of the ");
  const Result foreign =
      run(options("foreign") + " --save " + quoted("other") + " --system Hello", message(9) + messages(1, 6));
  ASSERT_EQ(foreign.status, 0) << foreign.err;
  refused(contents(at("foreign")), "the file of --cold has none of the ");
  refused("dear reader", "there already, and no file of pages");
  std::filesystem::remove(at("pages"));
  expect_error(ask(), 1, "No such file");
  EXPECT_FALSE(std::filesystem::exists(at("pages")));
  // Some of it: said, and it goes on without them.
  put_back(pages.substr(0, pages.size() / 2), talk);
  const Result half = ask();
  EXPECT_EQ(half.status, 0) << half.err;
  EXPECT_NE(half.err.find(" pages that left the cache are lost"), std::string::npos) << half.err;
  EXPECT_NE(half.out, right.out) << "they are in what is attended to";
  // A conversation that has none yet does not take another one's.
  const Result little = run(options("none") + " --save " + quoted("little"), "Hi.\n");
  ASSERT_EQ(little.status, 0) << little.err;
  EXPECT_EQ(std::filesystem::file_size(at("none")), 0u);
  write("pages", pages);
  expect_error(run(options("pages") + " --load " + quoted("little"), "x\n"), 1, "they are another one's");
  EXPECT_EQ(contents(at("pages")), pages);
  EXPECT_EQ(run(options("none") + " --load " + quoted("little"), "x\n").status, 0);
}

TEST_F(SavedLogTest, DoesNotWriteOverPagesThatSomeoneMayWant) {
  const Result first = run(options("kept") + " --save " + quoted("talk"), messages(0, 4));
  ASSERT_EQ(first.status, 0) << first.err;
  const std::string pages = contents(at("kept"));
  expect_error(run(options("kept"), "x\n"), 1, "has the pages of a conversation: --load goes on with it");
  expect_error(run(options("kept") + " --save " + quoted("new"), "x\n"), 1, "has the pages of a conversation");
  EXPECT_EQ(contents(at("kept")), pages);
  // What nobody saves leaves nothing.
  const Result passing = run(options("passing"), messages(0, 4));
  ASSERT_EQ(passing.status, 0) << passing.err;
  EXPECT_EQ(std::filesystem::file_size(at("passing")), 0u);
  EXPECT_EQ(run(options("passing"), messages(0, 4)).out, passing.out);
  const std::string recall = "--model " + in_quotes(model_) + " --policy recall --tokens 96 --prompt x";
  for (const std::string option : {" --save ", " --load "})
    expect_error(run(recall + option + quoted("talk")), 2, "need the file of what leaves the cache: --cold");
}

}  // namespace
