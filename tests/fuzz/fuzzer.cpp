// What libFuzzer calls: one program per target, NIBKV_FUZZ_TARGET.
#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>

#include "tests/fuzz/targets.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  nibkv::fuzz::NIBKV_FUZZ_TARGET({reinterpret_cast<const std::byte*>(data), size});
  // GoogleTest has printed what failed.
  if (testing::Test::HasFailure()) std::abort();
  return 0;
}
