// The C interface: turns C arguments into spans and structs of C++. All rules are
// checked by the C++ verbs.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <type_traits>

#include "nibkv/nibkv.h"
#include "nibkv/nibkv.hpp"

namespace nibkv {
namespace {

// The handle is a Cache copied into the caller's bytes. A handle of zeros is not ready.
static_assert(sizeof(Cache) <= NIBKV_CACHE_BYTES && sizeof(nibkv_cache) == NIBKV_CACHE_BYTES);
static_assert(alignof(Cache) <= alignof(nibkv_cache));
static_assert(std::is_trivially_copyable_v<Cache> && std::is_trivially_destructible_v<Cache>);
static_assert(NIBKV_ARENA_ALIGNMENT == kArenaAlignment && NIBKV_DROP == kDrop && NIBKV_MEMBER == kMember);

// Slots are written in place.
static_assert(sizeof(nibkv_slot) == sizeof(SlotInfo));
static_assert(alignof(nibkv_slot) == alignof(SlotInfo));
static_assert(offsetof(nibkv_slot, position) == offsetof(SlotInfo, position));
static_assert(offsetof(nibkv_slot, global) == offsetof(SlotInfo, global));
static_assert(offsetof(nibkv_slot, local) == offsetof(SlotInfo, local));
static_assert(offsetof(nibkv_slot, bias) == offsetof(SlotInfo, bias));
static_assert(offsetof(nibkv_slot, merged) == offsetof(SlotInfo, merged));

template <typename Enum>
constexpr bool same(int c, Enum cpp) {
  return c == static_cast<int>(cpp);
}
static_assert(same(NIBKV_OK, Status::kOk) && same(NIBKV_BAD_SHAPE, Status::kBadShape) &&
              same(NIBKV_BAD_POLICY, Status::kBadPolicy) && same(NIBKV_MISALIGNED, Status::kMisaligned) &&
              same(NIBKV_ARENA_TOO_SMALL, Status::kArenaTooSmall) && same(NIBKV_UNKNOWN_PORT, Status::kUnknownPort) &&
              same(NIBKV_UNSUPPORTED_PORT, Status::kUnsupportedPort) && same(NIBKV_BAD_PROFILE, Status::kBadProfile) &&
              same(NIBKV_NOT_READY, Status::kNotReady) && same(NIBKV_BAD_ARGUMENT, Status::kBadArgument) &&
              same(NIBKV_FULL, Status::kFull) && same(NIBKV_BAD_PLAN, Status::kBadPlan) &&
              same(NIBKV_CORRUPT, Status::kCorrupt) && same(NIBKV_BAD_SNAPSHOT, Status::kBadSnapshot) &&
              same(NIBKV_NEWER_SNAPSHOT, Status::kNewerSnapshot) && same(NIBKV_OTHER_SHAPE, Status::kOtherShape) &&
              same(NIBKV_OTHER_POLICY, Status::kOtherPolicy) && same(NIBKV_OTHER_PROFILE, Status::kOtherProfile) &&
              same(NIBKV_STORAGE_FAILED, Status::kStorageFailed) && same(NIBKV_LOST, Status::kLost));
static_assert(same(NIBKV_Q4, Storage::kQ4) && same(NIBKV_F32, Storage::kF32));
static_assert(same(NIBKV_KEEP_ALL, Keep::kAll) && same(NIBKV_KEEP_RECENT, Keep::kRecent) &&
              same(NIBKV_KEEP_SCORE, Keep::kScore));
static_assert(same(NIBKV_SCORE_GLOBAL_LOCAL, Score::kGlobalLocal) && same(NIBKV_SCORE_GLOBAL, Score::kGlobal) &&
              same(NIBKV_SCORE_LOCAL, Score::kLocal) && same(NIBKV_SCORE_KEY_NORM, Score::kKeyNorm));
static_assert(same(NIBKV_GROUP_MEAN, Group::kMean) && same(NIBKV_GROUP_MAX, Group::kMax));
static_assert(same(NIBKV_COMBINE_SUM, Combine::kSum) && same(NIBKV_COMBINE_MAX, Combine::kMax));
static_assert(same(NIBKV_MERGE_NONE, Merge::kNone) && same(NIBKV_MERGE_VALUES, Merge::kValues) &&
              same(NIBKV_MERGE_BOTH, Merge::kBoth));
static_assert(same(NIBKV_SIMILARITY_KEY, Similarity::kKey) && same(NIBKV_SIMILARITY_VALUE, Similarity::kValue) &&
              same(NIBKV_SIMILARITY_KEY_VALUE, Similarity::kKeyValue));
static_assert(same(NIBKV_MASS_NONE, Mass::kNone) && same(NIBKV_MASS_SHARE, Mass::kShare) &&
              same(NIBKV_MASS_COUNT, Mass::kCount));
static_assert(same(NIBKV_BUDGET_UNIFORM, Budget::kUniform) && same(NIBKV_BUDGET_PYRAMID, Budget::kPyramid) &&
              same(NIBKV_BUDGET_SCORES, Budget::kScores) && same(NIBKV_BUDGET_ADAPTIVE, Budget::kAdaptive) &&
              same(NIBKV_BUDGET_TABLE, Budget::kTable));
static_assert(same(NIBKV_RETAIN_FAR, Retain::kFar) && same(NIBKV_RETAIN_NEAR, Retain::kNear) &&
              same(NIBKV_RETAIN_FAR_RANGE, Retain::kFarRange));
static_assert(sizeof(nibkv_fold::keys) == sizeof(LayerSet));

constexpr nibkv_status to_c(Status status) {
  return static_cast<nibkv_status>(status);
}

// The structured bindings here name every field, so that a field added on either side does not
// compile until it is converted.
Shape to_cpp(const nibkv_shape& from) {
  const auto& [layers, query_heads, kv_heads, head_dim, outlier_channels, max_chunk, workers, storage, rotary] = from;
  Shape to;
  auto& [to_layers, to_query_heads, to_kv_heads, to_head_dim, to_outlier_channels, to_max_chunk, to_workers, to_storage,
         to_rotary] = to;
  to_layers = layers;
  to_query_heads = query_heads;
  to_kv_heads = kv_heads;
  to_head_dim = head_dim;
  to_outlier_channels = outlier_channels;
  to_max_chunk = max_chunk;
  to_workers = workers;
  to_storage = Storage{storage};
  if (rotary.dims != 0) to_rotary = {rotary.base, rotary.scale, rotary.dims, rotary.adjacent};
  return to;
}

Fold to_cpp(const nibkv_fold& from) {
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
               position_free, mass, mean_threshold, threshold, candidate_mass, budget, fold] = from;
  Policy to;
  auto& [to_keep, to_tokens, to_sinks, to_recent, to_score, to_group, to_combine, to_per_query, to_window, to_pool,
         to_merge, to_rephase, to_similarity, to_position_free, to_mass, to_mean_threshold, to_threshold,
         to_candidate_mass, to_budget, to_fold] = to;
  to_keep = Keep{keep};
  to_tokens = tokens;
  to_sinks = sinks;
  to_recent = recent;
  to_score = Score{score};
  to_group = Group{group};
  to_combine = Combine{combine};
  to_per_query = per_query;
  to_window = window;
  to_pool = pool;
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
  return to;
}

template <typename Enum>
constexpr std::uint8_t number(Enum value) {
  return static_cast<std::uint8_t>(value);
}

nibkv_fold to_c(const Fold& from) {
  const auto& [keys, values, aligned_keys, aligned_values, recent, t, retained, retain, centred, min_cosine] = from;
  nibkv_fold to = {{}, {}, {}, {}, recent, t, retained, number(retain), centred, min_cosine};
  std::memcpy(to.keys, keys.words, sizeof to.keys);
  std::memcpy(to.values, values.words, sizeof to.values);
  std::memcpy(to.aligned_keys, aligned_keys.words, sizeof to.aligned_keys);
  std::memcpy(to.aligned_values, aligned_values.words, sizeof to.aligned_values);
  return to;
}

nibkv_policy to_c(const Policy& from) {
  const auto& [keep, tokens, sinks, recent, score, group, combine, per_query, window, pool, merge, rephase, similarity,
               position_free, mass, mean_threshold, threshold, candidate_mass, budget, fold] = from;
  return {number(keep), tokens,         sinks,     recent,         number(score),  number(group),      number(combine),
          per_query,    window,         pool,      number(merge),  rephase,        number(similarity), position_free,
          number(mass), mean_threshold, threshold, candidate_mass, number(budget), to_c(fold)};
}

// Null for a handle that is null or not ready.
const Cache* ready(const nibkv_cache* handle) {
  if (handle == nullptr) return nullptr;
  const Cache* cache = reinterpret_cast<const Cache*>(handle->opaque);
  return cache->ready() ? cache : nullptr;
}
Cache* ready(nibkv_cache* handle) {
  return ready(static_cast<const nibkv_cache*>(handle)) != nullptr ? reinterpret_cast<Cache*>(handle->opaque) : nullptr;
}

std::string_view view(const char* text) {
  return text == nullptr ? std::string_view{} : std::string_view{text};
}

// Texts of the library are literals, so they end in 0.
const char* literal(std::string_view text) {
  return text.data();
}

// The number of floats of `count` tokens. The product cannot overflow: a size_t of 32 bits
// holds 4096 * 1024 * 256 = 2^30.
std::size_t floats(const Cache& cache, std::uint32_t count, std::uint32_t heads) {
  return std::size_t{count} * heads * cache.shape().head_dim;
}

static_assert(NIBKV_SNAPSHOT_CHUNK == kSnapshotChunk);

// Adapters that call the C callbacks.
bool write_c(void* sink, const std::byte* bytes, std::size_t count) {
  const auto& [write, context] = *static_cast<const nibkv_sink*>(sink);
  return write(context, bytes, count);
}
bool read_c(void* source, std::uint64_t offset, std::byte* to, std::size_t count) {
  const auto& [read, context, bytes] = *static_cast<const nibkv_source*>(source);
  return read(context, offset, to, count);
}
bool read_bank_c(void* banks, std::uint32_t bank, std::uint64_t offset, std::byte* to, std::size_t count) {
  const auto& from = *static_cast<const nibkv_banks*>(banks);
  return from.read(from.context, bank, offset, to, count);
}
bool write_bank_c(void* banks, std::uint32_t bank, std::uint64_t offset, const std::byte* bytes, std::size_t count) {
  const auto& to = *static_cast<const nibkv_banks*>(banks);
  return to.write(to.context, bank, offset, bytes, count);
}
bool erase_bank_c(void* banks, std::uint32_t bank) {
  const auto& in = *static_cast<const nibkv_banks*>(banks);
  return in.erase(in.context, bank);
}

// @param banks  not null
SnapshotBanks to_cpp(const nibkv_banks* banks) {
  const auto& [read, write, erase, context, bytes] = *banks;
  SnapshotBanks to;
  auto& [to_read, to_write, to_erase, to_context, to_bytes] = to;
  to_read = read != nullptr ? read_bank_c : nullptr;
  to_write = write != nullptr ? write_bank_c : nullptr;
  to_erase = erase != nullptr ? erase_bank_c : nullptr;
  to_context = const_cast<nibkv_banks*>(banks);
  to_bytes = bytes;
  return to;
}

// @param source  not null
SnapshotSource to_cpp(const nibkv_source* source) {
  return {source->read != nullptr ? read_c : nullptr, const_cast<nibkv_source*>(source), source->bytes};
}

// False for a note that claims bytes where there are none.
bool to_cpp(const nibkv_note* from, SaveOptions& to) {
  if (from == nullptr) return true;
  const auto& [sequence, note, note_bytes] = *from;
  if (note == nullptr && note_bytes != 0) return false;
  auto& [to_sequence, to_note] = to;
  to_sequence = sequence;
  if (note != nullptr) to_note = {static_cast<const std::byte*>(note), note_bytes};
  return true;
}

nibkv_snapshot_info to_c(const SnapshotInfo& from) {
  const auto& [bytes, note_offset, note_bytes, sequence] = from;
  return {bytes, note_offset, note_bytes, sequence};
}

}  // namespace
}  // namespace nibkv

