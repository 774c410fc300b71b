// The tiny model's file as constant data: in flash, if there is any.
#include "tests/tiny/tiny_model.hpp"

asm(".section .rodata.tiny_model, \"a\"\n"
    ".balign 32\n"
    ".global nibkv_tiny_model\n"
    "nibkv_tiny_model:\n"
    ".incbin \"" NIBKV_TINY_MODEL
    "\"\n"
    ".global nibkv_tiny_model_end\n"
    "nibkv_tiny_model_end:\n"
    ".previous\n");

extern "C" {
extern const std::byte nibkv_tiny_model[];
extern const std::byte nibkv_tiny_model_end[];
}

namespace nibkv::metal {

std::span<const std::byte> tiny_model() {
  return {nibkv_tiny_model, nibkv_tiny_model_end};
}

}  // namespace nibkv::metal
