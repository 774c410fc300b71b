#include "tests/baremetal/print.hpp"

namespace nibkv::metal {

void say_number(std::uint64_t number) {
  char digits[21];
  char* at = digits + sizeof digits - 1;
  *at = 0;
  do {
    *--at = static_cast<char>('0' + number % 10);
    number /= 10;
  } while (number != 0);
  say(at);
}

void say_word(std::uint64_t word) {
  char digits[19] = "0x";
  for (int i = 0; i < 16; ++i) digits[2 + i] = "0123456789abcdef"[word >> (60 - 4 * i) & 15];
  say(digits);
}

}  // namespace nibkv::metal
