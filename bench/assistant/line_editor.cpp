#include "bench/assistant/line_editor.hpp"

#include <locale.h>
#include <wchar.h>

#include <algorithm>

#include "bench/runner/text/unicode.hpp"

namespace nibkv::llm {
namespace {

constexpr std::string_view kPasteBegin = "\x1b[200~", kPasteEnd = "\x1b[201~";
constexpr std::size_t kLongestSequence = 32;

// The length of the key or character that `bytes` begin with; 0 when more of it has to come.
std::size_t key_size(std::string_view bytes) {
  const auto first = static_cast<unsigned char>(bytes[0]);
  if (first != 0x1b) {
    const std::size_t whole = first < 0xc2 || first > 0xf4 ? 1 : first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
    const CodePoint read = decode_utf8(bytes, 0);
    if (read.valid || bytes.size() >= whole) return read.length;
    const bool may_go_on = std::all_of(bytes.begin() + 1, bytes.end(), [](char byte) { return (byte & 0xC0) == 0x80; });
    return may_go_on ? 0 : read.length;
  }
  if (bytes.size() == 1) return 0;
  if (bytes[1] == 'O') return bytes.size() < 3 ? 0 : 3;
  if (bytes[1] != '[') return 1;  // Escape, then something else
  for (std::size_t at = 2; at < bytes.size(); ++at) {
    if (bytes[at] >= 0x40 && bytes[at] <= 0x7e) return at + 1;
  }
  return bytes.size() < kLongestSequence ? 0 : kLongestSequence;
}

// Whether `bytes` may be the beginning of a longer sequence of the terminal, all of them.
bool is_open_sequence(std::string_view bytes) {
  return bytes.starts_with('\x1b') && key_size(bytes) == 0;
}

bool is_control(const CodePoint& point) {
  return point.value < 0x20 || (point.value >= 0x7f && point.value < 0xa0);
}

// Columns of a character: 2 for those of East Asia and pictures, 0 for marks on the one before. As the C library knows
// them, in a locale that every system has; without it, or for what it does not know, 1.
std::size_t columns_of(char32_t value) {
  static const locale_t utf8 = ::newlocale(LC_CTYPE_MASK, "C.UTF-8", locale_t{});
  if (utf8 == locale_t{}) return 1;
  const locale_t before = ::uselocale(utf8);
  const int columns = ::wcwidth(static_cast<wchar_t>(value));
  ::uselocale(before);
  return columns < 0 ? 1 : static_cast<std::size_t>(columns);
}

struct Shown {
  std::string text;
  std::size_t columns = 0;
};

// Text as a terminal may show it: no control characters.
Shown shown(std::string_view text) {
  Shown result;
  for (std::size_t at = 0; at < text.size();) {
    const CodePoint point = decode_utf8(text, at);
    const bool is_odd = !point.valid || is_control(point);
    result.text += is_odd ? std::string_view(point.value == '\t' ? " " : "?") : text.substr(at, point.length);
    result.columns += is_odd ? 1 : columns_of(point.value);
    at += point.length;
  }
  return result;
}

bool is_paste(const std::string& piece) {
  return piece.find('\n') != std::string::npos;
}

Shown shown_piece(const std::string& piece) {
  if (!is_paste(piece)) return shown(piece);
  const auto lines = std::count(piece.begin(), piece.end(), '\n') + (piece.ends_with('\n') ? 0 : 1);
  return shown(std::string("[").append(std::to_string(lines)) + " lines]");
}

std::string joined(const std::vector<std::string>& pieces) {
  std::string text;
  for (const std::string& piece : pieces) text += piece;
  return text;
}

}  // namespace

LineEditor::Event LineEditor::go_on() {
  while (!input_.empty()) {
    if (is_pasting_) {
      if (!take_paste()) break;
      continue;
    }
    const std::size_t size = key_size(input_);
    if (size == 0) break;
    const std::string key = input_.substr(0, size);
    input_.erase(0, size);
    const Event event = press(key);
    if (event != Event::kNone) return event;
  }
  return Event::kNone;
}

bool LineEditor::waits_for_sequence() const {
  return !is_pasting_ && is_open_sequence(input_);
}

void LineEditor::drop_sequence() {
  if (waits_for_sequence()) input_.clear();
}

LineEditor::Event LineEditor::press(const std::string& key) {
  if (key == "\r" || key == "\n") return Event::kMessage;
  if (key == "\x04" && pieces_.empty()) return Event::kEnd;
  if (key == "\x03") return Event::kInterrupt;
  if (key == "\x1a") return Event::kSuspend;
  if (key == "\x1c") return Event::kQuit;
  if (key == "\x0c") clears_screen_ = true;
  if (key == kPasteBegin) is_pasting_ = true;
  const std::string name = key.starts_with("\x1bO") ? "\x1b[" + key.substr(2) : key;
  if (move(name) || erase(name)) return Event::kNone;
  const auto first = static_cast<unsigned char>(key[0]);
  if (first == '\t' || (first >= 0x20 && first != 0x7f)) insert(key);
  return Event::kNone;
}

bool LineEditor::move(std::string_view key) {
  if (key == "\x1b[D" || key == "\x02") {
    cursor_ -= cursor_ > 0 ? 1 : 0;
  } else if (key == "\x1b[C" || key == "\x06") {
    cursor_ += cursor_ < pieces_.size() ? 1 : 0;
  } else if (key == "\x1b[H" || key == "\x1b[1~" || key == "\x1b[7~" || key == "\x01") {
    cursor_ = 0;
  } else if (key == "\x1b[F" || key == "\x1b[4~" || key == "\x1b[8~" || key == "\x05") {
    cursor_ = pieces_.size();
  } else if (key == "\x1b[A" || key == "\x10") {
    if (place_ > 0) recall(place_ - 1);
  } else if (key == "\x1b[B" || key == "\x0e") {
    if (place_ < history_.size()) recall(place_ + 1);
  } else {
    return false;
  }
  return true;
}

bool LineEditor::erase(std::string_view key) {
  const auto is_space = [this](std::size_t at) { return pieces_[at] == " "; };
  std::size_t first = cursor_, last = cursor_;
  if (key == "\x7f" || key == "\b") {
    first -= first > 0 ? 1 : 0;
  } else if (key == "\x1b[3~" || key == "\x04") {
    last += last < pieces_.size() ? 1 : 0;
  } else if (key == "\x15") {
    first = 0;
  } else if (key == "\x0b") {
    last = pieces_.size();
  } else if (key == "\x17") {
    while (first > 0 && is_space(first - 1)) --first;
    while (first > 0 && !is_space(first - 1)) --first;
  } else {
    return false;
  }
  const auto begin = pieces_.begin();
  pieces_.erase(begin + static_cast<std::ptrdiff_t>(first), begin + static_cast<std::ptrdiff_t>(last));
  cursor_ = first;
  return true;
}

// False when its end has not come yet.
bool LineEditor::take_paste() {
  const std::size_t end = input_.find(kPasteEnd);
  // What may be the beginning of the end waits.
  const std::size_t size =
      end != std::string::npos ? end : input_.size() - std::min(input_.size(), kPasteEnd.size() - 1);
  paste_.append(input_, 0, size);
  input_.erase(0, end == std::string::npos ? size : end + kPasteEnd.size());
  if (end == std::string::npos) return false;
  is_pasting_ = false;
  std::string text;
  for (std::size_t at = 0; at < paste_.size(); ++at) {
    if (paste_[at] == '\r' && at + 1 < paste_.size() && paste_[at + 1] == '\n') continue;
    text.push_back(paste_[at] == '\r' ? '\n' : paste_[at]);
  }
  paste_.clear();
  // A line with its end is a line.
  if (std::count(text.begin(), text.end(), '\n') == 1 && text.back() == '\n') text.pop_back();
  insert(text);
  return true;
}

void LineEditor::insert(const std::string& text) {
  Pieces more;
  if (is_paste(text)) {
    more.push_back(text);
  } else {
    for (std::size_t at = 0; at < text.size(); at += more.back().size()) {
      more.push_back(text.substr(at, decode_utf8(text, at).length));
    }
  }
  pieces_.insert(pieces_.begin() + static_cast<std::ptrdiff_t>(cursor_), more.begin(), more.end());
  cursor_ += more.size();
}

void LineEditor::recall(std::size_t place) {
  if (place_ == history_.size()) typed_ = joined(pieces_);
  place_ = place;
  pieces_.clear();
  cursor_ = 0;
  insert(place_ == history_.size() ? typed_ : history_[place_]);
}

std::string LineEditor::text() const {
  std::string text = joined(pieces_);
  while (text.ends_with('\n')) text.pop_back();
  return text;
}

void LineEditor::begin(const std::string& remembered) {
  const bool is_blank = remembered.find_first_not_of(" \t\n") == std::string::npos;
  if (!is_blank && (history_.empty() || history_.back() != remembered)) history_.push_back(remembered);
  pieces_.clear();
  cursor_ = 0;
  place_ = history_.size();
  typed_.clear();
  paste_.clear();
  is_pasting_ = false;
}

std::string LineEditor::drawn(std::string_view prompt, std::size_t columns) {
  const std::size_t room = columns - prompt.size() - 1;
  // As much as fits before the cursor, then as much as fits after it.
  std::size_t first = cursor_, before = 0;
  for (; first > 0; --first) {
    const std::size_t width = shown_piece(pieces_[first - 1]).columns;
    if (before + width > room) break;
    before += width;
  }
  std::string row;
  std::size_t used = 0;
  for (std::size_t at = first; at < pieces_.size(); ++at) {
    const Shown piece = shown_piece(pieces_[at]);
    if (used + piece.columns > room) break;
    used += piece.columns;
    row += piece.text;
  }
  const std::string clear = clears_screen_ ? "\x1b[H\x1b[2J" : "";
  clears_screen_ = false;
  return clear + "\r" + std::string(prompt) + row + "\x1b[K\r\x1b[" + std::to_string(prompt.size() + before) + "C";
}

std::string LineEditor::finished(std::string_view prompt) const {
  std::string rows = "\r\x1b[K" + std::string(prompt);
  const std::string message = text();
  std::size_t start = 0;
  for (std::size_t end = 0; end != std::string::npos; start = end + 1) {
    end = message.find('\n', start);
    rows += shown(std::string_view(message).substr(start, end == std::string::npos ? end : end - start)).text + '\n';
  }
  return rows;
}

}  // namespace nibkv::llm
