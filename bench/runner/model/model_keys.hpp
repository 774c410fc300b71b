#pragma once

#include "bench/runner/gguf/gguf.hpp"
#include "bench/runner/model/model_config.hpp"

namespace nibkv::llm {

/// Checks every key of the file's architecture that Config::from does not read.
///
/// @throws Error naming file and key if one asks for what this runner does not do, or if one
///         is unknown: nobody knows what it changes. Values that ask for nothing, such as
///         a scale of 1, are fine.
void check_other_keys(const Gguf& file, const std::string& architecture, const Config& config);

}  // namespace nibkv::llm
