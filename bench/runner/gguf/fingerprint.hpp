#pragma once

#include <cstdint>

#include "bench/runner/gguf/gguf.hpp"

namespace nibkv::llm {

/// A fingerprint of the names and shapes of a model's tensors and of some of their bytes, three
/// pieces of 1 KiB each: it differs for other weights. Never 0.
std::uint64_t weights_fingerprint(const Gguf& file);

/// The same, including the vocabulary.
std::uint64_t model_fingerprint(const Gguf& file);

}  // namespace nibkv::llm
