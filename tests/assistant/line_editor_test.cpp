#include "bench/assistant/line_editor.hpp"

#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

namespace nibkv::llm {
namespace {

using Event = LineEditor::Event;

const std::string kUp = "\x1b[A", kDown = "\x1b[B", kRight = "\x1b[C", kLeft = "\x1b[D";

std::string pasted(const std::string& text) {
  return "\x1b[200~" + text + "\x1b[201~";
}

// The message of keys that come at once; "" when they do not end one.
std::string message(LineEditor& editor, const std::string& keys) {
  editor.push(keys);
  if (editor.go_on() != Event::kMessage) return "";
  const std::string text = editor.text();
  editor.begin(text);
  return text;
}

std::string message(const std::string& keys) {
  LineEditor editor;
  return message(editor, keys);
}

// What is to be seen of the row, and where the cursor stands.
struct Row {
  std::string text;
  std::size_t cursor;
};

Row row(LineEditor& editor, const std::string& keys, std::size_t columns = 80) {
  editor.push(keys);
  EXPECT_EQ(editor.go_on(), Event::kNone);
  const std::string drawn = editor.drawn("> ", columns);
  const std::size_t end = drawn.find("\x1b[K\r\x1b[");
  EXPECT_EQ(drawn.find("\r> "), 0u) << drawn;
  EXPECT_NE(end, std::string::npos);
  return {drawn.substr(3, end - 3), std::stoul(drawn.substr(end + 6)) - 2};
}

TEST(LineEditor, TakesAPasteOfManyLinesAsAPartOfOneMessage) {
  EXPECT_EQ(message(pasted("one\ntwo\nthree") + "\r"), "one\ntwo\nthree");
  EXPECT_EQ(message(pasted("one\rtwo\r\n\rthree\r\n") + "\r"), "one\ntwo\n\nthree") << "however lines end";
  EXPECT_EQ(message("see: " + pasted("a\nb") + " why?\r"), "see: a\nb why?");
  EXPECT_EQ(message(pasted("a\nb") + pasted("\nc\n") + "\r"), "a\nb\nc");
  EXPECT_EQ(message(pasted("a line\n") + " of two\r"), "a line of two") << "a line with its end is a line";
  EXPECT_EQ(message(pasted("") + "x\r"), "x");
  EXPECT_EQ(message(pasted("\x1b[A\x03\x7f") + "\r"), "\x1b[A\x03\x7f") << "keys in a paste are text";
  EXPECT_EQ(message(pasted(std::string(100000, 'x')) + "\r"), std::string(100000, 'x'));
}

TEST(LineEditor, TakesTheSameFromPiecesOfAnySize) {
  const std::string keys =
      "a\xC3\xA4\xE2\x82\xAC" + pasted("b\nc\x1b[20d") + kLeft + "\xF0\x9F\x99\x82\x1b[3~\x1bOHx\r";
  const std::string whole = message(keys);
  EXPECT_EQ(whole, "xa\xC3\xA4\xE2\x82\xAC\xF0\x9F\x99\x82");
  LineEditor editor;
  for (std::size_t i = 0; i + 1 < keys.size(); ++i) {
    editor.push(keys.substr(i, 1));
    ASSERT_EQ(editor.go_on(), Event::kNone) << i;
  }
  EXPECT_EQ(message(editor, "\r"), whole);
}

TEST(LineEditor, CountsTheLinesOfAPasteAndLeavesCtrlCToItsOwner) {
  LineEditor editor;
  EXPECT_EQ(row(editor, pasted("one\ntwo")).text, "[2 lines]");
  editor.begin();
  EXPECT_EQ(row(editor, pasted("one\ntwo\n")).text, "[2 lines]") << "the second ends there";
  editor.begin();
  EXPECT_EQ(row(editor, "abcdefghijk", 8).text, "ghijk") << "a narrow terminal";
  editor.push("\x03");
  EXPECT_EQ(editor.go_on(), Event::kInterrupt);
  EXPECT_EQ(editor.text(), "abcdefghijk");
}

TEST(LineEditor, MovesAndErasesByCharacters) {
  EXPECT_EQ(message("ab\xC3\xA4\x7f"
                    "c\r"),
            "abc");
  EXPECT_EQ(message("\x7f\x7f"
                    "a\b\b\r"),
            "")
      << "nothing before the beginning";
  EXPECT_EQ(message("ac" + kLeft + "b" + kRight + kRight + "d\r"), "abcd");
  EXPECT_EQ(message("bc\x01"
                    "a\x05"
                    "d\x1b[1~\x1b[3~\x1b[4~e\r"),
            "bcde");
  EXPECT_EQ(message("bc\x1b[Ha\x1b[Fd\x1bOHx\x1bOFy\r"), "xabcdy");
  EXPECT_EQ(message("one two  \x17three\r"), "one three");
  EXPECT_EQ(message("one two\x15three\r"), "three");
  EXPECT_EQ(message("one two" + kLeft + kLeft + kLeft +
                    "\x0b"
                    "three\r"),
            "one three");
  EXPECT_EQ(message("a" + pasted("b\nc") +
                    "\x7f"
                    "d\r"),
            "ad")
      << "a paste goes as one";
  EXPECT_EQ(message("ab\x02\x04\r"), "a");
}

TEST(LineEditor, IgnoresKeysThatItDoesNotKnow) {
  EXPECT_EQ(message("a\x1b[15~b\x1b[1;5Cc\x1bxd\x07"
                    "e\tf\r"),
            "abcxde\tf");
  EXPECT_EQ(message("a\xff\xC3"
                    "b\r"),
            "a\xff\xC3"
            "b")
      << "bytes that are no UTF-8 stay what they are";
}

TEST(LineEditor, DropsASequenceThatHasNoEnd) {
  for (const char* begin : {"\x1b", "\x1b[", "\x1bO", "\x1b[200"}) {
    LineEditor editor;
    editor.push(begin);
    EXPECT_EQ(editor.go_on(), Event::kNone);
    EXPECT_TRUE(editor.waits_for_sequence()) << begin + 1;
    editor.drop_sequence();
    EXPECT_FALSE(editor.waits_for_sequence());
    EXPECT_EQ(message(editor, "OK\r"), "OK");
  }
  LineEditor editor;
  EXPECT_FALSE(editor.waits_for_sequence());
  for (const char* whole : {"a", "\x1b[A", "\xC3", "\x1b[200~a\x1b[20"}) {
    editor.push(whole);
    EXPECT_EQ(editor.go_on(), Event::kNone);
    EXPECT_FALSE(editor.waits_for_sequence()) << "a paste takes its time";
    editor.drop_sequence();
  }
}

TEST(LineEditor, BringsEarlierMessagesBack) {
  LineEditor editor;
  EXPECT_EQ(message(editor, "one\r"), "one");
  EXPECT_EQ(message(editor, pasted("two\nlines") + "\r"), "two\nlines");
  EXPECT_EQ(message(editor, "  \r"), "  ");
  EXPECT_EQ(message(editor, kUp + "\r"), "two\nlines");
  EXPECT_EQ(message(editor, kUp + kUp + kUp + "!\r"), "one!");
  EXPECT_EQ(message(editor, "typed" + kUp + kUp + kDown + kDown + kDown + "\r"), "typed");
}

TEST(LineEditor, SaysWhatTheTerminalIsAskedFor) {
  for (const auto& [keys, event] : {std::pair("\x04", Event::kEnd), std::pair("\x1a", Event::kSuspend),
                                    std::pair("\x1c", Event::kQuit), std::pair("\n", Event::kMessage)}) {
    LineEditor editor;
    editor.push(keys);
    EXPECT_EQ(editor.go_on(), event);
  }
  LineEditor editor;
  editor.push(
      "a\x04\x1a"
      "b\r");
  EXPECT_EQ(editor.go_on(), Event::kSuspend);
  EXPECT_EQ(message(editor, ""), "ab") << "what was typed is still there";
}

TEST(LineEditor, ShowsTheMessageInOneRow) {
  LineEditor editor;
  EXPECT_EQ(row(editor, "abc").text, "abc");
  EXPECT_EQ(row(editor, "").cursor, 3u);
  EXPECT_EQ(row(editor, kLeft).cursor, 2u);
  EXPECT_EQ(row(editor, pasted("x\ny\nz")).text, "ab[3 lines]c");
  EXPECT_EQ(row(editor, "").cursor, 11u);
  editor.begin();
  // Two columns for each, none for the accent, and one for a byte that is no character.
  EXPECT_EQ(row(editor,
                "\xE6\xBC\xA2\xE5\xAD\x97"
                "e\xCC\x81\xff")
                .text,
            "\xE6\xBC\xA2\xE5\xAD\x97"
            "e\xCC\x81?");
  EXPECT_EQ(row(editor, "").cursor, 6u);
  // Pictures and marks of all scripts.
  const struct {
    const char* character;
    std::size_t columns;
  } characters[] = {{"\xE2\x8C\x9A", 2},      // a watch
                    {"\xE2\x9C\x85", 2},      // a check mark
                    {"\xF0\x9F\x80\x84", 2},  // a tile
                    {"\xF0\x9F\x99\x82", 2},  // a face
                    {"\xE0\xB8\xB1", 0},      // a Thai vowel above
                    {"\xE0\xA5\x8D", 0},      // a Hindi virama
                    {"\xE0\xA5\x81", 0},      // a Hindi vowel below
                    {"\xE2\x80\x8D", 0},      // a joiner
                    {"\xC3\xA9", 1}};
  for (const auto& [character, columns] : characters) {
    editor.begin();
    EXPECT_EQ(row(editor, "a" + std::string(character)).cursor, 1 + columns) << character;
  }
  EXPECT_NE(editor.drawn("> ", 80).find("\x1b[K"), std::string::npos);
  editor.push("\x0c");
  EXPECT_EQ(editor.go_on(), Event::kNone);
  EXPECT_EQ(editor.drawn("> ", 80).find("\x1b[H\x1b[2J\r> "), 0u);
  EXPECT_EQ(editor.drawn("> ", 80).find("\r> "), 0u) << "once";
}

TEST(LineEditor, ShowsThePartAroundTheCursorOfALongMessage) {
  LineEditor editor;
  std::string text;
  for (int i = 0; i < 100; ++i) text.push_back(static_cast<char>('!' + i % 90));
  EXPECT_EQ(row(editor, text, 40).text, text.substr(100 - 37));
  EXPECT_EQ(row(editor, "", 40).cursor, 37u);
  EXPECT_EQ(row(editor, "\x01", 40).text, text.substr(0, 37));
  EXPECT_EQ(row(editor, "", 40).cursor, 0u);
  EXPECT_EQ(row(editor, "\x05", 200).text, text);
}

TEST(LineEditor, ShowsTheWholeMessageOnceItIsDoneAndNoControlCharacters) {
  LineEditor editor;
  editor.push("see " + pasted("a\x1b[31m\nb\tc\xC2\x9b\n") + "\r");
  EXPECT_EQ(editor.go_on(), Event::kMessage);
  EXPECT_EQ(editor.finished("> "), "\r\x1b[K> see a?[31m\nb c?\n");
}

}  // namespace
}  // namespace nibkv::llm
