#include "nibkv/append.hpp"

#include "arena/pool.hpp"
#include "codec/basis.hpp"
#include "codec/native_rows.hpp"
#include "codec/refine.hpp"
#include "codec/rotation.hpp"
#include "codec/row.hpp"
#include "codec/slot.hpp"
#include "fold/fold.hpp"
#include "pipeline/compact_chain.hpp"
#include "pipeline/plan_chain.hpp"
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

void store_q4(const ArenaView& to, const Basis& basis, const KeyRefiner& refiner, const std::uint8_t* map,
              std::uint32_t tile, std::uint32_t lane, const NativeRow& key, const NativeRow& value) {
  const std::uint32_t dim = to.shape().head_dim;
  float* row = to.encoding();
  std::uint8_t codes[kMaxHeadDim];
  std::int8_t outliers[kMaxOutlierChannels];

  if (basis.empty()) {
    rotate_in(to.kernels(), key.widened(to.kernels(), dim, row), dim, row);
  } else {
    key.copy(to.kernels(), dim, row);
    basis.split_key(row, outliers);
    rotate_in(to.kernels(), row, dim, row);
  }
  std::uint16_t scale = to.kernels().encode_row(row, static_cast<int>(dim), codes);
  if (scale != 0) scale = refiner.refine(row, codes, scale);
  put_key(to, tile, lane, codes, scale);
  for (std::uint32_t n = 0; n < to.shape().outlier_channels; ++n)
    to.outliers(tile)[outlier_byte(lane, n)] = outliers[n];

  const float* rest = row;
  if (map == nullptr) {
    rest = value.widened(to.kernels(), dim, row);
  } else if (value.f32()) {
    map_value(map, dim, value.floats(), row);
  } else {
    map_half_value(to.kernels(), map, dim, value, row);
  }
  rotate_in(to.kernels(), rest, dim, row);
  scale = to.kernels().encode_row(row, static_cast<int>(dim), codes);
  put_value(to, tile, lane, codes, scale);
}

// append, of rows that were checked.
Status append_rows(const ArenaView& to, std::uint32_t layer, std::uint32_t count, const ConstRows& keys,
                   const ConstRows& values) {
  if (!in_turn(to, layer, count)) return Status::kBadArgument;
  if (to.chain(layer, 0).seen > 0xffffffff - count) return Status::kFull;  // positions have 32 bits
  const Shape& shape = to.shape();
  const bool makes_room = to.policy().keep != Keep::kAll;

  // A bounded chain never needs more than its own tiles. Otherwise the pool must have the tiles
  // that all heads need together.
  std::uint64_t needed = 0;
  for (std::uint32_t head = 0; head < shape.kv_heads; ++head) {
    const Chain& chain = to.chain(layer, head);
    const std::uint32_t own = to.own(chain).slots;
    needed += tiles_of(own + count) - tiles_of(own);
    if (!makes_room && chain.used + count > most_slots(to)) return Status::kFull;
  }
  if (!makes_room && needed > to.layout().tiles - to.header().used_tiles) return Status::kFull;

  if (makes_room) make_room(to, layer, count);
  for (std::uint32_t head = 0; head < shape.kv_heads; ++head) {
    Chain& chain = to.chain(layer, head);
    const bool exact = shape.storage == Storage::kF32;
    const Basis basis(to, layer, head);
    const KeyRefiner refiner(to.kernels(), basis, shape.head_dim, to.refining());
    const std::uint8_t* map = value_map(to, layer, head);
    for (std::uint32_t i = 0; i < count; ++i) {
      const std::uint32_t lane = to.own(chain).slots % kTileSlots;
      const std::uint32_t tile = lane == 0 ? grow(to, chain) : chain.last;
      const NativeRow key = row_of(keys, i, head);
      const NativeRow value = row_of(values, i, head);
      if (exact) {
        store_f32(to, tile, lane, key, value);
      } else {
        store_q4(to, basis, refiner, map, tile, lane, key, value);
        if (to.policy().keep == Keep::kScore) start_slot(to, tile, lane, chain.seen + i);
      }
      chain.used += 1;
    }
    chain.seen += count;
    NIBKV_ASSERT(chain.used <= chain.seen);
  }
  if (const Band band = band_of(to, layer); ends_turn(band, layer)) fold_old_slots(to, band);
  return Status::kOk;
}

}  // namespace

Status append(Cache& cache, std::uint32_t layer, std::span<const float> keys, std::span<const float> values) {
  if (!cache.ready()) return Status::kNotReady;
  const ArenaView to{cache};
  const Shape& shape = to.shape();
  if (layer >= shape.layers) return Status::kBadArgument;
  const std::size_t stride = std::size_t{shape.kv_heads} * shape.head_dim;
  const std::size_t tokens = keys.size() / stride;
  if (tokens == 0 || tokens > shape.max_chunk || keys.size() != tokens * stride || values.size() != keys.size()) {
    return Status::kBadArgument;
  }
  if (!all_finite(keys.data(), keys.size()) || !all_finite(values.data(), values.size())) return Status::kBadArgument;
  return append_rows(to, layer, static_cast<std::uint32_t>(tokens),
                     tokens_first(keys.data(), Number::kF32, shape.kv_heads, shape.head_dim),
                     tokens_first(values.data(), Number::kF32, shape.kv_heads, shape.head_dim));
}

Status append(Cache& cache, std::uint32_t layer, std::uint32_t count, const ConstRows& keys, const ConstRows& values) {
  if (!cache.ready()) return Status::kNotReady;
  const ArenaView to{cache};
  const Shape& shape = to.shape();
  if (layer >= shape.layers || count == 0 || count > shape.max_chunk) return Status::kBadArgument;
  const RowCounts rows{count, shape.kv_heads, shape.head_dim};
  if (!readable(keys, rows) || !readable(values, rows)) return Status::kBadArgument;
  if (!all_finite(keys, rows) || !all_finite(values, rows)) return Status::kBadArgument;
  return append_rows(to, layer, count, keys, values);
}

std::uint32_t room(const Cache& cache) {
  if (!cache.ready()) return 0;
  const ArenaView of{cache};
  const std::uint32_t free = static_cast<std::uint32_t>(of.layout().tiles) - of.header().used_tiles;
  return largest_that([&](std::uint32_t count) {
    std::uint64_t needed = 0;
    for (std::size_t i = 0; i < of.heads(); ++i) {
      const Chain& chain = of.chains()[i];
      if (chain.seen > 0xffffffff - count) return false;
      if (of.policy().keep != Keep::kAll) continue;
      if (std::uint64_t{chain.used} + count > most_slots(of)) return false;
      if (folds(of)) continue;  // what folds gives its tiles back in time
      const std::uint64_t own = of.own(chain).slots;
      needed += (own + count + kTileSlots - 1) / kTileSlots - tiles_of(of.own(chain).slots);
    }
    return of.policy().keep != Keep::kAll || needed <= free;
  });
}

}  // namespace nibkv
