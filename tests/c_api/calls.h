#ifndef NIBKV_TESTS_C_API_CALLS_H
#define NIBKV_TESTS_C_API_CALLS_H

#include "nibkv/nibkv.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The input of a run; at least two KV heads and workers. */
typedef struct setup {
  nibkv_shape shape;
  const char* policy; /* a preset */
  uint32_t tokens;
  uint32_t prompt;      /* number of tokens that are appended in chunks of max_chunk */
  uint32_t all;         /* number of all tokens; the rest are appended one by one */
  const float* keys;    /* [layers][all][kv_heads][head_dim] */
  const float* values;  /* the same */
  const float* queries; /* [layers][all][query_heads][head_dim] */
  int in_shares;        /* whether single tokens come in shares instead */
  const void* profile;  /* what the policy needs, or null */
  size_t profile_bytes;
  const uint8_t* classes; /* [16] of the newest tokens, for policies that read them */
} setup;

/* The results of a run, in memory of the caller. */
typedef struct results {
  void* arena;
  size_t arena_bytes;
  float* out;        /* as queries */
  nibkv_slot* slots; /* of layer 0, KV head 0; `all` elements */
  uint32_t* target;  /* its plan, of the same size */
  float* after;      /* [query_heads][head_dim]: layer 0 after that plan was carried out */
  nibkv_usage usage;
  uint32_t held, budget, seen; /* of layer 0, KV head 0 at the end */
} results;

/* Prefill, decoding in two parts, explain, plan, compact, and compact_now where the policy
 * scores: all through the C interface. */
nibkv_status run_in_c(const setup* with, results* to);

/* Creates a cache of policy ems in a static arena sized by NIBKV_FOOTPRINT_EMS, or in one that
 * is `less` bytes shorter. */
nibkv_status init_static(nibkv_cache* cache, size_t less);

/* Saves a cache with a log, restores it into `to`, asks whether its pages are there, and copies it to `copy`. */
typedef struct restart {
  void* snapshot;
  size_t snapshot_bytes;
  nibkv_cache* to;
  uint32_t layers, kv_heads;
  void* arena; /* of `copy` */
  size_t arena_bytes;
  const nibkv_cold_store* store; /* its own */
  nibkv_cache* copy;
} restart;
nibkv_status restart_in_c(const nibkv_cache* from, const restart* with);

/* The macro NIBKV_FOOTPRINT of a policy. */
uint64_t macro_footprint_of(const nibkv_policy* policy, const nibkv_shape* shape);

#ifdef __cplusplus
}
#endif

#endif
