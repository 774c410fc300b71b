#include "bench/runner/text/utf8_stream.hpp"

#include "bench/runner/text/unicode.hpp"

namespace nibkv::llm {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

// Whether more bytes can complete these to a character. The second byte decides, and trying
// the lowest and the highest continuation byte covers every case.
bool may_be_completed(std::string_view start) {
  for (const char filler : {'\x80', '\xBF'}) {
    const CodePoint read = decode_utf8(std::string(start) + std::string(3, filler), 0);
    if (read.valid && read.length > start.size()) return true;
  }
  return false;
}

}  // namespace

std::string Utf8Stream::push(std::string_view bytes) {
  held_ += bytes;
  std::string whole;
  std::size_t at = 0;
  while (at < held_.size()) {
    const CodePoint read = decode_utf8(held_, at);
    if (!read.valid && may_be_completed(std::string_view(held_).substr(at))) break;
    whole += read.valid ? std::string_view(held_).substr(at, read.length) : kReplacement;
    at += read.length;
  }
  held_.erase(0, at);
  return whole;
}

std::string Utf8Stream::flush() {
  std::string rest;
  for (std::size_t i = 0; i < held_.size(); ++i) rest += kReplacement;
  held_.clear();
  return rest;
}

}  // namespace nibkv::llm
