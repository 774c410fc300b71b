#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "bench/eval/speed/media.hpp"
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
  // Of a cache with a log.
  PageTraffic prefill_pages;
  std::vector<PageTraffic> decode_pages;  ///< of each decoded token
  RecallUsage decode_recall;              ///< of all of them
};

/// A run as it would be with the log on a medium. What the pages take there is worked out and added, as if nothing else
/// went on meanwhile: an upper bound where several threads recall, or a page is fetched ahead.
struct MediumFigures {
  double prefill_tokens_per_second = 0;
  double decode_tokens_per_second = 0;
  double pages_read = 0;     ///< a decoded token
  double pages_written = 0;  ///< a decoded token
  double bytes = 0;          ///< read and written, a decoded token
  double hit_rate = 0;       ///< share of the chosen tokens that were there already
  double wait = 0;           ///< seconds a decoded token
  double longest_wait = 0;   ///< seconds of the slowest one
};

/// @param figures  with one decoded token at least
MediumFigures on_medium(const SpeedFigures& figures, std::size_t context, const Medium& medium);

/// Feeds `context` tokens into an empty store, then `decoded` more one by one (taken from the
/// text, without sampling).
/// @param tokens  at least context + decoded
/// @param progress  may be empty
/// @throws Error for a text that is too short
SpeedFigures measure_speed(Model& model, std::span<const std::int32_t> tokens, std::size_t context, std::size_t decoded,
                           const StoreOptions& options, const TokensDone& progress = {});

}  // namespace nibkv::llm
