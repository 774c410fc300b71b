// Every option that writes a file.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "tests/programs/program.hpp"

namespace {

namespace fs = std::filesystem;

using nibkv::test::contents;
using nibkv::test::in_quotes;
using nibkv::test::Result;

class OutputsTest : public nibkv::test::ProgramTest {
 protected:
  explicit OutputsTest(const std::string& program) : ProgramTest(program) {}

  static mode_t mode_of(const std::string& path) {
    struct stat status = {};
    EXPECT_EQ(::lstat(path.c_str(), &status), 0) << path;
    return status.st_mode;
  }

  // `words` ends with an option whose value is the file. Tries a link to an existing
  // file, and /dev/stdout.
  void expect_respect(const std::string& words) const {
    SCOPED_TRACE(words);
    std::ofstream(at("target")) << "old";
    ASSERT_EQ(::chmod(at("target").c_str(), 0640), 0);
    fs::remove(at("link"));
    fs::create_symlink("target", at("link"));
    const Result result = run(words + " " + quoted("link"));
    EXPECT_EQ(result.status, 0) << result.err;
    EXPECT_EQ(mode_of(at("link")) & S_IFMT, mode_t{S_IFLNK});
    EXPECT_EQ(mode_of(at("target")), mode_t{S_IFREG | 0640});
    const std::string written = contents(at("target"));
    EXPECT_GT(written.size(), 100u);
    const std::string line = command_line(words + " /dev/stdout") + " 2>" + quoted("err");
    for (const char* standard_output : {" >", " | cat >"}) {
      EXPECT_EQ(std::system((line + standard_output + quoted("shown")).c_str()), 0) << contents(at("err"));
      const std::string shown = contents(at("shown"));
      const std::size_t found = shown.find(written.substr(0, 16));
      EXPECT_NE(found, std::string::npos) << shown;
      EXPECT_EQ(shown.rfind(written.substr(0, 16)), found) << "once";
    }
    EXPECT_EQ(parts(), 0u);
  }
};

class EvalOutputsTest : public OutputsTest {
 protected:
  EvalOutputsTest() : OutputsTest("nibkv-eval") {}

  static std::string words(const std::string& command, const std::string& options) {
    return on_text(command) + " --threads 2 " + options;
  }
};

TEST_F(EvalOutputsTest, KeepLinksModesAndDevices) {
  expect_respect(words("perplexity", "--context 64 --windows 1 --json"));
  expect_respect(words("kld", "--context 64 --chunks 1 --write"));
  ASSERT_EQ(run(words("kld", "--context 64 --chunks 1 --write " + quoted("base"))).status, 0);
  expect_respect("kld --base " + quoted("base") + " --json");
  expect_respect(words("speed", "--context 64 --decode 4 --json"));
  expect_respect(words("profile", "--tokens 300 --header /dev/null -o"));
  expect_respect(words("profile", "--tokens 300 -o " + quoted("profile") + " --header"));
  expect_respect("layers --profile " + quoted("profile") + " --svg");
  expect_respect("layers --profile " + quoted("profile") + " --json");
  expect_respect(words("heads", "--context 64 --policy ems --tokens 48 --json /dev/null --svg"));
  expect_respect(words("heads", "--context 64 --policy ems --tokens 48 --svg " + quoted("x.svg") + " --json"));
  expect_respect(
      words("head-scores", "--needles code --lengths 128 --depths 1 --seeds 1 --profile " + quoted("profile") + " -o"));
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
}

TEST_F(EvalOutputsTest, OfSweepsAndRetrievalKeepLinksModesAndDevices) {
  const std::string sweep = "--context 128 --together 1 --budgets 48,64 --policies streaming_llm ";
  expect_respect(words("sweep", sweep + "--json"));
  expect_respect(words("sweep", sweep + "--svg"));
  const std::string retrieval = "--needles code --lengths 128 --depths 1 --seeds 1 ";
  expect_respect(words("retrieval", retrieval + "--json"));
  expect_respect(words("retrieval", retrieval + "--svg"));
  // Several drawings have separate names, but a device has only one.
  const Result several =
      run(words("retrieval", retrieval + "--policies f32,streaming_llm --tokens 64 --svg /dev/stdout"));
  EXPECT_EQ(several.status, 0) << several.err;
  EXPECT_NE(several.out.find("<svg"), several.out.rfind("<svg"));
}

TEST_F(EvalOutputsTest, AreWholeOrNotThereWhenTheDiskIsFull) {
  std::ofstream(at("kept")) << "old";
  // Blocks of 512 bytes: no space is left at the start, or less than the file needs.
  const std::string make = words("profile", "--tokens 300 -o /dev/null --header " + quoted("kept"));
  expect_error(run(make, "", "ulimit -f 1; "), 1, "cannot write " + at("kept") + ": File too large");
  expect_error(run(make, "", "ulimit -f 8; "), 1, "cannot write " + at("kept") + ": File too large");
  EXPECT_EQ(contents(at("kept")), "old");
  EXPECT_EQ(parts(), 0u);
}

class AssistantOutputsTest : public OutputsTest {
 protected:
  AssistantOutputsTest() : OutputsTest("nibkv-assistant") {}

