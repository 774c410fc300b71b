#include "tests/baremetal/kept_files.hpp"

#include <string_view>

#include "tests/golden/kept_snapshots.hpp"

// The bytes of a file, between two symbols.
#define NIBKV_KEPT_FILE(number, file)                     \
  asm(".section .rodata.kept, \"a\"\n"                    \
      ".global nibkv_kept_" #number                       \
      "\n"                                                \
      "nibkv_kept_" #number                               \
      ":\n"                                               \
      ".incbin \"" NIBKV_TEST_FILES "/" file              \
      ".snapshot\"\n"                                     \
      ".global nibkv_kept_" #number                       \
      "_end\n"                                            \
      "nibkv_kept_" #number                               \
      "_end:\n"                                           \
      ".previous\n");                                     \
  extern "C" const std::byte nibkv_kept_##number[];       \
  extern "C" const std::byte nibkv_kept_##number##_end[]; \
  static_assert(nibkv::test::kKeptSnapshots[number].name == std::string_view(file))

NIBKV_KEPT_FILE(0, "2-full");
NIBKV_KEPT_FILE(1, "2-f32");
NIBKV_KEPT_FILE(2, "2-merged");
NIBKV_KEPT_FILE(3, "2-table");
NIBKV_KEPT_FILE(4, "2-folded");
NIBKV_KEPT_FILE(5, "2-log");
static_assert(std::size(nibkv::test::kKeptSnapshots) == 6);

namespace nibkv::metal {

std::span<const std::byte> kept_file(std::size_t index) {
  switch (index) {
    case 0:
      return {nibkv_kept_0, nibkv_kept_0_end};
    case 1:
      return {nibkv_kept_1, nibkv_kept_1_end};
    case 2:
      return {nibkv_kept_2, nibkv_kept_2_end};
    case 3:
      return {nibkv_kept_3, nibkv_kept_3_end};
    case 4:
      return {nibkv_kept_4, nibkv_kept_4_end};
    case 5:
      return {nibkv_kept_5, nibkv_kept_5_end};
    default:
      return {};
  }
}

}  // namespace nibkv::metal
