#pragma once

#include <string>
#include <string_view>

namespace nibkv::llm {

/// Converts bytes that arrive in pieces to valid UTF-8 in whole characters. Bytes that cannot be
/// part of a character become U+FFFD.
class Utf8Stream {
 public:
  /// Takes more bytes and returns all characters that are complete now.
  std::string push(std::string_view bytes);
  /// Ends the text: U+FFFD for each byte that was still waiting for the rest of its character.
  std::string flush();

 private:
  std::string held_;  // the first bytes of a character, at most 3
};

}  // namespace nibkv::llm