  static std::string words(const std::string& options) {
    return "--model " + in_quotes(model_) + " --greedy --max-tokens 3 --prompt abc " + options;
  }
};

TEST_F(AssistantOutputsTest, KeepLinksModesAndDevices) {
  expect_respect(words("--profile none --tokens 96 --save"));
}

TEST_F(AssistantOutputsTest, AreTheirOwnersOnly) {
  const Result result = run(words("--profile none --tokens 96 --save " + quoted("new")), "", "umask 022; ");
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_EQ(mode_of(at("new")), mode_t{S_IFREG | 0600});
}

TEST_F(AssistantOutputsTest, AreRefusedBeforeTheModelIsReadWhereTheyCannotBe) {
  const auto refuses = [&](const std::string& path, const std::string& why, const std::string& before = "") {
    const Result result = run("--model /no/such.gguf --prompt x --save " + in_quotes(path), "", before);
    expect_error(result, 1, "cannot write " + path + ": " + why);
    EXPECT_EQ(result.err.find("such.gguf"), std::string::npos) << result.err;
  };
  refuses("/no/such/file", "there is no such folder");
  refuses("/proc/none", "no file can be made there");
  refuses(folder_, "it is a directory");
  refuses(at("full"), "File too large", "ulimit -f 1; ");
}

TEST_F(AssistantOutputsTest, AreWholeOrNotThereWhenTheDiskIsFull) {
  std::ofstream(at("kept")) << "old";
  const std::string save = "--profile none --tokens 96 --save ";
  const Result full = run(words(save + quoted("kept")), "", "ulimit -f 8; ");
  EXPECT_EQ(full.status, 1);
  EXPECT_NE(full.err.find("cannot write " + at("kept") + ": File too large\n"), std::string::npos) << full.err;
  EXPECT_EQ(full.out.size(), 4u) << "the answer is there all the same: " << full.out;
  EXPECT_EQ(contents(at("kept")), "old");
  if (fs::exists("/dev/full")) {
    const Result device = run(words(save + "/dev/full"));
    EXPECT_EQ(device.status, 1);
    EXPECT_NE(device.err.find("cannot write /dev/full: No space left on device"), std::string::npos) << device.err;
  }
  // The profile that is kept next to the model.
  const std::string profile = model_ + ".nibkv-profile";
  fs::remove(profile);
  const Result unkept = run(words("--tokens 96"), "", "ulimit -f 2; ");
  EXPECT_EQ(unkept.status, 0) << unkept.err;
  EXPECT_NE(unkept.err.find("the profile cannot be kept"), std::string::npos) << unkept.err;
  EXPECT_NE(unkept.err.find("File too large"), std::string::npos) << unkept.err;
  EXPECT_FALSE(fs::exists(profile));
  EXPECT_EQ(parts(), 0u);
}

}  // namespace
