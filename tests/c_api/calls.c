#include "calls.h"

/* Macros are constant expressions in C, and work for arrays. */
#define SHAPE 2, 4, 2, 32, 0, 8, 2, NIBKV_Q4
static const nibkv_shape kShape = {SHAPE, {0, 0, 0, 0, 0}, 0};
static _Alignas(NIBKV_ARENA_ALIGNMENT) unsigned char arena[NIBKV_FOOTPRINT_EMS(64, SHAPE)];
_Static_assert(
    NIBKV_FOOTPRINT_FULL(32, 1, 1, 1, 16, 0, 1, 1, NIBKV_Q4) ==
        64 + 256 + 64 + 64 + 128 + 512 + (64 + 64 + 64 + 2048 + 512),
    "header, layout, chain, link, side data, codes, scratch (more than the 576 of encoding): added up by hand");
_Static_assert(
    NIBKV_FOOTPRINT_EMS(32, 1, 1, 1, 16, 0, 1, 1, NIBKV_Q4) ==
        64 + 256 + 64 + 2 * 64 + 2 * 448 + 2 * 512 + (1280 + 576 + 48 * 16 + 4096),
    "header, layout, chain, links, bases, side data and codes of 2 tiles, workspace (more than scratch): by hand");
_Static_assert(sizeof(nibkv_cache) == NIBKV_CACHE_BYTES && NIBKV_CACHE_BYTES % 8 == 0, "the handle");
#if NIBKV_VERSION_MAJOR < 0 || NIBKV_VERSION_MINOR < 0 || NIBKV_VERSION_PATCH < 0
#error "versions are numbers that the preprocessor reads"
#endif

nibkv_status init_static(nibkv_cache* cache, size_t less) {
  nibkv_policy policy;
  const nibkv_status status = nibkv_find_policy("ems", 64, &policy);
  return status != NIBKV_OK ? status : nibkv_init(cache, arena, sizeof arena - less, &kShape, &policy, NULL);
}

static nibkv_status append_in_two(nibkv_cache* cache, uint32_t layer, uint32_t count, const nibkv_rows* keys,
                                  const nibkv_rows* values) {
  nibkv_share share = {1, 2, 0};
  nibkv_status status = nibkv_reserve(cache, layer, count);
  if (status != NIBKV_OK) return status;
  status = nibkv_append_share(cache, layer, count, keys, values, &share);
  if (status != NIBKV_OK) return status;
  share.index = 0;
  return nibkv_append_share(cache, layer, count, keys, values, &share);
}

static nibkv_status attend_in_two(nibkv_cache* cache, uint32_t layer, const float* queries, float* out) {
  nibkv_part part = {0, 1, 0, 0, 0};
  nibkv_status status = nibkv_attend(cache, layer, 1, queries, out, &part);
  if (status != NIBKV_OK) return status;
  part.first_head = 1;
  part.heads = 0;
  part.worker = 1;
  return nibkv_attend(cache, layer, 1, queries, out, &part);
}

static nibkv_status attend_in_shares(nibkv_cache* cache, uint32_t layer, const float* queries, float* out,
                                     const nibkv_shape* shape) {
  const nibkv_rows in = {queries, NIBKV_NUMBER_F32, 0, shape->head_dim};
  const nibkv_mutable_rows to = {out, NIBKV_NUMBER_F32, 0, shape->head_dim};
  nibkv_share share = {0, 2, 0};
  nibkv_status status = nibkv_attend_share(cache, layer, &in, &share);
  if (status != NIBKV_OK) return status;
  share.index = share.worker = 1;
  status = nibkv_attend_share(cache, layer, &in, &share);
  if (status != NIBKV_OK) return status;
  share.index = 0;
  share.of = 1;
  return nibkv_combine_share(cache, layer, &to, &share);
}

