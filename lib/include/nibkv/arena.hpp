#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string_view>
#include <type_traits>

#include "nibkv/policy.hpp"
#include "nibkv/shape.hpp"

#include "nibkv/macros_push.hpp"

namespace nibkv {

/// Tiles whose codes have the same widths have neighbouring numbers, in this order.
enum class Pool : std::uint8_t {
  kWide = 0,   ///< Policy::wide_storage: first tiles, and those of wide layers
  kTail = 1,   ///< Policy::tail_storage
  kKept = 2,   ///< Shape::storage: all tiles where a policy says nothing else
  kFaint = 3,  ///< Policy::faint_storage
};
inline constexpr std::uint32_t kPools = 4;

constexpr Storage storage_of(const Shape& shape, const Policy& policy, Pool pool) {
  switch (pool) {
    case Pool::kWide:
      return policy.wide_storage;
    case Pool::kTail:
      return policy.tail_storage;
    case Pool::kKept:
      return shape.storage;
    case Pool::kFaint:
      return policy.faint_storage;
  }
  return shape.storage;
}

/// A number of tiles of each pool.
struct PoolTiles {
  std::uint64_t at[kPools] = {};

  constexpr std::uint64_t& operator[](Pool pool) { return at[static_cast<std::uint32_t>(pool)]; }
  constexpr std::uint64_t operator[](Pool pool) const { return at[static_cast<std::uint32_t>(pool)]; }
  constexpr std::uint64_t all() const { return at[0] + at[1] + at[2] + at[3]; }
};

/// Side data of a tile: the byte offsets of its arrays of 32 elements, in this order. The last six
/// exist only under policies that read them.
struct Side {
  std::uint32_t key_scales = 0;    ///< scale16
  std::uint32_t value_scales = 0;  ///< scale16
  std::uint32_t outliers = 0;      ///< i8[outlier_channels / 4][32][4]
  std::uint32_t global = 0;        ///< u32: attention from all queries, see score.hpp
  std::uint32_t positions = 0;     ///< u16: position minus the tile's base, at most 65535
  std::uint32_t local = 0;         ///< u16: attention from the most recent queries
  std::uint32_t bias = 0;          ///< u8: added to the slot's logit, in 1/16 octave
  std::uint32_t merged = 0;        ///< u8: number of slots merged into it, at most 255
  std::uint32_t classes = 0;       ///< u8: TokenClass
  std::uint32_t total = 0;

  constexpr bool operator==(const Side&) const = default;
};

/// The layout of an arena: byte offsets from its start, each a multiple of 64. lib/FORMAT.md
/// describes the regions.
struct Layout {
  std::uint64_t chains = 0;          ///< Chain[layers][kv_heads]
  std::uint64_t links = 0;           ///< u32[tiles + views]: the next tile in the same chain or free list
  std::uint64_t bases = 0;           ///< u32[tiles + views]: position of a tile's first slot, under Keep::kScore
  std::uint64_t sides = 0;           ///< side data of a tile: [tiles + views][side_bytes]
  std::uint64_t codes = 0;           ///< codes of a tile, in the order of tile numbers; each has those of its pool
  std::uint64_t tiers = 0;           ///< Tier[layers][kv_heads][1 or 2], if tokens move down from tier to tier; then of
                                     ///< each head what is measured of its keys, measured_bytes() each; then what a
                                     ///< log has in the arena: ColdSpace
  std::uint64_t folds = 0;           ///< FoldedPart[layers][kv_heads], if layers share codes
  std::uint64_t distances = 0;       ///< u32[pairs][kv_heads][most_retained]: of the retained slots after the sinks
  std::uint64_t shared = 0;          ///< codes of the shared entries
  std::uint64_t plan = 0;            ///< u32[0 to 6][chain_tiles * 32]: plans, and slots that fold (lib/FORMAT.md)
  std::uint64_t encoding = 0;        ///< f32[1 + kRefinerRows][head_dim]: the row being quantised, and KeyRefiner's
  std::uint64_t merging = 0;         ///< rows being merged or compared: MergeSpace
  std::uint64_t turned = 0;          ///< f32[head_dim][16], under Policy::position_free: keys being compared
  std::uint64_t scratch = 0;         ///< [workers][scratch_bytes], Partial[query_heads][blocks]; from plan on: attend
                                     ///< never runs while those are read
  std::uint64_t layout = 0;          ///< this struct
  std::uint64_t total = 0;           ///< the footprint
  std::uint64_t tiles = 0;           ///< tiles of all pools
  std::uint64_t views = 0;           ///< tile numbers after those: two for each entry, for the lower
                                     ///< and the upper layer
  std::uint64_t both_entries = 0;    ///< entries that share keys and values come first: their end
  std::uint64_t value_entries = 0;   ///< then those that share only values: their end. Those that share
                                     ///< only keys come last
  std::uint32_t tiles_per_head = 0;  ///< tiles of a head with the mean budget, besides its tail and its faint ones
  std::uint32_t paired_tiles = 0;    ///< tiles of a head whose layer shares codes
  std::uint32_t paired_entries = 0;  ///< entries that two such heads share
  std::uint32_t most_retained = 0;   ///< old slots of such a head that do not fold, not counting the sinks
  std::uint32_t chain_tiles = 0;     ///< the most tiles that one chain may have
  std::uint32_t side_bytes = 0;
  std::uint32_t code_bytes = 0;
  std::uint32_t key_bytes = 0;    ///< of them: those of the keys, which come first
  std::uint32_t value_bytes = 0;  ///< and those of the values
  std::uint32_t scratch_bytes = 0;
  std::uint32_t wide_tiles = 0;   ///< end of the first pool, Pool::kWide: first_tiles, then those of layers
  std::uint32_t first_tiles = 0;  ///< first tiles of heads of other layers, in their order
  std::uint32_t kept_from = 0;    ///< end of the second pool, kTail: that many tiles for each head, in their order
  std::uint32_t faint_from = 0;   ///< end of the third pool, kKept, if there is a fourth, kFaint; else 0xffffffff
  Side side = {};

