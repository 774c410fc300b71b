// What the C header says again must be what C++ says: checked when this is compiled.
#include <cstddef>
#include <type_traits>

#include "nibkv/nibkv.h"
#include "nibkv/nibkv.hpp"

namespace nibkv {
namespace {

// The handle is a Cache copied into the caller's bytes. A handle of zeros is not ready.
static_assert(sizeof(Cache) <= NIBKV_CACHE_BYTES && sizeof(nibkv_cache) == NIBKV_CACHE_BYTES);
static_assert(alignof(Cache) <= alignof(nibkv_cache));
static_assert(std::is_trivially_copyable_v<Cache> && std::is_trivially_destructible_v<Cache>);
static_assert(NIBKV_ARENA_ALIGNMENT == kArenaAlignment && NIBKV_DROP == kDrop && NIBKV_FAINT == kFaint &&
              NIBKV_MEMBER == kMember);

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
              same(NIBKV_STORAGE_FAILED, Status::kStorageFailed) && same(NIBKV_LOST, Status::kLost) &&
              same(NIBKV_GONE, Status::kGone) && same(NIBKV_OTHER_STORE, Status::kOtherStore));
static_assert(same(NIBKV_Q4, Storage::kQ4) && same(NIBKV_F32, Storage::kF32) && same(NIBKV_Q8, Storage::kQ8) &&
              same(NIBKV_Q8Q4, Storage::kQ8Q4) && same(NIBKV_Q4Q2, Storage::kQ4Q2) && same(NIBKV_Q2, Storage::kQ2));
static_assert(same(NIBKV_NUMBER_F32, Number::kF32) && same(NIBKV_NUMBER_F16, Number::kF16) &&
              same(NIBKV_NUMBER_BF16, Number::kBf16));
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
              same(NIBKV_BUDGET_TABLE, Budget::kTable) && same(NIBKV_BUDGET_PREFIX, Budget::kPrefix) &&
              same(NIBKV_BUDGET_RETRIEVAL, Budget::kRetrieval) && same(NIBKV_BUDGET_RULES, Budget::kRules) &&
              same(NIBKV_BUDGET_ANY_SCORES, Budget::kAnyScores));
static_assert(same(NIBKV_TOKEN_ORDINARY, TokenClass::kOrdinary) &&
              same(NIBKV_TOKEN_PUNCTUATION, TokenClass::kPunctuation) &&
              same(NIBKV_TOKEN_SPECIAL, TokenClass::kSpecial));
static_assert(same(NIBKV_RETAIN_FAR, Retain::kFar) && same(NIBKV_RETAIN_NEAR, Retain::kNear) &&
              same(NIBKV_RETAIN_FAR_RANGE, Retain::kFarRange));
static_assert(sizeof(nibkv_fold::keys) == sizeof(LayerSet));
// A store of C is copied as one of C++.
static_assert(sizeof(nibkv_cold_store) == sizeof(ColdStore) && std::is_trivially_copyable_v<ColdStore> &&
              offsetof(nibkv_cold_store, write) == offsetof(ColdStore, write) &&
              offsetof(nibkv_cold_store, read) == offsetof(ColdStore, read) &&
              offsetof(nibkv_cold_store, prefetch) == offsetof(ColdStore, prefetch) &&
              offsetof(nibkv_cold_store, context) == offsetof(ColdStore, context) &&
              offsetof(nibkv_cold_store, identity) == offsetof(ColdStore, identity) &&
              offsetof(nibkv_cold_store, verify) == offsetof(ColdStore, verify) &&
              std::is_same_v<decltype(nibkv_cold_store::write), decltype(ColdStore::write)> &&
              std::is_same_v<decltype(nibkv_cold_store::read), decltype(ColdStore::read)> &&
              std::is_same_v<decltype(nibkv_cold_store::prefetch), decltype(ColdStore::prefetch)>);

// The macros of footprints, for small and large shapes of every storage.
constexpr Shape kShapes[] = {
    {.layers = 1, .query_heads = 1, .kv_heads = 1, .head_dim = 16},
    {.layers = 30,
     .query_heads = 9,
     .kv_heads = 3,
     .head_dim = 64,
     .outlier_channels = 8,
     .max_chunk = 32,
     .workers = 2},
    {.layers = 3,
     .query_heads = 32,
     .kv_heads = 4,
     .head_dim = 240,
     .outlier_channels = 16,
     .max_chunk = 512,
     .workers = 9},
    {.layers = 2,
     .query_heads = 4,
     .kv_heads = 2,
     .head_dim = 80,
     .max_chunk = 3,
     .workers = 3,
     .storage = Storage::kF32},
    {.layers = 2, .query_heads = 4, .kv_heads = 2, .head_dim = 48, .max_chunk = 9, .storage = Storage::kQ8},
    {.layers = 2, .query_heads = 4, .kv_heads = 2, .head_dim = 16, .outlier_channels = 4, .storage = Storage::kQ8Q4},
    {.layers = 2, .query_heads = 4, .kv_heads = 2, .head_dim = 64, .workers = 2, .storage = Storage::kQ4Q2},
    {.layers = 3, .query_heads = 4, .kv_heads = 1, .head_dim = 112, .max_chunk = 40, .storage = Storage::kQ2},
};
constexpr std::uint32_t kBudgets[] = {33, 64, 500, kEmsTailFrom, 4096};

