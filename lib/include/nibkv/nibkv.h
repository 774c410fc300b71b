#ifndef NIBKV_NIBKV_H
#define NIBKV_NIBKV_H

/* nibkv for C (C11): the verbs of the C++ headers, with the same results, bytes and status values.
 * The C++ headers explain each field and verb; this header gives shapes, units, ranges and errors.
 *
 *     #define SHAPE 30, 9, 3, 64, 0, 1, 1, NIBKV_Q4
 *     static const nibkv_shape shape = {SHAPE};
 *     static _Alignas(NIBKV_ARENA_ALIGNMENT) unsigned char arena[NIBKV_FOOTPRINT_EMS(512, SHAPE)];
 *     static nibkv_cache cache;
 *
 *     nibkv_policy policy;
 *     nibkv_status status = nibkv_find_policy("ems", 512, &policy);
 *     if (status == NIBKV_OK) status = nibkv_init(&cache, arena, sizeof arena, &shape, &policy, NULL);
 *     ...
 *     status = nibkv_append(&cache, layer, 1, keys, values);
 *     status = nibkv_attend(&cache, layer, 1, queries, out, NULL);
 *
 * No function allocates, throws or keeps state of its own. None needs the C++ run-time library: link
 * with a C compiler. A null pointer returns NIBKV_BAD_ARGUMENT, unless null is said to be allowed.
 * A null `cache` is one that is not ready: it returns NIBKV_NOT_READY, but NIBKV_BAD_ARGUMENT from
 * nibkv_init. Calls on one cache must not overlap in time, except nibkv_attend with different workers,
 * and shares of one call (nibkv_share). */

#include <stddef.h>
#include <stdint.h>
#ifndef __cplusplus
#include <stdbool.h>
#endif

#include "nibkv/export.h"
#include "nibkv/version.h"

