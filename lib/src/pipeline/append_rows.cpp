#include "pipeline/append_rows.hpp"

#include "arena/pool.hpp"
#include "codec/basis.hpp"
#include "codec/refine.hpp"
#include "codec/rotary.hpp"
#include "codec/rotation.hpp"
#include "codec/row.hpp"
#include "codec/slot.hpp"
#include "fold/fold.hpp"
#include "pipeline/compact_chain.hpp"
#include "pipeline/lower_slots.hpp"
#include "profile/format.hpp"

namespace nibkv {
namespace {

void store_f32(const ArenaView& to, std::uint32_t tile, std::uint32_t lane, const NativeRow& key,
               const NativeRow& value) {
  const std::uint32_t dim = to.shape().head_dim;
  float* place = to.value_rows(tile) + lane * dim;  // first of the key, where it must be widened
  const float* channels = key.widened(to.kernels(), dim, place);
  for (std::uint32_t c = 0; c < dim; ++c) to.key_rows(tile)[c * kTileSlots + lane] = channels[c];
  value.copy(to.kernels(), dim, place);
}

// Transforms a value to the basis of the layer below.
void map_value(const std::uint8_t* map, std::uint32_t dim, const float* value, float* row) {
  for (std::uint32_t i = 0; i < dim; ++i) {
    float sum = 0;
    for (std::uint32_t j = 0; j < dim; ++j) sum += static_cast<float>(i16_at(map, i * dim + j)) * value[j];
    row[i] = sum * 0x1p-15f;
  }
}

// Apart, because of its stack: the map reads every number for each that it writes.
[[gnu::noinline]] void map_half_value(const Kernels& kernels, const std::uint8_t* map, std::uint32_t dim,
                                      const NativeRow& value, float* row) {
  float wide[kMaxHeadDim];
  map_value(map, dim, value.widened(kernels, dim, wide), row);
}

// What encodes the rows of a head.
struct Encoder {
  Basis basis;
  KeyRefiner refiner;
  const std::uint8_t* map;  // of values, or nullptr
  Pool pool;                // where rows that leave the tail go
  float* row;