using namespace nibkv;

const char* nibkv_status_text(nibkv_status status) {
  const int value = status;
  return literal(text(value >= 0 && value <= 127 ? static_cast<Status>(value) : Status{-1}));
}

const char* nibkv_version(void) {
  return NIBKV_VERSION_STRING;
}

nibkv_status nibkv_find_policy(const char* name, uint32_t tokens, nibkv_policy* policy) {
  if (policy == nullptr) return NIBKV_BAD_ARGUMENT;
  Policy found;
  const Status status = find_policy(view(name), tokens, found);
  if (status == Status::kOk) *policy = to_c(found);
  return to_c(status);
}

const char* nibkv_policy_name(uint32_t index) {
  return literal(policy_name(index));
}

size_t nibkv_footprint(const nibkv_shape* shape, const nibkv_policy* policy) {
  return shape == nullptr || policy == nullptr ? 0 : footprint(to_cpp(*shape), to_cpp(*policy));
}

uint32_t nibkv_preset_tokens_that_fit(const nibkv_shape* shape, const char* preset, uint64_t bytes) {
  return shape == nullptr ? 0 : tokens_that_fit(to_cpp(*shape), view(preset), bytes);
}

uint32_t nibkv_tokens_that_fit(const nibkv_shape* shape, const nibkv_policy* policy, uint64_t bytes) {
  return shape == nullptr || policy == nullptr ? 0 : tokens_that_fit(to_cpp(*shape), to_cpp(*policy), bytes);
}

