#ifndef NIBKV_NIBKV_H
#define NIBKV_NIBKV_H

/* nibkv for C (C11): the verbs of the C++ headers, with the same results, bytes and status values. What a field or a
 * verb means in depth is said there; here stand shapes, units, ranges and errors.
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
 * No function allocates, throws or keeps state of its own. None needs the C++ run-time library: link with a C compiler.
 * Pointers to arrays may be null only where said, or the call answers NIBKV_BAD_ARGUMENT; a null `cache` answers
 * NIBKV_NOT_READY. Calls on one cache must not overlap in time, but for nibkv_attend with different workers. */

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

/* What a call did. Any value but NIBKV_OK means that nothing changed. The values are frozen. */
typedef enum nibkv_status {
  NIBKV_OK = 0,
  NIBKV_BAD_SHAPE = 1,        /* a field of nibkv_shape is out of its range */
  NIBKV_BAD_POLICY = 2,       /* a field of nibkv_policy is, or does not fit the shape, or no preset has that name */
  NIBKV_MISALIGNED = 3,       /* the arena does not start at a multiple of NIBKV_ARENA_ALIGNMENT: nibkv_aligned */
  NIBKV_ARENA_TOO_SMALL = 4,  /* the arena is shorter than nibkv_footprint says */
  NIBKV_UNKNOWN_PORT = 5,     /* no built port has that name */
  NIBKV_UNSUPPORTED_PORT = 6, /* the port is built, but this CPU cannot run it */
  NIBKV_BAD_PROFILE = 7,   /* the profile is damaged, of another version or shape, has too few channels or is missing */
  NIBKV_NOT_READY = 8,     /* the cache was not initialised */
  NIBKV_BAD_ARGUMENT = 9,  /* an index out of range, an array of the wrong size, or none */
  NIBKV_FULL = 10,         /* the pool has no tile left and the policy may not make room */
  NIBKV_BAD_PLAN = 11,     /* the plan does not describe this chain */
  NIBKV_CORRUPT = 12,      /* the arena, or a snapshot whose checksums are right, holds what no function writes */
  NIBKV_BAD_SNAPSHOT = 13, /* not a snapshot, cut short, or damaged (see nibkv_restore) */
  NIBKV_NEWER_SNAPSHOT = 14, /* a snapshot of a version that this library does not know */
  NIBKV_OTHER_SHAPE = 15,    /* a snapshot of a cache of another shape */
  NIBKV_OTHER_POLICY = 16,   /* a snapshot of a cache of another policy or with other budgets */
  NIBKV_OTHER_PROFILE = 17,  /* a snapshot of a cache with another profile, or with one where here is none */
  NIBKV_STORAGE_FAILED = 18, /* a callback could not read or write */
  NIBKV_LOST = 19            /* a source changed while it was restored from: the cache is empty now */
} nibkv_status;

/* A short English sentence for a status; never null. */
NIBKV_API const char* nibkv_status_text(nibkv_status status);

/* The version of the library that runs, NIBKV_VERSION_STRING of its headers. */
NIBKV_API const char* nibkv_version(void);

#define NIBKV_ARENA_ALIGNMENT 64 /* bytes */

/* nibkv_shape.storage: how keys and values are kept. */
enum { NIBKV_Q4 = 0 /* 4-bit tiles */, NIBKV_F32 = 1 /* exact rows: the reference */ };

/* What never changes during the life of a cache. Every field must be set: 0 is in range only where it says so. */
/* The rotary embedding of keys; only a policy with position_free or rephase reads it. All 0: not known. */
typedef struct nibkv_rotary {
  float base;    /* [1, 2^100] */
  float scale;   /* of positions: (0, 1], 1 unless the model's context was stretched linearly */
  uint16_t dims; /* first channels of a head, which turn: even, [2, head_dim]; 0: not known */
  bool adjacent; /* pairs are channels (2i, 2i + 1); otherwise (i, i + dims / 2) */
} nibkv_rotary;

typedef struct nibkv_shape {
  uint16_t layers;      /* [1, 1024] */
  uint16_t query_heads; /* [1, 1024], a multiple of kv_heads */
  uint16_t kv_heads;    /* [1, 1024] */
  uint16_t head_dim;    /* 16, 32, 48, ..., 256 channels */
  uint16_t
      outlier_channels; /* 0, 4, 8, 12 or 16 key channels at 8 bits; 0 with NIBKV_F32. More than 0 needs a profile */
  uint16_t max_chunk;   /* tokens that one append or attend may bring, [1, 4096] */
  uint16_t workers;     /* threads that may call attend at the same time, [1, 256]; more than kv_heads have nothing to
                           do under a policy that scores attention */
  uint8_t storage;      /* NIBKV_Q4, NIBKV_F32 */
  nibkv_rotary rotary;
} nibkv_shape;

