#pragma once

#include <cstdint>
#include <string_view>

#include "nibkv/shape.hpp"
#include "nibkv/status.hpp"

#include "nibkv/macros_push.hpp"

namespace nibkv {

/// What may be dropped when a chain outgrows its budget.
enum class Keep : std::uint8_t {
  kAll = 0,     ///< nothing: append returns kFull
  kRecent = 1,  ///< all but the sinks and the most recent tokens
  kScore = 2,   ///< the slots with the least importance; not with Storage::kF32
};

/// What makes a slot important (Keep::kScore). Formulas are in lib/DESIGN.md.
enum class Score : std::uint8_t {
  kGlobalLocal = 0,  ///< global and local, scaled to the same mean (EMS, arXiv 2412.08521)
  kGlobal = 1,       ///< attention of all queries so far (H2O, arXiv 2306.14048)
  kLocal = 2,        ///< attention of the last `window` queries (SnapKV, arXiv 2404.14469; TOVA, 2401.06104, for 1)
  kKeyNorm = 3,      ///< a small norm of the key (arXiv 2406.11430)
};

/// How the attention of the query heads that share a KV head is reduced to one number. kMax needs
/// groups of at most 16.
enum class Group : std::uint8_t { kMean = 0, kMax = 1 };

/// How the two scores of kGlobalLocal are combined.
enum class Combine : std::uint8_t { kSum = 0, kMax = 1 };

/// What happens to the slots that are not kept.
enum class Merge : std::uint8_t {
  kNone = 0,    ///< they are dropped
  kValues = 1,  ///< their values are merged into the most similar kept slot, which keeps its key
  kBoth = 2,    ///< their keys are merged too: directions and norms are averaged separately
};

/// What makes two slots similar: the cosine of what the tiles hold (keys without the profile's mean
/// key), clamped at 0. With `position_free`, whole keys are compared instead, mean key included, as
/// they were before rotary embedding.
enum class Similarity : std::uint8_t { kKey = 0, kValue = 1, kKeyValue = 2 };

/// What a slot adds to its logit for the slots that were merged into it.
enum class Mass : std::uint8_t {
  kNone = 0,
  kShare = 1,  ///< ln of (the importance of all of them / its own)
  kCount = 2,  ///< ln of their number
};

/// How the total budget is divided among the heads.
enum class Budget : std::uint8_t {
  kUniform = 0,    ///< `tokens` each
  kPyramid = 1,    ///< decreasing from layer to layer (PyramidKV, arXiv 2406.02069, beta = 20)
  kScores = 2,     ///< by the head scores of the profile (HeadKV, arXiv 2410.19258)
  kAdaptive = 3,   ///< heads of a layer compete for its slots (Ada-KV, arXiv 2407.11550, a floor of 20 %)
  kTable = 4,      ///< by Options::budgets
  kPrefix = 5,     ///< every layer holds the same share of its attention, as far as the profile or, in compact_now, the
                   ///< scores say (PrefixKV, arXiv 2412.03409)
  kRetrieval = 6,  ///< the heads with the largest head scores of the profile hold `most` times the mean, the others the
                   ///< least there is, 1/5 of it (DuoAttention, arXiv 2410.10819)
  kRules = 7,      ///< by the rule of each head, which also says what it keeps (FastGen, arXiv 2310.01801): HeadRule
  kAnyScores = 8,  ///< as kScores where the profile has head scores; where there are none, or no profile, as kUniform
};

/// What a head keeps under Budget::kRules: the first of these that gets `recovered` of its attention in the profile.
/// Each keeps what the ones before it keep, sinks and recent tokens always, and fills its budget with the newest.
enum class HeadRule : std::uint8_t {
  kSpecial = 0,      ///< special tokens
  kPunctuation = 1,  ///< the newest punctuation, up to a quarter of the budget
  kNewest = 2,       ///< the newest tokens, half of the budget
  kFrequent = 3,     ///< what is attended to most, by `score`
  kFull = 4,         ///< the same, with the largest budget
};

inline constexpr std::uint32_t kMaxTokens = 1u << 24;
inline constexpr std::uint32_t kMaxPairedLayers = 256;  ///< layers from this one on never share

/// A set of layers, all below kMaxPairedLayers.
struct LayerSet {
  std::uint64_t words[kMaxPairedLayers / 64] = {};  ///< layer l is bit l % 64 of word l / 64