// @param preset  budget -> Policy
// @param macro   budget, shape -> bytes
template <typename Preset, typename Macro>
constexpr bool agrees(Preset preset, Macro macro) {
  for (const Shape& shape : kShapes) {
    for (const std::uint32_t tokens : kBudgets) {
      const Policy policy = preset(tokens);
      if (valid(policy, shape) && footprint(shape, policy) != macro(tokens, shape)) return false;
    }
  }
  return true;
}
#define NIBKV_OF_(shape)                                                                             \
  (shape).layers, (shape).query_heads, (shape).kv_heads, (shape).head_dim, (shape).outlier_channels, \
      (shape).max_chunk, (shape).workers, static_cast<int>((shape).storage)
#define NIBKV_AGREES_(preset, MACRO)                          \
  agrees([](std::uint32_t tokens) { return preset(tokens); }, \
         [](std::uint32_t tokens, const Shape& shape) { return MACRO(tokens, NIBKV_OF_(shape)); })
// With a tail and faint slots.
constexpr bool agrees_in_tiers() {
  for (Shape shape : kShapes) {
    for (const std::uint32_t faint : {0u, 32u, 160u}) {
      Policy policy = ems(900);
      policy.tail = 96;
      policy.faint = faint;
      policy.faint_storage = Storage::kQ4Q2;
      if (valid(policy, shape) && footprint(shape, policy) != NIBKV_FOOTPRINT_TIERS(NIBKV_OF_(shape), 900, 2, 1, 1, 1,
                                                                                    4, 96, NIBKV_Q8, faint, NIBKV_Q4Q2))
        return false;
    }
  }
  return true;
}
static_assert(agrees_in_tiers());

// With wider codes in some layers, in the first slots of heads, and in both.
constexpr bool agrees_where_wide() {
  for (const Shape& shape : kShapes) {
    for (int kind = 1; kind < 4; ++kind) {
      Policy policy = ems(500);
      policy.wide_storage = Storage::kQ8;
      policy.wide_first = kind != 1;
      for (std::uint32_t layer = 0; kind != 2 && layer < (shape.layers + 1u) / 2; ++layer) policy.wide.add(layer);
      if (!valid(policy, shape)) continue;
      const std::uint64_t more = NIBKV_FOOTPRINT_WIDE(kind != 2 ? (shape.layers + 1u) / 2 : 0u, policy.wide_first,
                                                      NIBKV_Q8, 500, NIBKV_KEEP_SCORE, NIBKV_OF_(shape));
      if (NIBKV_FOOTPRINT_EMS(500, NIBKV_OF_(shape)) + more != footprint(shape, policy)) return false;
    }
  }
  return true;
}
static_assert(agrees_where_wide());
// With a tail the sum is enough.
constexpr bool bounds_where_wide() {
  for (const Shape& shape : kShapes) {
    Policy policy = ems(900);
    policy.wide_storage = Storage::kQ8;
    policy.wide_first = true;
    policy.wide.add(0);
    const std::uint64_t more = NIBKV_FOOTPRINT_WIDE(1, true, NIBKV_Q8, 900, NIBKV_KEEP_SCORE, NIBKV_OF_(shape));
    if (valid(policy, shape) && footprint(shape, policy) > NIBKV_FOOTPRINT_EMS(900, NIBKV_OF_(shape)) + more)
      return false;
  }
  return true;
}
static_assert(bounds_where_wide());
static_assert(NIBKV_AGREES_(full, NIBKV_FOOTPRINT_FULL));
static_assert(NIBKV_AGREES_(streaming_llm, NIBKV_FOOTPRINT_STREAMING_LLM));
static_assert(NIBKV_AGREES_(ems, NIBKV_FOOTPRINT_EMS));
static_assert(NIBKV_AGREES_(ems_no_merge, NIBKV_FOOTPRINT_EMS_NO_MERGE));
static_assert(NIBKV_EMS_TAIL_FROM == kEmsTailFrom);
static_assert(NIBKV_AGREES_(h2o, NIBKV_FOOTPRINT_H2O));
static_assert(NIBKV_AGREES_(tova, NIBKV_FOOTPRINT_TOVA));
static_assert(NIBKV_AGREES_(snapkv, NIBKV_FOOTPRINT_SNAPKV));
static_assert(NIBKV_AGREES_(l2_norm, NIBKV_FOOTPRINT_L2_NORM));
static_assert(NIBKV_AGREES_(pyramid_kv, NIBKV_FOOTPRINT_PYRAMID_KV));
static_assert(NIBKV_AGREES_(ada_kv, NIBKV_FOOTPRINT_ADA_KV));
static_assert(NIBKV_AGREES_(head_kv, NIBKV_FOOTPRINT_HEAD_KV));
static_assert(NIBKV_AGREES_(prefix_kv, NIBKV_FOOTPRINT_PREFIX_KV));
static_assert(NIBKV_AGREES_(duo, NIBKV_FOOTPRINT_DUO));
static_assert(NIBKV_AGREES_(fast_gen, NIBKV_FOOTPRINT_FAST_GEN));
static_assert(NIBKV_AGREES_(precise_tail, NIBKV_FOOTPRINT_PRECISE_TAIL));
static_assert(NIBKV_AGREES_(qpruning, NIBKV_FOOTPRINT_QPRUNING));
static_assert(NIBKV_AGREES_(recall_window, NIBKV_FOOTPRINT_RECALL));
static_assert(NIBKV_AGREES_(minicache, NIBKV_FOOTPRINT_MINICACHE));
static_assert(NIBKV_AGREES_(ems_fold, NIBKV_FOOTPRINT_EMS_FOLD));

