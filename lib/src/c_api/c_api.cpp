// The C interface: turns C arguments into spans and structs of C++. All rules are
// checked by the C++ verbs.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "c_api/convert.hpp"

namespace nibkv {
namespace {

// Texts of the library are literals, so they end in 0.
const char* literal(std::string_view text) {
  return text.data();
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

nibkv_status nibkv_find_policy_sized(const char* name, uint32_t tokens, nibkv_policy* policy,
                                     const nibkv_sizes* sizes) {
  Policy found;
  const Status status = find_policy(view(name), tokens, found);
  if (policy != nullptr && status != Status::kOk) return to_c(status);
  return give_policy(found, policy, sizes) ? NIBKV_OK : NIBKV_BAD_ARGUMENT;
}

const char* nibkv_policy_name(uint32_t index) {
  return literal(policy_name(index));
}

size_t nibkv_footprint_sized(const nibkv_shape* shape, const nibkv_policy* policy, const nibkv_sizes* sizes) {
  Taken in;
  return in.take_shape(shape, sizes) && in.take_policy(policy, sizes) ? footprint(in.shape, in.policy) : 0;
}

uint32_t nibkv_preset_tokens_that_fit_sized(const nibkv_shape* shape, const char* preset, uint64_t bytes,
                                            const nibkv_sizes* sizes) {
  Taken in;
  return in.take_shape(shape, sizes) ? tokens_that_fit(in.shape, view(preset), bytes) : 0;
}

uint32_t nibkv_tokens_that_fit_sized(const nibkv_shape* shape, const nibkv_policy* policy, uint64_t bytes,
                                     const nibkv_sizes* sizes) {
  Taken in;
  const bool good = in.take_shape(shape, sizes) && in.take_policy(policy, sizes);
  return good ? tokens_that_fit(in.shape, in.policy, bytes) : 0;
}

size_t nibkv_preset_smallest_footprint_sized(const nibkv_shape* shape, const char* preset, const nibkv_sizes* sizes) {
  Taken in;
  return in.take_shape(shape, sizes) ? smallest_footprint(in.shape, view(preset)) : 0;
}

size_t nibkv_smallest_footprint_sized(const nibkv_shape* shape, const nibkv_policy* policy, const nibkv_sizes* sizes) {
  Taken in;
  return in.take_shape(shape, sizes) && in.take_policy(policy, sizes) ? smallest_footprint(in.shape, in.policy) : 0;
}

void* nibkv_aligned(void* buffer, size_t* bytes) {
  if (bytes == nullptr) return nullptr;
  const std::span<std::byte> part = aligned({static_cast<std::byte*>(buffer), buffer != nullptr ? *bytes : 0});
  *bytes = part.size();
  return part.data();
}

nibkv_status nibkv_fold_pairs_sized(const nibkv_shape* shape, nibkv_policy* policy, const void* profile,
                                    size_t profile_bytes, uint32_t start_layer, const nibkv_sizes* sizes) {
  Taken in;
  if (!in.take_shape(shape, sizes) || !in.take_policy(policy, sizes)) return NIBKV_BAD_ARGUMENT;
  ProfileView view;
  if (profile != nullptr) {
    const Status status = view.open({static_cast<const std::byte*>(profile), profile_bytes}, in.shape);
    if (status != Status::kOk) return to_c(status);
  }
  const Policy chosen = fold_pairs(in.shape, in.policy, view, start_layer);
  return give_policy(chosen, policy, sizes) ? NIBKV_OK : NIBKV_BAD_ARGUMENT;
}

size_t nibkv_cache_bytes(void) {
  return sizeof(nibkv_cache);
}

nibkv_status nibkv_init_sized(nibkv_cache* cache, void* arena, size_t arena_bytes, const nibkv_shape* shape,
                              const nibkv_policy* policy, const nibkv_options* options, const nibkv_sizes* sizes) {
  if (cache == nullptr || arena == nullptr) return NIBKV_BAD_ARGUMENT;
  Taken in;
  if (!in.take_shape(shape, sizes) || !in.take_policy(policy, sizes)) return NIBKV_BAD_ARGUMENT;
  Options chosen;
  if (options != nullptr) {
    nibkv_options known;
    if (!take(known, options, sizes->options, offsetof(nibkv_options, weights))) return NIBKV_BAD_ARGUMENT;
    const auto& [port, profile, profile_bytes, budgets, budget_count, weights, turns, store] = known;
    if ((profile == nullptr && profile_bytes != 0) || (budgets == nullptr && budget_count != 0) || turns > 1)
      return NIBKV_BAD_ARGUMENT;
    auto& [to_port, to_profile, to_budgets, to_weights, to_turns, to_store] = chosen;
    to_store = reinterpret_cast<const ColdStore*>(store);  // of the same layout, and only copied from
    to_weights = weights;
    to_turns = turns != 0;
    to_port = view(port);
    if (profile != nullptr) to_profile = {static_cast<const std::byte*>(profile), profile_bytes};
    if (budgets != nullptr) to_budgets = {budgets, budget_count};
  }
  Cache made;
  const Status status = made.init({static_cast<std::byte*>(arena), arena_bytes}, in.shape, in.policy, chosen);
  if (status == Status::kOk) std::memcpy(cache->opaque, &made, sizeof made);
  return to_c(status);
}

nibkv_status nibkv_clear(nibkv_cache* cache) {
  Cache* const in = ready(cache);
  return in == nullptr ? NIBKV_NOT_READY : to_c(in->clear());
}

nibkv_status nibkv_wipe(nibkv_cache* cache) {
  Cache* const in = ready(cache);
  return in == nullptr ? NIBKV_NOT_READY : to_c(in->wipe());
}

nibkv_status nibkv_append(nibkv_cache* cache, uint32_t layer, uint32_t count, const float* keys, const float* values) {
  Cache* const in = ready(cache);
  if (in == nullptr) return NIBKV_NOT_READY;
  if (count > in->shape().max_chunk || keys == nullptr || values == nullptr) return NIBKV_BAD_ARGUMENT;
  const std::size_t size = floats(*in, count, in->shape().kv_heads);
  return to_c(append(*in, layer, {keys, size}, {values, size}));
}

nibkv_status nibkv_attend(nibkv_cache* cache, uint32_t layer, uint32_t count, const float* queries, float* out,
                          const nibkv_part* part) {
  Cache* const in = ready(cache);
  if (in == nullptr) return NIBKV_NOT_READY;
  if (count > in->shape().max_chunk || queries == nullptr || out == nullptr) return NIBKV_BAD_ARGUMENT;
  const std::size_t size = floats(*in, count, in->shape().query_heads);
  return to_c(attend(*in, layer, {queries, size}, {out, size}, to_cpp(part)));
}

nibkv_status nibkv_append_rows(nibkv_cache* cache, uint32_t layer, uint32_t count, const nibkv_rows* keys,
                               const nibkv_rows* values) {
  Cache* const in = ready(cache);
  if (in == nullptr) return NIBKV_NOT_READY;
  if (keys == nullptr || values == nullptr) return NIBKV_BAD_ARGUMENT;
  return to_c(append(*in, layer, count, to_cpp(*keys), to_cpp(*values)));
}

nibkv_status nibkv_attend_rows(nibkv_cache* cache, uint32_t layer, uint32_t count, const nibkv_rows* queries,
                               const nibkv_mutable_rows* out, const nibkv_part* part) {
  Cache* const in = ready(cache);
  if (in == nullptr) return NIBKV_NOT_READY;
  if (queries == nullptr || out == nullptr) return NIBKV_BAD_ARGUMENT;
  return to_c(attend(*in, layer, count, to_cpp(*queries), to_cpp(*out), to_cpp(part)));
}

// attend with a mask, or causally for null.
static nibkv_status attend_masked(Cache& cache, std::uint32_t layer, std::uint32_t count, const nibkv_rows* queries,
                                  const std::uint32_t* mask, const nibkv_mutable_rows* out, const Part& part) {
  if (count > cache.shape().max_chunk || queries == nullptr || out == nullptr) return NIBKV_BAD_ARGUMENT;
  if (mask == nullptr) return to_c(attend(cache, layer, count, to_cpp(*queries), to_cpp(*out), part));
  const std::size_t mask_words = std::size_t{count} * ((count + 31) / 32);
  return to_c(attend(cache, layer, count, to_cpp(*queries), {mask, mask_words}, to_cpp(*out), part));
}

nibkv_status nibkv_attend_masked(nibkv_cache* cache, uint32_t layer, uint32_t count, const nibkv_rows* queries,
                                 const uint32_t* mask, const nibkv_mutable_rows* out, const nibkv_part* part) {
  Cache* const in = ready(cache);
  if (in == nullptr) return NIBKV_NOT_READY;
  if (mask == nullptr) return NIBKV_BAD_ARGUMENT;
  return attend_masked(*in, layer, count, queries, mask, out, to_cpp(part));
}

nibkv_status nibkv_attend_drafts(nibkv_cache* cache, uint32_t layer, uint32_t count, const nibkv_rows* queries,
                                 const uint32_t* mask, const nibkv_mutable_rows* out, const nibkv_part* part) {
  Cache* const in = ready(cache);
  if (in == nullptr) return NIBKV_NOT_READY;
  Part drafts = to_cpp(part);
  drafts.drafts = true;
  return attend_masked(*in, layer, count, queries, mask, out, drafts);
}

nibkv_status nibkv_explain(const nibkv_cache* cache, uint32_t layer, uint32_t kv_head, nibkv_slot* slots,
                           size_t count) {
  const Cache* const in = ready(cache);
  if (in == nullptr) return NIBKV_NOT_READY;
  if (slots == nullptr && count != 0) return NIBKV_BAD_ARGUMENT;
  return to_c(explain(*in, layer, kv_head, {reinterpret_cast<SlotInfo*>(slots), count}));
}

nibkv_status nibkv_plan(nibkv_cache* cache, uint32_t layer, uint32_t kv_head, uint32_t incoming, uint32_t* target,
                        size_t count) {
  Cache* const in = ready(cache);
  if (in == nullptr) return NIBKV_NOT_READY;
  if (target == nullptr && count != 0) return NIBKV_BAD_ARGUMENT;
  return to_c(plan(*in, layer, kv_head, incoming, {target, count}));
}

nibkv_status nibkv_check_plan(const uint32_t* target, size_t count) {
  if (target == nullptr && count != 0) return NIBKV_BAD_ARGUMENT;
  return to_c(check_plan({target, count}));
}

nibkv_status nibkv_check(nibkv_cache* cache) {
  Cache* const in = ready(cache);
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
  if (in == nullptr) return NIBKV_NOT_READY;
  std::uint32_t number = 0;  // C passes any; on boards an enum may be one byte
  static_assert(sizeof how <= sizeof number);
  std::memcpy(&number, &how, sizeof how);
  if (number > 255) return NIBKV_BAD_POLICY;  // a Budget has 8 bits
  return to_c(compact_now(*in, tokens, static_cast<Budget>(number)));
}

nibkv_status nibkv_classify(nibkv_cache* cache, const uint8_t* classes, size_t count) {
  Cache* const in = ready(cache);
  if (in == nullptr) return NIBKV_NOT_READY;
  if (classes == nullptr) return NIBKV_BAD_ARGUMENT;
  return to_c(classify(*in, {reinterpret_cast<const TokenClass*>(classes), count}));
}

nibkv_status nibkv_logit_errors(const nibkv_cache* cache, uint32_t layer, const float* queries, float* errors) {
  const Cache* const in = ready(cache);
  if (in == nullptr) return NIBKV_NOT_READY;
  if (queries == nullptr || errors == nullptr) return NIBKV_BAD_ARGUMENT;
  const std::size_t heads = in->shape().query_heads;
  return to_c(logit_errors(*in, layer, {queries, heads * in->shape().head_dim}, {errors, heads}));
}

nibkv_status nibkv_tidy(nibkv_cache* cache, uint32_t tokens, bool* done) {
  Cache* const in = ready(cache);
  if (in == nullptr) return NIBKV_NOT_READY;
  return done == nullptr ? NIBKV_BAD_ARGUMENT : to_c(tidy(*in, tokens, *done));
}

nibkv_status nibkv_truncate(nibkv_cache* cache, uint32_t seen) {
  Cache* const in = ready(cache);
  return in == nullptr ? NIBKV_NOT_READY : to_c(truncate(*in, seen));
}

uint32_t nibkv_oldest_reachable(const nibkv_cache* cache) {
  const Cache* const in = ready(cache);
  return in == nullptr ? 0 : oldest_reachable(*in);
}

uint32_t nibkv_oldest_exact(const nibkv_cache* cache) {
  const Cache* const in = ready(cache);
  return in == nullptr ? 0 : oldest_exact(*in);
}

uint32_t nibkv_room(const nibkv_cache* cache) {
  const Cache* const in = ready(cache);
  return in == nullptr ? 0 : room(*in);
}

nibkv_status nibkv_clone(const nibkv_cache* from, void* arena, size_t arena_bytes, nibkv_cache* to) {
  return nibkv_clone_with_store(from, arena, arena_bytes, nullptr, to);
}

nibkv_status nibkv_clone_with_store(const nibkv_cache* from, void* arena, size_t arena_bytes,
                                    const nibkv_cold_store* store, nibkv_cache* to) {
  const Cache* const source = ready(from);
  if (source == nullptr) return NIBKV_NOT_READY;
  if (arena == nullptr || to == nullptr) return NIBKV_BAD_ARGUMENT;
  Cache made;
  const auto* own = reinterpret_cast<const ColdStore*>(store);  // of the same layout, and only copied from
  const Status status = clone(*source, {static_cast<std::byte*>(arena), arena_bytes}, made, own);
  if (status == Status::kOk) std::memcpy(to->opaque, &made, sizeof made);
  return to_c(status);
}

nibkv_status nibkv_move_to(const nibkv_cache* from, nibkv_cache* to) {
  const Cache* const source = ready(from);
  Cache* const target = ready(to);
  return source == nullptr || target == nullptr ? NIBKV_NOT_READY : to_c(move_to(*source, *target));
}

uint32_t nibkv_held(const nibkv_cache* cache, uint32_t layer, uint32_t kv_head) {
  const Cache* const in = ready(cache);
  return in == nullptr ? 0 : in->held(layer, kv_head);
}

uint32_t nibkv_head_budget(const nibkv_cache* cache, uint32_t layer, uint32_t kv_head) {
  const Cache* const in = ready(cache);
  return in == nullptr ? 0 : in->budget(layer, kv_head);
}

uint32_t nibkv_measured(const nibkv_cache* cache, uint32_t layer) {
  const Cache* const in = ready(cache);
  return in == nullptr ? 0 : in->measured(layer);
}

uint32_t nibkv_seen(const nibkv_cache* cache, uint32_t layer) {
  const Cache* const in = ready(cache);
  return in == nullptr ? 0 : in->seen(layer);
}

nibkv_usage nibkv_usage_now(const nibkv_cache* cache) {
  const Cache* const in = ready(cache);
  if (in == nullptr) return {};
  const auto& [arena_bytes, used_bytes, peak_bytes, tiles, used_tiles, peak_tiles, drowned_rows] = in->usage();
  return {arena_bytes, used_bytes, peak_bytes, tiles, used_tiles, peak_tiles, drowned_rows};
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