  constexpr bool has(std::uint32_t layer) const {
    return layer < kMaxPairedLayers && (words[layer / 64] >> layer % 64 & 1) != 0;
  }
  /// @param layer  ignored if it is kMaxPairedLayers or more
  constexpr void add(std::uint32_t layer) {
    if (layer < kMaxPairedLayers) words[layer / 64] |= std::uint64_t{1} << layer % 64;
  }
  constexpr bool empty() const { return *this == LayerSet{}; }
  constexpr bool operator==(const LayerSet&) const = default;
};

/// The lower layers of pairs of neighbours that share: `first`, `first` + 2, ... while the layer
/// above is below `end`.
constexpr LayerSet pairs_from(std::uint32_t first, std::uint32_t end) {
  LayerSet pairs;
  for (std::uint32_t layer = first; layer + 1 < end; layer += 2) pairs.add(layer);
  return pairs;
}

/// Which slots of a pair of layers are retained, that is, kept separately by both layers.
enum class Retain : std::uint8_t {
  kFar = 0,       ///< the `retained` share whose rows differ most in direction: the purpose of retention
  kNear = 1,      ///< as many that differ least: the paper's printed formula, whose text means the others
  kFarRange = 2,  ///< those of kFar that lie within `retained` of the way from the largest distance to the smallest
};

/// Neighbouring layers that share 4-bit codes, each with its own scales (MiniCache,
/// arXiv 2405.14366). Read if `keys` or `values` names a layer. Where sharing would save no bytes,
/// as in short contexts, layers stay separate: layout_of(shape, policy).views is 0 then.
struct Fold {
  LayerSet keys;    ///< each layer l in it shares the directions of its keys with layer l + 1
  LayerSet values;  ///< the same for values; a layer belongs to at most one pair
  /// Those of them whose upper layer is first transformed to the lower one's basis by the profile's
  /// maps: an orthogonal map for values, a rotation of each rotary pair for keys. The cache needs
  /// a profile that has maps.
  LayerSet aligned_keys;
  LayerSet aligned_values;
  std::uint32_t recent = 32;   ///< number of newest slots that never fold, or max_chunk if that is more; at most 2^24
  std::uint8_t t = 154;        ///< the shared direction, from the lower layer's (0) to the upper one's (256)
  std::uint8_t retained = 13;  ///< share of the old slots that are retained, n / 256, at most 128
  Retain retain = Retain::kFar;
  /// Whether the profile's mean key is subtracted from keys that layers share, as it is in
  /// other layers. Otherwise whole keys are quantised, so that the direction of whole keys is
  /// shared, as in MiniCache.
  bool centred = false;
  std::uint8_t min_cosine = 179;  ///< the smallest mean cosine of a pair that fold_pairs accepts, n / 256

  constexpr bool operator==(const Fold&) const = default;
};

/// What to keep, as plain data, usually made by one of the presets below. The fields from `recent`
/// to `candidate_mass` are read only under Keep::kScore and must have their default values otherwise.
struct Policy {
  Keep keep = Keep::kAll;
  std::uint32_t tokens = 0;  ///< budget of a head in tokens, the mean if heads differ, [1, 2^24];
                             ///< determines the arena's size
  /// Number of first tokens that are never dropped: [0, tokens - 1], 0 under kAll. They are the
  /// oldest slots of a head: if a caller's own plan drops some of them, the next ones become sinks.
  std::uint32_t sinks = 0;

  std::uint32_t recent = 0;       ///< number of most recent tokens that are never dropped; sinks + recent < tokens
  std::uint8_t recent_share = 0;  ///< and at most this share, n / 256, of all tokens seen; 0: no limit
  Score score = Score::kGlobalLocal;
  Group group = Group::kMean;
  Combine combine = Combine::kSum;
  bool per_query = true;      ///< whether the global score is the mean over the queries that could see the
                              ///< slot, in units of an equal share of their attention, or the sum
  std::uint16_t window = 32;  ///< queries that the local score covers, a power of two in [1, 4096]; older ones fade
  std::uint8_t pool = 1;      ///< a slot ranks by the largest score in a window of this many slots around
                              ///< it: 1, 3, ..., 15
  /// Whether what a slot ranks by is multiplied by the norm of its value, as far as its scale says, and as 1/16 of the
  /// mean at least (VATP, arXiv 2406.12335). Not for Score::kKeyNorm.
  bool value_norms = false;