#ifdef __cplusplus
extern "C" {
#endif
/* NOLINTBEGIN(modernize-use-using) */

/* What a call did. Any value but NIBKV_OK means that the cache is unchanged, except NIBKV_LOST, which
 * leaves it empty. The values are frozen. */
typedef enum nibkv_status {
  NIBKV_OK = 0,
  NIBKV_BAD_SHAPE = 1,        /* a field of nibkv_shape is out of its range */
  NIBKV_BAD_POLICY = 2,       /* a field of nibkv_policy or a given budget is out of its range or does not fit the
                               * shape, or no preset has that name */
  NIBKV_MISALIGNED = 3,       /* the arena does not start at a multiple of NIBKV_ARENA_ALIGNMENT: see nibkv_aligned */
  NIBKV_ARENA_TOO_SMALL = 4,  /* the arena is smaller than nibkv_footprint says */
  NIBKV_UNKNOWN_PORT = 5,     /* no built port has that name */
  NIBKV_UNSUPPORTED_PORT = 6, /* the port is built, but this CPU cannot run it */
  NIBKV_BAD_PROFILE = 7,      /* the profile is missing, damaged, of another version, or made for another shape or
                               * other weights */
  NIBKV_NOT_READY = 8,        /* the cache was not initialised */
  NIBKV_BAD_ARGUMENT = 9,     /* an index out of range, an array that is null or of the wrong size, or a number that
                               * is not finite */
  NIBKV_FULL = 10,            /* the pool has no tile left and the policy keeps everything */
  NIBKV_BAD_PLAN = 11,        /* the plan does not describe this chain */
  NIBKV_CORRUPT = 12,         /* the arena, or a snapshot whose checksums are right, holds what no function writes */
  NIBKV_BAD_SNAPSHOT = 13,    /* not a snapshot, truncated, or damaged (see nibkv_restore) */
  NIBKV_NEWER_SNAPSHOT = 14,  /* a snapshot of a version, older or newer, that this library does not read */
  NIBKV_OTHER_SHAPE = 15,     /* a snapshot of a cache of another shape */
  NIBKV_OTHER_POLICY = 16,    /* a snapshot of a cache of another policy or with other budgets */
  NIBKV_OTHER_PROFILE = 17,   /* a snapshot of a cache with another profile, or with one where this cache has none */
  NIBKV_STORAGE_FAILED = 18,  /* a callback could not read or write */
  NIBKV_LOST = 19,            /* the source changed during nibkv_restore: the cache is empty now */
  NIBKV_GONE = 20,            /* tokens that far back were dropped or merged meanwhile (see nibkv_truncate) */
  NIBKV_OTHER_STORE = 21      /* a snapshot of a cache whose log is in a store of another identity */
} nibkv_status;

/* A short English sentence for a status; never null. */
NIBKV_API const char* nibkv_status_text(nibkv_status status);

/* The version of the library that is running: NIBKV_VERSION_STRING of the headers it was built from. */
NIBKV_API const char* nibkv_version(void);

#define NIBKV_ARENA_ALIGNMENT 64 /* bytes */

/* nibkv_shape.storage: how keys and values are stored. */
enum {
  NIBKV_Q4 = 0,   /* 4 bits a channel */
  NIBKV_F32 = 1,  /* exact rows: the reference */
  NIBKV_Q8 = 2,   /* 8 bits */
  NIBKV_Q8Q4 = 3, /* keys at 8 bits, values at 4 */
  NIBKV_Q4Q2 = 4, /* keys at 4 bits, values at 2 */
  NIBKV_Q2 = 5    /* 2 bits */
};

/* nibkv_shape.basis: from where a cache knows what the keys of its model have in common (shape.hpp). */
enum {
  NIBKV_BASIS_PROFILE = 0, /* from a profile */
  NIBKV_BASIS_MEASURED = 1 /* each layer measures its first 16 tokens or more, if one append brings them */
};

/* The rotary embedding of the keys. It is read if there is a reach, or by a policy with position_free or rephase. With
 * dims = 0 it is not known, and the other fields are ignored. */
typedef struct nibkv_rotary {
  float base;    /* [1, 2^100] */
  float scale;   /* factor of positions: (0, 1], 1 unless the model's context was extended linearly */
  uint16_t dims; /* how many first channels of a head are rotated: even, [2, head_dim]; 0: not known */
  bool adjacent; /* pairs are channels (2i, 2i + 1); otherwise (i, i + dims / 2) */
  /* The largest distance in tokens from which a query may see a slot: 0, no limit, or [2, 2^24], at most what the model
   * is trained for; best is just below four times the context that the profile was made from. A slot further behind
   * meets the query turned back to within it (shape.hpp), so that a cache that drops or merges tokens reads
   * for ever. */
  uint32_t reach;
} nibkv_rotary;

/* What never changes during the life of a cache. Every field must be set: 0 is in range only where it
 * says so. */
typedef struct nibkv_shape {
  uint16_t layers;      /* [1, 1024] */
  uint16_t query_heads; /* [1, 1024], a multiple of kv_heads */
  uint16_t kv_heads;    /* [1, 1024] */
  uint16_t head_dim;    /* 16, 32, 48, ..., 256 channels */
  /* Key channels of a head that are kept at 8 bits: 0, 4, 8, 12 or 16; 0 with NIBKV_F32. More than 0
   * needs a profile, or NIBKV_BASIS_MEASURED. */
  uint16_t outlier_channels;
  uint16_t max_chunk; /* maximum tokens in one append or attend, [1, 4096] */
  /* The most threads that may call attend, or shares of a call, at the same time, [1, 256]; any call may use fewer.
   * More than kv_heads have nothing to do in attend under a policy that scores attention. */
  uint16_t workers;
  uint8_t storage; /* NIBKV_Q4, ... */
  nibkv_rotary rotary;
  uint8_t basis; /* NIBKV_BASIS_PROFILE, ... */
} nibkv_shape;

/* Values of fields of nibkv_policy. policy.hpp says what they mean and which papers they come from. */
enum { NIBKV_KEEP_ALL = 0, NIBKV_KEEP_RECENT = 1, NIBKV_KEEP_SCORE = 2 };
enum { NIBKV_SCORE_GLOBAL_LOCAL = 0, NIBKV_SCORE_GLOBAL = 1, NIBKV_SCORE_LOCAL = 2, NIBKV_SCORE_KEY_NORM = 3 };
enum { NIBKV_GROUP_MEAN = 0, NIBKV_GROUP_MAX = 1 };
enum { NIBKV_COMBINE_SUM = 0, NIBKV_COMBINE_MAX = 1 };
enum { NIBKV_MERGE_NONE = 0, NIBKV_MERGE_VALUES = 1, NIBKV_MERGE_BOTH = 2 };
enum { NIBKV_SIMILARITY_KEY = 0, NIBKV_SIMILARITY_VALUE = 1, NIBKV_SIMILARITY_KEY_VALUE = 2 };
enum { NIBKV_MASS_NONE = 0, NIBKV_MASS_SHARE = 1, NIBKV_MASS_COUNT = 2 };
typedef enum nibkv_budget {
  NIBKV_BUDGET_UNIFORM = 0,
  NIBKV_BUDGET_PYRAMID = 1,
  NIBKV_BUDGET_SCORES = 2,
  NIBKV_BUDGET_ADAPTIVE = 3,
  NIBKV_BUDGET_TABLE = 4,
  NIBKV_BUDGET_PREFIX = 5,
  NIBKV_BUDGET_RETRIEVAL = 6,
  NIBKV_BUDGET_RULES = 7,
  NIBKV_BUDGET_ANY_SCORES = 8 /* as SCORES where the profile has head scores; where there are none, as UNIFORM */
} nibkv_budget;

enum { NIBKV_RETAIN_FAR = 0, NIBKV_RETAIN_NEAR = 1, NIBKV_RETAIN_FAR_RANGE = 2 };

/* Neighbouring layers that share 4-bit codes (MiniCache). In each set, bit l % 64 of word l / 64 pairs layer
 * l with layer l + 1. */
typedef struct nibkv_fold {
  uint64_t keys[4];   /* pairs that share the directions of their keys */
  uint64_t values[4]; /* the same for values; a layer belongs to at most one pair */
  /* Those of them whose upper layer is transformed to the lower one's basis by the profile's maps. */
  uint64_t aligned_keys[4];
  uint64_t aligned_values[4];
  uint32_t recent;    /* number of newest slots that never fold, or max_chunk if that is more; at most 2^24 */
  uint8_t t;          /* the shared direction, from the lower layer's (0) to the upper one's (256) */
  uint8_t retained;   /* share of the old slots that both layers keep separately, n / 256, at most 128 */
  uint8_t retain;     /* NIBKV_RETAIN_...: which ones */
  bool centred;       /* whether the profile's mean key is subtracted from shared keys */
  uint8_t min_cosine; /* the smallest mean cosine of a pair that nibkv_fold_pairs accepts, n / 256 */
} nibkv_fold;

/* What to keep, as plain data. Let nibkv_find_policy fill one in: a policy of zeros is not valid. The fields
 * from `recent` to `candidate_mass` are read only under NIBKV_KEEP_SCORE and must otherwise stay as
 * nibkv_find_policy sets them. */
typedef struct nibkv_policy {
  uint8_t keep;           /* NIBKV_KEEP_...: what may be dropped */
  uint32_t tokens;        /* budget of a head in tokens, the mean if heads differ, [1, 2^24] */
  uint32_t sinks;         /* number of first tokens that are never dropped: [0, tokens - 1], 0 under ALL */
  uint32_t recent;        /* number of most recent tokens that are never dropped; sinks + recent < tokens */
  uint8_t score;          /* NIBKV_SCORE_... */
  uint8_t group;          /* NIBKV_GROUP_...; MAX needs at most 16 query heads per KV head */
  uint8_t combine;        /* NIBKV_COMBINE_... */
  bool per_query;         /* the global score is the mean over the queries that could see the slot, in units of an equal
                           * share of their attention, else the sum */
  uint16_t window;        /* queries that the local score covers, a power of two in [1, 4096] */
  uint8_t pool;           /* a slot ranks by the largest score of this many slots around it: 1, 3, ..., 15 */
  uint8_t merge;          /* NIBKV_MERGE_... */
  bool rephase;           /* merged keys are rotated to the position of their centre; needs shape.rotary, no reach */
  uint8_t similarity;     /* NIBKV_SIMILARITY_... */
  bool position_free;     /* keys are compared without their rotary embedding; needs shape.rotary, no reach, and
                           * 64 * head_dim bytes more than NIBKV_FOOTPRINT */
  uint8_t mass;           /* NIBKV_MASS_... */
  bool mean_threshold;    /* a slot is merged if it is at least as similar as its chain's candidates on average */
  uint8_t threshold;      /* or at least threshold / 256 */
  uint8_t candidate_mass; /* merge only the slots that hold this many 1/256 of the importance; 0: all */
  uint8_t budget;         /* NIBKV_BUDGET_... */
  nibkv_fold fold;        /* if any layers share: needs NIBKV_Q4, and NIBKV_KEEP_ALL or NIBKV_KEEP_SCORE with
                           * NIBKV_BUDGET_UNIFORM; needs fewer bytes than NIBKV_FOOTPRINT */
  uint8_t most;           /* where budgets differ, no head gets more than this many times the mean: [1, 64]; 0: 4 */
  uint8_t recovered;      /* under NIBKV_BUDGET_RULES: the share of a head's attention that its rule must get, n / 256;
                           * 0: 243 */
  uint8_t recent_share;   /* recent is at most this share, n / 256, of all tokens seen; 0: no limit */
  bool value_norms;       /* whether ranks are multiplied by the norms of values */
  /* Layer l, bit l % 64 of wide[l / 64], has the codes of wide_storage, which are wider than those of shape.storage:
   * policy.hpp. All 0: none. */
  uint8_t wide_storage; /* NIBKV_Q8Q4, ... */
  uint64_t wide[4];
  bool wide_first; /* whether the first 32 slots of every head have them, too */
  /* The newest `tail` tokens of a head have the codes of tail_storage, which are at least as wide; under
   * NIBKV_KEEP_SCORE, `faint` slots have those of faint_storage before they are dropped: policy.hpp. Both are parts of
   * `tokens`, and `faint` is a multiple of 32; 0: none. */
  uint8_t tail_storage; /* NIBKV_Q8, ... */
  uint8_t faint_storage;
  uint32_t tail;
  uint32_t faint;
  /* What leaves the recent window of the heads with an index goes to a store, `log` tokens of each, and nibkv_recall
   * brings back `recall`: policy.hpp. Both are multiples of 32; 0: none. */
  uint32_t log;
  uint32_t recall;
  uint16_t indexed; /* so many 1/256 of the heads have an index; 0: 86 */
} nibkv_policy;

/* Finds a preset by name, with its default parameters: "full", "streaming_llm", "ems", "ems_no_merge",
 * "h2o", "tova", "snapkv", "l2_norm", "pyramid_kv", "ada_kv", "head_kv", "prefix_kv", "duo", "fast_gen",
 * "precise_tail", "qpruning", "recall", "minicache", "ems_fold" (the last two without pairs).
 * tokens:  budget of a head in tokens
 * Returns NIBKV_BAD_POLICY for an unknown name or null; NIBKV_BAD_ARGUMENT when `policy` is null.
 * `policy` is unchanged unless NIBKV_OK. */
static inline nibkv_status nibkv_find_policy(const char* name, uint32_t tokens, nibkv_policy* policy);

/* The names that nibkv_find_policy knows: index 0, 1, ...; null past the end. */
NIBKV_API const char* nibkv_policy_name(uint32_t index);

/* The exact size in bytes of the arena that a cache of this shape and policy needs, scratch included. 0 for
 * an invalid shape or policy, for null, and for a size that does not fit this machine's address space. For
 * static arrays see the NIBKV_FOOTPRINT_... macros below. */
static inline size_t nibkv_footprint(const nibkv_shape* shape, const nibkv_policy* policy);

/* The bytes that a store needs for policy.log; 0 without a log, for an invalid shape or policy, and for null. */
static inline uint64_t nibkv_cold_bytes(const nibkv_shape* shape, const nibkv_policy* policy);

/* The largest budget in tokens with which nibkv_find_policy gives a policy whose footprint is at most
 * `bytes`. 0 when not even the smallest fits, for an unknown name and for null. Cost: about 24 evaluations of
 * the footprint. */
static inline uint32_t nibkv_preset_tokens_that_fit(const nibkv_shape* shape, const char* preset, uint64_t bytes);

/* The same for a given policy: everything but policy->tokens, which is ignored, stays as it is, windows
 * included. The windows of "ems" with 512 tokens stay 256 tokens long whatever the budget, so ask for a preset
 * by its name. */
static inline uint32_t nibkv_tokens_that_fit(const nibkv_shape* shape, const nibkv_policy* policy, uint64_t bytes);

/* Bytes of the smallest arena that a preset can have: its footprint with the smallest budget that is valid. With one
 * byte fewer nibkv_preset_tokens_that_fit returns 0. Fewer workers, a smaller max_chunk, fewer outlier channels or
 * another preset make it smaller. 0 for an unknown name, a shape out of range, and for null. */
static inline size_t nibkv_preset_smallest_footprint(const nibkv_shape* shape, const char* preset);

/* The same for a policy as it is: all but policy->tokens, which is not read, stays. */
static inline size_t nibkv_smallest_footprint(const nibkv_shape* shape, const nibkv_policy* policy);

/* Chooses the pairs of neighbouring layers that may share codes, from what a profile measured (fold.hpp).
 * policy:         its fold.min_cosine is the bound; the four sets of its fold are written
 * profile:        the bytes that nibkv_init will get, or null: no pairs
 * profile_bytes:  their number
 * start_layer:    half of the layers is usual
 * Returns NIBKV_BAD_ARGUMENT for a null shape or policy; NIBKV_BAD_PROFILE. `policy` is unchanged unless NIBKV_OK. */
static inline nibkv_status nibkv_fold_pairs(const nibkv_shape* shape, nibkv_policy* policy, const void* profile,
                                            size_t profile_bytes, uint32_t start_layer);

/* The part of a buffer, such as one from malloc, that can serve as an arena: from the first multiple of
 * NIBKV_ARENA_ALIGNMENT in it to its end. A buffer of NIBKV_ARENA_ALIGNMENT - 1 bytes more than the footprint
 * is always large enough.
 *
 *     size_t bytes = nibkv_footprint(&shape, &policy) + NIBKV_ARENA_ALIGNMENT - 1;
 *     void* arena = nibkv_aligned(buffer, &bytes);
 *
 * bytes:  the size of the buffer; on return, the size of that part
 * Returns its start. Returns null, and 0 in *bytes, if there is no such part or `buffer` is null; null if
 * `bytes` is null. */
NIBKV_API void* nibkv_aligned(void* buffer, size_t* bytes);

/* A handle to one arena, in the caller's memory. A handle of zeros, as static objects are, is a cache that is
 * not initialised. It owns nothing and may be copied. All state lies in the arena, which holds no pointers. */
#define NIBKV_CACHE_BYTES 512
typedef struct nibkv_cache {
  uint64_t opaque[NIBKV_CACHE_BYTES / 8];
} nibkv_cache;

/* NIBKV_CACHE_BYTES as the library was built, for languages that do not read this header. Alignment: 8. */
NIBKV_API size_t nibkv_cache_bytes(void);

/* Where the tokens of a log go: cold.hpp. Zeros in `prefetch` and in what follows are the defaults. */
typedef struct nibkv_cold_store {
  bool (*write)(void* context, uint64_t offset, const void* page, size_t bytes);
  bool (*read)(void* context, uint64_t offset, void* page, size_t bytes);
  void (*prefetch)(void* context, uint64_t offset, size_t bytes); /* may be null */
  void* context;
  uint32_t identity;
  bool verify;
} nibkv_cold_store;

/* Which built port to use, and what is known about the model. Zeros in all fields are the defaults. */
typedef struct nibkv_options {
  const char* port;        /* a name from nibkv_port_name; null or "": the fastest that this CPU can run */
  const void* profile;     /* a profile; must outlive the cache; null: none */
  size_t profile_bytes;    /* its size */
  const uint32_t* budgets; /* [layers][kv_heads] tokens, for NIBKV_BUDGET_TABLE (cache.hpp says which); null: none */
  size_t budget_count;     /* layers * kv_heads, or 0 */
  uint32_t weights;        /* the weights of the model, as in CalibrationOptions::weights (profile.hpp); 0: not given */
  size_t turns;            /* 1: heads take turns at making space (Options::turns of cache.hpp) */
  const nibkv_cold_store* store; /* for policy.log; must outlive the cache */
} nibkv_options;

/* Creates an empty cache in `arena` and makes `cache` its handle.
 *
 * arena:        at least nibkv_footprint(shape, policy) bytes, starting at a multiple of
 *               NIBKV_ARENA_ALIGNMENT (nibkv_aligned cuts one out of any buffer); must outlive the cache
 * arena_bytes:  its size
 * options:      null: the defaults
 * Returns NIBKV_BAD_ARGUMENT for null, also in `options` for null with a size above 0; NIBKV_BAD_SHAPE;
 * NIBKV_BAD_POLICY, also for a footprint beyond this machine's address space and for budgets that do not meet
 * their conditions (Options::budgets of cache.hpp) under NIBKV_BUDGET_TABLE; NIBKV_MISALIGNED;
 * NIBKV_ARENA_TOO_SMALL; NIBKV_UNKNOWN_PORT; NIBKV_UNSUPPORTED_PORT; NIBKV_BAD_PROFILE, also when there is no
 * profile but outlier channels, NIBKV_BUDGET_SCORES or RETRIEVAL need one, when NIBKV_BUDGET_PREFIX or RULES find no
 * attention in it, when the policy aligns layers and the profile
 * has no maps, or when `weights` and the profile name different weights. Neither the handle nor the arena is
 * changed unless NIBKV_OK.
 * Cost: O(footprint) once, to clear the arena. */
static inline nibkv_status nibkv_init(nibkv_cache* cache, void* arena, size_t arena_bytes, const nibkv_shape* shape,
                                      const nibkv_policy* policy, const nibkv_options* options);

/* Forgets all tokens. Shape, policy, port and profile stay; the peaks of nibkv_usage start over.
 * Returns NIBKV_NOT_READY. Cost: O(tiles). */
NIBKV_API nibkv_status nibkv_clear(nibkv_cache* cache);
/* The same, and overwrites with zeros what the cache has held, but not the store of a log. Cost: O(footprint). */
NIBKV_API nibkv_status nibkv_wipe(nibkv_cache* cache);

/* Appends `count` tokens to `layer`, quantised. Under a bounded policy, an append that would outgrow
 * a head's tiles first plans and compacts that head. append.hpp has the limits of large numbers.
 *
 * layer:   [0, layers)
 * count:   [1, max_chunk]
 * keys:    finite, [count][kv_heads][head_dim], after rotary embedding
 * values:  finite, [count][kv_heads][head_dim]
 * Returns NIBKV_NOT_READY; NIBKV_BAD_ARGUMENT for a layer or count out of range, for a number that is not
 * finite, or for a call out of turn: of two layers that share codes the lower one must be appended first, then
 * the upper one with the same number of tokens; NIBKV_FULL under NIBKV_KEEP_ALL, when the pool has no tile left,
 * or, if any layers share codes, when a head would hold more than policy.tokens rounded up to whole tiles. The
 * cache is unchanged unless NIBKV_OK.
 * Cost: O(count * kv_heads * head_dim * log head_dim). */
NIBKV_API nibkv_status nibkv_append(nibkv_cache* cache, uint32_t layer, uint32_t count, const float* keys,
                                    const float* values);

/* nibkv_rows.number: the type of the numbers of rows. */
enum { NIBKV_NUMBER_F32 = 0, NIBKV_NUMBER_F16 = 1 /* IEEE 754 binary16 */, NIBKV_NUMBER_BF16 = 2 };

/* Rows of an engine as they lie in its memory: one of head_dim numbers, side by side, for each token and head. Strides
 * count numbers. Input rows may overlap. For dense rows, tokens outermost, and heads outermost in a buffer of `tokens`:
 *
 *     nibkv_rows keys = {first, NIBKV_NUMBER_F16, kv_heads * head_dim, head_dim};
 *     nibkv_rows keys = {first, NIBKV_NUMBER_F16, head_dim, tokens * head_dim}; */
typedef struct nibkv_rows {
  const void* first;   /* aligned for its numbers: to 4 or 2 bytes */
  uint8_t number;      /* NIBKV_NUMBER_... */
  size_t token_stride; /* from a token to the next */
  size_t head_stride;  /* from a head to the next */
} nibkv_rows;

/* Rows to write, which may not overlap: the smaller stride is at least head_dim, the larger one at least as long as all
 * rows along the smaller one. Numbers are rounded to nearest, ties to even; beyond the type's range they become
 * infinite (from 65520 on in f16). */
typedef struct nibkv_mutable_rows {
  void* first;
  uint8_t number;
  size_t token_stride;
  size_t head_stride;
} nibkv_mutable_rows;

/* nibkv_append from such rows: the cache then holds what it would hold had the same numbers come as dense f32.
 *
 * count:   [1, max_chunk]
 * keys:    finite, for `count` tokens and kv_heads heads
 * values:  likewise; their type and strides may be others
 * Returns what nibkv_append does; NIBKV_BAD_ARGUMENT for null, also in the rows, for an unknown number, and for rows
 * that would reach beyond half of the address space, too. */
NIBKV_API nibkv_status nibkv_append_rows(nibkv_cache* cache, uint32_t layer, uint32_t count, const nibkv_rows* keys,
                                         const nibkv_rows* values);

/* How many more tokens every layer would take now before nibkv_append returns NIBKV_FULL. Under a bounded policy
 * that is what is left of 2^32 - 1 positions. 0 for a cache that is not ready. Cost: O(layers * kv_heads). */
NIBKV_API uint32_t nibkv_room(const nibkv_cache* cache);

/* The share of a thread in a call that several threads make together: the index-th of `of` shares, on `worker`. The
 * library divides the work evenly. All shares of a call may run at the same time on different workers, or in any order.
 * Bytes do not depend on their number. */
typedef struct nibkv_share {
  uint32_t index;  /* [0, of) */
  uint32_t of;     /* [1, 65536] */
  uint32_t worker; /* [0, workers) */
} nibkv_share;

/* Begins an append that threads divide: makes space for `count` tokens of `layer` as nibkv_append does, and takes their
 * slots, whose rows are zero until nibkv_append_share writes them. One thread calls it; then come the shares. All
 * layers may be reserved, one after the other, before the first of them is written. To give up, nibkv_truncate to the
 * tokens seen before.
 *
 * count:  [1, max_chunk]
 * Returns what nibkv_append does but for its rows. */
NIBKV_API nibkv_status nibkv_reserve(nibkv_cache* cache, uint32_t layer, uint32_t count);

/* Writes a share of the rows of the tokens for which nibkv_reserve took slots, the newest of the layer. Once all
 * shares are done, the cache holds what nibkv_append_rows of the same rows would have left.
 *
 * count, keys, values:  as for nibkv_append_rows; all rows are given, the share's are read
 * share:                not null
 * Returns NIBKV_NOT_READY; NIBKV_BAD_ARGUMENT as nibkv_append_rows does, for a share out of range, and where the
 * layer's newest tokens were not reserved by the last call of nibkv_reserve, or another function moved slots since. A
 * share that fails leaves its rows as they were, and can be repeated. */
NIBKV_API nibkv_status nibkv_append_share(nibkv_cache* cache, uint32_t layer, uint32_t count, const nibkv_rows* keys,
                                          const nibkv_rows* values, const nibkv_share* share);

/* The part of a layer that one call of nibkv_attend computes, and the worker whose scratch it uses. Parts of
 * one layer that do not overlap may run at the same time on different workers. The output bytes do not depend
 * on how a layer is divided. */
typedef struct nibkv_part {
  uint32_t first_head;  /* first KV head */
  uint32_t heads;       /* number of KV heads; 0: all from first_head on */
  uint32_t first_query; /* first of the `count` queries */
  uint32_t queries;     /* number of queries; 0: all from first_query on. Must be all `count` where attention is
                         * scored */
  uint32_t worker;      /* [0, workers) */
} nibkv_part;

/* Causal attention of the last `count` appended tokens over what the cache holds. A count of 1 is decoding, more
 * is prefill. out = softmax(q k / sqrt(head_dim)) v. Under NIBKV_KEEP_SCORE this adds the attention of these
 * queries to the scores of the slots, so the queries of each token must be passed exactly once.
 *
 * layer:    [0, layers)
 * count:    [1, max_chunk], and at most nibkv_held of every head in the part, nibkv_recalled not counted
 * queries:  finite, [count][query_heads][head_dim], after rotary embedding
 * out:      the same shape; only the heads and queries of the part are written
 * part:     null: the whole layer, on worker 0
 * Returns NIBKV_NOT_READY; NIBKV_BAD_ARGUMENT for a layer, count or part out of range, or a query of the part
 * that is not finite. Nothing is written unless NIBKV_OK.
 * Cost: O(count * query_heads * held * head_dim). */
NIBKV_API nibkv_status nibkv_attend(nibkv_cache* cache, uint32_t layer, uint32_t count, const float* queries,
                                    float* out, const nibkv_part* part);

/* nibkv_attend of such rows: `out` becomes what it would from the same numbers as dense f32, rounded to its type.
 *
 * count:    [1, max_chunk], and at most nibkv_held of every head in the part, nibkv_recalled not counted
 * queries:  finite, for `count` tokens and query_heads heads
 * out:      likewise; its type and strides may be others. It may not overlap `queries`
 * part:     null: the whole layer, on worker 0
 * Returns what nibkv_attend does, and NIBKV_BAD_ARGUMENT as nibkv_append_rows does and for `out` that
 * overlaps itself. */
NIBKV_API nibkv_status nibkv_attend_rows(nibkv_cache* cache, uint32_t layer, uint32_t count, const nibkv_rows* queries,
                                         const nibkv_mutable_rows* out, const nibkv_part* part);

/* The same with a mask: which of the call's own tokens, the last `count` appended, each query sees, instead of those up
 * to its own. For trees of draft tokens, and for spans whose tokens all see each other. Older slots are seen by all
 * queries. Where attention is scored, a query that does not see a slot counts as if it had given it none (attend.hpp
 * has bounds).
 *
 * mask:  [count][(count + 31) / 32]: bit j % 32 of word j / 32 of row i is set if query i sees token j of the call.
 *        Bits from `count` on are ignored. Each query of the part must see a slot
 * Returns what nibkv_attend_rows does; NIBKV_BAD_ARGUMENT for null and for a query that sees nothing, too. */
NIBKV_API nibkv_status nibkv_attend_masked(nibkv_cache* cache, uint32_t layer, uint32_t count,
                                           const nibkv_rows* queries, const uint32_t* mask,
                                           const nibkv_mutable_rows* out, const nibkv_part* part);

/* The same for draft tokens, which may go back (nibkv_truncate): no score counts their queries, and nothing in the
 * cache changes. Those that stay are appended and attended to once more, by then as tokens like any others.
 *
 * mask:  as above, or null: each query sees the tokens up to its own
 * part:  may have any of the queries, also where attention is scored
 * Returns what nibkv_attend_masked does. */
NIBKV_API nibkv_status nibkv_attend_drafts(nibkv_cache* cache, uint32_t layer, uint32_t count,
                                           const nibkv_rows* queries, const uint32_t* mask,
                                           const nibkv_mutable_rows* out, const nibkv_part* part);

/* Brings back from the store what the last appended tokens want to attend to (policy.log): after nibkv_append and
 * before nibkv_attend, for each layer. recall.hpp has the rest.
 *
 * count:    [1, max_chunk]
 * queries:  finite, [count][query_heads][head_dim], usually those of nibkv_attend
 * part:     as of nibkv_attend. Its queries share one choice: recall and attend for a few at a time find more
 * Returns NIBKV_NOT_READY; NIBKV_BAD_ARGUMENT as nibkv_attend. A page that cannot be had is no error, but counts as
 * one that is lost. */
NIBKV_API nibkv_status nibkv_recall(nibkv_cache* cache, uint32_t layer, uint32_t count, const float* queries,
                                    const nibkv_part* part);
/* The same for rows as nibkv_attend_rows has them. */
NIBKV_API nibkv_status nibkv_recall_rows(nibkv_cache* cache, uint32_t layer, uint32_t count, const nibkv_rows* queries,
                                         const nibkv_part* part);
/* Reads all pages that the log of a KV head should have, so that those which the store does not have are lost now, and
 * counted: after nibkv_restore, with a file that may be another one. Writes the scratch of worker 0.
 * Returns NIBKV_NOT_READY; NIBKV_BAD_ARGUMENT for indices out of range; NIBKV_OK for lost pages too.
 * Cost: that of reading policy.log / 32 pages. */
NIBKV_API nibkv_status nibkv_verify_log(nibkv_cache* cache, uint32_t layer, uint32_t kv_head);

/* What a token is, for NIBKV_BUDGET_RULES. Every token is ordinary that nibkv_classify was not told of; punctuation is
 * only punctuation and white space; special tokens are the model's own, such as those that begin a text or a turn. */
enum { NIBKV_TOKEN_ORDINARY = 0, NIBKV_TOKEN_PUNCTUATION = 1, NIBKV_TOKEN_SPECIAL = 2 };

/* Says what the newest `count` tokens are, in all layers and heads: to be called after the layers have appended them,
 * and before the next append.
 *
 * classes:  [count] of NIBKV_TOKEN_..., the newest token last; all must still be held (nibkv_oldest_reachable)
 * Returns NIBKV_NOT_READY; NIBKV_BAD_POLICY under a policy that reads no classes; NIBKV_BAD_ARGUMENT for null, a
 * class out of range, more tokens than that, or when layers have not seen the same tokens. The cache is unchanged
 * unless NIBKV_OK. */
NIBKV_API nibkv_status nibkv_classify(nibkv_cache* cache, const uint8_t* classes, size_t count);

/* How far the codes of a layer's keys move its logits: for each query head the expected root mean square, over the
 * slots held, of the error of q * k / sqrt(head_dim). Below 0.3 attention hardly changes; from 2 on the layer attends
 * to other tokens than the model means: precision.hpp says what helps.
 *
 * queries:  f32[query_heads][head_dim] of one token
 * errors:   f32[query_heads], written
 * Returns NIBKV_NOT_READY; NIBKV_BAD_ARGUMENT for null, a layer out of range, or numbers that are not finite. */
NIBKV_API nibkv_status nibkv_logit_errors(const nibkv_cache* cache, uint32_t layer, const float* queries,
                                          float* errors);

/* Whether nibkv_attend_share divides the heads of this cache: any codes, more than one worker, a policy that does not
 * score attention, and no reach. False for a cache that is not ready. */
NIBKV_API bool nibkv_divisible(const nibkv_cache* cache);

/* A share of the attention of the newest token. Heads are divided along the context too, at blocks of 512 slots, so
 * that a model with few KV heads decodes on many threads. After all shares of the layer, which a barrier of the
 * caller's must end, nibkv_combine_share writes the output, which has the bytes of nibkv_attend. Nothing else may be
 * called on the cache in between.
 *
 * query:  finite, for one token and query_heads heads; all rows are given, the share's are read
 * share:  not null
 * Returns NIBKV_NOT_READY; NIBKV_BAD_ARGUMENT where the cache is not divisible, for a layer or share out of range, for
 * a head without tokens, and for rows as nibkv_attend_rows does. */
NIBKV_API nibkv_status nibkv_attend_share(nibkv_cache* cache, uint32_t layer, const nibkv_rows* query,
                                          const nibkv_share* share);

/* Writes a share of the rows of the output, from what all shares of nibkv_attend_share have left. Each query head is
 * combined once: a second time, and without all those shares, it is refused.
 *
 * out:    for one token and query_heads heads; the share's rows are written
 * share:  not null
 * Returns NIBKV_NOT_READY; NIBKV_BAD_ARGUMENT as nibkv_attend_share does, and where shares of it are missing. Nothing
 * is written unless NIBKV_OK. */
NIBKV_API nibkv_status nibkv_combine_share(nibkv_cache* cache, uint32_t layer, const nibkv_mutable_rows* out,
                                           const nibkv_share* share);

/* What is known about one slot of a chain. score.hpp says how the scores are computed. */
typedef struct nibkv_slot {
  uint32_t position; /* position of the token: how many came before it */
  uint32_t global;   /* attention from all queries so far; 0 if the policy does not keep it */
  uint16_t local;    /* attention from the most recent queries; 0 if the policy does not keep it */
  uint8_t bias;      /* added to the slot's logit, in 1/16 octave, for what was merged into it; at most 32 */
  uint8_t merged;    /* number of slots merged into it, at most 255 */
} nibkv_slot;

/* Describes the slots of one chain, in position order. Where layers share codes, the folded slots come first,
 * in no order; then the sinks and the retained slots; then the others, in order.
 * Positions are exact under NIBKV_KEEP_SCORE, up to 65535 tokens after their tile's first (with a reach score.hpp says
 * what becomes of older ones). Other policies do not store them: they are those that the policy itself would leave,
 * which is wrong after a caller's own nibkv_compact, and UINT32_MAX for slots that folded or were retained.
 *
 * layer, kv_head:  in range
 * slots:           written
 * count:           nibkv_held(cache, layer, kv_head)
 * Returns NIBKV_NOT_READY; NIBKV_BAD_ARGUMENT for an index out of range or a wrong count. Cost: O(held). */
NIBKV_API nibkv_status nibkv_explain(const nibkv_cache* cache, uint32_t layer, uint32_t kv_head, nibkv_slot* slots,
                                     size_t count);

/* A plan is one array over the slots of a chain. target[i] is the new slot of slot i; or NIBKV_DROP; or
 * NIBKV_MEMBER plus the new slot of a kept slot, its centre, into which it is merged. The targets of kept slots
 * are 0, 1, 2, ... in slot order. A caller may print a plan, change it, or write one. */
#define NIBKV_DROP UINT32_C(0xffffffff)
/* Under policy.faint: of a slot that becomes or stays faint, which has no number; faint slots come first. plan.hpp. */
#define NIBKV_FAINT UINT32_C(0xfffffffe)
#define NIBKV_MEMBER UINT32_C(0x80000000)

/* Plans what the policy would do to one chain now to fit `incoming` more tokens into its budget. Changes nothing of
 * what the cache holds; it writes the arena's workspace.
 *
 * layer, kv_head:  in range
 * incoming:        tokens about to be appended, [0, max_chunk]
 * target:          written
 * count:           nibkv_held(cache, layer, kv_head)
 * Returns NIBKV_NOT_READY; NIBKV_BAD_ARGUMENT for an index or `incoming` out of range, for a wrong count, or when
 * two layers that share codes have not seen the same tokens.
 * Cost: O(held), and for a policy that merges O(candidates * held * head_dim). */
NIBKV_API nibkv_status nibkv_plan(nibkv_cache* cache, uint32_t layer, uint32_t kv_head, uint32_t incoming,
                                  uint32_t* target, size_t count);

/* Returns NIBKV_OK when `target` is a plan for a chain of `count` slots, else NIBKV_BAD_PLAN. Cost: O(count). */
NIBKV_API nibkv_status nibkv_check_plan(const uint32_t* target, size_t count);

/* Checks an arena for consistency: for tests, and for finding stray writes. Uses the scratch of worker 0.
 * Returns NIBKV_NOT_READY; NIBKV_CORRUPT at the first inconsistency. What the cache holds is unchanged.
 * Cost: O(tiles) for each pass; the scratch of one worker holds a bit for each tile that a pass covers. */
NIBKV_API nibkv_status nibkv_check(nibkv_cache* cache);

/* Carries out a plan on one chain, in place. If two layers share codes, a plan for either is carried out on both.
 *
 * layer, kv_head:  in range
 * count:           nibkv_held(cache, layer, kv_head)
 * Returns NIBKV_NOT_READY; NIBKV_BAD_ARGUMENT for an index out of range, or when two layers that share codes have
 * not seen the same tokens; NIBKV_BAD_PLAN for a plan of the wrong size or form, or one with members under
 * a policy that does not merge, and with a reach under a policy that does not store positions for one that would
 * change them. The cache is unchanged unless NIBKV_OK.
 * Cost: O(held + moved * head_dim), and O(head_dim log head_dim) for each slot that is merged. */
NIBKV_API nibkv_status nibkv_compact(nibkv_cache* cache, uint32_t layer, uint32_t kv_head, const uint32_t* target,
                                     size_t count);

/* Cuts every chain back now to its share of `tokens` a head: for a caller who holds a whole prompt and compresses
 * it once.
 *
 * tokens:  mean budget of a head, in (sinks + recent, policy.tokens]
 * how:     how heads share it, independent of policy.budget; except that TABLE is allowed only if policy.budget
 *          is TABLE, and then only TABLE and UNIFORM are
 * Returns NIBKV_NOT_READY; NIBKV_BAD_POLICY when the policy is not NIBKV_KEEP_SCORE, or for a `how` that does not
 * fit it: where layers share codes, anything but UNIFORM; NIBKV_BAD_PROFILE for SCORES without a profile;
 * NIBKV_BAD_ARGUMENT for tokens out of range, or when two layers that share codes have not seen the same tokens.
 * The cache is unchanged unless NIBKV_OK. Cost: that of nibkv_plan and nibkv_compact on every chain. */
NIBKV_API nibkv_status nibkv_compact_now(nibkv_cache* cache, uint32_t tokens, nibkv_budget how);

/* Makes space for `tokens` more tokens ahead of need, in small steps, for an engine with idle time between tokens. A
 * call cuts back at most one head, or, where heads compete for a layer's slots, one layer. With `tokens` of 1 after
 * each token, until it is done, single tokens give the same bytes as without it.
 *
 * tokens:  [1, max_chunk]: as many as the next append will bring
 * done:    written: whether there was nothing to do; otherwise call again
 * Returns NIBKV_NOT_READY; NIBKV_BAD_ARGUMENT for null, for tokens out of range, or when two layers that share codes
 * have not seen the same tokens. The cache is unchanged unless NIBKV_OK.
 * Cost: that of nibkv_plan and nibkv_compact on one head. */
NIBKV_API nibkv_status nibkv_tidy(nibkv_cache* cache, uint32_t tokens, bool* done);

/* Takes back the newest tokens: afterwards every layer has seen at most `seen` tokens. For an answer that is
 * generated again, an edited turn, or draft tokens that were rejected. Layers that have seen no more stay as they
 * are. The slots of the remaining tokens are as if the others had never come, if `seen` is at least
 * nibkv_oldest_exact; otherwise what making space for those has dropped, merged or folded stays so. Scores are not
 * taken back (truncate.hpp bounds what that does). The tokens of each layer's last append can always go back.
 *
 * seen:  [nibkv_oldest_reachable(cache), the largest nibkv_seen of a layer]
 * Returns NIBKV_NOT_READY; NIBKV_BAD_ARGUMENT when no layer has seen as many tokens; NIBKV_GONE below
 * nibkv_oldest_reachable. The cache is unchanged unless NIBKV_OK. Cost: O(tiles of the chains). */
NIBKV_API nibkv_status nibkv_truncate(nibkv_cache* cache, uint32_t seen);

/* The least `seen` that nibkv_truncate accepts: since then every token is still held by every head, in a slot of
 * its own into which nothing was merged. The least for which it is exact: since then no space was made; after
 * nibkv_restore, unless nothing was ever dropped, that is the number of tokens seen. Both are 0 for a cache
 * that is not ready. */
NIBKV_API uint32_t nibkv_oldest_reachable(const nibkv_cache* cache);
NIBKV_API uint32_t nibkv_oldest_exact(const nibkv_cache* cache);

/* Copies a conversation: `to` becomes a cache of the same shape, policy, profile and port that holds the same bytes
 * in its own arena.
 *
 * arena:        at least nibkv_usage_now(from).arena_bytes, starting at a multiple of NIBKV_ARENA_ALIGNMENT, apart
 *               from that of `from`; must outlive `to`
 * arena_bytes:  its size
 * to:           may be any handle; becomes that of `arena`
 * Returns NIBKV_NOT_READY for `from`; NIBKV_BAD_ARGUMENT for null, when the arenas overlap, and for a cache with a
 * log; NIBKV_MISALIGNED; NIBKV_ARENA_TOO_SMALL. Neither `to` nor the arena is changed unless NIBKV_OK.
 * Cost: O(footprint). No other call on `from` may run meanwhile. */
NIBKV_API nibkv_status nibkv_clone(const nibkv_cache* from, void* arena, size_t arena_bytes, nibkv_cache* to);
/* The same for a cache with a log (policy.log), whose pages are copied to a store for `to`. One that cannot be read or
 * written is lost in `to`, and counted there.
 *
 * store:  of nibkv_cold_bytes in another place than that of `from`, since both write; must outlive `to`; may have
 *         another identity. Not used without a log
 * Returns what nibkv_clone returns; NIBKV_BAD_ARGUMENT for a log without a store that has both functions, or with that
 * of `from`: the same context and write. Cost: O(footprint), and that of reading and writing the log. */
NIBKV_API nibkv_status nibkv_clone_with_store(const nibkv_cache* from, void* arena, size_t arena_bytes,
                                              const nibkv_cold_store* store, nibkv_cache* to);

/* Carries a conversation over to a cache of another budget, max_chunk, number of workers, or policy: replaces what
 * `to` holds with what `from` holds, rows as they are coded. Heads that hold more than `to` has space for are cut
 * back to its budget by its own policy, by the scores that `from` keeps (move.hpp says what one policy keeps of
 * what another knew, and where the slots of tiers come).
 *
 * from:  all layers have seen the same tokens; stays as it is
 * to:    in another arena, of the same layers, heads, head_dim, outlier channels and storage, with the same profile.
 *        Neither may share codes between layers, and both have the same wide layers
 * Returns NIBKV_NOT_READY; NIBKV_BAD_ARGUMENT when both are in one arena, or when layers of `from` have not seen the
 * same tokens; NIBKV_OTHER_SHAPE; NIBKV_OTHER_PROFILE; NIBKV_OTHER_POLICY when layers share codes, others are wide, or
 * with a reach when `to` could not know the positions (move.hpp); NIBKV_FULL when
 * `to` keeps everything and has too few tiles. Neither cache is changed unless NIBKV_OK.
 * Cost: O(held * head_dim), and that of nibkv_plan and nibkv_compact for each tile beyond the budget. */
NIBKV_API nibkv_status nibkv_move_to(const nibkv_cache* from, nibkv_cache* to);

/* Snapshots: what a cache holds, in few bytes and without pointers, for any port and CPU. See snapshot.hpp. */

/* Every call of a sink but the last passes exactly this many bytes. A call of a source asks for at most this many. */
#define NIBKV_SNAPSHOT_CHUNK 512

/* Where a snapshot is written, piece by piece. write returns false to give up. */
typedef struct nibkv_sink {
  bool (*write)(void* context, const void* bytes, size_t count);
  void* context;
} nibkv_sink;

/* Where a snapshot is read from. read copies bytes [offset, offset + count) of it, which lie within `bytes`, to
 * `to`, and returns false when they cannot be read. nibkv_restore and nibkv_import_snapshot_from read it in three
 * passes, nibkv_inspect in one; offsets mostly rise within a pass. */
typedef struct nibkv_source {
  bool (*read)(void* context, uint64_t offset, void* to, size_t count);
  void* context;
  uint64_t bytes; /* size of the source; anything after the snapshot is ignored */
} nibkv_source;

/* What is saved with the cache, under the same checksum. */
typedef struct nibkv_note {
  uint32_t sequence; /* any number */
  const void* note;  /* the caller's own bytes; null: none */
  size_t note_bytes; /* their number */
} nibkv_note;

/* What the header of a whole snapshot says. */
typedef struct nibkv_snapshot_info {
  uint64_t bytes;       /* size of the whole snapshot */
  uint64_t note_offset; /* where the caller's own bytes begin */
  uint64_t note_bytes;
  uint32_t sequence;
} nibkv_snapshot_info;

/* The size in bytes of the largest snapshot of a cache of this shape and policy; 0 for null, and if the footprint
 * is 0. */
static inline uint64_t nibkv_most_snapshot_bytes(const nibkv_shape* shape, const nibkv_policy* policy,
                                                 uint64_t note_bytes);

/* The bytes that nibkv_save would write now; 0 for a cache that is not ready. */
NIBKV_API uint64_t nibkv_snapshot_bytes(const nibkv_cache* cache, uint64_t note_bytes);

/* Writes a snapshot to the first nibkv_snapshot_bytes(cache, note->note_bytes) of `bytes`.
 *
 * bytes:  at any address
 * count:  its size
 * note:   null: none
 * Returns NIBKV_NOT_READY; NIBKV_BAD_ARGUMENT for null, for a note of null with a size above 0, and when `bytes` is
 * too short. Nothing is written unless NIBKV_OK, and the cache is not changed. Cost: O(bytes). */
NIBKV_API nibkv_status nibkv_save(const nibkv_cache* cache, void* bytes, size_t count, const nibkv_note* note);

/* Writes a snapshot to a sink. It is whole once the last byte is written.
 * Returns NIBKV_NOT_READY; NIBKV_BAD_ARGUMENT for null, for a sink without a function, and for a note of null with
 * a size above 0; NIBKV_STORAGE_FAILED when the sink gave up. */
NIBKV_API nibkv_status nibkv_save_to(const nibkv_cache* cache, const nibkv_sink* sink, const nibkv_note* note);

/* Reads a whole snapshot and compares its checksums; needs no cache.
 * Returns NIBKV_BAD_ARGUMENT for null and for a source without a function; NIBKV_STORAGE_FAILED;
 * NIBKV_BAD_SNAPSHOT; NIBKV_NEWER_SNAPSHOT. `info` is written only on NIBKV_OK. Cost: O(bytes). */
NIBKV_API nibkv_status nibkv_inspect(const void* bytes, size_t count, nibkv_snapshot_info* info);
NIBKV_API nibkv_status nibkv_inspect_from(const nibkv_source* source, nibkv_snapshot_info* info);

/* Replaces what a cache holds with what was saved. Everything is checked before the first write to the arena.
 *
 * cache:  of the same shape, policy, budgets and profile as the saved one, on any port. The number of workers may
 *         differ, unless layers share codes with one number and not with the other. shape.rotary matters only if the
 *         policy reads it or it has a reach
 * Returns NIBKV_NOT_READY; NIBKV_BAD_ARGUMENT for null and for a source without a function; NIBKV_STORAGE_FAILED;
 * NIBKV_BAD_SNAPSHOT: not a snapshot, truncated, or with a wrong checksum;
 * NIBKV_NEWER_SNAPSHOT: of a version of the format that this library does not know, older ones included;
 * NIBKV_OTHER_SHAPE, NIBKV_OTHER_POLICY, NIBKV_OTHER_PROFILE: of a cache with another shape, policy or profile.
 * NIBKV_OTHER_POLICY also for other budgets, and when layers share codes in only one of the two caches;
 * NIBKV_OTHER_STORE: of a cache whose log has another identity (nibkv_cold_store). Its pages stay in the store: those
 * that are not there any more are found when they are wanted, or by nibkv_verify_log, and are lost then;
 * NIBKV_CORRUPT: the checksums are right, but the content is something that no cache can hold.
 * The cache is unchanged unless NIBKV_OK, with one exception: NIBKV_LOST, when a nibkv_source returned other bytes,
 * or none, in its last pass. The cache is empty then. Cost: O(bytes). Uses the scratch of worker 0. */
NIBKV_API nibkv_status nibkv_restore(nibkv_cache* cache, const void* bytes, size_t count);
NIBKV_API nibkv_status nibkv_restore_from(nibkv_cache* cache, const nibkv_source* source);

/* Does nibkv_restore into a cache of another budget, max_chunk, number of workers, or policy: replaces what it holds
 * with what was saved, and cuts that back to what it has space for. For an app that has to give back memory (it saves,
 * frees its arena, and goes on in a smaller one), and for a conversation that goes on on another device. The arena of
 * `cache` is all the memory that it takes. The bytes are those of nibkv_restore into a cache of the saved one's policy,
 * and nibkv_move_to from there.
 *
 * cache:          of the same layers, heads, head_dim, outlier channels, storage and profile as the saved one
 * shape, policy:  of the saved cache: a snapshot has fingerprints of them, not the numbers. Neither policy may share
 *                 codes between layers
 * Returns what nibkv_restore returns; NIBKV_BAD_ARGUMENT also for null, and when layers of the saved cache had not seen
 * the same tokens; NIBKV_BAD_SHAPE, NIBKV_BAD_POLICY: no cache can have that shape or policy; NIBKV_OTHER_SHAPE,
 * NIBKV_OTHER_POLICY: the snapshot is not of a cache of `shape` and `policy`, or they and `cache` do not go together as
 * above; NIBKV_FULL when `cache` keeps everything and has too few tiles. The cache is unchanged unless NIBKV_OK, apart
 * from NIBKV_LOST as of nibkv_restore. Cost: O(bytes), and that of nibkv_plan and nibkv_compact for each tile beyond
 * the budget. Uses the scratch of worker 0. */
static inline nibkv_status nibkv_import_snapshot(nibkv_cache* cache, const nibkv_shape* shape,
                                                 const nibkv_policy* policy, const void* bytes, size_t count);
static inline nibkv_status nibkv_import_snapshot_from(nibkv_cache* cache, const nibkv_shape* shape,
                                                      const nibkv_policy* policy, const nibkv_source* source);

/* Two places for snapshots: files, sectors of flash, regions of FRAM. One of them stays whole whatever happens while
 * the other is written. A power cut after any byte costs the snapshot that was being saved, never the one before.
 * nibkv_save_to_banks writes to the place that does not hold the newest whole snapshot; nibkv_restore_from_banks
 * reads the newest whole one. A bank that cannot be read counts as one without a whole snapshot. The functions return
 * false when they fail. */
typedef struct nibkv_banks {
  /* Copies bytes [offset, offset + count) of bank 0 or 1, which lie within the bank, to `to`. */
  bool (*read)(void* context, uint32_t bank, uint64_t offset, void* to, size_t count);
  /* Writes to a bank. Offsets rise from 0 without gaps; every piece but the last has NIBKV_SNAPSHOT_CHUNK bytes. */
  bool (*write)(void* context, uint32_t bank, uint64_t offset, const void* bytes, size_t count);
  /* Prepares a bank to be written from its start; null if nothing has to be done. */
  bool (*erase)(void* context, uint32_t bank);
  void* context;
  uint64_t bytes; /* size of each bank; nibkv_most_snapshot_bytes is always enough */
} nibkv_banks;

/* Finds the newest whole snapshot, whatever cache it is of: the one with the larger sequence number, which may wrap.
 *
 * bank, info:  written only on NIBKV_OK
 * Returns NIBKV_BAD_ARGUMENT for null and without a read function; when no bank is whole, NIBKV_STORAGE_FAILED if one
 * could not be read, else NIBKV_NEWER_SNAPSHOT if one has another version, else NIBKV_BAD_SNAPSHOT.
 * Cost: reads both banks. */
NIBKV_API nibkv_status nibkv_newest_bank(const nibkv_banks* banks, uint32_t* bank, nibkv_snapshot_info* info);

/* Saves into the bank that does not hold the newest whole snapshot; into bank 0 when there is none.
 *
 * note:        the caller's own bytes, saved with the rest; null: none
 * note_bytes:  their number
 * Returns NIBKV_NOT_READY; NIBKV_BAD_ARGUMENT for null, when read or write is missing, or when a bank is too small:
 * nothing is written then; NIBKV_STORAGE_FAILED: the newest snapshot is still the same as before. */
NIBKV_API nibkv_status nibkv_save_to_banks(const nibkv_cache* cache, const nibkv_banks* banks, const void* note,
                                           size_t note_bytes);

/* Does nibkv_restore from the newest whole snapshot.
 * Returns what nibkv_newest_bank and nibkv_restore return. */
NIBKV_API nibkv_status nibkv_restore_from_banks(nibkv_cache* cache, const nibkv_banks* banks);

/* Structs that later versions may add fields to, at their ends: nibkv_shape, nibkv_policy and nibkv_options. The
 * functions that take them are inline: they pass the sizes that a program was compiled with to the library, so that it
 * runs with a later shared library too. Fields that it does not know are 0, which means what the library did without
 * them; what the library does not know must be 0. A binding from a language without this header calls the functions
 * whose names end in _sized, with the sizes of its own structs. All other structs stay as they are.
 * Returns of the _sized functions, beside those of the others: NIBKV_BAD_ARGUMENT, or 0 where a number is returned, for
 * null `sizes`, for a size below that of version 0.1, and for bytes beyond what the library knows that are not 0. */
typedef struct nibkv_sizes {
  size_t shape;
  size_t policy;
  size_t options;
} nibkv_sizes;
#define NIBKV_SIZES \
  { sizeof(nibkv_shape), sizeof(nibkv_policy), sizeof(nibkv_options) }
NIBKV_API nibkv_status nibkv_find_policy_sized(const char* name, uint32_t tokens, nibkv_policy* policy,
                                               const nibkv_sizes* sizes);
NIBKV_API size_t nibkv_footprint_sized(const nibkv_shape* shape, const nibkv_policy* policy, const nibkv_sizes* sizes);
NIBKV_API uint64_t nibkv_cold_bytes_sized(const nibkv_shape* shape, const nibkv_policy* policy,
                                          const nibkv_sizes* sizes);
NIBKV_API uint32_t nibkv_preset_tokens_that_fit_sized(const nibkv_shape* shape, const char* preset, uint64_t bytes,
                                                      const nibkv_sizes* sizes);
NIBKV_API uint32_t nibkv_tokens_that_fit_sized(const nibkv_shape* shape, const nibkv_policy* policy, uint64_t bytes,
                                               const nibkv_sizes* sizes);
NIBKV_API size_t nibkv_preset_smallest_footprint_sized(const nibkv_shape* shape, const char* preset,
                                                       const nibkv_sizes* sizes);
NIBKV_API size_t nibkv_smallest_footprint_sized(const nibkv_shape* shape, const nibkv_policy* policy,
                                                const nibkv_sizes* sizes);
NIBKV_API nibkv_status nibkv_fold_pairs_sized(const nibkv_shape* shape, nibkv_policy* policy, const void* profile,
                                              size_t profile_bytes, uint32_t start_layer, const nibkv_sizes* sizes);
NIBKV_API nibkv_status nibkv_init_sized(nibkv_cache* cache, void* arena, size_t arena_bytes, const nibkv_shape* shape,
                                        const nibkv_policy* policy, const nibkv_options* options,
                                        const nibkv_sizes* sizes);
NIBKV_API uint64_t nibkv_most_snapshot_bytes_sized(const nibkv_shape* shape, const nibkv_policy* policy,
                                                   uint64_t note_bytes, const nibkv_sizes* sizes);
NIBKV_API nibkv_status nibkv_import_snapshot_sized(nibkv_cache* cache, const nibkv_shape* shape,
                                                   const nibkv_policy* policy, const void* bytes, size_t count,
                                                   const nibkv_sizes* sizes);
NIBKV_API nibkv_status nibkv_import_snapshot_from_sized(nibkv_cache* cache, const nibkv_shape* shape,
                                                        const nibkv_policy* policy, const nibkv_source* source,
                                                        const nibkv_sizes* sizes);

static inline nibkv_status nibkv_find_policy(const char* name, uint32_t tokens, nibkv_policy* policy) {
  const nibkv_sizes sizes = NIBKV_SIZES;
  return nibkv_find_policy_sized(name, tokens, policy, &sizes);
}
static inline size_t nibkv_footprint(const nibkv_shape* shape, const nibkv_policy* policy) {
  const nibkv_sizes sizes = NIBKV_SIZES;
  return nibkv_footprint_sized(shape, policy, &sizes);
}
static inline uint64_t nibkv_cold_bytes(const nibkv_shape* shape, const nibkv_policy* policy) {
  const nibkv_sizes sizes = NIBKV_SIZES;
  return nibkv_cold_bytes_sized(shape, policy, &sizes);
}
static inline uint32_t nibkv_preset_tokens_that_fit(const nibkv_shape* shape, const char* preset, uint64_t bytes) {
  const nibkv_sizes sizes = NIBKV_SIZES;
  return nibkv_preset_tokens_that_fit_sized(shape, preset, bytes, &sizes);
}
static inline uint32_t nibkv_tokens_that_fit(const nibkv_shape* shape, const nibkv_policy* policy, uint64_t bytes) {
  const nibkv_sizes sizes = NIBKV_SIZES;
  return nibkv_tokens_that_fit_sized(shape, policy, bytes, &sizes);
}
static inline size_t nibkv_preset_smallest_footprint(const nibkv_shape* shape, const char* preset) {
  const nibkv_sizes sizes = NIBKV_SIZES;
  return nibkv_preset_smallest_footprint_sized(shape, preset, &sizes);
}
static inline size_t nibkv_smallest_footprint(const nibkv_shape* shape, const nibkv_policy* policy) {
  const nibkv_sizes sizes = NIBKV_SIZES;
  return nibkv_smallest_footprint_sized(shape, policy, &sizes);
}
static inline nibkv_status nibkv_fold_pairs(const nibkv_shape* shape, nibkv_policy* policy, const void* profile,
                                            size_t profile_bytes, uint32_t start_layer) {
  const nibkv_sizes sizes = NIBKV_SIZES;
  return nibkv_fold_pairs_sized(shape, policy, profile, profile_bytes, start_layer, &sizes);
}
static inline nibkv_status nibkv_init(nibkv_cache* cache, void* arena, size_t arena_bytes, const nibkv_shape* shape,
                                      const nibkv_policy* policy, const nibkv_options* options) {
  const nibkv_sizes sizes = NIBKV_SIZES;
  return nibkv_init_sized(cache, arena, arena_bytes, shape, policy, options, &sizes);
}
static inline uint64_t nibkv_most_snapshot_bytes(const nibkv_shape* shape, const nibkv_policy* policy,
                                                 uint64_t note_bytes) {
  const nibkv_sizes sizes = NIBKV_SIZES;
  return nibkv_most_snapshot_bytes_sized(shape, policy, note_bytes, &sizes);
}
static inline nibkv_status nibkv_import_snapshot(nibkv_cache* cache, const nibkv_shape* shape,
                                                 const nibkv_policy* policy, const void* bytes, size_t count) {
  const nibkv_sizes sizes = NIBKV_SIZES;
  return nibkv_import_snapshot_sized(cache, shape, policy, bytes, count, &sizes);
}
static inline nibkv_status nibkv_import_snapshot_from(nibkv_cache* cache, const nibkv_shape* shape,
                                                      const nibkv_policy* policy, const nibkv_source* source) {
  const nibkv_sizes sizes = NIBKV_SIZES;
  return nibkv_import_snapshot_from_sized(cache, shape, policy, source, &sizes);
}

/* The tokens that a KV head holds now, and its budget in tokens. 0 for indices out of range, and for a cache that is
 * not ready. */
NIBKV_API uint32_t nibkv_held(const nibkv_cache* cache, uint32_t layer, uint32_t kv_head);
NIBKV_API uint32_t nibkv_head_budget(const nibkv_cache* cache, uint32_t layer, uint32_t kv_head);
/* The tokens from which a layer has measured its keys (NIBKV_BASIS_MEASURED); 0 if it has not, and as above. */
NIBKV_API uint32_t nibkv_measured(const nibkv_cache* cache, uint32_t layer);
/* The number of tokens ever appended to a layer, which is the position of its next token. 0 as above. */
NIBKV_API uint32_t nibkv_seen(const nibkv_cache* cache, uint32_t layer);

/* What an arena holds at this moment. */
typedef struct nibkv_usage {
  size_t arena_bytes; /* the footprint */
  size_t used_bytes;  /* codes, side data and links of the tiles and shared entries in use, plus all chains */
  size_t peak_bytes;  /* the largest used_bytes so far */
  uint32_t tiles;     /* tiles of the pool, not counting the entries that layers share */
  uint32_t used_tiles;
  uint32_t peak_tiles;
  uint32_t drowned_rows; /* appended keys and values of which one channel's error drowns all others */
} nibkv_usage;

/* Zeros for a cache that is not ready. */
NIBKV_API nibkv_usage nibkv_usage_now(const nibkv_cache* cache);

/* What went to the store of a log and came back, since nibkv_init or nibkv_clear. */
typedef struct nibkv_recall_usage {
  uint32_t written_pages;
  uint32_t read_pages;
  uint32_t lost_pages;      /* not written, or not read as they were written */
  uint32_t forgotten_pages; /* whose place a later one took, since the log was full */
  uint64_t chosen_tokens;   /* by all calls of nibkv_recall */
  uint64_t found_tokens;    /* those of them that were there already */
} nibkv_recall_usage;

/* Zeros for a cache that is not ready, and without a log. */
NIBKV_API nibkv_recall_usage nibkv_recall_usage_now(const nibkv_cache* cache);
/* Those of the tokens that a KV head holds which were recalled. 0 likewise, and out of range. */
NIBKV_API uint32_t nibkv_recalled(const nibkv_cache* cache, uint32_t layer, uint32_t kv_head);

/* The name of the port in use; null for a cache that is not ready. */
NIBKV_API const char* nibkv_port(const nibkv_cache* cache);
/* The names of the built ports, fastest first: index 0, 1, ...; null past the end. */
NIBKV_API const char* nibkv_port_name(uint32_t index);
/* True when this CPU can run the built port of that name. */
NIBKV_API bool nibkv_port_runs(const char* name);

/* The footprint as an integer constant expression, for static arrays, of each preset with its default parameters:
 *
 *     NIBKV_FOOTPRINT_EMS(tokens,
 *                         layers, query_heads, kv_heads, head_dim, outlier_channels, max_chunk, workers, storage)
 *
 * The last eight are the first eight fields of nibkv_shape in their order, so one macro can stand for them both there
 * and in the initialiser of a nibkv_shape. For a shape and policy in range the value, a uint64_t, equals
 * nibkv_footprint, even where memory could not hold it; but where a worker's scratch would be 4 GiB or more
 * nibkv_footprint is 0. Ranges are not checked here; nibkv_init checks them.
 *
 * With shape.rotary.reach set, add NIBKV_FOOTPRINT_REACH(of the same eight): the sum is at least nibkv_footprint.
 * With NIBKV_BASIS_MEASURED, add NIBKV_FOOTPRINT_MEASURED(of the same eight): the sum is at least nibkv_footprint.
 * With wider codes, add NIBKV_FOOTPRINT_WIDE(how many layers policy.wide names, wide_first, wide_storage, tokens,
 * keep: 0, 1 or 2 as NIBKV_KEEP_ALL, ..., the same eight); with a tail the sum is at least nibkv_footprint. */
#define NIBKV_FOOTPRINT_WIDE(wide_layers, wide_first, wide_storage, tokens, keep, ...) \
  NIBKV_FOOTPRINT_WIDE_(wide_layers, wide_first, wide_storage, tokens, keep, __VA_ARGS__)
#define NIBKV_FOOTPRINT_WIDE_(wide_layers, wide_first, wide_storage, tokens, keep, layers, query_heads, kv_heads, \
                              head_dim, outlier_channels, max_chunk, workers, storage)                            \
  (((wide_layers)*NIBKV_TILES_OF_HEAD_(tokens, keep, max_chunk) +                                                 \
    ((wide_first) ? UINT64_C(1) * (layers) - (wide_layers) : UINT64_C(0))) *                                      \
   (kv_heads)*4 * (head_dim) * (NIBKV_BITS_(wide_storage) - NIBKV_BITS_(storage)))
