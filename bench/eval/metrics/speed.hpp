#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "bench/runner/model/model.hpp"
#include "bench/runner/programs/progress.hpp"
#include "bench/runner/stores/tile_store.hpp"

namespace nibkv::llm {

struct SpeedFigures {
  double prefill_tokens_per_second = 0;  ///< for the whole context
  double decode_tokens_per_second = 0;   ///< one token at a time after it
  double attend_share = 0;               ///< share of the decoding time
  double append_share = 0;               ///< share of the prefill time
  double prefill_attend_share = 0;
  std::uint64_t arena_bytes = 0;
  std::uint64_t peak_bytes = 0;
  std::string port;
};

/// Feeds `context` tokens into an empty store, then `decoded` more one by one (taken from the
/// text, without sampling).
/// @param tokens  at least context + decoded
/// @param progress  may be empty
/// @throws Error for a text that is too short
SpeedFigures measure_speed(Model& model, std::span<const std::int32_t> tokens, std::size_t context, std::size_t decoded,
                           const StoreOptions& options, const TokensDone& progress = {});

}  // namespace nibkv::llm