/* Fields of nibkv_policy; policy.hpp says what they mean and which papers they come from. */
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
  NIBKV_BUDGET_TABLE = 4
} nibkv_budget;

enum { NIBKV_RETAIN_FAR = 0, NIBKV_RETAIN_NEAR = 1, NIBKV_RETAIN_FAR_RANGE = 2 };

/* Neighbouring layers that share 4-bit codes (MiniCache): bit l % 64 of word l / 64 of a set pairs layer l with l + 1.
 */
typedef struct nibkv_fold {
  uint64_t keys[4];   /* pairs that share the directions of their keys */
  uint64_t values[4]; /* the same for values; a layer belongs to one pair at most */
  uint64_t
      aligned_keys[4]; /* those of them whose upper layer is brought to the lower one's basis by the profile's maps */
  uint64_t aligned_values[4];
  uint32_t recent;    /* newest slots that never fold, at most 2^24 */
  uint8_t t;          /* how far the shared direction is on the way to the upper layer's, n / 256 */
  uint8_t retained;   /* share of the old slots that both layers keep apart, n / 256, at most 128 */
  uint8_t retain;     /* NIBKV_RETAIN_...: which ones */
  bool centred;       /* shared keys are coded less the profile's mean key */
  uint8_t min_cosine; /* what nibkv_fold_pairs asks of a pair's mean cosine, n / 256 */
} nibkv_fold;

/* What to keep, as plain data. nibkv_find_policy fills one in; 0 in every field is no default. Fields after `sinks` are
 * read under NIBKV_KEEP_SCORE only and must be as nibkv_find_policy leaves them under the others. */
typedef struct nibkv_policy {
  uint8_t keep;        /* NIBKV_KEEP_...: what may be given up */
  uint32_t tokens;     /* budget of a head in tokens, its mean when heads differ, [1, 2^24] */
  uint32_t sinks;      /* first tokens that are never dropped: [0, tokens - 1], 0 under ALL */
  uint32_t recent;     /* most recent tokens that are never dropped; sinks + recent < tokens */
  uint8_t score;       /* NIBKV_SCORE_... */
  uint8_t group;       /* NIBKV_GROUP_...; MAX needs at most 16 query heads a KV head */
  uint8_t combine;     /* NIBKV_COMBINE_... */
  bool per_query;      /* the global score is a mean over the queries that could see the slot, else their sum */
  uint16_t window;     /* queries of the local score, a power of two in [1, 4096] */
  uint8_t pool;        /* a slot ranks by the largest score among so many neighbours: 1, 3, ..., 15 */
  uint8_t merge;       /* NIBKV_MERGE_... */
  bool rephase;        /* merged keys are turned to the position of their centre; needs shape.rotary */
  uint8_t similarity;  /* NIBKV_SIMILARITY_... */
  bool position_free;  /* keys are compared without their rotary embedding; needs shape.rotary, and 64 * head_dim bytes
                          more than NIBKV_FOOTPRINT says */
  uint8_t mass;        /* NIBKV_MASS_... */
  bool mean_threshold; /* a slot is merged when at least as similar as the mean of its chain's */
  uint8_t threshold;   /* or at least so many 1/256 */
  uint8_t candidate_mass; /* merge no more than the slots that hold so many 1/256 of the importance; 0: all */
  uint8_t budget;         /* NIBKV_BUDGET_... */
  nibkv_fold fold;        /* if any layers share: needs NIBKV_Q4, and NIBKV_KEEP_ALL or NIBKV_KEEP_SCORE with
                             NIBKV_BUDGET_UNIFORM; fewer bytes than NIBKV_FOOTPRINT says then */
} nibkv_policy;

/* Finds a preset by name with its default parameters: "full", "streaming_llm", "ems", "ems_no_merge", "h2o", "tova",
 * "snapkv", "l2_norm", "pyramid_kv", "ada_kv", "head_kv", "minicache", "ems_fold" (both without pairs).
 * tokens:  budget of a head in tokens
 * Returns NIBKV_BAD_POLICY for an unknown name or null; NIBKV_BAD_ARGUMENT when `policy` is null. */
NIBKV_API nibkv_status nibkv_find_policy(const char* name, uint32_t tokens, nibkv_policy* policy);

/* The names that nibkv_find_policy knows: index 0, 1, ...; null past the end. */
NIBKV_API const char* nibkv_policy_name(uint32_t index);