#define NIBKV_FOOTPRINT_MEASURED(...) NIBKV_FOOTPRINT_MEASURED_(__VA_ARGS__)
#define NIBKV_FOOTPRINT_MEASURED_(layers, query_heads, kv_heads, head_dim, outlier_channels, max_chunk, workers, \
                                  storage)                                                                       \
  NIBKV_ROUND_(NIBKV_HEADS_(layers, kv_heads) * (52 + 2 * (head_dim)))
#define NIBKV_FOOTPRINT_FULL(tokens, ...) NIBKV_FOOTPRINT(__VA_ARGS__, tokens, 0, 0, 0, 0, 1)
#define NIBKV_FOOTPRINT_STREAMING_LLM(tokens, ...) NIBKV_FOOTPRINT(__VA_ARGS__, tokens, 1, 0, 0, 0, 1)
#define NIBKV_FOOTPRINT_EMS(tokens, ...) NIBKV_EMS_(tokens, 1, __VA_ARGS__)
#define NIBKV_FOOTPRINT_EMS_NO_MERGE(tokens, ...) NIBKV_EMS_(tokens, 0, __VA_ARGS__)
#define NIBKV_EMS_TAIL_FROM 640 /* tokens */
#define NIBKV_EMS_(tokens, merge, ...)                           \
  ((tokens) < NIBKV_EMS_TAIL_FROM                                \
       ? NIBKV_FOOTPRINT(__VA_ARGS__, tokens, 2, 1, 1, merge, 4) \
       : NIBKV_FOOTPRINT_TIERS(__VA_ARGS__, tokens, 2, 1, 1, merge, 4, 1, NIBKV_Q8, 0, NIBKV_Q2))
