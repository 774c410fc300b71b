#ifndef NIBKV_TESTS_C_API_CALLS_H
#define NIBKV_TESTS_C_API_CALLS_H

#include "nibkv/nibkv.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What a run is told; at least two KV heads and workers. */
typedef struct setup {
  nibkv_shape shape;
  const char* policy; /* a preset */
  uint32_t tokens;
  uint32_t prompt;      /* tokens that come in chunks of max_chunk */
  uint32_t all;         /* the rest comes one by one */
  const float* keys;    /* [layers][all][kv_heads][head_dim] */
  const float* values;  /* the same */
  const float* queries; /* [layers][all][query_heads][head_dim] */
} setup;

/* What it leaves: memory of the caller. */
typedef struct results {
  void* arena;
  size_t arena_bytes;
  float* out;        /* as queries */
  nibkv_slot* slots; /* of layer 0, KV head 0; room for `all` */
  uint32_t* target;  /* its plan, as many */
  float* after;      /* [query_heads][head_dim]: layer 0 once that plan was carried out */
  nibkv_usage usage;
  uint32_t held, budget, seen; /* of layer 0, KV head 0 at the end */
} results;

/* Prefill, decoding in two parts, explain, plan, compact, and compact_now where the policy scores: all through the C
 * interface. */
nibkv_status run_in_c(const setup* with, results* to);

/* Places a cache of policy ems into a static arena that NIBKV_FOOTPRINT_EMS sized, or into `less` bytes less of it. */
nibkv_status init_static(nibkv_cache* cache, size_t less);

/* The macro NIBKV_FOOTPRINT_... of the preset of that index, and one of a policy by its flags. */
uint64_t macro_footprint(uint32_t preset, uint32_t tokens, const nibkv_shape* shape);
uint64_t macro_footprint_of(const nibkv_policy* policy, const nibkv_shape* shape);

#ifdef __cplusplus
}
#endif

#endif
