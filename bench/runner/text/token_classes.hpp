#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "bench/runner/text/tokenizer.hpp"
#include "nibkv/classify.hpp"

namespace nibkv::llm {

/// What each token of a vocabulary is: special where Tokenizer::is_special says so; punctuation where its text is one or
/// more characters of ASCII punctuation or of Unicode's General Punctuation, with or without white space, or line ends.
std::vector<TokenClass> token_classes(const Tokenizer& tokenizer);

/// @param vocabulary  of all tokens, as above
/// @param tokens      each in the vocabulary
std::vector<TokenClass> classes_of(std::span<const TokenClass> vocabulary, std::span<const std::int32_t> tokens);

}  // namespace nibkv::llm