#define NIBKV_FOOTPRINT_H2O(tokens, ...) NIBKV_FOOTPRINT(__VA_ARGS__, tokens, 2, 1, 0, 0, 1)
#define NIBKV_FOOTPRINT_TOVA(tokens, ...) NIBKV_FOOTPRINT(__VA_ARGS__, tokens, 2, 0, 1, 0, 1)
#define NIBKV_FOOTPRINT_SNAPKV(tokens, ...) NIBKV_FOOTPRINT(__VA_ARGS__, tokens, 2, 0, 1, 0, 1)
#define NIBKV_FOOTPRINT_L2_NORM(tokens, ...) NIBKV_FOOTPRINT(__VA_ARGS__, tokens, 2, 0, 0, 0, 1)
#define NIBKV_FOOTPRINT_PYRAMID_KV(tokens, ...) NIBKV_FOOTPRINT(__VA_ARGS__, tokens, 2, 0, 1, 0, 4)
#define NIBKV_FOOTPRINT_ADA_KV(tokens, ...) NIBKV_FOOTPRINT(__VA_ARGS__, tokens, 2, 0, 1, 0, 4)
#define NIBKV_FOOTPRINT_HEAD_KV(tokens, ...) NIBKV_FOOTPRINT(__VA_ARGS__, tokens, 2, 0, 1, 0, 4)
#define NIBKV_FOOTPRINT_PREFIX_KV(tokens, ...) NIBKV_FOOTPRINT(__VA_ARGS__, tokens, 2, 1, 0, 0, 4)
#define NIBKV_FOOTPRINT_DUO(tokens, ...) NIBKV_FOOTPRINT(__VA_ARGS__, tokens, 1, 0, 0, 0, 8)
#define NIBKV_FOOTPRINT_FAST_GEN(tokens, ...) NIBKV_FOOTPRINT_RULES(__VA_ARGS__, tokens, 2, 1, 0, 0, 4)
#define NIBKV_FOOTPRINT_PRECISE_TAIL(tokens, ...)                                                            \
  (NIBKV_FITTING_TAIL_(tokens, 64) != 0                                                                      \
       ? NIBKV_FOOTPRINT_TIERS(__VA_ARGS__, tokens, 0, 0, 0, 0, 1, NIBKV_FITTING_TAIL_(tokens, 64), 2, 0, 5) \
       : NIBKV_FOOTPRINT_FULL(tokens, __VA_ARGS__))
