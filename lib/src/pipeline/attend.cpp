#include "nibkv/attend.hpp"

#include "codec/basis.hpp"
#include "codec/native_rows.hpp"
#include "codec/rotation.hpp"
#include "pipeline/attend_f32.hpp"
#include "pipeline/attend_mask.hpp"
#include "pipeline/attend_runs.hpp"
#include "pipeline/score_rows.hpp"
#include "profile/format.hpp"

namespace nibkv {
namespace {

// A tile more than this many octaves below the largest one so far cannot change a float.
constexpr std::int32_t kNegligible = 40;

struct Rows {
  std::int32_t count;
  float* sums;
  std::int8_t* queries;
  float* row;
  std::int8_t* outlier_queries;
  std::int32_t* dots;  // [tile of a batch][row][32]; the next two likewise
  std::int32_t* outlier_dots;
  std::uint8_t* weights;
  std::uint16_t* softmax;         // [tile of the chain][row][32] and
  std::int32_t* exponents;        // [tile of the chain][row], for the scores; nullptr if there are none
  const std::uint8_t* value_map;  // or nullptr
  float query_scales[kMaxRows];
  float outlier_ratios[kMaxRows];
  std::int32_t query_sums[kMaxRows];
  std::int32_t outlier_query_sums[kMaxRows];
  std::uint32_t limits[kMaxRows];
  const std::uint32_t* masks[kMaxRows];  // rows of a Mask, if there is one
  std::uint32_t mask_words;              // 0: there is none
  std::uint32_t first_new;               // the slot of the call's first token
  RowState states[kMaxRows];
};

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
  return rows;
}

float bounded(float scale) {
  return scale < kMostQueryScale ? scale : kMostQueryScale;
}

void add_row(const ArenaView& to, const Basis& basis, Rows& rows, const NativeRow& query, std::uint32_t limit) {
  const auto dim = static_cast<int>(to.shape().head_dim);
  const auto channels = static_cast<int>(to.shape().outlier_channels);
  const std::int32_t i = rows.count++;
  NIBKV_ASSERT(i < static_cast<std::int32_t>(to.shape().rows()) && limit != 0);
  float outliers[kMaxOutlierChannels];
  if (basis.empty()) {
    rotate_in(to.kernels(), query.widened(to.kernels(), to.shape().head_dim, rows.row), to.shape().head_dim, rows.row);
  } else {
    query.copy(to.kernels(), to.shape().head_dim, rows.row);
    basis.split_query(rows.row, outliers);
    rotate_in(to.kernels(), rows.row, to.shape().head_dim, rows.row);
  }
  std::int8_t* codes = rows.queries + i * dim;
  std::int8_t* outlier_codes = rows.outlier_queries + i * channels;
  float scale = bounded(to.kernels().quantise_query(rows.row, dim, codes));
  float ratio = 0;
  if (channels != 0) {
    const float outlier_scale = bounded(to.kernels().quantise_query(outliers, channels, outlier_codes));
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
  rows.states[i] = {-(1 << 30), 0};  // below every exponent
  std::memset(rows.sums + i * dim, 0, static_cast<std::size_t>(dim) * sizeof(float));
}

// Scales a row's sums to a larger exponent. Powers of two are exact. What is too small to matter
// becomes zero on every CPU, also on those that flush denormals.
void raise(RowState& state, float* sums, int dim, std::int32_t exponent) {
  const std::int32_t octaves = exponent - state.exponent;
  state.exponent = exponent;
  state.mass = octaves < 64 ? state.mass >> octaves : 0;
  const float factor = octaves < kNegligible ? power_of_two(-octaves) : 0.0f;
  for (int c = 0; c < dim; ++c) {
    const float sum = sums[c] * factor;
    sums[c] = sum > 0x1p-100f || sum < -0x1p-100f ? sum : 0.0f;
  }
}

// The results of tile_weights for a batch of tiles, [tile][row].
struct Batch {
  TileWeights tiles[kMaxRows];
  RunCursor at[kMaxRows];
  std::uint32_t seen[kMaxRows];
  std::int32_t exponents[kMaxRows];
  std::uint32_t masses[kMaxRows];
  float scales[kMaxRows];
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
    kernels.key_dots(run.keys(tile), dim, rows.queries, rows.query_sums, rows.count, rows.dots + at * kTileSlots);
    if (channels != 0) {
      kernels.outlier_dots(to.outliers(tile), channels, rows.outlier_queries, rows.outlier_query_sums, rows.count,
                           outlier_dots);
    }
    batch.tiles[count] = {.dots = rows.dots + at * kTileSlots,
                          .outlier_dots = outlier_dots,
                          .key_scales = to.key_scales(tile),
                          .value_scales = to.value_scales(tile),
                          .query_scales = rows.query_scales,
                          .outlier_ratios = rows.outlier_ratios,
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
void add_tile(const ArenaView& to, Rows& rows, const TileWeights& tile, const std::uint8_t* values) {
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
  to.kernels().value_sums(values, dim, tile.weights, tile.value_units, rows.count, rows.sums);
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

// How a run of rows affects the scores.
struct Scoring {
  std::int32_t local_from = 0;
  std::uint32_t fade = 0;
};

void attend_run(const ArenaView& to, Rows& rows, const Run& run) {
  const int most_tiles = static_cast<int>(kMaxRows) / rows.count;
  Batch batch;
  RunCursor cursor = RunCursor::at_start(to, run);
  for (std::uint32_t slot = run.begin; slot < run.end();) {
    const int count = weigh_tiles(to, rows, run, slot, most_tiles, cursor, batch);
    for (int j = 0; j < count; ++j) {
      prefetch_values(to, batch.at[j]);
      add_tile(to, rows, batch.tiles[j], run.values(batch.at[j].tile));
    }
    slot += static_cast<std::uint32_t>(count) * kTileSlots;
  }
}

void attend_rows(const ArenaView& to, Chain& chain, Rows& rows, const NativeOut* outs, const Scoring& scoring) {
  if (rows.count == 0) return;
  std::uint32_t end = 0;
  for (int i = 0; i < rows.count; ++i) end = rows.limits[i] > end ? rows.limits[i] : end;
  const Runs runs(to, to.segments(chain), end);
  for (std::uint32_t i = 0; i < runs.count; ++i) attend_run(to, rows, runs.at[i]);
  for (int i = 0; i < rows.count; ++i) finish_row(to, rows, i, outs[i]);
  if (rows.softmax != nullptr) {
    score_rows(to, chain,
               {rows.softmax, rows.exponents, rows.states, rows.count, scoring.local_from, runs.tiles, scoring.fade});
  }
  rows.count = 0;
}

void attend_head(const ArenaView& to, std::uint32_t layer, std::uint32_t head, const Mask& mask,
                 const ConstRows& queries, const MutableRows& out, const Part& part) {
  const std::uint32_t tokens = mask.count;
  const Shape& shape = to.shape();
  Chain& chain = to.chain(layer, head);
  const Basis basis(to, layer, head);
  Rows rows = rows_in(to, part.worker);
  rows.value_map = value_map(to, layer, head);
  rows.mask_words = mask.bits == nullptr ? 0 : mask.words();
  rows.first_new = chain.used - tokens;
  NativeOut outs[kMaxRows];
  // Scores need all heads of a query in the same pass, if they fit.
  const std::uint32_t group = shape.group();
  const std::uint32_t most_rows =
      rows.softmax != nullptr && group < shape.rows() ? shape.rows() / group * group : shape.rows();
  // Rows from this one on, counted from the part's first, belong to the last `window` queries.
  const std::uint32_t window = to.policy().window;
  const std::uint32_t local_row = tokens > window ? (tokens - window) * group : 0;
  std::uint32_t fade = tokens < window ? tokens * 65536 / window : 65536;
  std::uint32_t done = 0;
  const auto run = [&] {
    const auto count = static_cast<std::uint32_t>(rows.count);
    const std::uint32_t before = local_row > done ? local_row - done : 0;
    attend_rows(to, chain, rows, outs, {static_cast<std::int32_t>(before < count ? before : count), fade});
    fade = 0;
    done += count;
  };
  for (std::uint32_t query = part.first_query; query < part.first_query + part.queries; ++query) {
    const std::uint32_t limit = rows.first_new + mask.reach(query);
    for (std::uint32_t member = 0; member < group; ++member) {
      const std::uint32_t query_head = head * group + member;
      outs[rows.count] = row_of(out, query, query_head);
      rows.masks[rows.count] = mask.row(query);
      add_row(to, basis, rows, row_of(queries, query, query_head), limit);
      if (static_cast<std::uint32_t>(rows.count) == most_rows) run();
    }
  }
  run();
}

// Completes a part, and checks all but the rows.
bool complete(const ArenaView& to, std::uint32_t layer, std::uint32_t count, Part& part) {
  const Shape& shape = to.shape();
  if (part.worker >= shape.workers || part.first_head >= shape.kv_heads || part.first_query >= count) return false;
  if (part.heads == 0) part.heads = shape.kv_heads - part.first_head;
  if (part.queries == 0) part.queries = count - part.first_query;
  if (part.heads > shape.kv_heads - part.first_head || part.queries > count - part.first_query) return false;
  if (scores_attention(to.policy()) && part.queries != count) return false;
  for (std::uint32_t head = part.first_head; head < part.first_head + part.heads; ++head) {
    if (to.chain(layer, head).used < count) return false;
  }
  return true;
}

// Whether each query of a complete part sees a slot.
bool each_sees(const ArenaView& to, std::uint32_t layer, const Mask& mask, const Part& part) {
  bool old = true;
  for (std::uint32_t head = part.first_head; head < part.first_head + part.heads; ++head)
    old = old && to.chain(layer, head).used > mask.count;
  for (std::uint32_t query = part.first_query; !old && query < part.first_query + part.queries; ++query) {
    if (mask.reach(query) == 0) return false;
  }
  return true;
}

void attend_part(const ArenaView& to, std::uint32_t layer, const Mask& mask, const ConstRows& queries,
                 const MutableRows& out, const Part& part) {
  for (std::uint32_t head = part.first_head; head < part.first_head + part.heads; ++head) {
    if (to.shape().storage == Storage::kF32) {
      attend_head_f32(to, layer, head, mask, queries, out, part);
    } else {
      attend_head(to, layer, head, mask, queries, out, part);
    }
  }
}

// attend of an engine's rows; a mask with bits if one was given.
Status attend_masked(const ArenaView& to, std::uint32_t layer, const Mask& mask, const ConstRows& queries,
                     const MutableRows& out, const Part& part) {
  const Shape& shape = to.shape();
  const RowCounts all{mask.count, shape.query_heads, shape.head_dim};
  if (!readable(queries, all) || !writable(out, all)) return Status::kBadArgument;
  Part whole = part;
  if (!complete(to, layer, mask.count, whole) || !each_sees(to, layer, mask, whole)) return Status::kBadArgument;
  ConstRows of_part = queries;
  of_part.first = row_of(queries, whole.first_query, whole.first_head * shape.group()).numbers;
  if (!all_finite(of_part, {whole.queries, whole.heads * shape.group(), shape.head_dim})) return Status::kBadArgument;
  attend_part(to, layer, mask, queries, out, whole);
  return Status::kOk;
}

}  // namespace

Status attend(Cache& cache, std::uint32_t layer, std::span<const float> queries, std::span<float> out,
              const Part& part) {
  if (!cache.ready()) return Status::kNotReady;
  const ArenaView to{cache};
  const Shape& shape = to.shape();
  const std::size_t stride = std::size_t{shape.query_heads} * shape.head_dim;
  const std::size_t tokens = queries.size() / stride;
  if (layer >= shape.layers || tokens == 0 || tokens > shape.max_chunk || queries.size() != tokens * stride ||
      out.size() != queries.size()) {
    return Status::kBadArgument;
  }
  const auto count = static_cast<std::uint32_t>(tokens);
  Part whole = part;
  if (!complete(to, layer, count, whole)) return Status::kBadArgument;
  const std::size_t group_floats = std::size_t{shape.group()} * shape.head_dim;
  for (std::uint32_t query = whole.first_query; query < whole.first_query + whole.queries; ++query) {
    const float* rows = queries.data() + query * stride + part.first_head * group_floats;
    if (!all_finite(rows, whole.heads * group_floats)) return Status::kBadArgument;
  }
  attend_part(to, layer, {nullptr, count},
              tokens_first(queries.data(), Number::kF32, shape.query_heads, shape.head_dim),
              tokens_first(out.data(), Number::kF32, shape.query_heads, shape.head_dim), whole);
  return Status::kOk;
}

Status attend(Cache& cache, std::uint32_t layer, std::uint32_t count, const ConstRows& queries, const MutableRows& out,
              const Part& part) {
  if (!cache.ready()) return Status::kNotReady;
  const ArenaView to{cache};
  if (layer >= to.shape().layers || count == 0 || count > to.shape().max_chunk) return Status::kBadArgument;
  return attend_masked(to, layer, {nullptr, count}, queries, out, part);
}

Status attend(Cache& cache, std::uint32_t layer, std::uint32_t count, const ConstRows& queries,
              std::span<const std::uint32_t> mask, const MutableRows& out, const Part& part) {
  if (!cache.ready()) return Status::kNotReady;
  const ArenaView to{cache};
  if (layer >= to.shape().layers || count == 0 || count > to.shape().max_chunk) return Status::kBadArgument;
  const Mask of{mask.data(), count};
  if (mask.size() != std::size_t{count} * of.words()) return Status::kBadArgument;
  return attend_masked(to, layer, of, queries, out, part);
}

}  // namespace nibkv
