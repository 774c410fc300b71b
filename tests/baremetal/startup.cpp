// From reset to main() on a Cortex-M, for any of the boards here.
#include <cstdint>
#include <cstring>

#include "tests/baremetal/semihosting.hpp"

extern "C" {
// Addresses from sections.ld.
extern char __data[], __data_end[], __data_in_flash[], __bss[], __bss_end[], __stack[], __stack_limit[];
extern void (*const __starters[])();
extern void (*const __starters_end[])();

int main(int count, char** arguments);
[[noreturn]] void reset();
}

namespace {

[[noreturn]] void fault() {
  nibkv::metal::say("a fault of the processor\n");
  nibkv::metal::leave(1);
}

constexpr int kMostArguments = 8;
char command_line[512];
char* arguments[kMostArguments + 1];

// Splits the command line at its blanks; the first word is the program.
int split_command_line() {
  int count = 0;
  bool inside = false;
  for (char* at = command_line; *at != 0; ++at) {
    const bool blank = *at == ' ';
    if (blank) *at = 0;
    if (!blank && !inside && count < kMostArguments) arguments[count++] = at;
    inside = !blank;
  }
  return count;
}

constexpr char kUnusedStack = 0x5a;

struct Vectors {
  void* stack;
  void (*handlers[15])();
};

// Without enabled interrupts, only these can occur.
[[gnu::section(".vectors"), gnu::used]] const Vectors kVectors = {
    __stack,
    {reset, fault, fault, fault, fault, fault, fault, nullptr, nullptr, nullptr, fault, fault, nullptr, fault, fault}};

}  // namespace

namespace nibkv::metal {

std::size_t stack_used() {
  const char* at = __stack_limit;
  while (at != __stack && *at == kUnusedStack) ++at;
  return static_cast<std::size_t>(__stack - at);
}

}  // namespace nibkv::metal

void reset() {
  // Coprocessors 10 and 11, the floating-point unit and Helium, are off at reset.
  auto* const access_control = reinterpret_cast<volatile std::uint32_t*>(0xe000ed88);
  *access_control = *access_control | 0xfu << 20;
  asm volatile("dsb\n isb" ::: "memory");
#if __ARM_ARCH >= 8
  asm volatile("msr msplim, %0" ::"r"(__stack_limit));  // causes a fault if the stack grows past it
#endif
  // All of it except what this function and memset use.
  std::memset(__stack_limit, kUnusedStack, static_cast<std::size_t>(__stack - __stack_limit) - 256);
  std::memcpy(__data, __data_in_flash, static_cast<std::size_t>(__data_end - __data));
  std::memset(__bss, 0, static_cast<std::size_t>(__bss_end - __bss));
  for (auto starter = __starters; starter != __starters_end; ++starter) (*starter)();
  nibkv::metal::read_command_line(command_line, sizeof command_line);
  const int count = split_command_line();
  nibkv::metal::leave(main(count, arguments));
}
