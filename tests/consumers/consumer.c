/* A separate program in C that uses the library, in memory sized at compile time. It reads
 * a prompt of eight tokens, decodes forty more with a cache that may hold 64, makes a plan and
 * carries it out, saves the cache and restores it into another arena, and checks that attention
 * there finds the last value as before. */
#include <stdio.h>
#include <string.h>

#include "nibkv/nibkv.h"

#define SHAPE 1, 2, 1, 16, 0, 8, 1, NIBKV_Q4
#define TOKENS 64
enum { kPrompt = 8, kAll = 48, kDim = 16 };

static const nibkv_shape shape = {SHAPE, {0, 0, 0, 0}};
static _Alignas(NIBKV_ARENA_ALIGNMENT) unsigned char arena[NIBKV_FOOTPRINT_EMS(TOKENS, SHAPE)];
static _Alignas(NIBKV_ARENA_ALIGNMENT) unsigned char second_arena[sizeof arena];
static nibkv_cache cache, second;
static unsigned char snapshot[sizeof arena]; /* nibkv_most_snapshot_bytes gives the maximum */
static nibkv_slot slots[TOKENS + 32];
static uint32_t target[TOKENS + 32];

/* Numbers in [-1, 1], in a different order for every token. */
static void fill(float* row, int token) {
  for (int c = 0; c < kDim; ++c) row[c] = (float)((c * 7 + token * 5) % 16 * 2 - 15) / 15.0f;
}

static int failed(nibkv_status status, const char* what) {
  if (status != NIBKV_OK) printf("%s: %s\n", what, nibkv_status_text(status));
  return status != NIBKV_OK;
}

/* The queries of both heads ask for the key of `token`: nearly all of the weight is on its value. */
static void ask(float* queries, int token) {
  float row[kDim];
  fill(row, token);
  for (int c = 0; c < 2 * kDim; ++c) queries[c] = 12.0f * row[c % kDim];
}

int main(void) {
  float keys[kPrompt * kDim], values[kPrompt * kDim], queries[kPrompt * 2 * kDim], out[kPrompt * 2 * kDim];
  nibkv_policy policy;
  if (failed(nibkv_find_policy("ems", TOKENS, &policy), "find_policy")) return 1;
  if (nibkv_footprint(&shape, &policy) != sizeof arena) return 1;
  if (failed(nibkv_init(&cache, arena, sizeof arena, &shape, &policy, NULL), "init")) return 1;

  for (int token = 0; token < kPrompt; ++token) {
    fill(keys + token * kDim, token);
    fill(values + token * kDim, token + 8);
    ask(queries + token * 2 * kDim, token);
  }
  if (failed(nibkv_append(&cache, 0, kPrompt, keys, values), "append")) return 1;
  if (failed(nibkv_attend(&cache, 0, kPrompt, queries, out, NULL), "attend")) return 1;
  for (int token = kPrompt; token < kAll; ++token) {
    fill(keys, token);
    fill(values, token + 8);
    ask(queries, token);
    if (failed(nibkv_append(&cache, 0, 1, keys, values), "append")) return 1;
    if (failed(nibkv_attend(&cache, 0, 1, queries, out, NULL), "attend")) return 1;
  }

  float squares = 0.0f; /* with another token's value it would be about 0.7 per channel */
  for (int c = 0; c < kDim; ++c) squares += (out[c] - values[c]) * (out[c] - values[c]) / (float)kDim;

  const uint32_t held = nibkv_held(&cache, 0, 0);
  if (failed(nibkv_explain(&cache, 0, 0, slots, held), "explain")) return 1;
  if (failed(nibkv_plan(&cache, 0, 0, kPrompt, target, held), "plan")) return 1;
  if (failed(nibkv_compact(&cache, 0, 0, target, held), "compact")) return 1;

  float again[2 * kDim], before[2 * kDim]; /* what both caches return for the last queries */
  const uint64_t bytes = nibkv_snapshot_bytes(&cache, 0);
  if (failed(nibkv_save(&cache, snapshot, sizeof snapshot, NULL), "save")) return 1;
  if (failed(nibkv_init(&second, second_arena, sizeof second_arena, &shape, &policy, NULL), "init")) return 1;
  if (failed(nibkv_restore(&second, snapshot, (size_t)bytes), "restore")) return 1;
  if (failed(nibkv_attend(&cache, 0, 1, queries, before, NULL), "attend")) return 1;
  if (failed(nibkv_attend(&second, 0, 1, queries, again, NULL), "attend")) return 1;
  if (memcmp(before, again, sizeof again) != 0) return 1;

  printf("nibkv %s, port %s, %u bytes, %u tokens, last at position %u, mean square error %f\n", nibkv_version(),
         nibkv_port(&cache), (unsigned)sizeof arena, (unsigned)held, (unsigned)slots[held - 1].position,
         (double)squares);
  return squares < 0.04f && held == kAll && slots[held - 1].position == kAll - 1 ? 0 : 1;
}
