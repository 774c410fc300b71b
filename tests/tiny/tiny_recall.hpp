#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "tests/tiny/tiny_llama.hpp"

/// The tiny model reads facts within prose, in an arena that holds only part of it, and is
/// asked for one of them.
namespace nibkv::metal {

inline constexpr Shape kTinyShape = {.layers = 5, .query_heads = 4, .kv_heads = 2, .head_dim = 64};
inline constexpr Policy kTinyPolicy = ems(288);

/// One token per byte.
inline constexpr std::string_view kTinyPrompt =
    "The morning was cold, and the road to the village was white with frost. An old man walked before his cart, and "
    "spoke to the horse as one speaks to a friend.\nThe code for willow is 90717.\nWhen they came to the bridge the "
    "sun was above the hills, and the water below them shone like glass. The man stood still for a while, and looked "
    "at it, and thought of the years that were gone.\nThe code for lantern is 28415.\nThen he took the rein again, and "
    "they went on, past the mill and the church, to the house where his daughter lived.\nWhat is the code for "
    "lantern? ";
inline constexpr std::string_view kTinyAnswer = "28415";

// The result on every machine. To update: run nibkv_tiny_tests; it prints the new word.
inline constexpr std::uint64_t kTinyCache = 0x4a3040b61475c638;

struct Recall {
  Status status = Status::kOk;
  char answer[9] = {};       ///< greedy decoding up to the end of the line, at most 8 bytes
  std::uint32_t tokens = 0;  ///< number of tokens fed
  std::uint64_t word = 0;    ///< FNV-1a of the arena's bytes that hold state
};

/// @param model  opened
/// @param arena  of kTinyShape and kTinyPolicy
Recall recall(TinyLlama& model, Cache& cache, std::span<std::byte> arena, std::string_view port = {});

}  // namespace nibkv::metal
