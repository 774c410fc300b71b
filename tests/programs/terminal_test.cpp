// The chat as a person has it: on a terminal.
#include <gtest/gtest.h>

#include <csignal>
#include <cstring>
#include <string>

#include "tests/programs/program.hpp"
#include "tests/programs/terminal.hpp"

namespace {

using nibkv::test::contents;
using nibkv::test::count_of;
using nibkv::test::in_quotes;
using nibkv::test::Terminal;

class TerminalTest : public nibkv::test::ProgramTest {
 protected:
  TerminalTest() : ProgramTest("nibkv-assistant") {}

  // As a shell would start it that waits for its end.
  std::string chat(const std::string& options = "", const std::string& term = "xterm", int max_tokens = 5) const {
    return "exec env TERM=" + term + " " +
           command_line("--model " + in_quotes(model_) + " --profile none --greedy --tokens 96 --max-tokens " +
                        std::to_string(max_tokens) + " " + options);
  }

  static std::string pasted(const std::string& text) { return "\x1b[200~" + text + "\x1b[201~"; }

  // The figure of /stats: tokens of prompts and answers so far.
  static std::string tokens(Terminal& terminal) {
    terminal.type("/stats\r");
    terminal.until("tokens, prompt / answer");
    const std::string line = terminal.until("\n");
    const std::size_t begin = line.find_first_not_of(' ');
    terminal.until(kPrompt);
    return line.substr(begin, line.find('\r') - begin);
  }