/* Bytes of the arena that a cache of this shape and policy needs: exact, scratch included. 0 for an invalid shape or
 * policy, null, or one that no memory of this machine can hold. For static arrays there are NIBKV_FOOTPRINT_...; they
 * are below. */
NIBKV_API size_t nibkv_footprint(const nibkv_shape* shape, const nibkv_policy* policy);

/* The largest budget in tokens with which nibkv_find_policy gives a policy whose footprint is at most `bytes`; 0 when
 * not even the smallest fits, for an unknown name and for null. Cost: about 24 evaluations of the footprint. */
NIBKV_API uint32_t nibkv_preset_tokens_that_fit(const nibkv_shape* shape, const char* preset, uint64_t bytes);

/* The same for a policy as it is: all but policy->tokens, which is not read, stays. Its windows, too: those of "ems"
 * with 512 tokens are 256 tokens long whatever fits, so ask for a preset by its name. */
NIBKV_API uint32_t nibkv_tokens_that_fit(const nibkv_shape* shape, const nibkv_policy* policy, uint64_t bytes);

/* Bytes of the smallest arena that a preset can have: its footprint with the smallest budget that is valid. With one
 * byte fewer nibkv_preset_tokens_that_fit returns 0. Fewer workers, a smaller max_chunk, fewer outlier channels or
 * another preset make it smaller. 0 for an unknown name, a shape out of range, and for null. */
NIBKV_API size_t nibkv_preset_smallest_footprint(const nibkv_shape* shape, const char* preset);

/* The same for a policy as it is: all but policy->tokens, which is not read, stays. */
NIBKV_API size_t nibkv_smallest_footprint(const nibkv_shape* shape, const nibkv_policy* policy);

/* Chooses the pairs of neighbouring layers that may share codes, by what a profile knows of them (fold.hpp).
 * policy:       its fold.min_cosine is the gate; the four sets of fold are written
 * profile:      the bytes that nibkv_init gets, or null: no pairs
 * start_layer:  half of the layers is usual
 * Returns NIBKV_BAD_ARGUMENT for a null shape or policy; NIBKV_BAD_PROFILE. */
NIBKV_API nibkv_status nibkv_fold_pairs(const nibkv_shape* shape, nibkv_policy* policy, const void* profile,
                                        size_t profile_bytes, uint32_t start_layer);

/* The part of any buffer that can be an arena, such as one of malloc: from the first multiple of NIBKV_ARENA_ALIGNMENT
 * in it to its end. NIBKV_ARENA_ALIGNMENT - 1 bytes more than the footprint are always enough.
 *
 *     size_t bytes = nibkv_footprint(&shape, &policy) + NIBKV_ARENA_ALIGNMENT - 1;
 *     void* arena = nibkv_aligned(buffer, &bytes);
 *
 * bytes:  of the buffer; of the part then
 * Returns its start; null, and 0 in *bytes, where there is none, and for a null buffer. Null when `bytes` is. */
NIBKV_API void* nibkv_aligned(void* buffer, size_t* bytes);

/* A handle on one arena, in the caller's memory. All of 0, as static objects are, is a cache that is not initialised.
 * It owns nothing and may be copied; all state lies in the arena, which holds no pointers. */
#define NIBKV_CACHE_BYTES 512
typedef struct nibkv_cache {
  uint64_t opaque[NIBKV_CACHE_BYTES / 8];
} nibkv_cache;

/* NIBKV_CACHE_BYTES as the library was built with, for languages that do not read this header. Alignment: 8. */
NIBKV_API size_t nibkv_cache_bytes(void);

/* Which built port computes, and what is known of the model. 0 in every field: the defaults. */
typedef struct nibkv_options {
  const char* port;        /* a name of nibkv_port_name; null or "": the fastest that this CPU runs */
  const void* profile;     /* a profile, which must outlive the cache; null: none */
  size_t profile_bytes;    /* its size */
  const uint32_t* budgets; /* [layers][kv_heads] tokens, for NIBKV_BUDGET_TABLE (cache.hpp says which); null: none */
  size_t budget_count;     /* layers * kv_heads, or 0 */
  uint32_t weights;        /* of the model, as in CalibrationOptions::weights (profile.hpp); 0: not said */
} nibkv_options;

