#include "nibkv/share.hpp"

#include "arena/share.hpp"
#include "attention/attend_rows.hpp"

namespace nibkv {
namespace {

std::uint32_t tiles_in(const ArenaView& of, const Chain& chain) {
  const Segments segments = of.segments(chain);
  std::uint32_t tiles = 0;
  for (std::uint32_t i = 0; i < segments.count; ++i) tiles += tiles_of(segments.at[i].slots);
  return tiles;
}

// Whether a share of the attention of a layer's newest token can be computed.
bool can_share(const Cache& cache, std::uint32_t layer, const Share& share) {
  if (!divisible(cache) || layer >= cache.shape().layers || !sound_share(cache.shape(), share)) return false;
  const ArenaView to{cache};
  for (std::uint32_t head = 0; head < to.shape().kv_heads; ++head) {
    const Chain& chain = to.chain(layer, head);
    if (chain.used == recalled_used(to, chain)) return false;
  }
  return true;
}

// Attention of the rows of a head over some tiles of its chain, which begin and end with blocks.
void attend_tiles(const ArenaView& to, std::uint32_t layer, std::uint32_t head, const ConstRows& query,
                  const Share& share, std::uint32_t first, std::uint32_t end) {
  const Chain& chain = to.chain(layer, head);
  const Basis basis(to, layer, head);
  const Runs runs(to, to.segments(chain), chain.used);
  Rows rows = rows_in(to, share.worker);
  rows.apart = {true, layer, 0, chain.seen};
  const std::uint32_t group = to.shape().group();
  for (std::uint32_t member = 0; member < group;) {
    rows.apart.first_query_head = head * group + member;
    for (; member < group && static_cast<std::uint32_t>(rows.count) < to.shape().rows(); ++member)
      add_row(to, basis, rows, row_of(query, 0, head * group + member), chain.used, chain.seen - 1);
    read_tiles(to, runs, rows, first, end);
    rows.count = 0;
  }
}

// Whether all blocks of a query head wait to be combined.
bool complete(const ArenaView& to, std::uint32_t layer, std::uint32_t query_head) {
  const Chain& chain = to.chain(layer, query_head / to.shape().group());
  const std::uint32_t blocks = blocks_of(tiles_in(to, chain));
  for (std::uint32_t block = 0; block < blocks; ++block) {
    const Partial& partial = partial_of(to, query_head, block);
    if (partial.mark != kPartialMark || partial.layer != layer || partial.seen != chain.seen ||
        partial.blocks != blocks)
      return false;
  }
  return true;
}

// Adds up the blocks of a query head, as attend does.
void combine(const ArenaView& to, std::uint32_t query_head, Rows& rows) {
  const std::uint32_t dim = to.shape().head_dim;
  Partial& first = partial_of(to, query_head, 0);
  rows.states[0] = {first.exponent, first.mass};
  std::memcpy(rows.sums, sums_of(first), dim * sizeof(float));
  for (std::uint32_t block = 1; block < first.blocks; ++block) {
    Partial& more = partial_of(to, query_head, block);
    add_block(rows.states[0], rows.sums, {more.exponent, more.mass}, sums_of(more), static_cast<int>(dim));
  }
  for (std::uint32_t block = first.blocks; block-- > 0;) partial_of(to, query_head, block).mark = 0;
}

}  // namespace

bool divisible(const Cache& cache) {
  return cache.ready() && cache.shape().workers > 1 && cache.shape().rotary.reach == 0 &&
         divides_heads(cache.shape(), cache.policy());
}

Status attend_share(Cache& cache, std::uint32_t layer, const ConstRows& query, const Share& share) {
  if (!cache.ready()) return Status::kNotReady;
  if (!can_share(cache, layer, share)) return Status::kBadArgument;
  const ArenaView to{cache};
  const Shape& shape = to.shape();
  if (!readable(query, {1, shape.query_heads, shape.head_dim})) return Status::kBadArgument;
  std::uint64_t all = 0;
  for (std::uint32_t head = 0; head < shape.kv_heads; ++head) all += tiles_in(to, to.chain(layer, head));
  // First the check of all rows that the share reads, then the work.
  for (const bool checked : {false, true}) {
    Pieces pieces(all, share);
    for (std::uint32_t head = 0; head < shape.kv_heads; ++head) {
      const std::uint32_t tiles = tiles_in(to, to.chain(layer, head));
      const Range mine = pieces.in_next(tiles, 0, kBlockTiles);
      if (mine.first == mine.end) continue;
      if (checked) {
        attend_tiles(to, layer, head, query, share, mine.first, mine.end);
      } else {
        ConstRows rows = query;
        rows.first = row_of(query, 0, head * shape.group()).numbers;
        if (!all_finite(rows, {1, shape.group(), shape.head_dim})) return Status::kBadArgument;
      }
    }
  }
  return Status::kOk;
}

Status combine_share(Cache& cache, std::uint32_t layer, const MutableRows& out, const Share& share) {
  if (!cache.ready()) return Status::kNotReady;
  if (!can_share(cache, layer, share)) return Status::kBadArgument;
  const ArenaView to{cache};
  const Shape& shape = to.shape();
  if (!writable(out, {1, shape.query_heads, shape.head_dim})) return Status::kBadArgument;
  const Range mine = Pieces(shape.query_heads, share).in_next(shape.query_heads, 0, 1);
  for (std::uint32_t query_head = mine.first; query_head < mine.end; ++query_head) {
    if (!complete(to, layer, query_head)) return Status::kBadArgument;
  }
  Rows rows = rows_in(to, share.worker);
  for (std::uint32_t query_head = mine.first; query_head < mine.end; ++query_head) {
    combine(to, query_head, rows);
    rows.value_map = value_map(to, layer, query_head / shape.group());
    finish_row(to, rows, 0, row_of(out, 0, query_head));
  }
  return Status::kOk;
}

}  // namespace nibkv