constexpr Policy position_free(std::uint32_t tokens) {
  Policy policy = ems(tokens);
  policy.position_free = true;
  return policy;
}
static_assert(agrees(position_free, [](std::uint32_t tokens, const Shape& shape) {
  return NIBKV_FOOTPRINT(NIBKV_OF_(shape), tokens, 2, 1, 1, 2, 1);
}));

// With a reach, the sum of two macros is enough.
template <typename Preset, typename Macro>
constexpr bool bounds_reach(Preset preset, Macro macro) {
  for (Shape shape : kShapes) {
    shape.rotary = {.base = 1e4f, .dims = 16};
    for (const std::uint32_t reach : {2u, 3u, 4096u, 8191u}) {
      shape.rotary.reach = reach;
      for (const std::uint32_t tokens : kBudgets) {
        const std::uint64_t more = NIBKV_FOOTPRINT_REACH(NIBKV_OF_(shape));
        const Policy policy = preset(tokens);
        if (valid(policy, shape) && footprint(shape, policy) > macro(tokens, shape) + more) return false;
      }
    }
  }
  return true;
}
constexpr bool bounds_measured() {
  for (Shape shape : kShapes) {
    if (!has_codes(shape.storage)) continue;
    shape.basis = KeyBasis::kMeasured;
    if (footprint(shape, ems(500)) >
        NIBKV_FOOTPRINT_EMS(500, NIBKV_OF_(shape)) + NIBKV_FOOTPRINT_MEASURED(NIBKV_OF_(shape)))
      return false;
  }
  return true;
}
static_assert(bounds_measured());
static_assert(same(NIBKV_BASIS_PROFILE, KeyBasis::kProfile) && same(NIBKV_BASIS_MEASURED, KeyBasis::kMeasured));
static_assert(bounds_reach([](std::uint32_t tokens) { return full(tokens); },
                           [](std::uint32_t tokens, const Shape& shape) {
                             return NIBKV_FOOTPRINT_FULL(tokens, NIBKV_OF_(shape));
                           }));
static_assert(bounds_reach([](std::uint32_t tokens) { return l2_norm(tokens); },
                           [](std::uint32_t tokens, const Shape& shape) {
                             return NIBKV_FOOTPRINT_L2_NORM(tokens, NIBKV_OF_(shape));
                           }));

// Where layers share codes, the macros say the largest that it can be.
constexpr bool bounds_pairs() {
  for (const Shape& shape : kShapes) {
    for (const std::uint32_t tokens : kBudgets) {
      for (const bool scored : {false, true}) {
        Policy policy = scored ? ems_fold(tokens) : minicache(tokens);
        policy.fold.keys.add(0);
        policy.fold.values.add(0);
        const std::uint64_t apart = scored ? NIBKV_FOOTPRINT_EMS_FOLD(tokens, NIBKV_OF_(shape))
                                           : NIBKV_FOOTPRINT_MINICACHE(tokens, NIBKV_OF_(shape));
        if (valid(policy, shape) && footprint(shape, policy) > apart) return false;
      }
    }
  }
  return true;
}
static_assert(bounds_pairs());

}  // namespace
}  // namespace nibkv