/* Places an empty cache into `arena` and makes `cache` its handle.
 *
 * arena:        at least nibkv_footprint(shape, policy) bytes, starting at a multiple of NIBKV_ARENA_ALIGNMENT
 *               (nibkv_aligned makes one of any buffer); must outlive the cache
 * arena_bytes:  its size
 * options:      null: the defaults
 * Returns NIBKV_BAD_ARGUMENT for null; NIBKV_BAD_SHAPE, NIBKV_BAD_POLICY (also for a footprint beyond this machine's
 * memory), NIBKV_MISALIGNED, NIBKV_ARENA_TOO_SMALL, NIBKV_UNKNOWN_PORT, NIBKV_UNSUPPORTED_PORT; NIBKV_BAD_PROFILE also
 * when the shape asks for outlier channels and there is no profile. Neither the handle nor the arena is changed unless
 * NIBKV_OK.
 * Cost: O(footprint) once, to clear the arena. */
NIBKV_API nibkv_status nibkv_init(nibkv_cache* cache, void* arena, size_t arena_bytes, const nibkv_shape* shape,
                                  const nibkv_policy* policy, const nibkv_options* options);

/* Forgets all tokens; shape, policy, port and profile stay. Peaks start again.
 * Returns NIBKV_NOT_READY. Cost: O(tiles). */
NIBKV_API nibkv_status nibkv_clear(nibkv_cache* cache);

/* Appends `count` tokens to `layer`, coded to 4 bits. Under a bounded policy an append that would outgrow the chain's
 * tiles first plans and compacts every head of the layer.
 *
 * layer:   [0, layers)
 * count:   [1, max_chunk]
 * keys:    finite, [count][kv_heads][head_dim], after rotary embedding
 * values:  finite, [count][kv_heads][head_dim]
 * Returns NIBKV_NOT_READY; NIBKV_BAD_ARGUMENT for a layer or count out of range or a number that is not finite;
 * NIBKV_FULL when the pool has no tile left and the policy may not make room. The cache is unchanged unless NIBKV_OK.
 * Cost: O(count * kv_heads * head_dim * log head_dim). */
NIBKV_API nibkv_status nibkv_append(nibkv_cache* cache, uint32_t layer, uint32_t count, const float* keys,
                                    const float* values);

/* The part of a layer that one call of nibkv_attend computes, and whose scratch it uses. Parts of one layer that do not
 * overlap may run at the same time on different workers; the bytes do not depend on how a layer is divided. */
typedef struct nibkv_part {
  uint32_t first_head;  /* first KV head */
  uint32_t heads;       /* KV heads; 0: all from first_head on */
  uint32_t first_query; /* first of the `count` queries */
  uint32_t queries;     /* queries; 0: all from first_query on. All of them under a policy that scores */
  uint32_t worker;      /* [0, workers) */
} nibkv_part;

/* Attention of the last `count` appended tokens over what the cache holds, causal: count = 1 is decoding, more is
 * prefill. out = softmax(q k / sqrt(head_dim)) v. Under NIBKV_KEEP_SCORE the slots' scores grow by what these queries
 * attend to, so each token's queries must come once.
 *
 * layer:    [0, layers)
 * count:    [1, max_chunk], and at most nibkv_held of every head in the part
 * queries:  finite, [count][query_heads][head_dim], after rotary embedding
 * out:      the same shape; only the heads and queries of the part are written
 * part:     null: all of the layer, on worker 0
 * Returns NIBKV_NOT_READY; NIBKV_BAD_ARGUMENT for a layer, count or part out of range or a query of the part that
 * is not finite. Nothing is written unless
 * NIBKV_OK.
 * Cost: O(count * query_heads * held * head_dim). */
NIBKV_API nibkv_status nibkv_attend(const nibkv_cache* cache, uint32_t layer, uint32_t count, const float* queries,
                                    float* out, const nibkv_part* part);

/* What is known of one slot of a chain; score.hpp says how the scores come about. */
typedef struct nibkv_slot {
  uint32_t position; /* of the token: how many came before it */
  uint32_t global;   /* attention of all queries so far; 0 where the policy does not keep it */
  uint16_t local;    /* attention of the last queries; 0 where the policy does not keep it */
  uint8_t bias;      /* added to the slot's logit, in 1/16 octave, for what was merged into it; at most 32 */
  uint8_t merged;    /* slots that were merged into it, at most 255 */
} nibkv_slot;

/* Describes the slots of one chain, in position order. Positions are kept under NIBKV_KEEP_SCORE; under other policies
 * they are those that the policy itself leaves, and wrong after a caller's own nibkv_compact.
 *
 * layer, kv_head:  in range
 * slots:           written
 * count:           nibkv_held(cache, layer, kv_head)
 * Returns NIBKV_NOT_READY; NIBKV_BAD_ARGUMENT for an index out of range or a wrong count. Cost: O(held). */
NIBKV_API nibkv_status nibkv_explain(const nibkv_cache* cache, uint32_t layer, uint32_t kv_head, nibkv_slot* slots,
                                     size_t count);