  constexpr bool operator==(const Layout&) const = default;
};

/// Rows of workspace that refining the codes of a key takes, f32[head_dim] each.
inline constexpr std::uint32_t kRefinerRows = 8;

/// The region for merging and for finding who joins whom: byte offsets from its start.
struct MergeSpace {
  std::uint32_t key = 0;           ///< f32[head_dim]
  std::uint32_t value = 0;         ///< f32[head_dim]
  std::uint32_t row = 0;           ///< f32[head_dim]
  std::uint32_t rotary_steps = 0;  ///< u64[head_dim / 2]
  std::uint32_t levels = 0;        ///< i8[16][head_dim], of the keys of candidates; the next likewise
  std::uint32_t values = 0;
  std::uint32_t dots = 0;          ///< i32[16][32]
  std::uint32_t outlier_dots = 0;  ///< i32[16][32]
  std::uint32_t total = 0;
};
constexpr MergeSpace merge_space_of(std::uint32_t head_dim) {
  MergeSpace at;
  const auto take = [&at](std::uint32_t bytes) {
    const std::uint32_t start = at.total;
    at.total += bytes;
    return start;
  };
  at.key = take(head_dim * 4);
  at.value = take(head_dim * 4);
  at.row = take(head_dim * 4);
  at.rotary_steps = take(head_dim / 2 * 8);
  at.levels = take(kMaxRows * head_dim);
  at.values = take(kMaxRows * head_dim);
  at.dots = take(kMaxRows * kTileSlots * 4);
  at.outlier_dots = take(kMaxRows * kTileSlots * 4);
  return at;
}

// An arena contains it, in 256 bytes.
static_assert(sizeof(Layout) <= 256);
static_assert(std::has_unique_object_representations_v<Layout>, "its bytes are compared: add or remove `reserved`");

/// Attention is summed up in blocks of this many tiles of a head, which threads may divide (share.hpp). Where heads are
/// not divided, a head is one block.
inline constexpr std::uint32_t kBlockTiles = 16;

/// The scratch of one worker, sized for rows() query rows: byte offsets from its start, each
/// a multiple of 64.
struct Scratch {
  std::uint32_t row = 0;              ///< f32[head_dim]
  std::uint32_t sums = 0;             ///< f32[rows][head_dim]
  std::uint32_t queries = 0;          ///< i8[rows][head_dim]; f32 with Storage::kF32
  std::uint32_t outlier_queries = 0;  ///< i8[rows][outlier_channels]
  std::uint32_t dots = 0;             ///< i32[16][32]: for all (tile, row) pairs that are weighted together
  std::uint32_t outlier_dots = 0;     ///< i32[16][32]
  std::uint32_t weights = 0;          ///< u8[16][32]
  std::uint32_t block = 0;            ///< f32[rows][head_dim]: the sums of a block, if a head may have several
  std::uint32_t softmax = 0;    ///< u16[scored_pairs][32]: the weights of a whole chain, for its scores, [tile][row]
  std::uint32_t exponents = 0;  ///< i32[scored_pairs]: their exponents
  std::uint32_t turned = 0;     ///< Rotary::turns() times the query rows turned for far slots, turned_bytes() each
  std::uint32_t recall = 0;     ///< RecallSpace, if there is a log
  std::uint32_t total = 0;
};

/// What a log has in the arena: byte offsets from the end of the tiers.
struct ColdSpace {
  std::uint64_t tokens = 0;  ///< after ColdHead[layers][kv_heads]: u32[indexed heads][recall], which token of the log
                             ///< each recalled slot is, rising
  std::uint64_t pages = 0;   ///< [indexed heads][log / 32]: the index of a page, index_page_bytes() each
  std::uint64_t total = 0;
};

/// Workspace of a worker for recall(), and of append for a page: byte offsets from its start.
struct RecallSpace {
  std::uint32_t page = 0;    ///< cold_page_bytes()
  std::uint32_t row = 0;     ///< f32[2][head_dim]
  std::uint32_t sums = 0;    ///< i8[head_dim / 4][16]: of four channels of a query with all their signs
  std::uint32_t query = 0;   ///< i8[head_dim]
  std::uint32_t logits = 0;  ///< i16[log], in 1/32 octave
  std::uint32_t votes = 0;   ///< u32[log]
  std::uint32_t chosen = 0;  ///< u32[recall]
  std::uint32_t total = 0;
};

/// A turned query row apart from its codes.
struct TurnedRow {
  float scale = 0;
  float outlier_scale = 0;
  float apart = 0;  ///< its product with the mean key, less that of the row that is not turned
};

namespace detail {
constexpr std::uint64_t round_up(std::uint64_t value, std::uint64_t unit) {
  return (value + unit - 1) / unit * unit;
}
constexpr std::uint64_t all_heads(const Shape& shape) {
  return std::uint64_t{shape.layers} * shape.kv_heads;
}
inline constexpr std::uint32_t kHeaderBytes = 64;
inline constexpr std::uint32_t kChainBytes = 36;
inline constexpr std::uint32_t kFoldedPartBytes = 32;
inline constexpr std::uint32_t kTierBytes = 16;
inline constexpr std::uint32_t kColdHeadBytes = 48;
inline constexpr std::uint32_t kColdPageHeaderBytes = 32;
}  // namespace detail

/// Whether a policy reads the classes of tokens.
constexpr bool keeps_classes(const Policy& policy) {
  return policy.keep == Keep::kScore && policy.budget == Budget::kRules;
}
/// Which scores a policy keeps for every slot.
constexpr bool keeps_global(const Policy& policy) {
  return policy.keep == Keep::kScore && (policy.score == Score::kGlobalLocal || policy.score == Score::kGlobal);
}
constexpr bool keeps_local(const Policy& policy) {
  return policy.keep == Keep::kScore && (policy.score == Score::kGlobalLocal || policy.score == Score::kLocal);
}
constexpr bool scores_attention(const Policy& policy) {
  return keeps_global(policy) || keeps_local(policy);
}
constexpr bool merges(const Policy& policy) {
  return policy.keep == Keep::kScore && policy.merge != Merge::kNone;
}

/// A field of a tile's side data: arrays of 32 elements, one for each slot.
struct SideField {
  /// Under which policies it exists.
  enum class Reader : std::uint8_t { kAll, kGlobal, kScore, kLocal, kMerge, kRules };
  /// What a new slot has in it, and what must be true of it (snapshot/side_checks.cpp).
  enum class Rule : std::uint8_t {
    kKeyScale,
    kValueScale,
    kOutliers,
    kGlobal,
    kPosition,
    kLocal,
    kBias,
    kMerged,
    kClass
  };

