#pragma once

#include <cstdint>

#include "arena/band.hpp"
#include "codec/basis.hpp"
#include "codec/native_rows.hpp"
#include "codec/rotary.hpp"

namespace nibkv {

/// By how many positions a query is nearer to a slot than it would be; 0 within the reach, and for slots after it.
inline std::uint32_t shift_between(const Rotary& rotary, std::uint32_t query, std::uint32_t slot) {
  return slot < query ? rotary.shift_of(query - slot) : 0;
}

/// The least position of a chain's tile that begins with this slot.
inline std::uint32_t least_position(const ArenaView& to, const Chain& chain, std::uint32_t tile, std::uint32_t slot) {
  return to.policy().keep == Keep::kScore ? to.base(tile) : to.position_of(chain, slot, {tile, 0});
}

/// The dots of a tile of keys with the query rows of a pass, and what they are multiplied by: arrays of `count`
/// rows, as TileWeights has them.
struct FarDots {
  const std::uint8_t* codes;   ///< of the keys
  const std::uint32_t* seen;   ///< u32[count]
  std::int32_t* dots;          ///< i32[count][32]
  std::int32_t* outlier_dots;  ///< i32[count][32]; nullptr if there are no outlier channels
  float* scales;               ///< f32[count]
  float* ratios;               ///< f32[count]
};

/// The queries of a pass, where there is a Rotary::reach. Keys are coded at their positions less Rotary::wrap_of,
/// and so are queries. For slots that were wrapped otherwise, or are further behind than the reach, a query is turned
/// less far, by one of Rotary::turns() numbers of steps: it is turned, split, rotated and quantised once for each.
class FarQueries {
 public:
  /// @param first    the position of the call's first token
  /// @param scratch  of the worker
  FarQueries(const ArenaView& to, const Basis& basis, const Chain& chain, const ConstRows& queries,
             std::uint32_t kv_head, std::uint32_t first, std::byte* scratch);

  /// The next pass has these rows, [query][member of the group].
  /// @param first_row  the number of its first, counted from the call's first query
  void start(std::uint32_t first_row, std::int32_t count);

  /// Wraps a query as keys at its position are.
  /// @param row  f32[head_dim], changed
  void wrap(float* row, std::uint32_t position) {
    turner_.set_back(to_.shape().rotary.wrap_of(position));
    turner_.turn(row);
  }

  /// Whether a row of the pass may have to be turned otherwise for a slot of the tile.
  bool beyond(std::uint32_t tile, std::uint32_t slot) const {
    const std::uint32_t last = to_.shape().rotary.wrap_of(chain_.seen - 1);
    return least_position(to_, chain_, tile, slot) < last || position_of_row(0) < last;
  }

  /// Replaces what the wrapped rows gave, in rows that see a slot of the tile that needs another turn. All slots of
  /// such a row are in one unit, whatever their turns; other rows stay as they are.
  /// @param slot  the tile's first
  void meet(std::uint32_t tile, std::uint32_t slot, const FarDots& to);

 private:
  /// Rows that are turned alike, from one on; arrays as in turned_bytes().
  struct Turned {
    std::int8_t* codes;
    TurnedRow* rows;
    std::int32_t* sums;
    std::int32_t* outlier_sums;
    std::int8_t* outlier_codes;
  };
  /// Rows [from, end), of one query.
  struct Range {
    std::int32_t from, end;
  };
  struct SlotSteps;

  std::uint32_t position_of_row(std::int32_t i) const {
    return first_ + (first_row_ + static_cast<std::uint32_t>(i)) / to_.shape().group();
  }
  Turned turned(std::uint32_t steps, std::int32_t first) const;
  void read(std::int32_t i);
  void measure();
  void encode(std::int32_t i, std::uint32_t back, const Turned& to, std::int32_t at);
  void meet_turned(const Range& range, const Turned& rows, const SlotSteps& slots, std::uint32_t steps,
                   std::uint32_t tile, const FarDots& to);
  void rescale(const Range& range, const SlotSteps& slots, const FarDots& to);
  void meet_query(const Range& range, const SlotSteps& slots, const std::uint32_t* positions, std::uint32_t tile,
                  const FarDots& to);
  void meet_later(const Range& range, SlotSteps slots, const std::uint32_t* positions, std::uint32_t tile,
                  const FarDots& to);

  const ArenaView& to_;
  const Basis& basis_;
  const Chain& chain_;
  const ConstRows& queries_;
  std::uint32_t kv_head_;
  std::uint32_t first_;
  float* row_;
  std::byte* turned_;
  std::uint32_t first_row_ = 0;
  std::int32_t count_ = 0;
  bool measured_ = false;  // whether the next three are those of the pass
  float units_[kMaxRows];
  float products_[kMaxRows];                   // of the wrapped rows with the mean key, in units
  std::uint16_t encoded_[Rotary::kMostTurns];  // for each number of steps from 1: a bit for each row
  float outlier_unit_;
  RowTurner turner_;
};

}  // namespace nibkv