/* A plan is one array over the slots of a chain: target[i] is the new slot of slot i, or NIBKV_DROP, or NIBKV_MEMBER
 * plus the new slot of a kept one, its centre, into which it is merged. Targets of kept slots are 0, 1, 2, ... in slot
 * order. A caller may print, change or write one. */
#define NIBKV_DROP UINT32_C(0xffffffff)
#define NIBKV_MEMBER UINT32_C(0x80000000)

/* Plans what the policy would do to one chain now, so that `incoming` more tokens fit its budget. Changes nothing.
 *
 * layer, kv_head:  in range
 * incoming:        tokens about to be appended, [0, max_chunk]
 * target:          written
 * count:           nibkv_held(cache, layer, kv_head)
 * Returns NIBKV_NOT_READY; NIBKV_BAD_ARGUMENT for an index out of range or a wrong count.
 * Cost: O(held), and for a policy that merges O(candidates * held * head_dim). */
NIBKV_API nibkv_status nibkv_plan(const nibkv_cache* cache, uint32_t layer, uint32_t kv_head, uint32_t incoming,
                                  uint32_t* target, size_t count);

/* NIBKV_OK when `target` is a plan for a chain of `count` slots, else NIBKV_BAD_PLAN. Cost: O(count). */
NIBKV_API nibkv_status nibkv_check_plan(const uint32_t* target, size_t count);

/* Reads all that an arena says of itself and compares: for tests, and to find out who wrote where he should not have.
 * Uses the scratch of worker 0. Cost: O(tiles).
 * Returns NIBKV_NOT_READY; NIBKV_CORRUPT for the first thing that cannot be. The cache is unchanged. */
NIBKV_API nibkv_status nibkv_check(const nibkv_cache* cache);

/* Carries out a plan on one chain, in place.
 *
 * layer, kv_head:  in range
 * count:           nibkv_held(cache, layer, kv_head)
 * Returns NIBKV_NOT_READY; NIBKV_BAD_ARGUMENT for an index out of range; NIBKV_BAD_PLAN for a plan of the wrong size or
 * form. The cache is unchanged unless NIBKV_OK.
 * Cost: O(held + moved * head_dim). */
NIBKV_API nibkv_status nibkv_compact(nibkv_cache* cache, uint32_t layer, uint32_t kv_head, const uint32_t* target,
                                     size_t count);

/* Cuts every chain back to its share of `tokens` a head now: for a caller that holds a whole prompt and compresses
 * once.
 *
 * tokens:  mean budget of a head, in (sinks + recent, policy.tokens]
 * how:     how heads share it, whatever policy.budget says; under TABLE only that or UNIFORM, and TABLE only then
 * Returns NIBKV_NOT_READY; NIBKV_BAD_POLICY when the policy is not NIBKV_KEEP_SCORE, or for a `how` that does not fit
 * it; NIBKV_BAD_PROFILE for SCORES without a profile; NIBKV_BAD_ARGUMENT for tokens out of range. The cache is
 * unchanged unless NIBKV_OK. Cost: that of nibkv_plan and nibkv_compact for every chain. */
NIBKV_API nibkv_status nibkv_compact_now(nibkv_cache* cache, uint32_t tokens, nibkv_budget how);

/* Snapshots: what a cache holds, in few bytes and without pointers, for any port and CPU. snapshot.hpp says more. */

/* Every call of a sink but the last brings, and no call of a source asks for more than, this many bytes. */
#define NIBKV_SNAPSHOT_CHUNK 512

/* Where a snapshot goes, piece after piece. write returns false to give up. */
typedef struct nibkv_sink {
  bool (*write)(void* context, const void* bytes, size_t count);
  void* context;
} nibkv_sink;

/* Where one comes from. read copies bytes [offset, offset + count) of it, which lie within `bytes`, to `to`, and
 * returns false when they cannot be had. It is read three times, mostly in order. */
typedef struct nibkv_source {
  bool (*read)(void* context, uint64_t offset, void* to, size_t count);
  void* context;
  uint64_t bytes; /* of the source; what follows the snapshot is not looked at */
} nibkv_source;

/* What is saved beside the cache, under the same checksum. */
typedef struct nibkv_note {
  uint32_t sequence; /* any number */
  const void* note;  /* the caller's own bytes; null: none */
  size_t note_bytes; /* their number */
} nibkv_note;

/* What a whole snapshot says of itself. */
typedef struct nibkv_snapshot_info {
  uint64_t bytes;       /* of all of it */
  uint64_t note_offset; /* where the caller's own bytes begin */
  uint64_t note_bytes;
  uint32_t sequence;
} nibkv_snapshot_info;

