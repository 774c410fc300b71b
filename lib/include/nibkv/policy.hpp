#pragma once

#include <cstdint>
#include <string_view>

#include "nibkv/shape.hpp"
#include "nibkv/status.hpp"

#include "nibkv/macros_push.hpp"

namespace nibkv {

/// What may be given up when a chain outgrows its budget.
enum class Keep : std::uint8_t {
  kAll = 0,     ///< nothing: append answers kFull
  kRecent = 1,  ///< all but the sinks and the most recent tokens
  kScore = 2,   ///< the slots with the least importance; needs Storage::kQ4
};

/// What makes a slot important (Keep::kScore). Formulas are in lib/DESIGN.md.
enum class Score : std::uint8_t {
  kGlobalLocal = 0,  ///< global and local, brought to one mean (EMS, arXiv 2412.08521)
  kGlobal = 1,       ///< attention of all queries so far (H2O, arXiv 2306.14048)
  kLocal = 2,        ///< attention of the last `window` queries (SnapKV, arXiv 2404.14469; TOVA, 2401.06104, for 1)
  kKeyNorm = 3,      ///< a small norm of the key (arXiv 2406.11430)
};

/// How the attention of the query heads that share a KV head becomes one number. kMax needs groups of at most 16.
enum class Group : std::uint8_t { kMean = 0, kMax = 1 };

/// How the two scores of kGlobalLocal become one.
enum class Combine : std::uint8_t { kSum = 0, kMax = 1 };

/// What becomes of the slots that are not kept.
enum class Merge : std::uint8_t {
  kNone = 0,    ///< they are dropped
  kValues = 1,  ///< their values join that of the most similar kept slot, which keeps its key
  kBoth = 2,    ///< their keys join too: directions are averaged, and norms apart from them
};

/// What makes two slots similar: cosines of what tiles hold (keys without the profile's mean key), clamped at 0. With
/// `position_free` keys are compared whole instead, mean key included, as they were before rotary embedding.
enum class Similarity : std::uint8_t { kKey = 0, kValue = 1, kKeyValue = 2 };

/// What a slot adds to its logit for the slots that were merged into it.
enum class Mass : std::uint8_t {
  kNone = 0,
  kShare = 1,  ///< ln of the importance of all of them over its own
  kCount = 2,  ///< ln of their number
};

/// How the budget of all heads is shared among them.
enum class Budget : std::uint8_t {
  kUniform = 0,   ///< `tokens` each
  kPyramid = 1,   ///< falling from layer to layer (PyramidKV, arXiv 2406.02069, beta = 20)
  kScores = 2,    ///< by the head scores of the profile (HeadKV, arXiv 2410.19258)
  kAdaptive = 3,  ///< heads of a layer compete for its slots (Ada-KV, arXiv 2407.11550, a floor of 20 %)
  kTable = 4,     ///< by Options::budgets
};

inline constexpr std::uint32_t kMaxTokens = 1u << 24;
inline constexpr std::uint32_t kMaxPairedLayers = 256;  ///< layers above never share

/// A set of layers below kMaxPairedLayers.
struct LayerSet {
  std::uint64_t words[kMaxPairedLayers / 64] = {};  ///< bit l % 64 of word l / 64: layer l

