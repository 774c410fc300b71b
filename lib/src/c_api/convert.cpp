#include "c_api/convert.hpp"

#include <cstring>

namespace nibkv {

// The structured bindings here name every field, so that a field added on either side does not
// compile until it is converted.
Shape to_cpp(const nibkv_shape& from) {
  const auto& [layers, query_heads, kv_heads, head_dim, outlier_channels, max_chunk, workers, storage, rotary, basis] =
      from;
  Shape to;
  auto& [to_layers, to_query_heads, to_kv_heads, to_head_dim, to_outlier_channels, to_max_chunk, to_workers, to_storage,
         to_basis, to_rotary] = to;
  to_layers = layers;
  to_query_heads = query_heads;
  to_kv_heads = kv_heads;
  to_head_dim = head_dim;
  to_outlier_channels = outlier_channels;
  to_max_chunk = max_chunk;
  to_workers = workers;
  to_storage = Storage{storage};
  to_basis = KeyBasis{basis};
  if (rotary.dims != 0) to_rotary = {rotary.base, rotary.scale, rotary.dims, rotary.adjacent, rotary.reach};
  return to;
}

static Fold to_cpp(const nibkv_fold& from) {
  const auto& [keys, values, aligned_keys, aligned_values, recent, t, retained, retain, centred, min_cosine] = from;
  Fold to;
  auto& [to_keys, to_values, to_aligned_keys, to_aligned_values, to_recent, to_t, to_retained, to_retain, to_centred,
         to_min_cosine] = to;
  std::memcpy(to_keys.words, keys, sizeof keys);
  std::memcpy(to_values.words, values, sizeof values);
  std::memcpy(to_aligned_keys.words, aligned_keys, sizeof aligned_keys);
  std::memcpy(to_aligned_values.words, aligned_values, sizeof aligned_values);
  to_recent = recent;
  to_t = t;
  to_retained = retained;
  to_retain = Retain{retain};
  to_centred = centred;
  to_min_cosine = min_cosine;
  return to;
}

Policy to_cpp(const nibkv_policy& from) {
  const auto& [keep, tokens, sinks, recent, score, group, combine, per_query, window, pool, merge, rephase, similarity,
               position_free, mass, mean_threshold, threshold, candidate_mass, budget, fold, most, recovered,
               recent_share, value_norms, wide_storage, wide, wide_first, tail_storage, faint_storage, tail, faint, log,
               recall, indexed] = from;
  Policy to;
  auto& [to_keep, to_tokens, to_sinks, to_recent, to_recent_share, to_score, to_group, to_combine, to_per_query,
         to_window, to_pool, to_value_norms, to_merge, to_rephase, to_similarity, to_position_free, to_mass,
         to_mean_threshold, to_threshold, to_candidate_mass, to_budget, to_most, to_recovered, to_wide, to_wide_storage,
         to_wide_first, to_tail, to_tail_storage, to_faint, to_faint_storage, to_log, to_recall, to_indexed, to_fold] =
      to;
  to_keep = Keep{keep};
  to_tokens = tokens;
  to_sinks = sinks;
  to_recent = recent;
  to_recent_share = recent_share;
  to_score = Score{score};
  to_group = Group{group};
  to_combine = Combine{combine};
  to_per_query = per_query;
  to_window = window;
  to_pool = pool;
  to_value_norms = value_norms;
  to_merge = Merge{merge};
  to_rephase = rephase;
  to_similarity = Similarity{similarity};
  to_position_free = position_free;
  to_mass = Mass{mass};
  to_mean_threshold = mean_threshold;
  to_threshold = threshold;
  to_candidate_mass = candidate_mass;
  to_budget = Budget{budget};
  to_fold = to_cpp(fold);
  std::memcpy(to_wide.words, wide, sizeof wide);
  to_wide_storage = Storage{wide_storage};
  to_wide_first = wide_first;
  to_tail = tail;
  to_faint = faint;
  to_log = log;
  to_recall = recall;
  if (indexed != 0) to_indexed = indexed;
  if (tail != 0) to_tail_storage = Storage{tail_storage};
  if (faint != 0) to_faint_storage = Storage{faint_storage};
  // An older struct ends before them.
  if (most != 0) to_most = most;
  if (recovered != 0) to_recovered = recovered;
  return to;
}

ConstRows to_cpp(const nibkv_rows& from) {
  const auto& [first, number, token_stride, head_stride] = from;
  return {first, Number{number}, token_stride, head_stride};
}

MutableRows to_cpp(const nibkv_mutable_rows& from) {
  const auto& [first, number, token_stride, head_stride] = from;
  return {first, Number{number}, token_stride, head_stride};
}

Part to_cpp(const nibkv_part* from) {
  Part to;
  if (from == nullptr) return to;
  const auto& [first_head, heads, first_query, queries, worker] = *from;
  auto& [to_first_head, to_heads, to_first_query, to_queries, to_worker, to_drafts] = to;
  to_first_head = first_head;
  to_heads = heads;
  to_first_query = first_query;
  to_queries = queries;
  to_worker = worker;
  to_drafts = false;
  return to;
}

template <typename Enum>
static constexpr std::uint8_t number(Enum value) {
  return static_cast<std::uint8_t>(value);
}

static nibkv_fold to_c(const Fold& from) {
  const auto& [keys, values, aligned_keys, aligned_values, recent, t, retained, retain, centred, min_cosine] = from;
  nibkv_fold to = {{}, {}, {}, {}, recent, t, retained, number(retain), centred, min_cosine};
  std::memcpy(to.keys, keys.words, sizeof to.keys);
  std::memcpy(to.values, values.words, sizeof to.values);
  std::memcpy(to.aligned_keys, aligned_keys.words, sizeof to.aligned_keys);
  std::memcpy(to.aligned_values, aligned_values.words, sizeof to.aligned_values);
  return to;
}

nibkv_policy to_c(const Policy& from) {
  const auto& [keep, tokens, sinks, recent, recent_share, score, group, combine, per_query, window, pool, value_norms,
               merge, rephase, similarity, position_free, mass, mean_threshold, threshold, candidate_mass, budget, most,
               recovered, wide, wide_storage, wide_first, tail, tail_storage, faint, faint_storage, log, recall,
               indexed, fold] = from;
  nibkv_policy to = {number(keep),
                     tokens,
                     sinks,
                     recent,
                     number(score),
                     number(group),
                     number(combine),
                     per_query,
                     window,
                     pool,
                     number(merge),
                     rephase,
                     number(similarity),
                     position_free,
                     number(mass),
                     mean_threshold,
                     threshold,
                     candidate_mass,
                     number(budget),
                     to_c(fold),
                     most,
                     recovered,
                     recent_share,
                     value_norms,
                     number(wide_storage),
                     {},
                     wide_first,
                     number(tail_storage),
                     number(faint_storage),
                     tail,
                     faint,
                     log,
                     recall,
                     indexed};
  std::memcpy(to.wide, wide.words, sizeof to.wide);
  return to;
}

bool Taken::take_shape(const nibkv_shape* from, const nibkv_sizes* sizes) {
  nibkv_shape known;
  if (sizes == nullptr || !take(known, from, sizes->shape, offsetof(nibkv_shape, rotary))) return false;
  shape = to_cpp(known);
  return true;
}

bool Taken::take_policy(const nibkv_policy* from, const nibkv_sizes* sizes) {
  nibkv_policy known;
  if (sizes == nullptr || !take(known, from, sizes->policy, offsetof(nibkv_policy, fold))) return false;
  policy = to_cpp(known);
  return true;
}

bool give_policy(const Policy& from, nibkv_policy* to, const nibkv_sizes* sizes) {
  if (sizes == nullptr || to == nullptr || sizes->policy < offsetof(nibkv_policy, fold)) return false;
  const nibkv_policy all = to_c(from);
  const std::size_t known = sizes->policy < sizeof all ? sizes->policy : sizeof all;
  std::memcpy(to, &all, known);
  std::memset(reinterpret_cast<unsigned char*>(to) + known, 0, sizes->policy - known);
  return true;
}

static bool read_c(void* source, std::uint64_t offset, std::byte* to, std::size_t count) {
  const auto& [read, context, bytes] = *static_cast<const nibkv_source*>(source);
  return read(context, offset, to, count);
}

SnapshotSource to_cpp(const nibkv_source* from) {
  return {from->read != nullptr ? read_c : nullptr, const_cast<nibkv_source*>(from), from->bytes};
}

}  // namespace nibkv
