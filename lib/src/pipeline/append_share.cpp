#include "codec/slot.hpp"
#include "nibkv/share.hpp"
#include "pipeline/append_rows.hpp"
#include "pipeline/measure.hpp"

namespace nibkv {
namespace {

// Rows of zeros.
void clear_row(const ArenaView& to, const Place& at) {
  const Shape& shape = to.shape();
  if (shape.storage == Storage::kF32) {
    for (std::uint32_t c = 0; c < shape.head_dim; ++c) {
      to.key_rows(at.tile)[c * kTileSlots + at.lane] = 0;
      to.value_rows(at.tile)[at.lane * shape.head_dim + c] = 0;
    }
    return;
  }
  to.key_scales(at.tile)[at.lane] = 0;
  to.value_scales(at.tile)[at.lane] = 0;
  for (std::uint32_t n = 0; n < shape.outlier_channels; ++n) to.outliers(at.tile)[outlier_byte(at.lane, n)] = 0;
}

// Whether the rows of some tokens of a head are finite.
bool finite(const ConstRows& rows, const Range& tokens, std::uint32_t head, std::uint32_t head_dim) {
  ConstRows of_head = rows;
  of_head.first = row_of(rows, tokens.first, head).numbers;
  return all_finite(of_head, {tokens.end - tokens.first, 1, head_dim});
}

// The place of a slot of a chain's own.
Place own_place(const ArenaView& to, const Segment& own, std::uint32_t slot) {
  std::uint32_t tile = own.first;
  if (slot / kTileSlots + 1 == tiles_of(own.slots)) {
    tile = own.last;
  } else {
    for (std::uint32_t i = 0; i < slot / kTileSlots; ++i) tile = to.links()[tile];
  }
  return {tile, slot % kTileSlots};
}

}  // namespace

Status reserve(Cache& cache, std::uint32_t layer, std::uint32_t count) {
  if (!cache.ready()) return Status::kNotReady;
  const ArenaView to{cache};
  if (layer >= to.shape().layers || count == 0 || count > to.shape().max_chunk) return Status::kBadArgument;
  if (will_measure(to, layer)) return Status::kBadArgument;
  if (const Status status = make_place(to, layer, count); status != Status::kOk) return status;
  for (std::uint32_t head = 0; head < to.shape().kv_heads; ++head) {
    Place at = take_slots(to, to.chain(layer, head), count);
    for (std::uint32_t i = 0; i < count; ++i, at = next_place(to, at)) clear_row(to, at);
  }
  end_append(to, layer, count);
  return Status::kOk;
}

Status append_share(Cache& cache, std::uint32_t layer, std::uint32_t count, const ConstRows& keys,
                    const ConstRows& values, const Share& share) {
  if (!cache.ready()) return Status::kNotReady;
  const ArenaView to{cache};
  const Shape& shape = to.shape();
  if (layer >= shape.layers || !sound_share(shape, share)) return Status::kBadArgument;
  const ArenaHeader& header = to.header();
  const bool reserved = count != 0 && count == header.reserved && to.chain(layer, 0).seen == header.reserved_to &&
                        layer >= header.reserved_first && layer <= header.reserved_last;
  if (!reserved) return Status::kBadArgument;
  const RowCounts rows{count, shape.kv_heads, shape.head_dim};
  if (!readable(keys, rows) || !readable(values, rows)) return Status::kBadArgument;
  auto* const space = in_place<float>(to.scratch(share.worker));
  // First the check of all rows of the share, then the work.
  for (const bool checked : {false, true}) {
    Pieces pieces(std::uint64_t{shape.kv_heads} * count, share);
    for (std::uint32_t head = 0; head < shape.kv_heads; ++head) {
      const Segment own = to.own(to.chain(layer, head));
      NIBKV_ASSERT(own.slots >= count);
      const std::uint32_t before = own.slots - count;
      const Range mine = pieces.in_next(count, before, kTileSlots);
      if (mine.first == mine.end) continue;
      if (checked) {
        write_rows(to, layer, head, count, mine, own_place(to, own, before + mine.first), keys, values, space);
      } else if (!finite(keys, mine, head, shape.head_dim) || !finite(values, mine, head, shape.head_dim)) {
        return Status::kBadArgument;
      }
    }
  }
  return Status::kOk;
}

}  // namespace nibkv
