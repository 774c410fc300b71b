#include "nibkv/attend.hpp"

#include "arena/share.hpp"
#include "attention/attend_f32.hpp"
#include "attention/attend_rows.hpp"
#include "codec/far_queries.hpp"

namespace nibkv {
namespace {

// How many rows may pass over a chain together. Scores need all heads of a query in the same pass, if they fit, and
// space for the weights.
std::uint32_t rows_of_pass(const ArenaView& to, const Chain& chain, bool scores) {
  const std::uint32_t group = to.shape().group();
  const std::uint32_t rows = to.shape().rows();
  if (!scores || group >= rows) return rows;
  const Segments segments = to.segments(chain);
  std::uint32_t tiles = 0;  // at most chain_tiles, and not 0: it holds the queries' own
  for (std::uint32_t i = 0; i < segments.count; ++i) tiles += tiles_of(segments.at[i].slots);
  const auto fitting = static_cast<std::uint32_t>(scored_pairs(to.shape(), to.policy(), to.layout()) / tiles);
  NIBKV_ASSERT(fitting >= group);
  return (fitting < rows ? fitting : rows) / group * group;
}

void attend_head(const ArenaView& to, std::uint32_t layer, std::uint32_t head, const Mask& mask,
                 const ConstRows& queries, const MutableRows& out, const Part& part, FarQueries* far) {
  const std::uint32_t tokens = mask.count;
  const Shape& shape = to.shape();
  Chain& chain = to.chain(layer, head);
  const Basis basis(to, layer, head);
  Rows rows = rows_in(to, part.worker);
  if (part.drafts) rows.softmax = nullptr;
  rows.value_map = value_map(to, layer, head);
  rows.mask_words = mask.bits == nullptr ? 0 : mask.words();
  rows.first_new = chain.used - tokens;
  rows.far = far;
  NativeOut outs[kMaxRows];
  const std::uint32_t group = shape.group();
  const std::uint32_t most_rows = rows_of_pass(to, chain, rows.softmax != nullptr);
  // Rows from this one on, counted from the part's first, belong to the last `window` queries.
  const std::uint32_t window = to.policy().window;
  const std::uint32_t local_row = tokens > window ? (tokens - window) * group : 0;
  std::uint32_t fade = tokens < window ? tokens * 65536 / window : 65536;
  std::uint32_t done = 0;
  const auto run = [&] {
    const auto count = static_cast<std::uint32_t>(rows.count);
    if (far != nullptr && count != 0) far->start(part.first_query * group + done, rows.count);
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
      add_row(to, basis, rows, row_of(queries, query, query_head), limit, chain.seen - tokens + query);
      if (static_cast<std::uint32_t>(rows.count) == most_rows) run();
    }
  }
  run();
}

// Apart for its stack.
[[gnu::noinline]] void attend_head_far(const ArenaView& to, std::uint32_t layer, std::uint32_t head, const Mask& mask,
                                       const ConstRows& queries, const MutableRows& out, const Part& part) {
  const Basis basis(to, layer, head);
  const Chain& chain = to.chain(layer, head);
  FarQueries far(to, basis, chain, queries, head, chain.seen - mask.count, to.scratch(part.worker));
  attend_head(to, layer, head, mask, queries, out, part, &far);
}

// Completes a part, and checks all but the rows.
bool complete(const ArenaView& to, std::uint32_t layer, std::uint32_t count, Part& part) {
  if (!complete(to.shape(), count, part)) return false;
  if (scores_attention(to.policy()) && !part.drafts && part.queries != count) return false;
  for (std::uint32_t head = part.first_head; head < part.first_head + part.heads; ++head) {
    const Chain& chain = to.chain(layer, head);
    if (chain.used - recalled_used(to, chain) < count) return false;  // the newest are never recalled
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
    } else if (to.shape().rotary.reach != 0) {
      attend_head_far(to, layer, head, mask, queries, out, part);
    } else {
      attend_head(to, layer, head, mask, queries, out, part, nullptr);
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