  Merge merge = Merge::kNone;
  /// Under Merge::kBoth: whole keys are rotated to the position of their centre before the mean
  /// key is subtracted and directions are averaged. Needs Shape::rotary, without a reach. Positions are known up
  /// to 65535 tokens after their tile's first.
  bool rephase = false;
  Similarity similarity = Similarity::kKey;
  /// Keys are compared without their rotary embedding, so that equal keys at two positions have
  /// a cosine of 1. Needs Shape::rotary, without a reach. Costs up to 64 * head_dim bytes of arena, and more time than
  /// comparing what the tiles hold (plan.hpp).
  bool position_free = false;
  Mass mass = Mass::kNone;
  bool mean_threshold = false;  ///< a slot is merged if it is at least as similar as its chain's
                                ///< candidates are on average
  std::uint8_t threshold = 0;   ///< or at least threshold / 256; less similar slots are dropped (the zero class)
  /// Merge only the slots that together hold this many 1/256 of the importance; 0: all.
  std::uint8_t candidate_mass = 0;

  Budget budget = Budget::kUniform;  ///< kUniform under Keep::kAll; kAdaptive and kRules need Keep::kScore
  /// Where budgets differ, no head gets more than this many times the mean: [1, 64]. A chain is sized for it.
  std::uint8_t most = 4;
  /// Read under Budget::kRules: the share of a head's attention that its rule must get, n / 256, above 0.
  std::uint8_t recovered = 243;

  /// Layers whose tiles have the codes of `wide_storage`, because their rows lose more by few bits than those of others
  /// do: each of its widths is at least that of Shape::storage, and one is larger. Not where layers share codes. Heads
  /// share their budgets with those of layers of the same storage.
  LayerSet wide = {};
  Storage wide_storage = Storage::kQ8Q4;
  /// Whether the first 32 slots of every head, the sinks among them, have these codes, too: most of the attention is
  /// theirs. A slot that moves there from others gets wider codes for the same row.
  bool wide_first = false;

  /// The tail: the newest tokens of a head have the codes of `tail_storage`. They move down to those of their layer
  /// later, 32 at a time, so that it holds `tail` tokens, or up to max_chunk + 31 more. It is a part of `tokens`; 0: no
  /// tail. Each width of `tail_storage` is at least that of the layers. Nothing is dropped while it lies in the tail.
  /// Needs Keep::kAll or kScore, and no layers that share codes.
  std::uint32_t tail = 0;
  Storage tail_storage = Storage::kQ8;
  /// Under Keep::kScore with a tail: what loses to the other tokens by score keeps the codes of `faint_storage` before
  /// it is dropped or merged. It is a part of `tokens`, a multiple of 32; 0: none. Each width of `faint_storage` is
  /// at most that of the layers. What is faint is in no order of positions, and never gets better codes again.
  std::uint32_t faint = 0;
  Storage faint_storage = Storage::kQ2;

  /// The log: tokens that leave the recent window of a head go to the caller's store (cold.hpp), and recall() brings
  /// those back that queries want (recall.hpp). It is for so many tokens of a head, a multiple of 32, and then forgets
  /// the oldest; 0: none. Needs Keep::kRecent, equal budgets, the same codes in all tiles, and no Rotary::reach.
  std::uint32_t log = 0;
  std::uint32_t recall = 0;  ///< slots of the budget of a head with an index for what is recalled: a multiple of 32
  /// The heads that have an index, and a log: so many 1/256 of all, those with the largest head scores in the profile,
  /// the first ones among equals. The others have `tokens` slots for sinks and recent tokens. 256: all; then no profile
  /// is needed.
  std::uint16_t indexed = 86;

  /// If any layers share, this needs Storage::kQ4, and either Keep::kAll, or Keep::kScore
  /// with Budget::kUniform.
  Fold fold = {};