/* Bytes of the largest snapshot that a cache of this shape and policy can give; 0 for null, and where the footprint
 * is 0. */
NIBKV_API uint64_t nibkv_most_snapshot_bytes(const nibkv_shape* shape, const nibkv_policy* policy, uint64_t note_bytes);

/* Bytes that nibkv_save would write now; 0 for a cache that is not ready. */
NIBKV_API uint64_t nibkv_snapshot_bytes(const nibkv_cache* cache, uint64_t note_bytes);

/* Writes a snapshot to the first nibkv_snapshot_bytes(cache, note->note_bytes) of `bytes`.
 *
 * bytes:  at any address
 * count:  its size
 * note:   null: none
 * Returns NIBKV_NOT_READY; NIBKV_BAD_ARGUMENT for null and when there are fewer. Nothing is written unless NIBKV_OK,
 * and the cache is not changed. Cost: O(bytes). */
NIBKV_API nibkv_status nibkv_save(const nibkv_cache* cache, void* bytes, size_t count, const nibkv_note* note);

/* The same to a sink. The snapshot is whole once the last byte is written.
 * Returns NIBKV_STORAGE_FAILED when the sink gave up. */
NIBKV_API nibkv_status nibkv_save_to(const nibkv_cache* cache, const nibkv_sink* sink, const nibkv_note* note);

/* Reads all of a snapshot and compares its checksums, without any cache.
 * Returns NIBKV_BAD_ARGUMENT for null, NIBKV_STORAGE_FAILED, NIBKV_BAD_SNAPSHOT, NIBKV_NEWER_SNAPSHOT. `info` is
 * written on NIBKV_OK alone. Cost: O(bytes). */
NIBKV_API nibkv_status nibkv_inspect(const void* bytes, size_t count, nibkv_snapshot_info* info);
NIBKV_API nibkv_status nibkv_inspect_from(const nibkv_source* source, nibkv_snapshot_info* info);

/* Replaces what a cache holds by what was saved; everything is checked before the first write to the arena.
 *
 * cache:  of the shape (workers may differ), policy, budgets and profile of the saved one, on any port
 * Returns NIBKV_NOT_READY, NIBKV_BAD_ARGUMENT, NIBKV_STORAGE_FAILED, NIBKV_BAD_SNAPSHOT, NIBKV_NEWER_SNAPSHOT,
 * NIBKV_OTHER_SHAPE, NIBKV_OTHER_POLICY, NIBKV_OTHER_PROFILE, NIBKV_CORRUPT. The cache is unchanged unless NIBKV_OK,
 * with one exception: NIBKV_LOST, when a source gave other bytes, or none, at its last reading. The cache is empty
 * then. Cost: O(bytes). Uses the scratch of worker 0. */
NIBKV_API nibkv_status nibkv_restore(nibkv_cache* cache, const void* bytes, size_t count);
NIBKV_API nibkv_status nibkv_restore_from(nibkv_cache* cache, const nibkv_source* source);

/* Two places for snapshots, so that one of them is whole whatever happens while the other is written: a power cut after
 * any byte costs what was saved last, never what was saved before. Files, sectors of flash, regions of FRAM. Write to
 * the place that does not hold the newest whole snapshot; read the newest whole one. Functions return false when it
 * cannot be done. */
typedef struct nibkv_banks {
  /* Copies bytes [offset, offset + count) of bank 0 or 1, which lie within it, to `to`. */
  bool (*read)(void* context, uint32_t bank, uint64_t offset, void* to, size_t count);
  /* Writes there. Offsets rise from 0 without gaps, in pieces of NIBKV_SNAPSHOT_CHUNK bytes but for the last. */
  bool (*write)(void* context, uint32_t bank, uint64_t offset, const void* bytes, size_t count);
  /* Makes a bank ready to be written from its start on; null where nothing has to be done. */
  bool (*erase)(void* context, uint32_t bank);
  void* context;
  uint64_t bytes; /* of each bank: nibkv_most_snapshot_bytes is always enough */
} nibkv_banks;

/* Finds the newest whole snapshot, of any cache: that of the larger sequence number, which may wrap.
 *
 * bank, info:  written on NIBKV_OK alone
 * Returns NIBKV_BAD_ARGUMENT for null and without a read function; when no bank is whole, NIBKV_STORAGE_FAILED if one
 * could not be read, else NIBKV_NEWER_SNAPSHOT if one is of a later version, else NIBKV_BAD_SNAPSHOT. Cost: reads both
 * banks. */
NIBKV_API nibkv_status nibkv_newest_bank(const nibkv_banks* banks, uint32_t* bank, nibkv_snapshot_info* info);