  std::uint32_t Side::*offset;
  std::uint8_t bytes;  ///< of an element: 1, 2 or 4
  Reader reader;
  Rule rule;

  /// The number of arrays.
  constexpr std::uint32_t arrays(const Shape& shape, const Policy& policy) const {
    if (!has_codes(shape.storage)) return 0;
    if (rule == Rule::kOutliers) return shape.outlier_channels / bytes;
    switch (reader) {
      case Reader::kAll:
        return 1;
      case Reader::kGlobal:
        return keeps_global(policy) ? 1 : 0;
      case Reader::kScore:
        return policy.keep == Keep::kScore ? 1 : 0;
      case Reader::kLocal:
        return keeps_local(policy) ? 1 : 0;
      case Reader::kMerge:
        return merges(policy) ? 1 : 0;
      case Reader::kRules:
        return keeps_classes(policy) ? 1 : 0;
    }
    return 0;
  }
  /// Whether a slot begins with 0 in it. Rows have their scales and outliers, and each slot its position.
  constexpr bool starts_at_zero() const { return reader != Reader::kAll && rule != Rule::kPosition; }
};

/// All fields, in the order in which they lie. What lays out, moves, starts, checks or saves side data
/// goes through this table.
[[gnu::visibility("hidden")]] inline constexpr SideField kSideFields[] = {
    {&Side::key_scales, 2, SideField::Reader::kAll, SideField::Rule::kKeyScale},
    {&Side::value_scales, 2, SideField::Reader::kAll, SideField::Rule::kValueScale},
    {&Side::outliers, 4, SideField::Reader::kAll, SideField::Rule::kOutliers},  // four channels of a slot
    {&Side::global, 4, SideField::Reader::kGlobal, SideField::Rule::kGlobal},
    {&Side::positions, 2, SideField::Reader::kScore, SideField::Rule::kPosition},
    {&Side::local, 2, SideField::Reader::kLocal, SideField::Rule::kLocal},
    {&Side::bias, 1, SideField::Reader::kMerge, SideField::Rule::kBias},
    {&Side::merged, 1, SideField::Reader::kMerge, SideField::Rule::kMerged},
    {&Side::classes, 1, SideField::Reader::kRules, SideField::Rule::kClass},
};

// Slots start with 0 under Keep::kScore alone.
static_assert(
    [] {
      using Rule = SideField::Rule;
      for (const SideField& field : kSideFields) {
        const bool of_row =
            field.rule == Rule::kKeyScale || field.rule == Rule::kValueScale || field.rule == Rule::kOutliers;
        if ((field.reader == SideField::Reader::kAll) != of_row) return false;
      }
      return true;
    }(),
    "what tiles have under every policy is written with the row (codec/row.hpp)");

constexpr Side side_of(const Shape& shape, const Policy& policy) {
  Side at;
  for (const SideField& field : kSideFields) {
    at.*field.offset = at.total;
    at.total += field.arrays(shape, policy) * kTileSlots * field.bytes;
  }
  return at;
}

/// Of the most side data that a tile may have.
inline constexpr std::uint32_t kMostSideBytes = [] {
  std::uint32_t bytes = 0;
  for (const SideField& field : kSideFields) {
    bytes += (field.rule == SideField::Rule::kOutliers ? kMaxOutlierChannels : field.bytes) * kTileSlots;
  }
  return bytes;
}();

/// Whether the attention of a head can be divided along the context.
constexpr bool divides_heads(const Shape& shape, const Policy& policy) {
  return has_codes(shape.storage) && !scores_attention(policy);
}

/// What is measured of a head's keys under KeyBasis::kMeasured: u32 tokens from which it is, 0 if nothing was; then, as
/// in a profile (lib/FORMAT.md), u8[16] channels, scale16[16] scales, bf16[head_dim] mean key.
constexpr std::uint32_t measured_bytes(const Shape& shape) {
  return shape.basis == KeyBasis::kMeasured ? 4 + kMaxOutlierChannels * 3 + 2u * shape.head_dim : 0;
}

/// Workspace in which a row is encoded: f32[1 + kRefinerRows][head_dim].
constexpr std::uint32_t encoding_bytes(const Shape& shape) {
  return has_codes(shape.storage) ? (1 + kRefinerRows) * shape.head_dim * 4u : 0;
}

/// Query rows of a pass, turned alike: their codes i8[rows][head_dim], TurnedRow[rows], the sums of their codes and of
/// their outlier codes i32[rows], and the latter i8[rows][outlier_channels].
constexpr std::uint32_t turned_bytes(const Shape& shape) {
  const std::uint64_t row = shape.head_dim + sizeof(TurnedRow) + 2 * sizeof(std::int32_t) + shape.outlier_channels;
  return has_codes(shape.storage) ? static_cast<std::uint32_t>(detail::round_up(shape.rows() * row, 16)) : 0;
}

namespace detail {
/// Slots of a head's tail: of its tokens, of a chunk, and of less than a tile that waits to move down.
constexpr std::uint32_t tail_slots(const Shape& shape, const Policy& policy) {
  return has_tiers(policy) ? policy.tail + shape.max_chunk + kTileSlots - 1 : 0;
}
constexpr std::uint32_t tail_tiles(const Shape& shape, const Policy& policy) {
  return (tail_slots(shape, policy) + kTileSlots - 1) / kTileSlots;
}
constexpr std::uint32_t faint_tiles(const Policy& policy) {
  return policy.faint / kTileSlots;
}
/// Tiers of a chain besides the one where tokens arrive.
constexpr std::uint32_t tiers_below(const Policy& policy) {
  return has_tiers(policy) ? policy.faint != 0 ? 2 : 1 : 0;
}
}  // namespace detail

/// How many pairs of a tile and a query row may pass over a chain together under a policy that scores attention. Where
/// a chain is longer than the mean, fewer rows do, but at least those of one query.
constexpr std::uint64_t scored_pairs(const Shape& shape, const Policy& policy, const Layout& at) {
  const std::uint64_t rows = shape.rows();
  const std::uint64_t least = std::uint64_t{at.chain_tiles} * (shape.group() < rows ? shape.group() : rows);
  const std::uint64_t mean = at.tiles_per_head + detail::tail_tiles(shape, policy) + detail::faint_tiles(policy);
  const std::uint64_t whole = (at.views != 0 ? at.chain_tiles : mean) * rows;
  return whole > least ? whole : least;
}

/// Heads that have an index.
constexpr std::uint32_t indexed_heads(const Shape& shape, const Policy& policy) {
  if (!has_log(policy)) return 0;
  const auto heads = static_cast<std::uint32_t>(detail::all_heads(shape) * policy.indexed / 256);
  return heads != 0 ? heads : 1;
}
/// What the index has of a page of 32 tokens: u8[head_dim / 8][32], the signs of each token's rotated key less their
/// mean; i8[head_dim], the mean; u8[32], the sizes of the differences; scale16 of the mean and of the sizes; u32, the
/// sum of the page in the store.
constexpr std::uint32_t index_page_bytes(std::uint32_t head_dim) {
  return kTileSlots / 8 * head_dim + head_dim + kTileSlots + 8;
}
/// A page of the store: a header, then side data and codes of 32 tokens as a tile has them. A multiple of 64.
constexpr std::uint32_t cold_page_bytes(const Shape& shape, const Policy& policy) {
  if (!has_log(policy)) return 0;
  const TileFormat format = format_of(shape.storage);
  const std::uint32_t codes = format.key_bytes(shape.head_dim) + format.value_bytes(shape.head_dim);
  return static_cast<std::uint32_t>(
      detail::round_up(detail::kColdPageHeaderBytes + side_of(shape, policy).total + codes, 64));
}
/// The size of the store that a cache needs; 0 without a log.
constexpr std::uint64_t cold_bytes(const Shape& shape, const Policy& policy) {
  return std::uint64_t{indexed_heads(shape, policy)} * (policy.log / kTileSlots) * cold_page_bytes(shape, policy);
}

constexpr ColdSpace cold_space_of(const Shape& shape, const Policy& policy) {
  ColdSpace at;
  if (!has_log(policy)) return at;
  const std::uint64_t indexed = indexed_heads(shape, policy);
  at.tokens = detail::all_heads(shape) * detail::kColdHeadBytes;
  at.pages = at.tokens + indexed * policy.recall * 4;
  at.total = at.pages + indexed * (policy.log / kTileSlots) * index_page_bytes(shape.head_dim);
  return at;
}

constexpr RecallSpace recall_space_of(const Shape& shape, const Policy& policy) {
  RecallSpace at;
  if (!has_log(policy)) return at;
  const auto take = [&at](std::uint64_t bytes) {
    const std::uint32_t start = at.total;
    at.total += static_cast<std::uint32_t>(detail::round_up(bytes, 64));
    return start;
  };
  at.page = take(cold_page_bytes(shape, policy));
  at.row = take(shape.head_dim * 8u);
  at.sums = take(shape.head_dim * 4u);
  at.query = take(shape.head_dim);
  at.logits = take(policy.log * 2u);
  at.votes = take(policy.log * 4u);
  at.chosen = take(policy.recall * 4u);
  return at;
}

/// Its total is 0 where it would be 4 GiB or more, which no cache has.
/// @param layout  of which tiles and views are known
constexpr Scratch scratch_of(const Shape& shape, const Policy& policy, const Layout& layout) {
  const std::uint32_t rows = shape.rows();
  const bool codes = has_codes(shape.storage);
  Scratch at;
  std::uint64_t end = 0;
  const auto take = [&end](std::uint64_t bytes) {
    const std::uint64_t start = end;
    end += detail::round_up(bytes, kArenaAlignment);
    return static_cast<std::uint32_t>(start);
  };
  at.row = take(shape.head_dim * 4u);
  at.sums = take(rows * shape.head_dim * 4u);
  at.queries = take(rows * shape.head_dim * (codes ? 1u : 4u));
  at.outlier_queries = take(rows * shape.outlier_channels);
  at.dots = take(kMaxRows * kTileSlots * 4u);
  at.outlier_dots = take(shape.outlier_channels == 0 ? 0 : kMaxRows * kTileSlots * 4u);
  at.weights = take(kMaxRows * kTileSlots);
  at.block = take(divides_heads(shape, policy) && layout.chain_tiles > kBlockTiles ? rows * shape.head_dim * 4u : 0);
  at.softmax = take(scores_attention(policy) ? scored_pairs(shape, policy, layout) * kTileSlots * 2 : 0);
  at.exponents = take(scores_attention(policy) ? scored_pairs(shape, policy, layout) * 4 : 0);
  at.turned = take(shape.rotary.turns() * turned_bytes(shape));
  at.recall = take(recall_space_of(shape, policy).total);
  // Workers that append encode their rows in it.
  const std::uint32_t least = shape.workers > 1 ? encoding_bytes(shape) : 0;
  const std::uint64_t total = end > least ? end : detail::round_up(least, kArenaAlignment);
  at.total = total <= std::numeric_limits<std::uint32_t>::max() ? static_cast<std::uint32_t>(total) : 0;
  return at;
}

/// The attention of a query row in one block, until all blocks are combined: this, then f32[head_dim].
struct Partial {
  std::uint64_t mass = 0;
  std::int32_t exponent = 0;
  std::uint32_t layer = 0;
  std::uint32_t seen = 0;    ///< tokens of the layer then; 0: combined
  std::uint32_t blocks = 0;  ///< of the head
  std::uint64_t mark = 0;    ///< of one that was written
};
inline constexpr std::uint64_t kPartialMark = 0x6c61697472617042;

/// Blocks of a chain of that many tiles.
constexpr std::uint32_t blocks_of(std::uint32_t tiles) {
  return (tiles + kBlockTiles - 1) / kBlockTiles;
}
constexpr std::uint32_t partial_bytes(const Shape& shape) {
  return sizeof(Partial) + shape.head_dim * 4u;
}

namespace detail {
/// Slots of a head beyond its budget. There is space for a chunk, so that each of its queries sees
/// a full budget of slots; and for at least one tile, so that a chain is compacted only once in 32
/// tokens. Under Keep::kRecent whole tiles are dropped, which may leave up to 31 slots more.
constexpr std::uint32_t slack_of(const Shape& shape, const Policy& policy) {
  if (policy.keep == Keep::kAll || has_tiers(policy)) return 0;  // a tail has its own
  if (policy.keep == Keep::kRecent) return shape.max_chunk + kTileSlots - 1;
  return shape.max_chunk > kTileSlots ? shape.max_chunk : kTileSlots;
}
constexpr std::uint32_t slack_tiles(const Shape& shape, const Policy& policy) {
  return (slack_of(shape, policy) + kTileSlots - 1) / kTileSlots;
}

/// The newest slots, which are not folded: all slots of a chunk must still be there for
/// the chunk's queries.
constexpr std::uint32_t unfolded(const Shape& shape, const Policy& policy) {
  return policy.fold.recent > shape.max_chunk ? policy.fold.recent : shape.max_chunk;
}
/// Slots that are retained for every `folded` slots.
constexpr std::uint64_t retained_beside(const Policy& policy, std::uint64_t folded) {
  return folded * policy.fold.retained / (256u - policy.fold.retained);
}

/// What two heads that share codes need to hold `tiles_per_head` tiles of slots.
struct PairRoom {
  std::uint32_t tiles;    ///< tiles of each head's own
  std::uint32_t entries;  ///< shared entries; 0 when sharing would gain nothing
};
constexpr PairRoom pair_room(const Shape& shape, const Policy& policy, std::uint32_t tiles_per_head) {
  const std::uint64_t slots = std::uint64_t{tiles_per_head} * kTileSlots;
  const std::uint64_t always = std::uint64_t{policy.sinks} + unfolded(shape, policy);
  std::uint32_t low = 0;  // full entries of a chain of that many slots
  std::uint32_t high = tiles_per_head + 1;
  while (high - low > 1) {
    const std::uint32_t middle = low + (high - low) / 2;
    const std::uint64_t folded = std::uint64_t{middle} * kTileSlots;
    (always + folded + retained_beside(policy, folded) <= slots ? low : high) = middle;
  }
  // One more, because a caller's plan may leave the last entry half empty. Before slots fold,
  // the chain may hold up to 31 slots beyond those needed for folding, and the chunk just appended.
  const std::uint32_t entries = low + 1;
  const std::uint64_t own =
      always + retained_beside(policy, std::uint64_t{entries} * kTileSlots) + kTileSlots - 1 + shape.max_chunk;
  const std::uint64_t tiles = (own + kTileSlots - 1) / kTileSlots;
  if (low == 0 || tiles >= tiles_per_head) return {tiles_per_head, 0};
  return {static_cast<std::uint32_t>(tiles), entries};
}

struct PairCounts {
  std::uint32_t both = 0;
  std::uint32_t values = 0;
  std::uint32_t keys = 0;
  constexpr std::uint32_t all() const { return both + values + keys; }
};
/// The number of pairs whose lower layer is below `end`, by what they share.
constexpr PairCounts count_pairs(const Policy& policy, std::uint32_t end) {
  PairCounts count;
  for (std::uint32_t layer = 0; layer < end; ++layer) {
    const bool keys = policy.fold.keys.has(layer);
    const bool values = policy.fold.values.has(layer);
    if (keys && values) ++count.both;
    if (!keys && values) ++count.values;
    if (keys && !values) ++count.keys;
  }
  return count;
}
}  // namespace detail

namespace detail {
/// Those of layers with wider codes.
constexpr std::uint64_t wide_heads(const Shape& shape, const Policy& policy) {
  std::uint64_t layers = 0;
  for (std::uint64_t word : policy.wide.words) {
    for (; word != 0; word &= word - 1) ++layers;
  }
  return layers * shape.kv_heads;
}
/// Planes of all entries: 2 of those that share keys and values, 3 of any other.
constexpr std::uint64_t all_planes(const Layout& at) {
  return at.both_entries * 2 + (at.views / 2 - at.both_entries) * 3;
}
/// The bytes of Partial[query_heads][blocks], after the scratch of all workers.
constexpr std::uint64_t all_partials(const Shape& shape, const Policy& policy, const Layout& at) {
  if (shape.workers == 1 || !divides_heads(shape, policy)) return 0;
  return std::uint64_t{shape.query_heads} * blocks_of(at.chain_tiles) * partial_bytes(shape);
}
/// Arrays of the plan region, one number a slot, and the bits of slots that may be dropped.
constexpr std::uint64_t plan_bytes(const Policy& policy, const Layout& at) {
  const bool shares = at.views != 0;
  const bool scored = policy.keep == Keep::kScore;
  const std::uint64_t arrays = scored ? (shares ? 6 : 5) : shares ? 2 : policy.keep != Keep::kAll ? 1 : 0;
  const bool bits = scored && (shares || policy.faint != 0);
  return arrays * at.chain_tiles * kTileSlots * 4 + (bits ? at.chain_tiles * 4u : 0);
}
}  // namespace detail

namespace detail {
constexpr PoolTiles tiles_of_pools(const Layout& at) {
  const std::uint64_t kept = at.tiles < at.faint_from ? at.tiles : at.faint_from;
  return {{at.wide_tiles, at.kept_from - at.wide_tiles, kept - at.kept_from, at.tiles - kept}};
}
/// The bytes of the codes of tiles.
/// @param kept_bytes  Layout::code_bytes
constexpr std::uint64_t code_bytes(const Shape& shape, const Policy& policy, const PoolTiles& tiles,
                                   std::uint32_t kept_bytes) {
  std::uint64_t bytes = 0;
  for (std::uint32_t i = 0; i < kPools; ++i) {
    const Pool pool{static_cast<std::uint8_t>(i)};
    const TileFormat format = format_of(storage_of(shape, policy, pool));
    const std::uint32_t of_tile =
        pool == Pool::kKept ? kept_bytes : format.key_bytes(shape.head_dim) + format.value_bytes(shape.head_dim);
    bytes += tiles.at[i] * of_tile;
  }
  return bytes;
}
}  // namespace detail

/// A region of an arena. Its bytes follow from the fields of Layout that come after `total`.
struct Region {
  enum class Size : std::uint8_t {
    kChains,
    kLinks,
    kBases,
    kSides,
    kCodes,
    kTiers,
    kFolds,
    kDistances,
    kShared,
    kPlan,
    kEncoding,
    kMerging,
    kTurned,
    kScratch,
    kLayout
  };

