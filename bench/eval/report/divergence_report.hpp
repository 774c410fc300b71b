#pragma once

#include <string>

#include "bench/eval/metrics/divergence.hpp"

namespace nibkv::llm {

/// The statistics in the order and the form in which llama-perplexity prints them, in ASCII.
std::string as_table(const DivergenceFigures& figures);

}  // namespace nibkv::llm