  constexpr bool has(std::uint32_t layer) const {
    return layer < kMaxPairedLayers && (words[layer / 64] >> layer % 64 & 1) != 0;
  }
  /// @param layer  one from kMaxPairedLayers on is left out
  constexpr void add(std::uint32_t layer) {
    if (layer < kMaxPairedLayers) words[layer / 64] |= std::uint64_t{1} << layer % 64;
  }
  constexpr bool empty() const { return *this == LayerSet{}; }
  constexpr bool operator==(const LayerSet&) const = default;
};

/// The lower layers of neighbours that share: `first`, `first` + 2, ... while a layer above is below `end`.
constexpr LayerSet pairs_from(std::uint32_t first, std::uint32_t end) {
  LayerSet pairs;
  for (std::uint32_t layer = first; layer + 1 < end; layer += 2) pairs.add(layer);
  return pairs;
}

/// Which slots of a pair of layers are retained: kept by both layers apart.
enum class Retain : std::uint8_t {
  kFar = 0,       ///< the `retained` share whose rows differ most in direction: what retention is for
  kNear = 1,      ///< as many that differ least: the formula as it is printed in the paper, whose text means the others
  kFarRange = 2,  ///< of those of kFar, the ones within `retained` of the way from the largest distance to the smallest
};

/// Neighbouring layers that share 4-bit codes, each with scales of its own (MiniCache, arXiv 2405.14366). Read when
/// `keys` or `values` names a layer. Where sharing would save no bytes, in short contexts, layers stay apart:
/// layout_of(shape, policy).views is 0 then.
struct Fold {
  LayerSet keys;    ///< layer l of it shares the directions of its keys with layer l + 1
  LayerSet values;  ///< the same for values; a layer belongs to one pair at most
  /// Those of them whose upper layer is first brought to the lower one's basis by the profile's maps (an orthogonal one
  /// for values, a turn of each rotary pair for keys); the cache needs a profile that has them.
  LayerSet aligned_keys;
  LayerSet aligned_values;
  std::uint32_t recent = 32;   ///< newest slots that never fold, or max_chunk if that is more; at most 2^24
  std::uint8_t t = 154;        ///< how far the shared direction is on the way to the upper layer's, n / 256
  std::uint8_t retained = 13;  ///< share of the old slots that is retained, n / 256, at most 128
  Retain retain = Retain::kFar;
  /// Keys of layers that share them are coded less the profile's mean key, as those of other layers are. Otherwise
  /// their means stay on, as MiniCache has it: then it is whole keys whose direction is shared.
  bool centred = false;
  std::uint8_t min_cosine = 179;  ///< what fold_pairs asks of a pair's mean cosine, n / 256

  constexpr bool operator==(const Fold&) const = default;
};

/// What to keep, as plain data. The presets below are the usual way to make one. Fields from `recent` to `budget` are
/// read under Keep::kScore only and must have their default values under the others.
struct Policy {
  Keep keep = Keep::kAll;
  std::uint32_t tokens = 0;  ///< budget of a head in tokens, its mean when heads differ, [1, 2^24]; sizes the arena
  /// First tokens that are never dropped: [0, tokens - 1], 0 under kAll. Those are the oldest
  /// slots of a head: a caller's own plan that drops some makes sinks of the next ones.
  std::uint32_t sinks = 0;

  std::uint32_t recent = 0;  ///< most recent tokens that are never dropped; sinks + recent < tokens
  Score score = Score::kGlobalLocal;
  Group group = Group::kMean;
  Combine combine = Combine::kSum;
  bool per_query = true;      ///< the global score is a mean over the queries that could see the slot, else their sum
  std::uint16_t window = 32;  ///< queries of the local score, a power of two in [1, 4096]; older ones fade
  std::uint8_t pool = 1;      ///< a slot ranks by the largest score among this many neighbours: 1, 3, ..., 15

  Merge merge = Merge::kNone;
  /// Under Merge::kBoth: keys are turned to the position of their centre, whole, before the mean key is taken off and
  /// directions are averaged. Needs Shape::rotary. Positions are known within 65535 tokens of their tile's first.
  bool rephase = false;
  Similarity similarity = Similarity::kKey;
  /// Keys are compared without their rotary embedding: equal ones at two positions have a cosine of 1. Needs
  /// Shape::rotary; costs up to 64 * head_dim bytes of arena, and more time than the tiles' own form (plan.hpp).
  bool position_free = false;
  Mass mass = Mass::kNone;
  bool mean_threshold = false;  ///< a slot is merged when it is at least as similar as the mean of its chain's are
  std::uint8_t threshold = 0;   ///< or at least this many 1/256; less similar ones are dropped (the zero class)
  std::uint8_t candidate_mass =
      0;  ///< merge no more than the slots that hold this many 1/256 of the importance; 0: all

  Budget budget = Budget::kUniform;

  /// If any layers share: needs Storage::kQ4, and Keep::kAll or Keep::kScore with Budget::kUniform.
  Fold fold = {};