  // What a message is waited for with: the row as it is drawn anew.
  static constexpr const char* kPrompt = "\r> \x1b[K";
};

TEST_F(TerminalTest, APasteOfManyLinesIsOneTurn) {
  Terminal terminal(chat());
  terminal.until(kPrompt);
  terminal.type(pasted("one\rtwo\rthree"));
  terminal.until("[3 lines]");
  terminal.type("\r");
  // All of it is shown once it is sent, and then the answer.
  EXPECT_NE(terminal.until("--max-tokens").find("> one\r\ntwo\r\nthree\r\n"), std::string::npos) << terminal.shown();
  terminal.until(kPrompt);
  EXPECT_EQ(tokens(terminal), "14 / 5") << "BOS and 13 bytes, in one turn";
  terminal.type("/quit\r");
  EXPECT_EQ(terminal.wait(), 0);
}

TEST_F(TerminalTest, ALineMayBeLongerThanATerminalPassesOn) {
  Terminal terminal(chat());
  terminal.until(kPrompt);
  terminal.type(std::string(6000, 'x') + "\r");
  terminal.until("--max-tokens");
  terminal.until(kPrompt);  // before it, the terminal has the key, and what it makes of it is lost
  EXPECT_EQ(tokens(terminal), "6,001 / 5") << "BOS and each of them";
  terminal.type("\x04");
  EXPECT_EQ(terminal.wait(), 0);
}

TEST_F(TerminalTest, EarlierMessagesComeBackAndCtrlCForgetsWhatIsTyped) {
  Terminal terminal(chat());
  terminal.until(kPrompt);
  terminal.type("abc\r");
  terminal.until("--max-tokens");
  terminal.until(kPrompt);
  EXPECT_EQ(tokens(terminal), "4 / 5");
  terminal.type("and much more");
  terminal.until("more");
  terminal.type("\x03");
  terminal.until("^C\r\n");
  terminal.until(kPrompt);
  terminal.type("\x1b[A\x1b[A\r");  // not /stats, but what was before it
  terminal.until("--max-tokens");
  terminal.until(kPrompt);
  EXPECT_EQ(tokens(terminal), "8 / 10") << "the last token of the answer, and abc";
  terminal.type("\x03");
  EXPECT_EQ(terminal.wait(), 0) << "at an empty prompt it ends the program";
}

TEST_F(TerminalTest, CtrlCInAPasteIsAPartOfIt) {
  Terminal terminal(chat());
  terminal.until(kPrompt);
  terminal.type("\x1b[200~one\ntwo\x03three\n/quit\nfour\x1b[201~");
  terminal.until("[4 lines]");
  terminal.type("\x03");
  terminal.until("^C\r\n");
  terminal.until(kPrompt);
  terminal.type("/stats\r");
  terminal.until("held / seen");
  terminal.until(kPrompt);
  EXPECT_EQ(terminal.shown().find("--max-tokens"), std::string::npos) << "nothing was asked";
  terminal.type("\x04");
  EXPECT_EQ(terminal.wait(), 0);
}

TEST_F(TerminalTest, IsLeftAsItWasHoweverTheProgramEnds) {
  struct Case {
    const char* keys;
    int signal, status;
  };
  for (const auto& [keys, signal, status] :
       {Case{"/quit\r", 0, 0}, Case{"\x04", 0, 0}, Case{"\x03", 0, 0}, Case{"\x1c", 0, SIGQUIT - 1000},
        Case{"abc", SIGTERM, 143}, Case{"abc", SIGHUP, 129}, Case{"", SIGTERM, 143},
        Case{"abc", SIGQUIT, SIGQUIT - 1000}}) {
    Terminal terminal("ulimit -c 0; " + chat());
    const termios before = terminal.mode();
    terminal.until(kPrompt);
    EXPECT_EQ(terminal.mode().c_lflag & ICANON, 0u) << "keys come one by one";
    terminal.type(keys);
    if (signal != 0) {
      if (*keys != '\0') terminal.until(keys);
      terminal.signal(signal);
    }
    EXPECT_EQ(terminal.wait(), status) << terminal.shown();
    const termios after = terminal.mode();
    EXPECT_EQ(std::memcmp(&before, &after, sizeof before), 0);
    const std::string& shown = terminal.shown();
    EXPECT_GE(count_of(shown, "\x1b[?2004h"), 1u);
    EXPECT_EQ(count_of(shown, "\x1b[?2004h"), count_of(shown, "\x1b[?2004l"));
    EXPECT_LT(shown.rfind("\x1b[?2004h"), shown.rfind("\x1b[?2004l"));
  }
}

TEST_F(TerminalTest, IsAsOtherProgramsHaveItWhileTheModelAnswersAndOnCtrlZ) {
  Terminal terminal(chat("", "xterm", 1000000));
  terminal.until(kPrompt);
  // Nobody is there to bring it back: it goes on at once, with what was typed.
  terminal.type("abc\x1a");
  terminal.until("\x1b[?2004l");
  terminal.until("\x1b[?2004h");
  terminal.until("> abc\x1b[K");
  terminal.type("\r");
  terminal.until("\x1b[?2004l");
  EXPECT_NE(terminal.mode().c_lflag & ICANON, 0u);
  terminal.type("\x03");  // stops the answer
  terminal.until(kPrompt);
  terminal.type("\x04");
  EXPECT_EQ(terminal.wait(), 0);
}

TEST_F(TerminalTest, IsPutBackBeforeASignalStopsTheProgramAndEditsAgainWhenItGoesOn) {
  Terminal terminal(chat());
  const termios before = terminal.mode();
  terminal.until(kPrompt);
  terminal.type("abc");
  terminal.until("> abc\x1b[K");
  // As on Ctrl-Z, nobody is there to bring it back.
  terminal.signal(SIGTSTP);
  terminal.until("\x1b[?2004l");
  terminal.until("\x1b[?2004h");
  terminal.until("> abc\x1b[K");
  // Stopped by what no program can catch, it finds the terminal as others left it.
  terminal.signal(SIGSTOP);
  terminal.set_mode(before);
  terminal.signal(SIGCONT);
  terminal.until("\x1b[?2004h");
  terminal.until("> abc\x1b[K");
  EXPECT_EQ(terminal.mode().c_lflag & ICANON, 0u);
  terminal.type("\x15\x04");
  EXPECT_EQ(terminal.wait(), 0);
  const termios after = terminal.mode();
  EXPECT_EQ(std::memcmp(&before, &after, sizeof before), 0);
}

TEST_F(TerminalTest, EscapeAloneIsForgottenAfterAWhile) {
  Terminal terminal(chat());
  terminal.until(kPrompt);
  terminal.type("\x1b");
  terminal.until(kPrompt);  // it may be the beginning of a key
  terminal.until(kPrompt);  // it was none
  terminal.type("Oh\r");
  EXPECT_NE(terminal.until("--max-tokens").find("> Oh\r\n"), std::string::npos) << terminal.shown();
  terminal.until(kPrompt);
  terminal.type("\x04");
  EXPECT_EQ(terminal.wait(), 0);
}

TEST_F(TerminalTest, GetsNoEscapeSequencesWhereItKnowsNone) {
  for (const char* term : {"dumb", "''"}) {
    Terminal terminal(chat("", term));
    terminal.until("> ");
    terminal.type("abc\n");
    terminal.until("--max-tokens");
    terminal.until("> ");
    terminal.type("/quit\n");
    EXPECT_EQ(terminal.wait(), 0);
    EXPECT_EQ(terminal.shown().find('\x1b'), std::string::npos) << terminal.shown();
  }
}

TEST_F(TerminalTest, KeepsEscapeSequencesOutOfRedirectedErrors) {
  const std::string log = folder_ + "/log";
  Terminal terminal(chat("2>" + in_quotes(log)));
  terminal.type("abc\n/quit\n");
  EXPECT_EQ(terminal.wait(), 0);
  EXPECT_NE(contents(log).find("heap allocations"), std::string::npos);
  EXPECT_EQ(contents(log).find('\x1b'), std::string::npos);
}

TEST_F(TerminalTest, NamesTheCommandsAtTheStartAndWhereTheArenaIsFull) {
  Terminal terminal(chat("--policy full", "xterm", 90));
  EXPECT_NE(terminal.until(kPrompt).find("nibkv-assistant: /help lists commands, Ctrl-D ends\r\n"), std::string::npos);
  terminal.type("They walked along the river.\r");
  terminal.until("the arena is full");
  terminal.until("; /undo and /reset make space\r\n");
  terminal.until(kPrompt);
  terminal.type("/undo\r");
  terminal.until("nothing is left of the conversation");
  terminal.until(kPrompt);
  terminal.type("\x04");
  EXPECT_EQ(terminal.wait(), 0);
}

TEST_F(TerminalTest, ShowsWhatTheCacheHolds) {
  Terminal terminal(chat());
  terminal.until(kPrompt);
  terminal.type("/context\r");
  terminal.until("the cache is empty");
  terminal.until(kPrompt);
  terminal.type("They walked along the river.\r");
  terminal.until("--max-tokens");
  terminal.until(kPrompt);
  terminal.type("/context\r");
  const std::string drawn = terminal.until("merged into");
  // BOS, 28 bytes and four of five tokens of the answer.
  EXPECT_NE(drawn.find("a head holds 33 of 33 tokens (mean): 4 sinks, "), std::string::npos) << drawn;
  EXPECT_NE(drawn.find("0 |" + std::string(33, '#') + "|\r\n"), std::string::npos) << drawn;
  terminal.type("/quit\r");
  EXPECT_EQ(terminal.wait(), 0);
}

}  // namespace
