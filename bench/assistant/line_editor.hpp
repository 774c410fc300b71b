#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace nibkv::llm {

/// A message as it is typed at a terminal: bytes of keys go in, and what to write so that the terminal shows it comes
/// out. Text that is pasted between the marks of bracketed paste is a part of the message, line breaks and all; a paste
/// of several lines is shown as one piece until the message is done.
///
/// Keys: arrows, Home, End, Delete, Backspace; Ctrl-A, -E, -B, -F, -P, -N as arrows and ends; Ctrl-U and Ctrl-K delete
/// up to the beginning and the end, Ctrl-W a word; Up and Down bring earlier messages; Ctrl-L clears the screen.
class LineEditor {
 public:
  /// What a key asks for that is not about the line: its end, the end of input, Ctrl-C, Ctrl-Z, Ctrl-\.
  enum class Event : unsigned char { kNone, kMessage, kEnd, kInterrupt, kSuspend, kQuit };

  /// Bytes of the terminal, in pieces of any size.
  void push(std::string_view bytes) { input_ += bytes; }

  /// Takes keys until one asks for something, or all that are complete are taken: kNone.
  Event go_on();

  /// Whether Escape came, or more of what may be the sequence of a key, and not the rest. A terminal sends the rest at
  /// once, so that after a short time it can only be that Escape itself was pressed.
  bool waits_for_sequence() const;

  /// Forgets that; the next key is taken for itself.
  void drop_sequence();

  /// The message so far, without line breaks at its end.
  std::string text() const;

  /// Begins another message. One that is not blank can be brought back with Up.
  void begin(const std::string& remembered = "");

  /// One row that shows the part around the cursor, with the cursor in its place.
  /// @param columns  of the terminal, more than the prompt and 1
  std::string drawn(std::string_view prompt, std::size_t columns);

  /// The row again with all of the message, and a line break. Control characters are not among it.
  std::string finished(std::string_view prompt) const;

 private:
  using Pieces = std::vector<std::string>;  // each a character, or a paste of several lines

  Event press(const std::string& key);
  bool move(std::string_view key);
  bool erase(std::string_view key);
  bool take_paste();
  void insert(const std::string& text);
  void recall(std::size_t place);

  std::string input_;  // not taken yet
  bool is_pasting_ = false;
  std::string paste_;
  Pieces pieces_;
  std::size_t cursor_ = 0;  // in pieces
  std::vector<std::string> history_;
  std::size_t place_ = 0;  // in the history; its size: the line that is typed
  std::string typed_;      // while an earlier one is shown
  bool clears_screen_ = false;
};

}  // namespace nibkv::llm