  constexpr bool operator==(const Policy&) const = default;
};

/// The number of most recent tokens that are never dropped under Keep::kScore when so many have been seen.
constexpr std::uint32_t recent_of(const Policy& policy, std::uint32_t seen) {
  const auto share = static_cast<std::uint32_t>(std::uint64_t{seen} * policy.recent_share / 256);
  return policy.recent_share == 0 || share > policy.recent ? policy.recent : share;
}

/// Keeps every token; append returns kFull when the pool is used up.
constexpr Policy full(std::uint32_t tokens) {
  return {Keep::kAll, tokens, 0};
}

/// Keeps the first `sinks` tokens and the most recent ones, `tokens` in all (StreamingLLM,
/// arXiv 2309.17453, with the original positions kept). A chain is cut back by whole tiles of 32
/// tokens, once a tile or more can go.
constexpr Policy streaming_llm(std::uint32_t tokens, std::uint32_t sinks = 4) {
  return {Keep::kRecent, tokens, sinks};
}

/// full() with pairs of neighbouring layers that share codes: more tokens in the same bytes.
/// @param pairs  the lower layers of the pairs, which share keys and values, for instance
///               pairs_from(layers / 2, layers); empty: full()
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
  policy.sinks = sinks + recent < tokens ? sinks : 0;  // none if the budget is too small for both
  policy.recent = recent;
  policy.score = score;
  return policy;
}
/// The smallest budget in tokens that valid() allows, except under Keep::kAll: beside what is never dropped and what is
/// faint, there is a slot for another, or, with a tail, a tile.
constexpr std::uint32_t smallest_budget(const Policy& policy) {
  if (policy.tail == 0) return policy.sinks + policy.recent + 1;
  const std::uint32_t newest = policy.recent > policy.tail ? policy.recent : policy.tail;
  return policy.sinks + newest + policy.faint + kTileSlots;
}
/// A tail, shortened for small budgets.
constexpr std::uint32_t fitting_tail(std::uint32_t tokens, std::uint32_t wanted, std::uint32_t sinks) {
  const std::uint32_t most = tokens > sinks + kTileSlots ? (tokens - sinks - kTileSlots) / kTileSlots * kTileSlots : 0;
  return wanted < most ? wanted : most;
}
/// The recent window, shortened for small budgets.
constexpr std::uint32_t short_window(std::uint32_t tokens, std::uint32_t wanted) {
  return wanted < tokens / 4 ? wanted : tokens / 4;
}
}  // namespace detail

/// The budget from which on ems() and ems_no_merge() have a tail: there it gains more than the slots that it costs,
/// below 512 less.
inline constexpr std::uint32_t kEmsTailFrom = 640;

/// The Global-Local score alone: unimportant slots are dropped (EMS without
/// merging, arXiv 2412.08521), times the norm of the value. The recent window grows with the text, up to half of the
/// budget. Heads that look things up get more slots if the profile has head scores. From kEmsTailFrom tokens on the
/// newest ones have 8 bits (a tail of 1), which a build without these (NIBKV_CODE_BITS) refuses: set `tail` to 0 there,
/// and for pairs of layers that share codes, unless ems_fold() is what you want.
constexpr Policy ems_no_merge(std::uint32_t tokens) {
  Policy policy = detail::scored(tokens, 4, tokens / 2, Score::kGlobalLocal);
  policy.recent_share = 16;
  policy.combine = Combine::kMax;
  policy.value_norms = true;
  policy.budget = Budget::kAnyScores;
  policy.tail = tokens < kEmsTailFrom ? 0 : 1;
  return policy;
}

/// Evict-then-merge by the Global-Local score (EMS, arXiv 2412.08521): dropped slots are merged
/// into the most similar kept slot, with the directions and norms of keys averaged separately, and
/// its logit keeps their mass. Scores are pooled over 3 neighbours. A tail as in ems_no_merge(); what layers share has
/// none, so pairs are for ems_fold().
constexpr Policy ems(std::uint32_t tokens) {
  Policy policy = ems_no_merge(tokens);
  policy.merge = Merge::kBoth;
  policy.mass = Mass::kShare;
  policy.threshold = 96;
  policy.pool = 3;
  return policy;
}

