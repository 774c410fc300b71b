/* nibkv from C11, in memory that the compiler sizes: a prompt of eight tokens in one chunk, forty more one by one, a
 * plan looked at and carried out, and the cache saved and restored into another arena.
 *
 *     cc -std=c11 c.c $(pkg-config --cflags --libs nibkv) -o c
 *
 * It checks itself: attention finds the value that belongs to the key it asks for, in both caches with the same bytes.
 */
#include <stdio.h>
#include <string.h>

#include "nibkv/nibkv.h"

/* layers, query heads, KV heads, head_dim, outlier channels, max_chunk, workers, storage */
#define SHAPE 1, 2, 1, 16, 0, 8, 1, NIBKV_Q4
#define TOKENS 64
enum { kPrompt = 8, kAll = 48, kDim = 16, kHeads = 2 };

static const nibkv_shape shape = {SHAPE, {0, 0, 0, 0, 0}, 0};
static _Alignas(NIBKV_ARENA_ALIGNMENT) unsigned char arena[NIBKV_FOOTPRINT_EMS(TOKENS, SHAPE)];
static _Alignas(NIBKV_ARENA_ALIGNMENT) unsigned char second_arena[sizeof arena];
static nibkv_cache cache, second;
static unsigned char snapshot[sizeof arena]; /* nibkv_most_snapshot_bytes says how many at most */

static float keys[kPrompt * kDim], values[kPrompt * kDim];
static float queries[kPrompt * kHeads * kDim], out[kPrompt * kHeads * kDim];

/* In place of a model: numbers in [-1, 1], in another order for every token. */
static void fill(float* row, int token) {
  for (int c = 0; c < kDim; ++c) row[c] = (float)((c * 7 + token * 5) % 16 * 2 - 15) / 15.0f;
}

/* Row `i` of the chunk is that of `token`. Its queries, of both heads, ask for its own key: nearly all of the weight is
 * on its value. */
static void project(int i, int token) {
  fill(keys + i * kDim, token);
  fill(values + i * kDim, token + 8);
  for (int c = 0; c < kHeads * kDim; ++c) queries[i * kHeads * kDim + c] = 12.0f * keys[i * kDim + c % kDim];
}

static nibkv_status forward(uint32_t count) {
  const nibkv_status status = nibkv_append(&cache, 0, count, keys, values);
  return status != NIBKV_OK ? status : nibkv_attend(&cache, 0, count, queries, out, NULL);
}

static nibkv_status start(void) {
  nibkv_policy policy;
  nibkv_status status = nibkv_find_policy("ems", TOKENS, &policy);
  if (status == NIBKV_OK) status = nibkv_init(&cache, arena, sizeof arena, &shape, &policy, NULL);
  if (status == NIBKV_OK) status = nibkv_init(&second, second_arena, sizeof second_arena, &shape, &policy, NULL);
  return status;
}

static nibkv_status read_and_decode(void) {
  for (int i = 0; i < kPrompt; ++i) project(i, i);
  nibkv_status status = forward(kPrompt);
  for (int token = kPrompt; token < kAll && status == NIBKV_OK; ++token) {
    project(0, token);
    status = forward(1);
  }
  return status;
}

/* What append does by itself when a chain outgrows its budget: here there is room, and the plan drops nothing. */
static nibkv_status plan_and_compact(void) {
  uint32_t target[TOKENS + 32];
  const uint32_t held = nibkv_held(&cache, 0, 0);
  const nibkv_status status = nibkv_plan(&cache, 0, 0, kPrompt, target, held);
  return status != NIBKV_OK ? status : nibkv_compact(&cache, 0, 0, target, held);
}

/* A conversation to flash, a file or another device, and back. */
static nibkv_status save_and_restore(void) {
  const uint64_t bytes = nibkv_snapshot_bytes(&cache, 0);
  const nibkv_status status = nibkv_save(&cache, snapshot, sizeof snapshot, NULL);
  return status != NIBKV_OK ? status : nibkv_restore(&second, snapshot, (size_t)bytes);
}

static int failed(nibkv_status status, const char* what) {
  if (status != NIBKV_OK) printf("%s: %s\n", what, nibkv_status_text(status));
  return status != NIBKV_OK;
}

int main(void) {
  if (failed(start(), "start") || failed(read_and_decode(), "read and decode")) return 1;
  float squares = 0.0f; /* of another token's value they would be about 0.7 a channel */
  for (int c = 0; c < kDim; ++c) squares += (out[c] - values[c]) * (out[c] - values[c]) / (float)kDim;

  nibkv_slot slots[TOKENS + 32];
  const uint32_t held = nibkv_held(&cache, 0, 0);
  if (failed(nibkv_explain(&cache, 0, 0, slots, held), "explain")) return 1;
  if (failed(plan_and_compact(), "plan and compact") || failed(save_and_restore(), "save and restore")) return 1;

  float again[kHeads * kDim];
  if (failed(nibkv_attend(&cache, 0, 1, queries, out, NULL), "attend")) return 1;
  if (failed(nibkv_attend(&second, 0, 1, queries, again, NULL), "attend")) return 1;
  const int same = memcmp(out, again, sizeof again) == 0;

  printf("nibkv %s, port %s: %u tokens in an arena of %u bytes, the last at position %u\n", nibkv_version(),
         nibkv_port(&cache), (unsigned)held, (unsigned)sizeof arena, (unsigned)slots[held - 1].position);
  printf("mean square error %f; the restored cache returns %s\n", (double)squares,
         same ? "the same bytes" : "OTHER BYTES");
  return same && squares < 0.04f && held == kAll && slots[held - 1].position == kAll - 1 ? 0 : 1;
}