  constexpr bool operator==(const Policy&) const = default;
};

/// Keeps every token; append answers kFull when the pool is used up.
constexpr Policy full(std::uint32_t tokens) {
  return {Keep::kAll, tokens, 0};
}

/// Keeps the first `sinks` tokens and the most recent ones, `tokens` in all (StreamingLLM, arXiv 2309.17453, with the
/// original positions kept). A chain is cut back when it is one tile over `tokens`, by whole tiles of 32 tokens.
constexpr Policy streaming_llm(std::uint32_t tokens, std::uint32_t sinks = 4) {
  return {Keep::kRecent, tokens, sinks};
}

/// As full(), with pairs of neighbouring layers that share codes: more tokens in the same bytes.
/// @param pairs  their lower layers, for instance pairs_from(layers / 2, layers), for keys and values; none: full()
constexpr Policy minicache(std::uint32_t tokens, const LayerSet& pairs = {}) {
  Policy policy = full(tokens);
  policy.fold.keys = policy.fold.values = pairs;
  return policy;
}

namespace detail {
constexpr Policy scored(std::uint32_t tokens, std::uint32_t sinks, std::uint32_t recent, Score score) {
  Policy policy;
  policy.keep = Keep::kScore;
  policy.tokens = tokens;
  policy.sinks = sinks + recent < tokens ? sinks : 0;  // none in a budget that has no room for both
  policy.recent = recent;
  policy.score = score;
  return policy;
}
/// A recent window, cut for small budgets.
constexpr std::uint32_t recent_of(std::uint32_t tokens, std::uint32_t wanted) {
  return wanted < tokens / 4 ? wanted : tokens / 4;
}
}  // namespace detail

/// The Global-Local score alone: what is not important is dropped (EMS without its merge, arXiv 2412.08521).
constexpr Policy ems_no_merge(std::uint32_t tokens) {
  return detail::scored(tokens, 4, tokens / 2, Score::kGlobalLocal);
}

/// Evict-then-merge by the Global-Local score (EMS, arXiv 2412.08521): dropped slots join the most similar kept slot,
/// keys by direction and norm apart, and its logit keeps their mass.
constexpr Policy ems(std::uint32_t tokens) {
  Policy policy = ems_no_merge(tokens);
  policy.merge = Merge::kBoth;
  policy.mass = Mass::kShare;
  policy.threshold = 96;
  return policy;
}

/// ems() with pairs of neighbouring layers that share codes and plan together, so that they keep the same positions.
/// @param pairs  as of minicache(); none: ems()
constexpr Policy ems_fold(std::uint32_t tokens, const LayerSet& pairs = {}) {
  Policy policy = ems(tokens);
  policy.fold.keys = policy.fold.values = pairs;
  return policy;
}

/// Heavy hitters by the sum of all attention, and as many recent tokens (H2O, arXiv 2306.14048).
constexpr Policy h2o(std::uint32_t tokens) {
  Policy policy = detail::scored(tokens, 0, tokens / 2, Score::kGlobal);
  policy.per_query = false;
  return policy;
}

/// What the last query attends to (TOVA, arXiv 2401.06104).
constexpr Policy tova(std::uint32_t tokens) {
  Policy policy = detail::scored(tokens, 0, 0, Score::kLocal);
  policy.window = 1;
  return policy;
}

/// What the last 32 queries attend to, pooled over 7 neighbours (SnapKV, arXiv 2404.14469).
constexpr Policy snapkv(std::uint32_t tokens) {
  Policy policy = detail::scored(tokens, 0, detail::recent_of(tokens, 32), Score::kLocal);
  policy.pool = 7;
  return policy;
}

/// Keys of small norm (arXiv 2406.11430).
constexpr Policy l2_norm(std::uint32_t tokens) {
  return detail::scored(tokens, 0, detail::recent_of(tokens, 32), Score::kKeyNorm);
}

/// snapkv with budgets that fall from layer to layer (PyramidKV, arXiv 2406.02069).
constexpr Policy pyramid_kv(std::uint32_t tokens) {
  Policy policy = snapkv(tokens);
  policy.budget = Budget::kPyramid;
  return policy;
}

/// snapkv with heads of a layer that compete for its slots (Ada-KV, arXiv 2407.11550).
constexpr Policy ada_kv(std::uint32_t tokens) {
  Policy policy = snapkv(tokens);
  policy.budget = Budget::kAdaptive;
  return policy;
}

/// snapkv with budgets by the head scores of the profile (HeadKV, arXiv 2410.19258).
constexpr Policy head_kv(std::uint32_t tokens) {
  Policy policy = snapkv(tokens);
  policy.budget = Budget::kScores;
  return policy;
}

/// Whether any layers share codes.
constexpr bool has_pairs(const Policy& policy) {
  return !policy.fold.keys.empty() || !policy.fold.values.empty();
}

namespace detail {
/// Whether `layer` is the lower one of a pair.
constexpr bool is_lower(const Policy& policy, std::uint32_t layer) {
  return policy.fold.keys.has(layer) || policy.fold.values.has(layer);
}
constexpr bool is_paired(const Policy& policy, std::uint32_t layer) {
  return is_lower(policy, layer) || (layer != 0 && is_lower(policy, layer - 1));
}

constexpr bool valid_fold(const Policy& policy, const Shape& shape) {
  const Fold& fold = policy.fold;
  if (!has_pairs(policy)) return fold.aligned_keys.empty() && fold.aligned_values.empty();
  const bool scored = policy.keep == Keep::kScore && policy.budget == Budget::kUniform;
  if ((policy.keep != Keep::kAll && !scored) || shape.storage != Storage::kQ4) return false;
  if (fold.retain > Retain::kFarRange || fold.retained > 128 || fold.recent > kMaxTokens) return false;
  for (std::uint32_t layer = 0; layer < kMaxPairedLayers; ++layer) {
    if (fold.aligned_keys.has(layer) && !fold.keys.has(layer)) return false;
    if (fold.aligned_values.has(layer) && !fold.values.has(layer)) return false;
    if (!is_lower(policy, layer)) continue;
    if (layer + 1 >= shape.layers || is_lower(policy, layer + 1)) return false;
  }
  return true;
}
}  // namespace detail

/// True when the policy fits the shape: see the ranges of the fields.
constexpr bool valid(const Policy& policy, const Shape& shape) {
  if (policy.tokens < 1 || policy.tokens > kMaxTokens || !detail::valid_fold(policy, shape)) return false;
  if (policy.keep != Keep::kScore) {
    Policy plain;
    plain.keep = policy.keep;
    plain.tokens = policy.tokens;
    plain.sinks = policy.sinks;
    plain.fold = policy.fold;
    if (policy != plain) return false;
  }
  if (policy.keep == Keep::kAll) return policy.sinks == 0;
  if (policy.sinks >= policy.tokens) return false;
  if (policy.keep == Keep::kRecent) return true;
  if (policy.keep != Keep::kScore || shape.storage != Storage::kQ4) return false;
  if (std::uint64_t{policy.sinks} + policy.recent >= policy.tokens) return false;
  if (policy.score > Score::kKeyNorm || policy.group > Group::kMax || policy.combine > Combine::kMax) return false;
  if (policy.group == Group::kMax && shape.group() > kMaxRows) return false;
  if (policy.window < 1 || policy.window > 4096 || (policy.window & (policy.window - 1)) != 0) return false;
  if (policy.pool % 2 == 0 || policy.pool > 15) return false;
  if (policy.merge > Merge::kBoth || policy.similarity > Similarity::kKeyValue || policy.mass > Mass::kCount)
    return false;
  if ((policy.rephase || policy.position_free) && !shape.rotary.known()) return false;
  return policy.budget <= Budget::kTable;
}

/// Finds a preset by name with its default parameters: "full", "streaming_llm", "ems", "ems_no_merge", "h2o", "tova",
/// "snapkv", "l2_norm", "pyramid_kv", "ada_kv", "head_kv", "minicache", "ems_fold" (both without pairs: fold.hpp).
/// @param tokens  budget of a head in tokens
/// @returns kBadPolicy for an unknown name; `policy` is unchanged then.
Status find_policy(std::string_view name, std::uint32_t tokens, Policy& policy);

/// The names that find_policy knows: index 0, 1, ...; an empty view past the end.
std::string_view policy_name(std::uint32_t index);

}  // namespace nibkv

#include "nibkv/macros_pop.hpp"