/// ems() with equal budgets, no tail, and pairs of neighbouring layers that share codes. A pair makes one plan, so that
/// both keep the same positions.
/// @param pairs  as for minicache()
constexpr Policy ems_fold(std::uint32_t tokens, const LayerSet& pairs = {}) {
  Policy policy = ems(tokens);
  policy.budget = Budget::kUniform;
  policy.tail = 0;
  policy.fold.keys = policy.fold.values = pairs;
  return policy;
}

/// Heavy hitters by the sum of all attention, and the same number of recent tokens
/// (H2O, arXiv 2306.14048).
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
  Policy policy = detail::scored(tokens, 0, detail::short_window(tokens, 32), Score::kLocal);
  policy.pool = 7;
  return policy;
}

/// Keys of small norm (arXiv 2406.11430).
constexpr Policy l2_norm(std::uint32_t tokens) {
  return detail::scored(tokens, 0, detail::short_window(tokens, 32), Score::kKeyNorm);
}

/// snapkv with budgets that decrease from layer to layer (PyramidKV, arXiv 2406.02069).
constexpr Policy pyramid_kv(std::uint32_t tokens) {
  Policy policy = snapkv(tokens);
  policy.budget = Budget::kPyramid;
  return policy;
}

/// snapkv where the heads of a layer compete for its slots (Ada-KV, arXiv 2407.11550).
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

/// PrefixKV (arXiv 2412.03409): each layer gets the budget that holds the same share of its attention. Heads keep what
/// the sum of all attention says, as in h2o(), each for itself. Needs a profile with attention (profile.hpp).
constexpr Policy prefix_kv(std::uint32_t tokens) {
  Policy policy = h2o(tokens);
  policy.budget = Budget::kPrefix;
  return policy;
}

/// DuoAttention's kind (arXiv 2410.10819): heads that retrieve hold up to `most` times the mean, so all of a context of
/// that length; the others are streaming_llm with the least budget. Which ones retrieve is what the head scores of the
/// profile say; where all are 0, the first heads.
constexpr Policy duo(std::uint32_t tokens, std::uint8_t most = 8) {
  Policy policy = streaming_llm(tokens);
  policy.budget = Budget::kRetrieval;
  policy.most = most;
  return policy;
}

/// full() with 8 bits for the newest tokens, which move down to the codes of Shape::storage when they are older. KIVI's
/// kind (arXiv 2402.02750), whose newest tokens are exact.
/// @param tail  as many as fit if the budget is too small for it
constexpr Policy precise_tail(std::uint32_t tokens, std::uint32_t tail = 64) {
  Policy policy = full(tokens);
  policy.tail = detail::fitting_tail(tokens, tail, 0);
  return policy;
}

/// QPruningKV's kind (arXiv 2412.12706): more tokens at fewer bits. snapkv() whose newest tokens have 8 bits, and whose
/// slots have fewer bits, a half of them, before they are dropped.
constexpr Policy qpruning(std::uint32_t tokens) {
  Policy policy = snapkv(tokens);
  policy.tail = detail::fitting_tail(tokens, 32, policy.sinks);
  if (policy.tail != 0) policy.faint = (tokens - 1) / 2 / kTileSlots * kTileSlots;  // a larger budget is no smaller
  if (policy.faint != 0 && detail::smallest_budget(policy) > tokens) policy.faint = 0;
  return policy;
}

/// streaming_llm() with a log of what leaves the window: heads that look things up recall from it, the others have a
/// longer window instead. Three quarters of their slots are for what is recalled. Needs a profile with head scores, and
/// a store (cold.hpp).
/// @param tokens  below 64 there is no log
/// @param log     tokens that the log is for; 0: 8 times the budget. Its index takes some 11 bytes a token of each
///                indexed head at head_dim 64.
constexpr Policy recall_window(std::uint32_t tokens, std::uint32_t log = 0) {
  Policy policy = streaming_llm(tokens);
  if (tokens < 2 * kTileSlots) return policy;
  policy.recall = static_cast<std::uint32_t>(std::uint64_t{tokens} * 3 / 4 / kTileSlots * kTileSlots);
  const std::uint64_t wanted = log == 0 ? std::uint64_t{tokens} * 8 : log;
  const std::uint64_t most = wanted < kMaxTokens ? wanted : kMaxTokens;
  policy.log = static_cast<std::uint32_t>((most + kTileSlots - 1) / kTileSlots * kTileSlots);
  return policy;
}