  std::uint64_t Layout::*offset;
  Size size;

  constexpr std::uint64_t bytes(const Shape& shape, const Policy& policy, const Layout& at) const {
    const bool scored = policy.keep == Keep::kScore;
    switch (size) {
      case Size::kChains:
        return detail::all_heads(shape) * detail::kChainBytes;
      case Size::kLinks:
        return (at.tiles + at.views) * 4;
      case Size::kBases:
        return scored ? (at.tiles + at.views) * 4 : 0;
      case Size::kSides:
        return (at.tiles + at.views) * at.side_bytes;
      case Size::kCodes:
        return detail::code_bytes(shape, policy, detail::tiles_of_pools(at), at.code_bytes);
      case Size::kTiers:
        return detail::all_heads(shape) * (detail::tiers_below(policy) * detail::kTierBytes + measured_bytes(shape)) +
               cold_space_of(shape, policy).total;
      case Size::kFolds:
        return at.views != 0 ? detail::all_heads(shape) * detail::kFoldedPartBytes : 0;
      case Size::kDistances:
        return at.views != 0 ? at.views / 2 / at.paired_entries * at.most_retained * 4 : 0;
      case Size::kShared:
        return detail::all_planes(at) * (at.code_bytes / 2);
      case Size::kPlan:
        return detail::plan_bytes(policy, at);
      case Size::kEncoding:
        return encoding_bytes(shape);
      case Size::kMerging:
        return merges(policy) ? merge_space_of(shape.head_dim).total : 0;
      case Size::kTurned:
        return merges(policy) && policy.position_free ? kMaxRows * shape.head_dim * 4u : 0;
      case Size::kScratch:
        return std::uint64_t{shape.workers} * at.scratch_bytes + detail::all_partials(shape, policy, at);
      case Size::kLayout:
        return sizeof(Layout);
    }
    return 0;
  }
};

/// All regions, in the order in which they lie; each begins at a multiple of kArenaAlignment. The state
/// of a cache, up to `plan`, is written by the verbs that change what it holds. What follows is their
/// workspace, and holds nothing between calls, but for the last region, which init writes. The scratch
/// of attend's workers lies where the workspace does, as both are never in use at the same time.
[[gnu::visibility("hidden")]] inline constexpr Region kRegions[] = {
    {&Layout::chains, Region::Size::kChains},        // init, append, compact, restore; attend: bounds of scores
    {&Layout::links, Region::Size::kLinks},          // init, append, compact, restore
    {&Layout::bases, Region::Size::kBases},          // append, compact, restore
    {&Layout::sides, Region::Size::kSides},          // append, compact, restore; attend: scores
    {&Layout::codes, Region::Size::kCodes},          // append, compact, restore
    {&Layout::tiers, Region::Size::kTiers},          // init, append, compact, truncate, recall, restore
    {&Layout::folds, Region::Size::kFolds},          // init, append, compact, restore
    {&Layout::distances, Region::Size::kDistances},  // append, compact
    {&Layout::shared, Region::Size::kShared},        // append, compact, restore
    {&Layout::plan, Region::Size::kPlan},            // plan, append, compact
    {&Layout::encoding, Region::Size::kEncoding},    // plan, append, compact
    {&Layout::merging, Region::Size::kMerging},      // plan, append, compact
    {&Layout::turned, Region::Size::kTurned},        // plan, append
    {&Layout::scratch, Region::Size::kScratch},      // attend, check
    {&Layout::layout, Region::Size::kLayout},        // init
};

namespace detail {
/// @param share  whether pairs of layers share codes
constexpr Layout layout_as(const Shape& shape, const Policy& policy, bool share) {
  Layout at;
  const std::uint64_t heads = std::uint64_t{shape.layers} * shape.kv_heads;
  // Scored budgets differ from head to head by whole tiles, whose total equals
  // that of equal budgets.
  at.tiles_per_head = (kept_of(policy, policy.tokens) + slack_of(shape, policy) + kTileSlots - 1) / kTileSlots;
  at.tiles = heads * at.tiles_per_head;
  at.paired_tiles = at.tiles_per_head;
  if (share) {
    const PairRoom room = pair_room(shape, policy, at.tiles_per_head);
    const PairCounts pairs = count_pairs(policy, shape.layers);
    const std::uint64_t entries = std::uint64_t{shape.kv_heads} * room.entries;
    at.paired_tiles = room.tiles;
    at.paired_entries = room.entries;
    at.tiles -= std::uint64_t{2} * pairs.all() * shape.kv_heads * (at.tiles_per_head - room.tiles);
    at.both_entries = pairs.both * entries;
    at.value_entries = at.both_entries + pairs.values * entries;
    at.views = 2 * pairs.all() * entries;
    at.most_retained = static_cast<std::uint32_t>(retained_beside(policy, std::uint64_t{room.entries} * kTileSlots));
  }
  const std::uint64_t most = policy.budget == Budget::kUniform ? 1 : policy.most;
  const std::uint32_t mean = (policy.tokens + slack_of(shape, policy) + kTileSlots - 1) / kTileSlots;
  const std::uint64_t longest = mean * most - (policy.tail + policy.faint) / kTileSlots;
  at.chain_tiles = static_cast<std::uint32_t>(longest < at.tiles ? longest : at.tiles);
  // The folded slots may end within a tile, and so may the others.
  if (at.views != 0) at.chain_tiles = at.tiles_per_head + 1;
  at.chain_tiles += tail_tiles(shape, policy) + faint_tiles(policy);
  at.side = side_of(shape, policy);
  at.side_bytes = at.side.total;
  const TileFormat format = format_of(shape.storage);
  const std::uint32_t f32_bytes = kTileSlots * shape.head_dim * static_cast<std::uint32_t>(sizeof(float));
  at.key_bytes = has_codes(shape.storage) ? format.key_bytes(shape.head_dim) : f32_bytes;
  at.value_bytes = has_codes(shape.storage) ? format.value_bytes(shape.head_dim) : f32_bytes;
  at.code_bytes = at.key_bytes + at.value_bytes;
  if (has_wide(policy)) {
    const std::uint64_t wider = wide_heads(shape, policy);
    at.first_tiles = policy.wide_first ? static_cast<std::uint32_t>(heads - wider) : 0;
    at.wide_tiles = static_cast<std::uint32_t>(at.first_tiles + wider * at.tiles_per_head);
  }
  at.kept_from = static_cast<std::uint32_t>(at.wide_tiles + heads * tail_tiles(shape, policy));
  at.tiles += heads * tail_tiles(shape, policy);
  at.faint_from = policy.faint != 0 ? static_cast<std::uint32_t>(at.tiles) : 0xffffffff;
  at.tiles += heads * faint_tiles(policy);
  at.scratch_bytes = scratch_of(shape, policy, at).total;
  std::uint64_t end = kHeaderBytes;
  for (const Region& region : kRegions) {
    if (region.size == Region::Size::kScratch) {
      at.scratch = at.plan;
      const std::uint64_t end_of_scratch = at.scratch + region.bytes(shape, policy, at);
      end = end > end_of_scratch ? end : round_up(end_of_scratch, kArenaAlignment);
      continue;
    }
    at.*region.offset = end;
    end += round_up(region.bytes(shape, policy, at), kArenaAlignment);
  }
  at.total = end;
  return at;
}
}  // namespace detail

/// The part of a buffer that can serve as an arena: from the first multiple of kArenaAlignment in
/// it to its end. Empty if the buffer contains none. A buffer of kArenaAlignment - 1 bytes more
/// than the footprint is always large enough:
///
///     std::vector<std::byte> buffer(footprint(shape, policy) + kArenaAlignment - 1);
///     Status status = cache.init(aligned(buffer), shape, policy);
inline std::span<std::byte> aligned(std::span<std::byte> buffer) {
  const std::size_t past = reinterpret_cast<std::uintptr_t>(buffer.data()) % kArenaAlignment;
  const std::size_t skipped = past == 0 ? 0 : kArenaAlignment - past;
  return skipped < buffer.size() ? buffer.subspan(skipped) : std::span<std::byte>{};
}

/// The layout for a valid shape and policy. Layers do not share codes where that would cost more
/// bytes than it saves.
constexpr Layout layout_of(const Shape& shape, const Policy& policy) {
  const Layout apart = detail::layout_as(shape, policy, false);
  if (!has_pairs(policy)) return apart;
  const Layout shared = detail::layout_as(shape, policy, true);
  return shared.views != 0 && shared.total < apart.total ? shared : apart;
}

/// The exact size in bytes of the arena that a cache of this shape and policy needs,
/// scratch included. 0 for an invalid shape or policy, for a size that does not fit this
/// machine's address space, and where a worker's scratch would be 4 GiB or more.
constexpr std::size_t footprint(const Shape& shape, const Policy& policy) {
  if (!valid(shape) || !valid(policy, shape)) return 0;
  const Layout at = layout_of(shape, policy);
  const auto bytes = static_cast<std::size_t>(at.total);
  if (bytes != at.total || at.scratch_bytes == 0 || at.tiles + at.views >= std::numeric_limits<std::uint32_t>::max())
    return 0;
  return bytes;
}

/// The largest budget in tokens with which a preset fits `bytes`; 0 when not even the smallest
/// does (smallest_footprint says how many bytes that takes). The preset is called for each budget
/// that is tried, so that whatever depends on the budget, such as the recent window, changes with it.
///
///     constexpr Policy kPolicy = ems(tokens_that_fit(kShape, ems, 2 << 20));
///     static StaticCache<kShape, kPolicy> cache;
///
/// @param preset  a function from a budget to a Policy, such as ems. Wrap one with more arguments,
///                such as streaming_llm, in a lambda. A larger budget must not need fewer bytes, or
///                the largest that fits may be missed.
/// Cost: about 24 evaluations of footprint.
template <typename Preset>
requires std::is_invocable_r_v<Policy, const Preset&, std::uint32_t>
constexpr std::uint32_t tokens_that_fit(const Shape& shape, const Preset& preset, std::uint64_t bytes) {
  if (!valid(shape)) return 0;
  std::uint32_t low = 0;  // the largest known to fit; an invalid budget is too small, so it counts as fitting
  std::uint32_t high = kMaxTokens + 1;
  while (high - low > 1) {
    const std::uint32_t middle = low + (high - low) / 2;
    const Policy policy = preset(middle);
    const std::size_t need = footprint(shape, policy);
    const bool fits = !valid(policy, shape) || (need != 0 && need <= bytes);
    (fits ? low : high) = middle;
  }
  return low != 0 && footprint(shape, preset(low)) != 0 ? low : 0;
}

/// The same for a preset given by name, with its default parameters. Returns 0 for a name that
/// find_policy does not know.
std::uint32_t tokens_that_fit(const Shape& shape, std::string_view preset, std::uint64_t bytes);

/// The same for a given policy: everything but `policy.tokens`, which is ignored, stays as it is,
/// windows included. The windows of ems(512) stay 256 tokens long whatever the budget, so ask for
/// a preset by its function or name.
constexpr std::uint32_t tokens_that_fit(const Shape& shape, const Policy& policy, std::uint64_t bytes) {
  const auto with_tokens = [&policy](std::uint32_t tokens) {
    Policy made = policy;
    made.tokens = tokens;
    return made;
  };
  return tokens_that_fit(shape, with_tokens, bytes);
}

/// Bytes of the smallest arena that a preset can have: its footprint with the smallest budget that is valid. There
/// tokens_that_fit is not 0; with one byte fewer it is 0. 0 where large budgets are not valid, such as
/// those whose windows are shares of them and leave nothing. What makes it smaller: fewer workers, a
/// smaller max_chunk, fewer outlier channels, another policy; ask again with each.
///
/// @param preset  as of tokens_that_fit. Where a budget is valid, larger ones must be.
/// Cost: about 24 evaluations of valid, and one of footprint.
template <typename Preset>
requires std::is_invocable_r_v<Policy, const Preset&, std::uint32_t>
constexpr std::size_t smallest_footprint(const Shape& shape, const Preset& preset) {
  if (!valid(shape) || !valid(preset(kMaxTokens), shape)) return 0;
  std::uint32_t low = 0;
  std::uint32_t high = kMaxTokens;  // the smallest that is valid
  while (high - low > 1) {
    const std::uint32_t middle = low + (high - low) / 2;
    (valid(preset(middle), shape) ? high : low) = middle;
  }
  return footprint(shape, preset(high));
}

/// The same for a preset by its name. 0 also for a name that find_policy does not know.
std::size_t smallest_footprint(const Shape& shape, std::string_view preset);

/// The same for a policy as it is: all but `policy.tokens`, which is not read, stays, its windows too.
constexpr std::size_t smallest_footprint(const Shape& shape, const Policy& policy) {
  const auto with_tokens = [&policy](std::uint32_t tokens) {
    Policy made = policy;
    made.tokens = tokens;
    return made;
  };
  return smallest_footprint(shape, with_tokens);
}

}  // namespace nibkv

#include "nibkv/macros_pop.hpp"