size_t nibkv_preset_smallest_footprint(const nibkv_shape* shape, const char* preset) {
  return shape == nullptr ? 0 : smallest_footprint(to_cpp(*shape), view(preset));
}

size_t nibkv_smallest_footprint(const nibkv_shape* shape, const nibkv_policy* policy) {
  return shape == nullptr || policy == nullptr ? 0 : smallest_footprint(to_cpp(*shape), to_cpp(*policy));
}

void* nibkv_aligned(void* buffer, size_t* bytes) {
  if (bytes == nullptr) return nullptr;
  const std::span<std::byte> part = aligned({static_cast<std::byte*>(buffer), buffer != nullptr ? *bytes : 0});
  *bytes = part.size();
  return part.data();
}

nibkv_status nibkv_fold_pairs(const nibkv_shape* shape, nibkv_policy* policy, const void* profile, size_t profile_bytes,
                              uint32_t start_layer) {
  if (shape == nullptr || policy == nullptr) return NIBKV_BAD_ARGUMENT;
  const Shape of = to_cpp(*shape);
  ProfileView view;
  if (profile != nullptr) {
    const Status status = view.open({static_cast<const std::byte*>(profile), profile_bytes}, of);
    if (status != Status::kOk) return to_c(status);
  }
  *policy = to_c(fold_pairs(of, to_cpp(*policy), view, start_layer));
  return NIBKV_OK;
}