#define NIBKV_FOOTPRINT_QPRUNING(tokens, ...)                                                                       \
  (NIBKV_FITTING_TAIL_(tokens, 32) != 0                                                                             \
       ? NIBKV_FOOTPRINT_TIERS(__VA_ARGS__, tokens, 2, 0, 1, 0, 1, 32, 2,                                           \
                               (64 + ((tokens)-1) / 64 * 32 <= (tokens) ? ((tokens)-1) / 64 * 32 : UINT64_C(0)), 5) \
       : NIBKV_FOOTPRINT_SNAPKV(tokens, __VA_ARGS__))
#define NIBKV_FOOTPRINT_RECALL(tokens, ...)                                                              \
  ((tokens) < 64 ? NIBKV_FOOTPRINT_STREAMING_LLM(tokens, __VA_ARGS__)                                    \
                 : NIBKV_FOOTPRINT_LOG(__VA_ARGS__, tokens, NIBKV_LEAST_((tokens)*UINT64_C(8), 1 << 24), \
                                       (tokens)*UINT64_C(3) / 128 * 32, 86))
#define NIBKV_FITTING_TAIL_(tokens, wanted) \
  ((tokens) <= 32 ? UINT64_C(0) : NIBKV_LEAST_(UINT64_C(wanted), ((tokens)-UINT64_C(32)) / 32 * 32))
