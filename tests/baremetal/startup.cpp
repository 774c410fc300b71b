// From reset to main() on a Cortex-M, for any of the boards here.
#include <cstdint>
#include <cstring>

#include "tests/baremetal/semihosting.hpp"

extern "C" {
// Addresses from sections.ld.
extern char __data[], __data_end[], __data_in_flash[], __bss[], __bss_end[], __stack[], __stack_limit[];
extern void (*const __starters[])();
extern void (*const __starters_end[])();

int main();
[[noreturn]] void reset();
}

namespace {

[[noreturn]] void fault() {
  nibkv::metal::say("a fault of the processor\n");
  nibkv::metal::leave(1);
}

struct Vectors {
  void* stack;
  void (*handlers[15])();
};

// Without enabled interrupts only these can come.
[[gnu::section(".vectors"), gnu::used]] const Vectors kVectors = {
    __stack,
    {reset, fault, fault, fault, fault, fault, fault, nullptr, nullptr, nullptr, fault, fault, nullptr, fault, fault}};

}  // namespace

void reset() {
  // Coprocessors 10 and 11, the floating-point unit and Helium, are off at reset.
  auto* const access_control = reinterpret_cast<volatile std::uint32_t*>(0xe000ed88);
  *access_control = *access_control | 0xfu << 20;
  asm volatile("dsb\n isb" ::: "memory");
#if __ARM_ARCH >= 8
  asm volatile("msr msplim, %0" ::"r"(__stack_limit));  // a fault when the stack grows past it
#endif
  std::memcpy(__data, __data_in_flash, static_cast<std::size_t>(__data_end - __data));
  std::memset(__bss, 0, static_cast<std::size_t>(__bss_end - __bss));
  for (auto starter = __starters; starter != __starters_end; ++starter) (*starter)();
  nibkv::metal::leave(main());
}
