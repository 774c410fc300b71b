#include "bench/runner/programs/progress.hpp"

#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <utility>

namespace nibkv::llm {
namespace {

/// What a job writes, and a clock that the test moves.
class ProgressTest : public testing::Test {
 protected:
  Progress::Place place(bool is_terminal, std::size_t columns = 80, double quiet = 0) {
    return {is_terminal, columns, quiet, [this](std::string_view text) { written_ += text; }, [this] { return now_; }};
  }
  // What was written since the last call.
  std::string written() { return std::exchange(written_, {}); }

  double now_ = 1000;
  std::string written_;
};

TEST_F(ProgressTest, RewritesOneLineOfATerminalAndTakesItAwayAtTheEnd) {
  {
    Progress line("program", place(true));
    line.show("profile", 0, 2000);
    EXPECT_EQ(written(), "\r\033[Kprofile: 0 of 2000 tokens");
    now_ += 2;
    line.show("profile", 500, 2000);
    EXPECT_EQ(written(), "\r\033[Kprofile: 500 of 2000 tokens, 250 tokens/s, 6 s left");
    now_ += 6;
    line.show("profile", 2000, 2000);
    EXPECT_EQ(written(), "\r\033[Kprofile: 2000 of 2000 tokens, 250 tokens/s");
  }
  EXPECT_EQ(written(), "\r\033[K");
}

TEST_F(ProgressTest, RewritesTheLineTenTimesASecondAtMost) {
  Progress line("program", place(true));
  std::size_t lines = 0;
  for (std::size_t i = 0; i < 1000; ++i) {
    line.show("prefill", i, 1000);
    lines += written().empty() ? 0 : 1;
    now_ += 0.01;
  }
  EXPECT_GE(lines, 80u);
  EXPECT_LE(lines, 101u);
}

TEST_F(ProgressTest, WritesAWholeLineEveryHalfMinuteWhereThereIsNoTerminal) {
  Progress line("program", place(false));
  for (std::size_t second = 0; second <= 95; ++second) {
    line.show("window 1 of 2", second * 10, 1000);
    now_ += 1;
  }
  EXPECT_EQ(written(),
            "program: window 1 of 2: 300 of 1000 tokens, 10 tokens/s, 70 s left\n"
            "program: window 1 of 2: 600 of 1000 tokens, 10 tokens/s, 40 s left\n"
            "program: window 1 of 2: 900 of 1000 tokens, 10 tokens/s, 10 s left\n");
  line.hide();
  EXPECT_EQ(written(), "");
}

TEST_F(ProgressTest, WritesNothingWithoutATerminalForWhatTakesLess) {
  {
    Progress line("program", place(false));
    for (std::size_t i = 0; i < 299; ++i) {
      now_ += 0.1;
      line.show("prefill", i, 299);
    }
  }
  EXPECT_EQ(written(), "");
}

TEST_F(ProgressTest, IsQuietOnATerminalAtFirstWhereThatIsAskedFor) {
  Progress line("program", place(true, 80, 0.5));
  now_ += 0.4;
  line.show("reading", 100, 300);
  EXPECT_EQ(written(), "");
  line.hide();
  EXPECT_EQ(written(), "") << "nothing to take away";
  now_ += 0.2;
  line.show("reading", 150, 300);
  EXPECT_EQ(written(), "\r\033[Kreading: 150 of 300 tokens, 250 tokens/s, 1 s left");
  line.start();
  EXPECT_EQ(written(), "\r\033[K");
  now_ += 0.1;
  line.show("reading", 100, 300);
  EXPECT_EQ(written(), "") << "another job, which is short so far";
}

TEST_F(ProgressTest, FitsTheTerminal) {
  Progress line("program", place(true, 20));
  line.show("a line that is longer than a narrow terminal", 1, 2);
  EXPECT_EQ(written(), "\r\033[Ka line that is long") << "19 columns: the last one stays free";
}

TEST(ProgressText, SaysTokensASecondAndTheTimeThatIsLeft) {
  EXPECT_EQ(progress_text(0, 10, 0), "0 of 10 tokens");
  EXPECT_EQ(progress_text(5, 10, 2), "5 of 10 tokens, 2.5 tokens/s, 2 s left");
  EXPECT_EQ(progress_text(100, 100000, 1), "100 of 100000 tokens, 100 tokens/s, 17 min left");
  EXPECT_EQ(progress_text(1, 30001, 1), "1 of 30001 tokens, 1.0 tokens/s, 8 h 20 min left");
  EXPECT_EQ(progress_text(10, 10, 4), "10 of 10 tokens, 2.5 tokens/s");
}

}  // namespace
}  // namespace nibkv::llm
