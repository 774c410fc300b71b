#pragma once

#include <cstdint>
#include <string_view>

#include "bench/runner/model/model.hpp"
#include "bench/runner/stores/plain_store.hpp"

namespace nibkv::llm {

/// What a user has without this library: f16 caches of a given size. They are listed with the
/// policies but are none.
inline constexpr const char* kF16Last = "f16_last";    ///< the last tokens
inline constexpr const char* kF16Sinks = "f16_sinks";  ///< first four, last: StreamingLLM, arXiv 2309.17453

/// Whether `name` is one of the two.
bool is_f16(std::string_view name);

/// One of these caches.
struct F16Store {
  /// @param name   one for which is_f16
  /// @param bytes  that keys and values may take; at least one token is kept
  F16Store(const Config& model, std::string_view name, std::uint64_t bytes);

  std::uint64_t tokens;  ///< tokens of a head, sinks included
  std::uint64_t bytes;   ///< bytes of these
  PlainStore store;
};

}  // namespace nibkv::llm