nibkv_status run_in_c(const setup* with, results* to) {
  const nibkv_shape* shape = &with->shape;
  const size_t kv = (size_t)shape->kv_heads * shape->head_dim, q = (size_t)shape->query_heads * shape->head_dim;
  nibkv_cache cache;
  nibkv_policy policy;
  nibkv_status status = nibkv_find_policy(with->policy, with->tokens, &policy);
  if (status != NIBKV_OK) return status;
  const nibkv_options options = {NULL, with->profile, with->profile_bytes, NULL, 0, 0, 0, NULL};
  status = nibkv_init(&cache, to->arena, to->arena_bytes, shape, &policy, &options);
  if (status != NIBKV_OK) return status;

  for (uint32_t layer = 0; layer < shape->layers; ++layer) {
    const float* keys = with->keys + layer * with->all * kv;
    const float* values = with->values + layer * with->all * kv;
    const float* queries = with->queries + layer * with->all * q;
    float* out = to->out + layer * with->all * q;
    for (uint32_t token = 0; token < with->all;) {
      const uint32_t left = with->prompt > token ? with->prompt - token : 1;
      const uint32_t count = left < shape->max_chunk ? left : shape->max_chunk;
      if (count > 1) {
        status = nibkv_append(&cache, layer, count, keys + token * kv, values + token * kv);
      } else {
        const nibkv_rows key = {keys + token * kv, NIBKV_NUMBER_F32, kv, shape->head_dim};
        const nibkv_rows value = {values + token * kv, NIBKV_NUMBER_F32, kv, shape->head_dim};
        status = with->in_shares ? append_in_two(&cache, layer, count, &key, &value)
                                 : nibkv_append_rows(&cache, layer, count, &key, &value);
      }
      if (status != NIBKV_OK) return status;
      if (count > 1) {
        status = nibkv_attend(&cache, layer, count, queries + token * q, out + token * q, NULL);
      } else if (with->in_shares && nibkv_divisible(&cache)) {
        status = attend_in_shares(&cache, layer, queries + token * q, out + token * q, shape);
      } else {
        status = attend_in_two(&cache, layer, queries + token * q, out + token * q);
      }
      if (status != NIBKV_OK) return status;
      token += count;
    }
  }

  status = nibkv_classify(&cache, with->classes, 16);
  if (status != (policy.budget == NIBKV_BUDGET_RULES ? NIBKV_OK : NIBKV_BAD_POLICY)) return status;
  const uint32_t held = nibkv_held(&cache, 0, 0);
  status = nibkv_explain(&cache, 0, 0, to->slots, held);
  if (status != NIBKV_OK) return status;
  status = nibkv_plan(&cache, 0, 0, shape->max_chunk, to->target, held);
  if (status != NIBKV_OK) return status;
  status = nibkv_check_plan(to->target, held);
  if (status != NIBKV_OK) return status;
  status = nibkv_compact(&cache, 0, 0, to->target, held);
  if (status != NIBKV_OK) return status;
  if (policy.keep == NIBKV_KEEP_SCORE) {
    status = nibkv_compact_now(&cache, with->tokens - with->tokens / 4, NIBKV_BUDGET_UNIFORM);
    if (status != NIBKV_OK) return status;
  }
  status = nibkv_attend(&cache, 0, 1, with->queries, to->after, NULL);
  to->usage = nibkv_usage_now(&cache);
  to->held = nibkv_held(&cache, 0, 0);
  to->budget = nibkv_head_budget(&cache, 0, 0);
  to->seen = nibkv_seen(&cache, 0);
  return status;
}

#define OF(shape)                                                                                         \
  (shape)->layers, (shape)->query_heads, (shape)->kv_heads, (shape)->head_dim, (shape)->outlier_channels, \
      (shape)->max_chunk, (shape)->workers, (shape)->storage

uint64_t macro_footprint_of(const nibkv_policy* policy, const nibkv_shape* shape) {
  const bool scores = policy->keep == NIBKV_KEEP_SCORE;
  const bool both = policy->score == NIBKV_SCORE_GLOBAL_LOCAL;
  const bool global = scores && (both || policy->score == NIBKV_SCORE_GLOBAL);
  const bool local = scores && (both || policy->score == NIBKV_SCORE_LOCAL);
  const int merge = !scores || policy->merge == NIBKV_MERGE_NONE ? 0 : policy->position_free ? 2 : 1;
  if (policy->log != 0)
    return NIBKV_FOOTPRINT_LOG(OF(shape), policy->tokens, policy->log, policy->recall, policy->indexed);
  if (policy->tail != 0)
    return NIBKV_FOOTPRINT_TIERS(OF(shape), policy->tokens, policy->keep, global, local, merge,
                                 policy->budget == NIBKV_BUDGET_UNIFORM ? 1 : policy->most, policy->tail,
                                 policy->tail_storage, policy->faint, policy->faint_storage);
  if (policy->budget == NIBKV_BUDGET_RULES)
    return NIBKV_FOOTPRINT_RULES(OF(shape), policy->tokens, policy->keep, global, local, merge, policy->most);
  return NIBKV_FOOTPRINT(OF(shape), policy->tokens, policy->keep, global, local, merge,
                         policy->budget == NIBKV_BUDGET_UNIFORM ? 1 : policy->most);
}

nibkv_status restart_in_c(const nibkv_cache* from, const restart* with) {
  nibkv_status status = nibkv_save(from, with->snapshot, with->snapshot_bytes, NULL);
  if (status == NIBKV_OK) status = nibkv_restore(with->to, with->snapshot, with->snapshot_bytes);
  for (uint32_t layer = 0; layer < with->layers; ++layer) {
    for (uint32_t head = 0; head < with->kv_heads; ++head) {
      if (status == NIBKV_OK) status = nibkv_verify_log(with->to, layer, head);
    }
  }
  if (status != NIBKV_OK) return status;
  return nibkv_clone_with_store(with->to, with->arena, with->arena_bytes, with->store, with->copy);
}