size_t nibkv_cache_bytes(void) {
  return sizeof(nibkv_cache);
}

nibkv_status nibkv_init(nibkv_cache* cache, void* arena, size_t arena_bytes, const nibkv_shape* shape,
                        const nibkv_policy* policy, const nibkv_options* options) {
  if (cache == nullptr || arena == nullptr || shape == nullptr || policy == nullptr) return NIBKV_BAD_ARGUMENT;
  Options chosen;
  if (options != nullptr) {
    const auto& [port, profile, profile_bytes, budgets, budget_count, weights] = *options;
    if ((profile == nullptr && profile_bytes != 0) || (budgets == nullptr && budget_count != 0))
      return NIBKV_BAD_ARGUMENT;
    auto& [to_port, to_profile, to_budgets, to_weights] = chosen;
    to_weights = weights;
    to_port = view(port);
    if (profile != nullptr) to_profile = {static_cast<const std::byte*>(profile), profile_bytes};
    if (budgets != nullptr) to_budgets = {budgets, budget_count};
  }
  Cache made;
  const Status status =
      made.init({static_cast<std::byte*>(arena), arena_bytes}, to_cpp(*shape), to_cpp(*policy), chosen);
  if (status == Status::kOk) std::memcpy(cache->opaque, &made, sizeof made);
  return to_c(status);
}

nibkv_status nibkv_clear(nibkv_cache* cache) {
  Cache* const in = ready(cache);
  return in == nullptr ? NIBKV_NOT_READY : to_c(in->clear());
}

nibkv_status nibkv_append(nibkv_cache* cache, uint32_t layer, uint32_t count, const float* keys, const float* values) {
  Cache* const in = ready(cache);
  if (in == nullptr) return NIBKV_NOT_READY;
  if (count > in->shape().max_chunk || keys == nullptr || values == nullptr) return NIBKV_BAD_ARGUMENT;
  const std::size_t size = floats(*in, count, in->shape().kv_heads);
  return to_c(append(*in, layer, {keys, size}, {values, size}));
}