#define NIBKV_FOOTPRINT_MINICACHE(tokens, ...) NIBKV_FOOTPRINT_FULL(tokens, __VA_ARGS__)
#define NIBKV_FOOTPRINT_EMS_FOLD(tokens, ...) NIBKV_FOOTPRINT(__VA_ARGS__, tokens, 2, 1, 1, 1, 1)

#define NIBKV_FOOTPRINT_REACH(...) NIBKV_FOOTPRINT_REACH_(__VA_ARGS__)
#define NIBKV_FOOTPRINT_REACH_(layers, query_heads, kv_heads, head_dim, outlier_channels, max_chunk, workers, storage) \
  NIBKV_ROUND_((workers)*NIBKV_ROUND_(4 * (NIBKV_ROWS_((query_heads) / (kv_heads)*UINT64_C(1) * (max_chunk)) *         \
                                               (UINT64_C(20) + (head_dim) + (outlier_channels)) +                      \
                                           15)))

/* The footprint of a policy of your own. keep: 0, 1, 2 as NIBKV_KEEP_ALL, ...; the next three are 0 or 1, and 0 unless
 * keep is 2. global: score is GLOBAL_LOCAL or GLOBAL; local: it is GLOBAL_LOCAL or LOCAL; merge: not
 * MERGE_NONE, and 2 with position_free; most: 1 for BUDGET_UNIFORM, else policy.most (0: 4). NIBKV_FOOTPRINT_RULES is
 * the same for BUDGET_RULES, NIBKV_FOOTPRINT_TIERS (four more) where there is a tail. layout_of in arena.hpp has the
 * same in readable form. */
