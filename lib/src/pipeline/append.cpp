#include "nibkv/append.hpp"

#include "pipeline/append_rows.hpp"
#include "pipeline/lower_slots.hpp"
#include "pipeline/measure.hpp"

namespace nibkv {
namespace {

// append, of rows that were checked.
Status append_rows(const ArenaView& to, std::uint32_t layer, std::uint32_t count, const ConstRows& keys,
                   const ConstRows& values) {
  if (const Status status = make_place(to, layer, count); status != Status::kOk) return status;
  if (will_measure(to, layer)) measure(to, layer, count, keys);
  for (std::uint32_t head = 0; head < to.shape().kv_heads; ++head) {
    const Place first = take_slots(to, to.chain(layer, head), count);
    write_rows(to, layer, head, count, {0, count}, first, keys, values, to.encoding());
  }
  end_append(to, layer, 0);
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
      if (has_tiers(of.policy())) {
        const std::uint64_t more = kept_slots_left(of, chain);
        if (of.own(chain).slots + std::uint64_t{count} > tail_capacity(of) + more) return false;
        continue;
      }
      if (std::uint64_t{chain.used} + count > most_slots(of)) return false;
      if (folds(of)) continue;  // what folds gives its tiles back in time
      const std::uint64_t own = of.own(chain).slots;
      needed += (own + count + kTileSlots - 1) / kTileSlots - tiles_of(of.own(chain).slots);
    }
    return of.policy().keep != Keep::kAll || needed <= free;
  });
}

}  // namespace nibkv
