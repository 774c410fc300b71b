#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

namespace nibkv::fuzz {

using Input = std::vector<std::byte>;

/// A target of a fuzzer: a function of any bytes, which fails a GoogleTest or sanitizer check if
/// something is wrong; and a few seeds.
struct Target {
  std::string name;
  void (*run)(std::span<const std::byte> input);
  std::vector<Input> (*seeds)();
};

/// All built targets: those of the runner only with NIBKV_BENCH.
const std::vector<Target>& targets();

void snapshot(std::span<const std::byte> input);
std::vector<Input> snapshot_seeds();
void profile(std::span<const std::byte> input);
std::vector<Input> profile_seeds();
void operations(std::span<const std::byte> input);
std::vector<Input> operations_seeds();
void gguf(std::span<const std::byte> input);
std::vector<Input> gguf_seeds();
void tokenizer(std::span<const std::byte> input);
std::vector<Input> tokenizer_seeds();

}  // namespace nibkv::fuzz