#define NIBKV_FOOTPRINT(...) NIBKV_FOOTPRINT_(__VA_ARGS__, 0)
#define NIBKV_FOOTPRINT_RULES(...) NIBKV_FOOTPRINT_(__VA_ARGS__, 1)
#define NIBKV_FOOTPRINT_(layers, query_heads, kv_heads, head_dim, outlier_channels, max_chunk, workers, storage,       \
                         tokens, keep, global, local, merge, most, rules)                                              \
  (NIBKV_ROUND_(64) + NIBKV_LAYOUT_ + NIBKV_ROUND_(NIBKV_HEADS_(layers, kv_heads) * 36) +                              \
   NIBKV_ROUND_(NIBKV_TILES_(layers, kv_heads, tokens, keep, max_chunk) * 4) * ((keep) == 2 ? 2 : 1) +                 \
   NIBKV_ROUND_(NIBKV_TILES_(layers, kv_heads, tokens, keep, max_chunk) *                                              \
                ((storage) != 1 ? 32 * (UINT64_C(4) + (outlier_channels) + ((keep) == 2 ? 2 : 0) + 4 * (global) +      \
                                        2 * (local) + ((merge) ? 2 : 0) + (rules))                                     \
                                : UINT64_C(0))) +                                                                      \
   NIBKV_ROUND_(NIBKV_TILES_(layers, kv_heads, tokens, keep, max_chunk) * 4 * (head_dim)*NIBKV_BITS_(storage)) +       \
   NIBKV_MOST_(                                                                                                        \
       NIBKV_WORKSPACE_(head_dim, storage, keep, merge,                                                                \
                        NIBKV_CHAIN_TILES_(layers, kv_heads, tokens, keep, max_chunk, most)),                          \
       NIBKV_ROUND_(                                                                                                   \
           (workers)*NIBKV_SCRATCH_(NIBKV_ROWS_((query_heads) / (kv_heads)*UINT64_C(1) * (max_chunk)), head_dim,       \
                                    outlier_channels, storage, (global) || (local),                                    \
                                    NIBKV_CHAIN_TILES_(layers, kv_heads, tokens, keep, max_chunk, most),               \
                                    NIBKV_PAIRS_(query_heads, kv_heads, max_chunk, tokens, keep,                       \
                                                 NIBKV_CHAIN_TILES_(layers, kv_heads, tokens, keep, max_chunk, most)), \
                                    workers) +                                                                         \
           NIBKV_PARTIALS_(query_heads, head_dim, storage, (global) || (local),                                        \
                           NIBKV_CHAIN_TILES_(layers, kv_heads, tokens, keep, max_chunk, most), workers))))
/* The same with a tail, and with faint slots or not (policy.tail, tail_storage, faint, faint_storage). */
#define NIBKV_FOOTPRINT_TIERS(...) NIBKV_FOOTPRINT_TIERS_(__VA_ARGS__)
#define NIBKV_FOOTPRINT_TIERS_(layers, query_heads, kv_heads, head_dim, outlier_channels, max_chunk, workers, storage, \
                               tokens, keep, global, local, merge, most, tail, tail_storage, faint, faint_storage)     \
  NIBKV_OF_TIERS_(layers, query_heads, kv_heads, head_dim, outlier_channels, max_chunk, workers, storage, tokens,      \
                  keep, global, local, merge, most, tail, tail_storage, faint, faint_storage,                          \
                  ((tokens) - (tail) - (faint) + UINT64_C(31)) / 32, ((tail) + (max_chunk) + UINT64_C(62)) / 32,       \
                  (faint) / UINT64_C(32))