  // space: encoding_bytes
  Encoder(const ArenaView& to, std::uint32_t layer, std::uint32_t head, float* space)
      : basis(to, layer, head),
        refiner(to, basis, space + to.shape().head_dim),
        map(value_map(to, layer, head)),
        pool(to.pool_of(to.chain(layer, head))),
        row(space) {}
};

// Whether the sum of the fourth powers of a row says that one channel may hold nearly all of its squared norm.
bool may_be_spike(const float* row, std::uint32_t dim) {
#ifdef __OPTIMIZE_SIZE__
  float squares = 0, fourths = 0;
  for (std::uint32_t c = 0; c < dim; ++c) {
    const float square = row[c] * row[c];
    squares += square;
    fourths += square * square;
  }
#else
  using Four [[gnu::vector_size(16)]] = float;  // compilers do not find it by themselves
  Four two{}, four{};
  for (std::uint32_t c = 0; c < dim; c += 4) {
    Four square;
    std::memcpy(&square, row + c, sizeof square);
    square *= square;
    two += square;
    four += square * square;
  }
  const float squares = (two[0] + two[1]) + (two[2] + two[3]);
  const float fourths = (four[0] + four[1]) + (four[2] + four[3]);
#endif
  return !(fourths < 0.8f * squares * squares);
}

// Counts a row whose largest channel leaves nothing to the others.
// @param row  f32[head_dim], before the rotation
void note_drowned(const ArenaView& to, const float* row, std::uint32_t bits) {
  const std::uint32_t dim = to.shape().head_dim;
  if (!may_be_spike(row, dim)) return;
  float rest = 0, largest = 0;
  for (std::uint32_t c = 0; c < dim; ++c) {
    const float square = row[c] * row[c];
    rest += square < largest ? square : largest;
    largest = square < largest ? largest : square;
  }
  // Of a row's squared norm, what codes leave at least.
  const float share = bits == 2 ? 0.11f : bits == 4 ? 0.0067f : 4e-5f;
  if (!(rest > 0) || !(rest < share * largest)) return;
  // Shares of an append run at the same time. Not an addition, for which some targets call a compiler's function.
  std::uint32_t& count = to.header().drowned;
  __atomic_store_n(&count, __atomic_load_n(&count, __ATOMIC_RELAXED) + 1, __ATOMIC_RELAXED);
}

void store_codes(const ArenaView& to, const Encoder& with, const Place& at, std::uint32_t wrap, const NativeRow& key,
                 const NativeRow& value) {
  const std::uint32_t dim = to.shape().head_dim;
  const TileFormat format = to.format(to.pool_of(at.tile) == Pool::kTail ? with.pool : to.pool_of(at.tile));
  float* row = with.row;
  std::uint8_t codes[kMaxHeadDim];
  std::int8_t outliers[kMaxOutlierChannels];

  if (with.basis.empty() && wrap == 0) {
    const float* const whole = key.widened(to.kernels(), dim, row);
    note_drowned(to, whole, format.key_bits);
    rotate_in(to.kernels(), whole, dim, row);
  } else {
    key.copy(to.kernels(), dim, row);
    if (wrap != 0) turn_row(to.shape().rotary, row, -static_cast<std::int64_t>(wrap));
    with.basis.split_key(row, outliers);
    note_drowned(to, row, format.key_bits);
    rotate_in(to.kernels(), row, dim, row);
  }
  std::uint16_t scale = to.key_kernels(at.tile).encode_row(row, static_cast<int>(dim), codes);
  if (scale != 0) scale = with.refiner.refine(key_plane(to, at.tile).bits, row, codes, scale);
  put_key(to, at.tile, at.lane, codes, scale);
  for (std::uint32_t n = 0; n < to.shape().outlier_channels; ++n)
    to.outliers(at.tile)[outlier_byte(at.lane, n)] = outliers[n];

  const float* rest = row;
  if (with.map == nullptr) {
    rest = value.widened(to.kernels(), dim, row);
  } else if (value.f32()) {
    map_value(with.map, dim, value.floats(), row);
  } else {
    map_half_value(to.kernels(), with.map, dim, value, row);
  }
  note_drowned(to, rest, format.value_bits);
  rotate_in(to.kernels(), rest, dim, row);
  scale = to.value_kernels(at.tile).encode_row(row, static_cast<int>(dim), codes);
  put_value(to, at.tile, at.lane, codes, scale);
}

// Makes space in the tails of a layer, under Keep::kAll.
Status lower_tails(const ArenaView& to, std::uint32_t layer, std::uint32_t count) {
  for (const bool sure : {false, true}) {
    for (std::uint32_t head = 0; head < to.shape().kv_heads; ++head) {
      const Chain& chain = to.chain(layer, head);
      const std::uint32_t slots = to.own(chain).slots;
      if (slots + count <= tail_capacity(to)) continue;
      const std::uint32_t ripe = fitting_ripe(to, chain);
      if (slots - ripe + count > tail_capacity(to)) return Status::kFull;
      if (sure) lower_ripe(to, layer, head, ripe, count);
    }
  }
  return Status::kOk;
}

}  // namespace

Status make_place(const ArenaView& to, std::uint32_t layer, std::uint32_t count) {
  if (!in_turn(to, layer, count)) return Status::kBadArgument;
  if (to.chain(layer, 0).seen > 0xffffffff - count) return Status::kFull;  // positions have 32 bits
  if (to.policy().keep != Keep::kAll) {
    make_room(to, layer, count);  // a chain never needs more than its own tiles
    return Status::kOk;
  }
  if (has_tiers(to.policy())) return lower_tails(to, layer, count);
  // The pool must have the tiles that all heads need together.
  std::uint64_t needed = 0;
  for (std::uint32_t head = 0; head < to.shape().kv_heads; ++head) {
    const Chain& chain = to.chain(layer, head);
    const std::uint32_t own = to.own(chain).slots;
    needed += tiles_of(own + count) - tiles_of(own);
    if (chain.used + count > most_slots(to)) return Status::kFull;
  }
  return needed > to.layout().tiles - to.header().used_tiles ? Status::kFull : Status::kOk;
}

Place add_slot(const ArenaView& to, Chain& chain, std::uint32_t position) {
  const std::uint32_t lane = to.own(chain).slots % kTileSlots;
  const std::uint32_t tile = lane == 0 ? grow(to, chain) : chain.last;
  if (to.policy().keep == Keep::kScore) start_slot(to, chain, tile, lane, position);
  chain.used += 1;
  return {tile, lane};
}

Place take_slots(const ArenaView& to, Chain& chain, std::uint32_t count) {
  const Place first = add_slot(to, chain, chain.seen);
  for (std::uint32_t i = 1; i < count; ++i) add_slot(to, chain, chain.seen + i);
  chain.seen += count;
  NIBKV_ASSERT(chain.used <= chain.seen);
  return first;
}

void write_rows(const ArenaView& to, std::uint32_t layer, std::uint32_t head, std::uint32_t count, const Range& tokens,
                Place at, const ConstRows& keys, const ConstRows& values, float* space) {
  const bool exact = to.shape().storage == Storage::kF32;
  const Encoder with(to, layer, head, space);
  const std::uint32_t first = to.chain(layer, head).seen - count;  // the position of the call's first token
  for (std::uint32_t i = tokens.first; i < tokens.end; ++i, at = next_place(to, at)) {
    const NativeRow key = row_of(keys, i, head);
    const NativeRow value = row_of(values, i, head);
    if (exact) {
      store_f32(to, at.tile, at.lane, key, value);
    } else {
      store_codes(to, with, at, to.shape().rotary.wrap_of(first + i), key, value);
    }
  }
}

void end_append(const ArenaView& to, std::uint32_t layer, std::uint32_t reserved) {
  if (const Band band = band_of(to, layer); ends_turn(band, layer)) fold_old_slots(to, band);
  ArenaHeader& header = to.header();
  const std::uint32_t seen = reserved == 0 ? 0 : to.chain(layer, 0).seen;
  const bool more = reserved != 0 && reserved == header.reserved && seen == header.reserved_to;
  if (more && layer == header.reserved_last + 1) {
    header.reserved_last = layer;
  } else if (more && layer + 1 == header.reserved_first) {
    header.reserved_first = layer;
  } else {
    header.reserved_first = header.reserved_last = reserved == 0 ? 0 : layer;
  }
  header.reserved = reserved;
  header.reserved_to = seen;
}

}  // namespace nibkv