nibkv_status nibkv_attend(const nibkv_cache* cache, uint32_t layer, uint32_t count, const float* queries, float* out,
                          const nibkv_part* part) {
  const Cache* const in = ready(cache);
  if (in == nullptr) return NIBKV_NOT_READY;
  if (count > in->shape().max_chunk || queries == nullptr || out == nullptr) return NIBKV_BAD_ARGUMENT;
  Part of;
  if (part != nullptr) {
    const auto& [first_head, heads, first_query, query_count, worker] = *part;
    auto& [to_first_head, to_heads, to_first_query, to_queries, to_worker] = of;
    to_first_head = first_head;
    to_heads = heads;
    to_first_query = first_query;
    to_queries = query_count;
    to_worker = worker;
  }
  const std::size_t size = floats(*in, count, in->shape().query_heads);
  return to_c(attend(*in, layer, {queries, size}, {out, size}, of));
}

nibkv_status nibkv_explain(const nibkv_cache* cache, uint32_t layer, uint32_t kv_head, nibkv_slot* slots,
                           size_t count) {
  const Cache* const in = ready(cache);
  if (in == nullptr) return NIBKV_NOT_READY;
  if (slots == nullptr && count != 0) return NIBKV_BAD_ARGUMENT;
  return to_c(explain(*in, layer, kv_head, {reinterpret_cast<SlotInfo*>(slots), count}));
}

nibkv_status nibkv_plan(const nibkv_cache* cache, uint32_t layer, uint32_t kv_head, uint32_t incoming, uint32_t* target,
                        size_t count) {
  const Cache* const in = ready(cache);
  if (in == nullptr) return NIBKV_NOT_READY;
  if (target == nullptr && count != 0) return NIBKV_BAD_ARGUMENT;
  return to_c(plan(*in, layer, kv_head, incoming, {target, count}));
}

nibkv_status nibkv_check_plan(const uint32_t* target, size_t count) {
  if (target == nullptr && count != 0) return NIBKV_BAD_ARGUMENT;
  return to_c(check_plan({target, count}));
}

nibkv_status nibkv_check(const nibkv_cache* cache) {
  const Cache* const in = ready(cache);
  return in == nullptr ? NIBKV_NOT_READY : to_c(check(*in));
}

nibkv_status nibkv_compact(nibkv_cache* cache, uint32_t layer, uint32_t kv_head, const uint32_t* target, size_t count) {
  Cache* const in = ready(cache);
  if (in == nullptr) return NIBKV_NOT_READY;
  if (target == nullptr && count != 0) return NIBKV_BAD_ARGUMENT;
  return to_c(compact(*in, layer, kv_head, {target, count}));
}

nibkv_status nibkv_compact_now(nibkv_cache* cache, uint32_t tokens, nibkv_budget how) {
  Cache* const in = ready(cache);
  return in == nullptr ? NIBKV_NOT_READY : to_c(compact_now(*in, tokens, static_cast<Budget>(how)));
}

uint64_t nibkv_most_snapshot_bytes(const nibkv_shape* shape, const nibkv_policy* policy, uint64_t note_bytes) {
  if (shape == nullptr || policy == nullptr) return 0;
  return most_snapshot_bytes(to_cpp(*shape), to_cpp(*policy), note_bytes);
}

uint64_t nibkv_snapshot_bytes(const nibkv_cache* cache, uint64_t note_bytes) {
  const Cache* const in = ready(cache);
  return in == nullptr ? 0 : snapshot_bytes(*in, note_bytes);
}

nibkv_status nibkv_save(const nibkv_cache* cache, void* bytes, size_t count, const nibkv_note* note) {
  const Cache* const in = ready(cache);
  if (in == nullptr) return NIBKV_NOT_READY;
  SaveOptions options;
  if (bytes == nullptr || !to_cpp(note, options)) return NIBKV_BAD_ARGUMENT;
  return to_c(save(*in, {static_cast<std::byte*>(bytes), count}, options));
}

nibkv_status nibkv_save_to(const nibkv_cache* cache, const nibkv_sink* sink, const nibkv_note* note) {
  const Cache* const in = ready(cache);
  if (in == nullptr) return NIBKV_NOT_READY;
  SaveOptions options;
  if (sink == nullptr || sink->write == nullptr || !to_cpp(note, options)) return NIBKV_BAD_ARGUMENT;
  return to_c(save(*in, SnapshotSink{write_c, const_cast<nibkv_sink*>(sink)}, options));
}