#define NIBKV_OF_TIERS_(layers, query_heads, kv_heads, head_dim, outlier_channels, max_chunk, workers, storage,       \
                        tokens, keep, global, local, merge, most, tail, tail_storage, faint, faint_storage,           \
                        kept_tiles, tail_tiles, faint_tiles)                                                          \
  NIBKV_OF_LISTS_(layers, query_heads, kv_heads, head_dim, outlier_channels, max_chunk, workers, storage, keep,       \
                  global, local, merge, tail_storage, faint, faint_storage, kept_tiles, tail_tiles, faint_tiles,      \
                  ((kept_tiles) + (tail_tiles) + (faint_tiles)),                                                      \
                  (NIBKV_LEAST_(((tokens) + UINT64_C(31)) / 32 * ((most) == 0 ? UINT64_C(4) : UINT64_C(1) * (most)) - \
                                    ((tail) + (faint)) / 32,                                                          \
                                NIBKV_HEADS_(layers, kv_heads) * (kept_tiles)) +                                      \
                   (tail_tiles) + (faint_tiles)))
#define NIBKV_OF_LISTS_(layers, query_heads, kv_heads, head_dim, outlier_channels, max_chunk, workers, storage, keep,  \
                        global, local, merge, tail_storage, faint, faint_storage, kept_tiles, tail_tiles, faint_tiles, \
                        tiles, chain_tiles)                                                                            \
  (NIBKV_ROUND_(64) + NIBKV_LAYOUT_ + NIBKV_ROUND_(NIBKV_HEADS_(layers, kv_heads) * 36) +                              \
   NIBKV_ROUND_(NIBKV_HEADS_(layers, kv_heads) * ((faint) != 0 ? 32 : 16)) +                                           \
   NIBKV_ROUND_(NIBKV_HEADS_(layers, kv_heads) * (tiles)*4) * ((keep) == 2 ? 2 : 1) +                                  \
   NIBKV_ROUND_(                                                                                                       \
       NIBKV_HEADS_(layers, kv_heads) * (tiles)*32 *                                                                   \
       (UINT64_C(4) + (outlier_channels) + ((keep) == 2 ? 2 : 0) + 4 * (global) + 2 * (local) + ((merge) ? 2 : 0))) +  \
   NIBKV_ROUND_(NIBKV_HEADS_(layers, kv_heads) * 4 * (head_dim) *                                                      \
                ((kept_tiles)*NIBKV_BITS_(storage) + (tail_tiles)*NIBKV_BITS_(tail_storage) +                          \
                 (faint_tiles)*NIBKV_BITS_(faint_storage))) +                                                          \
   NIBKV_MOST_(                                                                                                        \
       NIBKV_ROUND_((chain_tiles)*128 * ((keep) == 2 ? 5 : 0) + ((faint) != 0 ? (chain_tiles)*4 : UINT64_C(0))) +      \
           NIBKV_WORKSPACE_(head_dim, storage, 0, merge, UINT64_C(0)),                                                 \
       NIBKV_ROUND_((workers)*NIBKV_SCRATCH_(                                                                          \
                        NIBKV_ROWS_((query_heads) / (kv_heads)*UINT64_C(1) * (max_chunk)), head_dim, outlier_channels, \
                        storage, (global) || (local), chain_tiles,                                                     \
                        NIBKV_MOST_((tiles)*NIBKV_ROWS_((query_heads) / (kv_heads)*UINT64_C(1) * (max_chunk)),         \
                                    (chain_tiles)*NIBKV_ROWS_((query_heads) / (kv_heads)*UINT64_C(1))),                \
                        workers) +                                                                                     \
                    NIBKV_PARTIALS_(query_heads, head_dim, storage, (global) || (local), chain_tiles, workers))))
/* The same under NIBKV_KEEP_RECENT with a log (policy.log, recall, indexed). */
#define NIBKV_FOOTPRINT_LOG(...) NIBKV_FOOTPRINT_LOG_(__VA_ARGS__)
#define NIBKV_FOOTPRINT_LOG_(layers, query_heads, kv_heads, head_dim, outlier_channels, max_chunk, workers, storage, \
                             tokens, log, recall, indexed)                                                           \
  (NIBKV_ROUND_(64) + NIBKV_LAYOUT_ + NIBKV_ROUND_(NIBKV_HEADS_(layers, kv_heads) * 36) +                            \
   NIBKV_ROUND_(NIBKV_TILES_(layers, kv_heads, tokens, 1, max_chunk) * 4) +                                          \
   NIBKV_ROUND_(NIBKV_TILES_(layers, kv_heads, tokens, 1, max_chunk) * 32 * (UINT64_C(4) + (outlier_channels))) +    \
   NIBKV_ROUND_(NIBKV_TILES_(layers, kv_heads, tokens, 1, max_chunk) * 4 * (head_dim)*NIBKV_BITS_(storage)) +        \
   NIBKV_ROUND_(NIBKV_HEADS_(layers, kv_heads) * 48 +                                                                \
                NIBKV_MOST_(NIBKV_HEADS_(layers, kv_heads) * (indexed) / 256, UINT64_C(1)) *                         \
                    ((recall)*UINT64_C(4) + NIBKV_LOG_(log) / 32 * (40 + 5 * UINT64_C(1) * (head_dim)))) +           \
   NIBKV_MOST_(                                                                                                      \
       NIBKV_WORKSPACE_(head_dim, storage, 1, 0, NIBKV_TILES_OF_HEAD_(tokens, 1, max_chunk)),                        \
       NIBKV_ROUND_(                                                                                                 \
           (workers) * (NIBKV_SCRATCH_(NIBKV_ROWS_((query_heads) / (kv_heads)*UINT64_C(1) * (max_chunk)), head_dim,  \
                                       outlier_channels, storage, 0, NIBKV_TILES_OF_HEAD_(tokens, 1, max_chunk),     \
                                       UINT64_C(0), 1) +                                                             \
                        NIBKV_ROUND_(UINT64_C(32) + 32 * (UINT64_C(4) + (outlier_channels)) +                        \
                                     4 * UINT64_C(1) * (head_dim)*NIBKV_BITS_(storage)) +                            \
                        NIBKV_ROUND_(UINT64_C(8) * (head_dim)) + UINT64_C(4) * (head_dim) + NIBKV_ROUND_(head_dim) + \
                        NIBKV_ROUND_(NIBKV_LOG_(log) * 2) + NIBKV_LOG_(log) * 4 + (recall)*UINT64_C(4)) +            \
           NIBKV_PARTIALS_(query_heads, head_dim, storage, 0, NIBKV_TILES_OF_HEAD_(tokens, 1, max_chunk), workers))))
#define NIBKV_LOG_(log) (((log) + UINT64_C(31)) / 32 * 32)
#define NIBKV_LAYOUT_ UINT64_C(256)
/* Of a channel of a key and a value. */
#define NIBKV_BITS_(storage) \
  ((storage) == 0 ? 8 : (storage) == 1 ? 64 : (storage) == 2 ? 16 : (storage) == 3 ? 12 : (storage) == 4 ? 6 : 4)
#define NIBKV_ROUND_(bytes) (((bytes) + UINT64_C(63)) / 64 * 64)
#define NIBKV_LEAST_(a, b) ((a) < (b) ? (a) : (b))
#define NIBKV_ROWS_(all) NIBKV_LEAST_(all, UINT64_C(16))
#define NIBKV_HEADS_(layers, kv_heads) (UINT64_C(1) * (layers) * (kv_heads))
#define NIBKV_MOST_(a, b) ((a) > (b) ? (a) : (b))
#define NIBKV_SLACK_(keep, max_chunk) \
  ((keep) == 0 ? UINT64_C(0) : (keep) == 1 ? UINT64_C(31) + (max_chunk) : NIBKV_MOST_(max_chunk, UINT64_C(32)))
#define NIBKV_TILES_OF_HEAD_(tokens, keep, max_chunk) ((UINT64_C(31) + (tokens) + NIBKV_SLACK_(keep, max_chunk)) / 32)
#define NIBKV_TILES_(layers, kv_heads, tokens, keep, max_chunk) \
  (NIBKV_HEADS_(layers, kv_heads) * NIBKV_TILES_OF_HEAD_(tokens, keep, max_chunk))
#define NIBKV_CHAIN_TILES_(layers, kv_heads, tokens, keep, max_chunk, most) \
  (NIBKV_TILES_OF_HEAD_(tokens, keep, max_chunk) *                          \
   NIBKV_LEAST_(NIBKV_HEADS_(layers, kv_heads), ((most) == 0 ? UINT64_C(4) : UINT64_C(1) * (most))))
#define NIBKV_WORKSPACE_(head_dim, storage, keep, merge, chain_tiles)       \
  ((chain_tiles)*128 * ((keep) == 2 ? 5 : (keep) == 1) +                    \
   NIBKV_ROUND_((storage) != 1 ? UINT64_C(36) * (head_dim) : UINT64_C(0)) + \
   NIBKV_ROUND_((merge) ? UINT64_C(48) * (head_dim) + 4096 : UINT64_C(0)) + \
   ((merge) == 2 ? UINT64_C(64) * (head_dim) : UINT64_C(0)))
#define NIBKV_PAIRS_(query_heads, kv_heads, max_chunk, tokens, keep, chain_tiles)    \
  NIBKV_MOST_(NIBKV_TILES_OF_HEAD_(tokens, keep, max_chunk) *                        \
                  NIBKV_ROWS_((query_heads) / (kv_heads)*UINT64_C(1) * (max_chunk)), \
              (chain_tiles)*NIBKV_ROWS_((query_heads) / (kv_heads)*UINT64_C(1)))
#define NIBKV_SCRATCH_(rows, head_dim, outlier_channels, storage, scores, chain_tiles, pairs, workers)            \
  NIBKV_MOST_(                                                                                                    \
      (NIBKV_ROUND_((head_dim)*4) + NIBKV_ROUND_((rows) * (head_dim)*4) +                                         \
       NIBKV_ROUND_((rows) * (head_dim) * ((storage) != 1 ? 1 : 4)) + NIBKV_ROUND_((rows) * (outlier_channels)) + \
       2048 + ((outlier_channels) == 0 ? 0 : 2048) + 512 +                                                        \
       ((storage) != 1 && !(scores) && (chain_tiles) > 16 ? NIBKV_ROUND_((rows) * (head_dim)*4) : UINT64_C(0)) +  \
       ((scores) ? (pairs)*64 + NIBKV_ROUND_((pairs)*4) : UINT64_C(0))),                                          \
      ((storage) != 1 && (workers) > 1 ? NIBKV_ROUND_(UINT64_C(36) * (head_dim)) : UINT64_C(0)))
#define NIBKV_PARTIALS_(query_heads, head_dim, storage, scores, chain_tiles, workers)  \
  ((storage) != 1 && !(scores) && (workers) > 1                                        \
       ? (query_heads) * (((chain_tiles) + 15) / 16) * (UINT64_C(32) + 4 * (head_dim)) \
       : UINT64_C(0))

/* NOLINTEND(modernize-use-using) */
#ifdef __cplusplus
}
#endif

#endif