/* Saves into the bank that does not hold the newest whole snapshot; bank 0 when there is none.
 *
 * note:        the caller's own bytes, saved with the rest; null: none
 * note_bytes:  their number
 * Returns NIBKV_NOT_READY; NIBKV_BAD_ARGUMENT for null, when a function is missing or a bank is too small, and nothing
 * is written then; NIBKV_STORAGE_FAILED, and the newest snapshot is the one that it was. */
NIBKV_API nibkv_status nibkv_save_to_banks(const nibkv_cache* cache, const nibkv_banks* banks, const void* note,
                                           size_t note_bytes);

/* nibkv_restore from the newest whole snapshot.
 * Returns what nibkv_newest_bank and nibkv_restore return. */
NIBKV_API nibkv_status nibkv_restore_from_banks(nibkv_cache* cache, const nibkv_banks* banks);

/* Tokens held by a KV head now; its budget in tokens. 0 for indices out of range, and for a cache that is not ready. */
NIBKV_API uint32_t nibkv_held(const nibkv_cache* cache, uint32_t layer, uint32_t kv_head);
NIBKV_API uint32_t nibkv_head_budget(const nibkv_cache* cache, uint32_t layer, uint32_t kv_head);
/* Tokens ever appended to a layer: the position of its next token. 0 as above. */
NIBKV_API uint32_t nibkv_seen(const nibkv_cache* cache, uint32_t layer);

/* What an arena holds at this moment. */
typedef struct nibkv_usage {
  size_t arena_bytes; /* the footprint */
  size_t used_bytes;  /* codes, side data and links of the tiles in use, and all chains */
  size_t peak_bytes;  /* the most that used_bytes ever was */
  uint32_t tiles;
  uint32_t used_tiles;
  uint32_t peak_tiles;
} nibkv_usage;

/* All of 0 for a cache that is not ready. */
NIBKV_API nibkv_usage nibkv_usage_now(const nibkv_cache* cache);

/* The port that computes; null for a cache that is not ready. */
NIBKV_API const char* nibkv_port(const nibkv_cache* cache);
/* The names of the built ports, best first: index 0, 1, ...; null past the end. */
NIBKV_API const char* nibkv_port_name(uint32_t index);
/* True when this CPU can run the built port of that name. */
NIBKV_API bool nibkv_port_runs(const char* name);

/* The footprint as an integer constant expression, for static arrays; of each preset, with its default parameters:
 *
 *     NIBKV_FOOTPRINT_EMS(tokens,
 *                         layers, query_heads, kv_heads, head_dim, outlier_channels, max_chunk, workers, storage)
 *
 * The last eight are the fields of nibkv_shape in their order, so one macro can stand for them both there and
 * in the initialiser of a nibkv_shape. Equal to nibkv_footprint for a shape and policy in range (of type uint64_t,
 * whatever memory can hold); not checked here, nibkv_init checks. */
#define NIBKV_FOOTPRINT_FULL(tokens, ...) NIBKV_FOOTPRINT(__VA_ARGS__, tokens, 0, 0, 0, 0, 1)
#define NIBKV_FOOTPRINT_STREAMING_LLM(tokens, ...) NIBKV_FOOTPRINT(__VA_ARGS__, tokens, 1, 0, 0, 0, 1)
#define NIBKV_FOOTPRINT_EMS(tokens, ...) NIBKV_FOOTPRINT(__VA_ARGS__, tokens, 2, 1, 1, 1, 1)
#define NIBKV_FOOTPRINT_EMS_NO_MERGE(tokens, ...) NIBKV_FOOTPRINT(__VA_ARGS__, tokens, 2, 1, 1, 0, 1)
#define NIBKV_FOOTPRINT_H2O(tokens, ...) NIBKV_FOOTPRINT(__VA_ARGS__, tokens, 2, 1, 0, 0, 1)
#define NIBKV_FOOTPRINT_TOVA(tokens, ...) NIBKV_FOOTPRINT(__VA_ARGS__, tokens, 2, 0, 1, 0, 1)
#define NIBKV_FOOTPRINT_SNAPKV(tokens, ...) NIBKV_FOOTPRINT(__VA_ARGS__, tokens, 2, 0, 1, 0, 1)
#define NIBKV_FOOTPRINT_L2_NORM(tokens, ...) NIBKV_FOOTPRINT(__VA_ARGS__, tokens, 2, 0, 0, 0, 1)
#define NIBKV_FOOTPRINT_PYRAMID_KV(tokens, ...) NIBKV_FOOTPRINT(__VA_ARGS__, tokens, 2, 0, 1, 0, 0)
#define NIBKV_FOOTPRINT_ADA_KV(tokens, ...) NIBKV_FOOTPRINT(__VA_ARGS__, tokens, 2, 0, 1, 0, 0)
#define NIBKV_FOOTPRINT_HEAD_KV(tokens, ...) NIBKV_FOOTPRINT(__VA_ARGS__, tokens, 2, 0, 1, 0, 0)
#define NIBKV_FOOTPRINT_MINICACHE(tokens, ...) NIBKV_FOOTPRINT_FULL(tokens, __VA_ARGS__)
#define NIBKV_FOOTPRINT_EMS_FOLD(tokens, ...) NIBKV_FOOTPRINT_EMS(tokens, __VA_ARGS__)

