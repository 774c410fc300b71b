#include "tests/baremetal/semihosting.hpp"

#include <cstdint>

namespace nibkv::metal {
namespace {

constexpr std::uint32_t kWriteText = 0x04;
constexpr std::uint32_t kReadCommandLine = 0x15;
constexpr std::uint32_t kExitExtended = 0x20;
constexpr std::uint32_t kApplicationExit = 0x20026;

// The number of an operation goes into r0, the address of its argument into r1. The breakpoint's
// number marks it as semihosting.
std::uint32_t ask(std::uint32_t operation, const void* argument) {
  register std::uint32_t r0 asm("r0") = operation;
  register const void* r1 asm("r1") = argument;
  asm volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
  return r0;
}

}  // namespace

void say(const char* text) {
  ask(kWriteText, text);
}

void read_command_line(char* text, std::size_t bytes) {
  const struct {
    char* text;
    std::size_t bytes;
  } argument = {text, bytes};
  if (ask(kReadCommandLine, &argument) != 0) text[0] = 0;
}

void leave(int status) {
  const std::uint32_t argument[] = {kApplicationExit, static_cast<std::uint32_t>(status)};
  for (;;) ask(kExitExtended, argument);
}

}  // namespace nibkv::metal
