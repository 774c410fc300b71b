#include "attention/attend_rows.hpp"

#include <bit>

#include "codec/far_queries.hpp"
#include "codec/rotation.hpp"
#include "profile/format.hpp"

namespace nibkv {
namespace {

// A tile more than this many octaves below the largest one so far cannot change a float.
constexpr std::int32_t kNegligible = 40;
// The exponent of a row that has read nothing, below every other one.
constexpr std::int32_t kNothing = -(1 << 30);

// Nothing was read yet.
void clear_sums(const ArenaView& to, Rows& rows, std::int32_t i) {
  const std::uint32_t dim = to.shape().head_dim;
  rows.states[i] = {kNothing, 0};
  std::memset(rows.sums + static_cast<std::uint32_t>(i) * dim, 0, dim * sizeof(float));
}

// Zero for what is too small to matter, on every CPU, also on those that flush denormals. By bits, since
// comparisons of floats keep compilers from using vectors.
float without_dust(float sum) {
  const auto bits = std::bit_cast<std::int32_t>(sum);
  constexpr auto kDust = std::bit_cast<std::int32_t>(0x1p-100f);
  return std::bit_cast<float>((bits & 0x7fffffff) > kDust ? bits : 0);
}

// Scales a row's sums to a larger exponent. Powers of two are exact. What is too small to matter
// becomes zero on every CPU, also on those that flush denormals.
void raise(RowState& state, float* sums, int dim, std::int32_t exponent) {
  const std::int32_t octaves = exponent - state.exponent;
  const bool nothing = state.exponent == kNothing;
  state.exponent = exponent;
  if (nothing) return;  // sums are zero
  state.mass = octaves < 64 ? state.mass >> octaves : 0;
  const float factor = octaves < kNegligible ? power_of_two(-octaves) : 0.0f;
  for (int c = 0; c < dim; ++c) sums[c] = without_dust(sums[c] * factor);
}

// The results of tile_weights for a batch of tiles, [tile][row].
struct Batch {
  TileWeights tiles[kMaxRows];
  RunCursor at[kMaxRows];
  std::uint32_t seen[kMaxRows];
  std::int32_t exponents[kMaxRows];
  std::uint32_t masses[kMaxRows];
  float scales[kMaxRows];
  float far_scales[kMaxRows];  // instead of the rows', of tiles with slots that are too far behind; the next likewise
  float far_ratios[kMaxRows];
};

// The biases of a tile's slots, or nullptr when nothing was merged into any.
const std::uint8_t* biases_of(const ArenaView& to, std::uint32_t tile) {
  if (!merges(to.policy())) return nullptr;
  std::uint64_t parts[kTileSlots / 8];
  std::memcpy(parts, to.bias(tile), sizeof parts);
  return (parts[0] | parts[1] | parts[2] | parts[3]) != 0 ? to.bias(tile) : nullptr;
}

// Hides what the rows' masks hide of a tile.
void apply_masks(const Rows& rows, std::uint32_t slot, std::uint32_t* seen) {
  for (int i = 0; i < rows.count; ++i) seen[i] &= seen_by(rows.masks[i], rows.mask_words, slot, rows.first_new);
}

// Computes dots and weights of up to `most` tiles of a run, starting at slot `first_slot`. Returns
// how many, and advances `cursor`.
int weigh_tiles(const ArenaView& to, const Rows& rows, const Run& run, std::uint32_t first_slot, int most,
                RunCursor& cursor, Batch& batch) {
  const auto dim = static_cast<int>(to.shape().head_dim);
  const auto channels = static_cast<int>(to.shape().outlier_channels);
  const Kernels& kernels = to.kernels();
  const CodeKernels& key_kernels = to.key_kernels(run.first);
  const std::size_t tiles_before = run.tiles_before + (first_slot - run.begin) / kTileSlots;
  const std::size_t first_pair = tiles_before * static_cast<std::uint32_t>(rows.count);
  std::uint16_t* softmax = rows.softmax == nullptr ? nullptr : rows.softmax + first_pair * kTileSlots;
  int count = 0;
  for (std::uint32_t slot = first_slot; slot < run.end() && count < most; slot += kTileSlots, ++count) {
    const int at = count * rows.count;
    for (int i = 0; i < rows.count; ++i) {
      const std::uint32_t limit = rows.limits[i] < run.end() ? rows.limits[i] : run.end();
      const std::uint32_t left = limit > slot ? limit - slot : 0;
      batch.seen[at + i] = left < kTileSlots ? (1u << left) - 1 : ports::kAllSeen;
    }
    if (rows.mask_words != 0) apply_masks(rows, slot, batch.seen + at);
    const std::uint32_t tile = cursor.tile;
    prefetch_keys(to, cursor);
    std::int32_t* outlier_dots = channels != 0 ? rows.outlier_dots + at * kTileSlots : nullptr;
    key_kernels.key_dots(run.keys(tile), dim, rows.queries, rows.query_sums, rows.count, rows.dots + at * kTileSlots);
    if (channels != 0) {
      kernels.outlier_dots(to.outliers(tile), channels, rows.outlier_queries, rows.outlier_query_sums, rows.count,
                           outlier_dots);
    }
    const bool far = rows.far != nullptr && rows.far->beyond(tile, slot);
    if (far) {
      std::memcpy(batch.far_scales + at, rows.query_scales, static_cast<std::size_t>(rows.count) * sizeof(float));
      std::memcpy(batch.far_ratios + at, rows.outlier_ratios, static_cast<std::size_t>(rows.count) * sizeof(float));
      rows.far->meet(tile, slot,
                     {run.keys(tile), batch.seen + at, rows.dots + at * kTileSlots, outlier_dots, batch.far_scales + at,
                      batch.far_ratios + at});
    }
    batch.tiles[count] = {.dots = rows.dots + at * kTileSlots,
                          .outlier_dots = outlier_dots,
                          .key_scales = to.key_scales(tile),
                          .value_scales = to.value_scales(tile),
                          .query_scales = far ? batch.far_scales + at : rows.query_scales,
                          .outlier_ratios = far ? batch.far_ratios + at : rows.outlier_ratios,
                          .seen = batch.seen + at,
                          .biases = biases_of(to, tile),
                          .weights = rows.weights + at * kTileSlots,
                          .value_units = batch.scales + at,
                          .exponents = batch.exponents + at,
                          .softmax = softmax == nullptr ? nullptr : softmax + at * kTileSlots,
                          .masses = batch.masses + at};
    batch.at[count] = cursor;
    cursor.move_on(to);
  }
  kernels.tile_weights(batch.tiles, count, rows.count);
  if (softmax != nullptr) {
    for (int p = 0; p < count * rows.count; ++p) {
      rows.exponents[first_pair + static_cast<std::uint32_t>(p)] = batch.seen[p] != 0 ? batch.exponents[p] : kUnseen;
    }
  }
  return count;
}

// Adds a weighted tile to the sums of all rows.
void add_tile(const ArenaView& to, Rows& rows, const TileWeights& tile, const CodeKernels& kernels,
              const std::uint8_t* values) {
  const auto dim = static_cast<int>(to.shape().head_dim);
  for (int i = 0; i < rows.count; ++i) {
    RowState& state = rows.states[i];
    if (tile.seen[i] != 0 && tile.exponents[i] > state.exponent)
      raise(state, rows.sums + i * dim, dim, tile.exponents[i]);
    const std::int32_t below = state.exponent - tile.exponents[i];
    if (tile.seen[i] == 0 || below >= kNegligible) {
      tile.value_units[i] = 0;
      continue;
    }
    state.mass += static_cast<std::uint64_t>(tile.masses[i]) << 24 >> below;
    tile.value_units[i] *= power_of_two(-below);
  }
  kernels.value_sums(values, dim, tile.weights, tile.value_units, rows.count, rows.sums);
}

// Puts the sums of a block where they belong, and begins the next one.
void end_block(const ArenaView& to, Rows& rows, std::uint32_t block, std::uint32_t blocks) {
  const auto dim = static_cast<int>(to.shape().head_dim);
  if (rows.apart.on) {
    for (int i = 0; i < rows.count; ++i) {
      Partial& partial = partial_of(to, rows.apart.first_query_head + static_cast<std::uint32_t>(i), block);
      const RowState& state = rows.states[i];
      partial = {state.mass, state.exponent, rows.apart.layer, rows.apart.seen, blocks, kPartialMark};
      std::memcpy(sums_of(partial), rows.sums + i * dim, to.shape().head_dim * sizeof(float));
    }
  } else if (rows.blocks == 0) {
    std::memcpy(rows.total_states, rows.states, sizeof rows.states);
    float* const first = rows.sums;
    rows.sums = rows.totals;
    rows.totals = first;
  } else {
    for (int i = 0; i < rows.count; ++i)
      add_block(rows.total_states[i], rows.totals + i * dim, rows.states[i], rows.sums + i * dim, dim);
  }
  rows.blocks += 1;
  for (int i = 0; i < rows.count; ++i) clear_sums(to, rows, i);
}

}  // namespace

Rows rows_in(const ArenaView& to, std::uint32_t worker) {
  const Scratch at = to.scratch_layout();
  std::byte* base = to.scratch(worker);
  Rows rows{};
  rows.row = in_place<float>(base + at.row);
  rows.sums = in_place<float>(base + at.sums);
  rows.queries = in_place<std::int8_t>(base + at.queries);
  rows.outlier_queries = in_place<std::int8_t>(base + at.outlier_queries);
  rows.dots = in_place<std::int32_t>(base + at.dots);
  rows.outlier_dots = to.shape().outlier_channels == 0 ? nullptr : in_place<std::int32_t>(base + at.outlier_dots);
  rows.weights = in_place<std::uint8_t>(base + at.weights);
  const bool scored = scores_attention(to.policy());
  rows.softmax = scored ? in_place<std::uint16_t>(base + at.softmax) : nullptr;
  rows.exponents = scored ? in_place<std::int32_t>(base + at.exponents) : nullptr;
  const bool blocks = divides_heads(to.shape(), to.policy()) && to.layout().chain_tiles > kBlockTiles;
  rows.totals = blocks ? in_place<float>(base + at.block) : nullptr;
  return rows;
}

void add_row(const ArenaView& to, const Basis& basis, Rows& rows, const NativeRow& query, std::uint32_t limit,
             std::uint32_t position) {
  const auto dim = static_cast<int>(to.shape().head_dim);
  const auto channels = static_cast<int>(to.shape().outlier_channels);
  const std::int32_t i = rows.count++;
  NIBKV_ASSERT(i < static_cast<std::int32_t>(to.shape().rows()) && limit != 0);
  float outliers[kMaxOutlierChannels];
  if (basis.empty() && rows.far == nullptr) {
    rotate_in(to.kernels(), query.widened(to.kernels(), to.shape().head_dim, rows.row), to.shape().head_dim, rows.row);
  } else {
    query.copy(to.kernels(), to.shape().head_dim, rows.row);
    if (rows.far != nullptr) rows.far->wrap(rows.row, position);
    basis.split_query(rows.row, outliers);
    rotate_in(to.kernels(), rows.row, to.shape().head_dim, rows.row);
  }
  std::int8_t* codes = rows.queries + i * dim;
  std::int8_t* outlier_codes = rows.outlier_queries + i * channels;
  float scale = bounded_query_scale(to.kernels().quantise_query(rows.row, dim, codes));
  float ratio = 0;
  if (channels != 0) {
    const float outlier_scale = bounded_query_scale(to.kernels().quantise_query(outliers, channels, outlier_codes));
    if (outlier_scale > scale * kMostQueryScale) {  // the rest of this query is negligible
      std::memset(codes, 0, static_cast<std::size_t>(dim));
      scale = outlier_scale;
    }
    if (outlier_scale != 0) ratio = outlier_scale / scale;
  }
  if (scale == 0) scale = 1;  // all codes are 0
  rows.query_scales[i] = scale * octaves_per_logit(to.shape().head_dim);
  rows.outlier_ratios[i] = ratio;
  rows.query_sums[i] = sum_of_codes(codes, to.shape().head_dim);
  rows.outlier_query_sums[i] = sum_of_codes(outlier_codes, to.shape().outlier_channels);
  rows.limits[i] = limit;
  clear_sums(to, rows, i);
}

void add_block(RowState& state, float* sums, const RowState& more_state, const float* more, int dim) {
  if (more_state.exponent > state.exponent) raise(state, sums, dim, more_state.exponent);
  const std::int32_t below = state.exponent - more_state.exponent;
  if (below >= kNegligible) return;
  state.mass += more_state.mass >> below;
  const float factor = power_of_two(-below);
  for (int c = 0; c < dim; ++c) sums[c] += without_dust(more[c] * factor);
}

void finish_row(const ArenaView& to, const Rows& rows, std::int32_t i, const NativeOut& native) {
  float* const out = native.staged(rows.row);
  const auto dim = static_cast<int>(to.shape().head_dim);
  float* sums = rows.sums + i * dim;
  // The weights of the values are Q0.16; the mass is in units of 2^-40. It is not 0: the largest
  // tile adds 2^14 or more.
  const float per_mass = 0x1p24f / static_cast<float>(rows.states[i].mass);
  for (int c = 0; c < dim; ++c) sums[c] *= per_mass;
  rotate_out(to.kernels(), sums, to.shape().head_dim, rows.value_map != nullptr ? sums : out);
  if (rows.value_map == nullptr) {
    native.put(to.kernels(), to.shape().head_dim, out);
    return;
  }
  // Back from the basis of the layer below: the map's transpose.
  for (int c = 0; c < dim; ++c) out[c] = 0;
  std::size_t at = 0;
  for (int r = 0; r < dim; ++r) {
    const float sum = sums[r] * 0x1p-15f;
    for (int c = 0; c < dim; ++c, ++at) out[c] += static_cast<float>(i16_at(rows.value_map, at)) * sum;
  }
  native.put(to.kernels(), to.shape().head_dim, out);
}

void read_tiles(const ArenaView& to, const Runs& runs, Rows& rows, std::uint32_t first, std::uint32_t end) {
  const std::uint32_t most_tiles = kMaxRows / static_cast<std::uint32_t>(rows.count);
  const bool blocks = rows.totals != nullptr || rows.apart.on;
  Batch batch;
  std::uint32_t at = first;
  for (std::uint32_t i = 0; i < runs.count && at < end; ++i) {
    const Run& run = runs.at[i];
    const std::uint32_t run_end = run.tiles_before + tiles_of(run.slots);
    if (run_end <= at) continue;
    RunCursor cursor = RunCursor::at_start(to, run);
    for (std::uint32_t tile = run.tiles_before; tile < at; ++tile) cursor.move_on(to);
    const std::uint32_t stop = run_end < end ? run_end : end;
    const CodeKernels& value_kernels = to.value_kernels(run.first);
    while (at < stop) {
      const std::uint32_t slot = run.begin + (at - run.tiles_before) * kTileSlots;
      const std::uint32_t most = stop - at < most_tiles ? stop - at : most_tiles;
      const int count = weigh_tiles(to, rows, run, slot, static_cast<int>(most), cursor, batch);
      for (int j = 0; j < count; ++j, ++at) {
        if (blocks && at % kBlockTiles == 0 && at != first)
          end_block(to, rows, at / kBlockTiles - 1, blocks_of(runs.tiles));
        prefetch_values(to, batch.at[j]);
        add_tile(to, rows, batch.tiles[j], value_kernels, run.values(batch.at[j].tile));
      }
    }
  }
  if (rows.blocks != 0 || rows.apart.on) end_block(to, rows, (end - 1) / kBlockTiles, blocks_of(runs.tiles));
}

void attend_rows(const ArenaView& to, Chain& chain, Rows& rows, const NativeOut* outs, const Scoring& scoring) {
  if (rows.count == 0) return;
  std::uint32_t end = 0;
  for (int i = 0; i < rows.count; ++i) end = rows.limits[i] > end ? rows.limits[i] : end;
  const Runs runs(to, to.segments(chain), end);
  read_tiles(to, runs, rows, 0, runs.tiles);
  if (rows.blocks != 0) {
    std::memcpy(rows.states, rows.total_states, sizeof rows.states);
    float* const totals = rows.totals;
    rows.totals = rows.sums;
    rows.sums = totals;
    rows.blocks = 0;
  }
  for (int i = 0; i < rows.count; ++i) finish_row(to, rows, i, outs[i]);
  if (rows.softmax != nullptr) {
    score_rows(to, chain,
               {rows.softmax, rows.exponents, rows.states, rows.limits, rows.count, scoring.local_from, runs.tiles,
                scoring.fade});
  }
  rows.count = 0;
}

}  // namespace nibkv