/// FastGen (arXiv 2310.01801): each head has the cheapest rule that gets `recovered` of its attention. Needs a profile
/// with attention (profile.hpp), and to be told which tokens are special or punctuation (classify.hpp).
constexpr Policy fast_gen(std::uint32_t tokens) {
  Policy policy = detail::scored(tokens, 4, detail::short_window(tokens, 32), Score::kGlobal);
  policy.budget = Budget::kRules;
  return policy;
}

/// Whether any slots have wider codes than the others.
constexpr bool has_wide(const Policy& policy) {
  return !policy.wide.empty() || policy.wide_first;
}

/// Whether tokens move down from tier to tier: from the tail to the codes of their layer, and to the faint ones.
constexpr bool has_tiers(const Policy& policy) {
  return policy.tail != 0;
}

/// Whether tokens go to a store.
constexpr bool has_log(const Policy& policy) {
  return policy.log != 0;
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
  if (shape.basis != KeyBasis::kProfile) return false;
  if (fold.retain > Retain::kFarRange || fold.retained > 128 || fold.recent > kMaxTokens) return false;
  for (std::uint32_t layer = 0; layer < kMaxPairedLayers; ++layer) {
    if (fold.aligned_keys.has(layer) && !fold.keys.has(layer)) return false;
    if (fold.aligned_values.has(layer) && !fold.values.has(layer)) return false;
    if (!is_lower(policy, layer)) continue;
    if (layer + 1 >= shape.layers || is_lower(policy, layer + 1)) return false;
  }
  return true;
}

/// Whether both widths of `a` are at least those of `b`.
constexpr bool at_least(const TileFormat& a, const TileFormat& b) {
  return a.key_bits >= b.key_bits && a.value_bits >= b.value_bits;
}

constexpr bool valid_wide(const Policy& policy, const Shape& shape) {
  if (!has_wide(policy)) return true;
  if (has_pairs(policy) || !has_codes(shape.storage) || policy.wide_storage > Storage::kQ2) return false;
  for (std::uint32_t layer = shape.layers; layer < kMaxPairedLayers; ++layer) {
    if (policy.wide.has(layer)) return false;
  }
  const TileFormat wide = format_of(policy.wide_storage);
  const TileFormat other = format_of(shape.storage);
  return wide != other && at_least(wide, other);
}

/// The tokens of a head's budget that lie neither in its tail nor among the faint ones.
constexpr std::uint32_t kept_of(const Policy& policy, std::uint32_t budget) {
  return budget - policy.tail - policy.faint;
}

constexpr bool valid_tiers(const Policy& policy, const Shape& shape) {
  if (!has_tiers(policy)) return policy.faint == 0;
  if (has_pairs(policy) || !has_codes(shape.storage)) return false;
  if (policy.keep != Keep::kAll && policy.keep != Keep::kScore) return false;
  if (policy.faint % kTileSlots != 0) return false;
  if (std::uint64_t{policy.tail} + policy.faint + kTileSlots > policy.tokens) return false;
  if (policy.tail_storage > Storage::kQ2 || !has_codes(policy.tail_storage)) return false;
  const TileFormat tail = format_of(policy.tail_storage);
  if (!at_least(tail, format_of(shape.storage))) return false;
  if (has_wide(policy) && !at_least(tail, format_of(policy.wide_storage))) return false;
  if (policy.faint == 0) return true;
  if (policy.keep != Keep::kScore || policy.faint_storage > Storage::kQ2) return false;
  return has_codes(policy.faint_storage) && at_least(format_of(shape.storage), format_of(policy.faint_storage));
}
constexpr bool valid_log(const Policy& policy, const Shape& shape) {
  if (!has_log(policy)) return policy.recall == 0 && policy.indexed == Policy{}.indexed;
  if (policy.keep != Keep::kRecent || policy.budget != Budget::kUniform || !has_codes(shape.storage)) return false;
  if (has_wide(policy) || has_tiers(policy) || has_pairs(policy) || shape.rotary.reach != 0) return false;
  if (policy.log > kMaxTokens || policy.log % kTileSlots != 0) return false;
  if (policy.recall == 0 || policy.recall % kTileSlots != 0 || policy.indexed < 1 || policy.indexed > 256) return false;
  return std::uint64_t{policy.sinks} + policy.recall < policy.tokens;
}
}  // namespace detail

