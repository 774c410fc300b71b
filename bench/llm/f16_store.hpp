#pragma once

#include <cstdint>
#include <string_view>

#include "bench/llm/model.hpp"
#include "bench/llm/plain_store.hpp"

namespace nibkv::llm {

/// What a user has without this library: f16 caches of a given size. They stand beside the policies and are none.
inline constexpr const char* kF16Last = "f16_last";    ///< the last tokens
inline constexpr const char* kF16Sinks = "f16_sinks";  ///< the first four and the last: StreamingLLM, arXiv 2309.17453

/// Whether it is one of the two names.
bool is_f16(std::string_view name);

/// One of these caches.
struct F16Store {
  /// @param name   one for which is_f16
  /// @param bytes  that keys and values may take; one token is kept at least
  F16Store(const Config& model, std::string_view name, std::uint64_t bytes);

  std::uint64_t tokens;  ///< of a head, sinks included
  std::uint64_t bytes;   ///< of these
  PlainStore store;
};

}  // namespace nibkv::llm
