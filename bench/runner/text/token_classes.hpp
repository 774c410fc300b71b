#pragma once

#include <cstdint>
#include <vector>

#include "bench/runner/text/tokenizer.hpp"
#include "nibkv/classify.hpp"

namespace nibkv::llm {

/// What each token of a vocabulary is: special where Tokenizer::is_special says so; punctuation where its text is one or
/// more characters of ASCII punctuation or of Unicode's General Punctuation, with or without white space, or line ends.
std::vector<TokenClass> token_classes(const Tokenizer& tokenizer);

}  // namespace nibkv::llm