/// True when every field is in its range and the policy fits the shape.
constexpr bool valid(const Policy& policy, const Shape& shape) {
  if (policy.tokens < 1 || policy.tokens > kMaxTokens || !detail::valid_fold(policy, shape)) return false;
  if (!detail::valid_wide(policy, shape) || !detail::valid_tiers(policy, shape)) return false;
  if (!detail::valid_log(policy, shape)) return false;
  if (policy.keep != Keep::kScore) {
    Policy plain;
    plain.keep = policy.keep;
    plain.tokens = policy.tokens;
    plain.sinks = policy.sinks;
    plain.fold = policy.fold;
    plain.budget = policy.budget;
    plain.most = policy.most;
    plain.wide = policy.wide;
    plain.wide_storage = policy.wide_storage;
    plain.wide_first = policy.wide_first;
    plain.tail = policy.tail;
    plain.tail_storage = policy.tail_storage;
    plain.log = policy.log;
    plain.recall = policy.recall;
    plain.indexed = policy.indexed;
    if (policy != plain) return false;
  }
  if (policy.budget > Budget::kAnyScores || policy.most < 1 || policy.most > 64 || policy.recovered == 0) return false;
  // Slots that fold are in no order, and have positions under kScore alone.
  if (shape.rotary.reach != 0 && has_pairs(policy) && policy.keep != Keep::kScore) return false;
  const bool equal = policy.budget == Budget::kUniform;
  if (policy.keep == Keep::kAll) return policy.sinks == 0 && equal;
  if (policy.sinks >= policy.tokens) return false;
  if (policy.keep == Keep::kRecent) return policy.budget != Budget::kAdaptive && policy.budget != Budget::kRules;
  if (policy.keep != Keep::kScore || !has_codes(shape.storage)) return false;
  if (std::uint64_t{policy.sinks} + policy.recent >= policy.tokens) return false;
  if (has_tiers(policy) && detail::smallest_budget(policy) > policy.tokens) return false;
  if (policy.score > Score::kKeyNorm || policy.group > Group::kMax || policy.combine > Combine::kMax) return false;
  if (policy.group == Group::kMax && shape.group() > kMaxRows) return false;
  if (policy.window < 1 || policy.window > 4096 || (policy.window & (policy.window - 1)) != 0) return false;
  if (policy.pool % 2 == 0 || policy.pool > 15) return false;
  if (policy.value_norms && policy.score == Score::kKeyNorm) return false;
  if (policy.merge > Merge::kBoth || policy.similarity > Similarity::kKeyValue || policy.mass > Mass::kCount)
    return false;
  // Keys are coded at other positions than their own if there is a reach.
  if ((policy.rephase || policy.position_free) && (!shape.rotary.known() || shape.rotary.reach != 0)) return false;
  return policy.budget != Budget::kRules || (policy.merge == Merge::kNone && policy.score != Score::kKeyNorm);
}

/// Finds a preset by name, with its default parameters: "full", "streaming_llm", "ems",
/// "ems_no_merge", "h2o", "tova", "snapkv", "l2_norm", "pyramid_kv", "ada_kv", "head_kv", "prefix_kv",
/// "duo", "fast_gen", "precise_tail", "qpruning", "recall", "minicache", "ems_fold" (the last two without
/// pairs: fold.hpp).
/// @param tokens  budget of a head in tokens
/// @returns kBadPolicy for an unknown name; `policy` is unchanged then.
Status find_policy(std::string_view name, std::uint32_t tokens, Policy& policy);

/// The names that find_policy knows: index 0, 1, ...; an empty view past the end.
std::string_view policy_name(std::uint32_t index);

}  // namespace nibkv

#include "nibkv/macros_pop.hpp"