nibkv_status nibkv_inspect(const void* bytes, size_t count, nibkv_snapshot_info* info) {
  if (bytes == nullptr || info == nullptr) return NIBKV_BAD_ARGUMENT;
  SnapshotInfo found;
  const Status status = inspect(std::span{static_cast<const std::byte*>(bytes), count}, found);
  if (status == Status::kOk) *info = to_c(found);
  return to_c(status);
}

nibkv_status nibkv_inspect_from(const nibkv_source* source, nibkv_snapshot_info* info) {
  if (source == nullptr || info == nullptr) return NIBKV_BAD_ARGUMENT;
  SnapshotInfo found;
  const Status status = inspect(to_cpp(source), found);
  if (status == Status::kOk) *info = to_c(found);
  return to_c(status);
}

nibkv_status nibkv_restore(nibkv_cache* cache, const void* bytes, size_t count) {
  Cache* const in = ready(cache);
  if (in == nullptr) return NIBKV_NOT_READY;
  if (bytes == nullptr) return NIBKV_BAD_ARGUMENT;
  return to_c(restore(*in, std::span{static_cast<const std::byte*>(bytes), count}));
}

nibkv_status nibkv_restore_from(nibkv_cache* cache, const nibkv_source* source) {
  Cache* const in = ready(cache);
  if (in == nullptr) return NIBKV_NOT_READY;
  return source == nullptr ? NIBKV_BAD_ARGUMENT : to_c(restore(*in, to_cpp(source)));
}

nibkv_status nibkv_newest_bank(const nibkv_banks* banks, uint32_t* bank, nibkv_snapshot_info* info) {
  if (banks == nullptr || bank == nullptr || info == nullptr) return NIBKV_BAD_ARGUMENT;
  SnapshotInfo found;
  const Status status = newest_bank(to_cpp(banks), *bank, found);
  if (status == Status::kOk) *info = to_c(found);
  return to_c(status);
}

nibkv_status nibkv_save_to_banks(const nibkv_cache* cache, const nibkv_banks* banks, const void* note,
                                 size_t note_bytes) {
  const Cache* const in = ready(cache);
  if (in == nullptr) return NIBKV_NOT_READY;
  if (banks == nullptr || (note == nullptr && note_bytes != 0)) return NIBKV_BAD_ARGUMENT;
  std::span<const std::byte> bytes;
  if (note != nullptr) bytes = {static_cast<const std::byte*>(note), note_bytes};
  return to_c(save_to_banks(*in, to_cpp(banks), bytes));
}

nibkv_status nibkv_restore_from_banks(nibkv_cache* cache, const nibkv_banks* banks) {
  Cache* const in = ready(cache);
  if (in == nullptr) return NIBKV_NOT_READY;
  return banks == nullptr ? NIBKV_BAD_ARGUMENT : to_c(restore_from_banks(*in, to_cpp(banks)));
}

uint32_t nibkv_held(const nibkv_cache* cache, uint32_t layer, uint32_t kv_head) {
  const Cache* const in = ready(cache);
  return in == nullptr ? 0 : in->held(layer, kv_head);
}

uint32_t nibkv_head_budget(const nibkv_cache* cache, uint32_t layer, uint32_t kv_head) {
  const Cache* const in = ready(cache);
  return in == nullptr ? 0 : in->budget(layer, kv_head);
}

uint32_t nibkv_seen(const nibkv_cache* cache, uint32_t layer) {
  const Cache* const in = ready(cache);
  return in == nullptr ? 0 : in->seen(layer);
}

nibkv_usage nibkv_usage_now(const nibkv_cache* cache) {
  const Cache* const in = ready(cache);
  if (in == nullptr) return {};
  const auto& [arena_bytes, used_bytes, peak_bytes, tiles, used_tiles, peak_tiles] = in->usage();
  return {arena_bytes, used_bytes, peak_bytes, tiles, used_tiles, peak_tiles};
}

const char* nibkv_port(const nibkv_cache* cache) {
  const Cache* const in = ready(cache);
  return in == nullptr ? nullptr : literal(in->port());
}

const char* nibkv_port_name(uint32_t index) {
  return literal(port_name(index));
}

bool nibkv_port_runs(const char* name) {
  return port_runs(view(name));
}
