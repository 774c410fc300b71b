#include <cstdio>

#include "tests/baremetal/print.hpp"

namespace nibkv::metal {

void say(const char* text) {
  std::fputs(text, stdout);
}

}  // namespace nibkv::metal