/* Of a policy of your own. keep: 0, 1, 2 as NIBKV_KEEP_ALL, ...; the rest 0 or 1, 0 unless keep is 2:
 * global: score is GLOBAL_LOCAL or GLOBAL; local: it is GLOBAL_LOCAL or LOCAL; merge: not MERGE_NONE; uniform:
 * BUDGET_UNIFORM (1 unless keep is 2). arena.hpp has the same in readable form, layout_of. */
#define NIBKV_FOOTPRINT(...) NIBKV_FOOTPRINT_(__VA_ARGS__)
#define NIBKV_FOOTPRINT_(layers, query_heads, kv_heads, head_dim, outlier_channels, max_chunk, workers, storage,     \
                         tokens, keep, global, local, merge, uniform)                                                \
  (NIBKV_ROUND_(64) + NIBKV_ROUND_(NIBKV_HEADS_(layers, kv_heads) * 32) +                                            \
   NIBKV_ROUND_(NIBKV_TILES_(layers, kv_heads, tokens, keep, max_chunk) * 4) * ((keep) == 2 ? 2 : 1) +               \
   NIBKV_ROUND_(NIBKV_TILES_(layers, kv_heads, tokens, keep, max_chunk) *                                            \
                ((storage) == 0 ? 32 * (UINT64_C(4) + (outlier_channels) + ((keep) == 2 ? 2 : 0) + 4 * (global) +    \
                                        2 * (local) + 2 * (merge))                                                   \
                                : UINT64_C(0))) +                                                                    \
   NIBKV_ROUND_(NIBKV_TILES_(layers, kv_heads, tokens, keep, max_chunk) * 32 * (head_dim) *                          \
                ((storage) == 0 ? 1 : 8)) +                                                                          \
   NIBKV_MOST_(NIBKV_WORKSPACE_(head_dim, storage, keep, merge,                                                      \
                                NIBKV_CHAIN_TILES_(layers, kv_heads, tokens, keep, max_chunk, uniform)),             \
               (workers)*NIBKV_SCRATCH_(NIBKV_ROWS_((query_heads) / (kv_heads)*UINT64_C(1) * (max_chunk)), head_dim, \
                                        outlier_channels, storage, (global) || (local),                              \
                                        NIBKV_CHAIN_TILES_(layers, kv_heads, tokens, keep, max_chunk, uniform))))
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
#define NIBKV_CHAIN_TILES_(layers, kv_heads, tokens, keep, max_chunk, uniform) \
  (NIBKV_TILES_OF_HEAD_(tokens, keep, max_chunk) *                             \
   ((uniform) ? 1 : NIBKV_LEAST_(NIBKV_HEADS_(layers, kv_heads), UINT64_C(4))))
#define NIBKV_WORKSPACE_(head_dim, storage, keep, merge, chain_tiles)       \
  ((chain_tiles)*128 * ((keep) == 2 ? 5 : (keep) == 1) +                    \
   NIBKV_ROUND_((storage) == 0 ? UINT64_C(36) * (head_dim) : UINT64_C(0)) + \
   NIBKV_ROUND_((merge) ? UINT64_C(48) * (head_dim) + 4096 : UINT64_C(0)))
#define NIBKV_SCRATCH_(rows, head_dim, outlier_channels, storage, scores, chain_tiles)                               \
  (NIBKV_ROUND_((head_dim)*4) + NIBKV_ROUND_((rows) * (head_dim)*4) +                                                \
   NIBKV_ROUND_((rows) * (head_dim) * ((storage) == 0 ? 1 : 4)) + NIBKV_ROUND_((rows) * (outlier_channels)) + 2048 + \
   ((outlier_channels) == 0 ? 0 : 2048) + 512 +                                                                      \
   ((scores) ? (chain_tiles) * (rows)*64 + NIBKV_ROUND_((chain_tiles) * (rows)*4) : UINT64_C(0)))

/* NOLINTEND(modernize-use-using) */
#ifdef __cplusplus
}
#endif

#endif
