#pragma once

#include "arena/budget.hpp"
#include "snapshot/bands.hpp"
#include "snapshot/reader.hpp"

namespace nibkv {

/// What a snapshot says of a chain.
ChainRecord record_of(const ArenaView& from, std::size_t index);

/// Takes the records of chains, one after the other, and checks them.
class ChainJudge {
 public:
  /// @param to          a cache whose budgets the records must have, or a description of one, without an arena
  /// @param whole_from  of the arena's header; kNotKnown if a snapshot does not say it
  ChainJudge(const ArenaView& to, std::uint64_t whole_from)
      : to_(to), whole_from_(whole_from), shares_(layer_shares(to.policy(), to.policy().tokens)) {}

  static constexpr std::uint64_t kNotKnown = std::uint64_t{1} << 32;

  Status take(const ChainRecord& record);
  /// The totals of all chains so far.
  const detail::SnapshotCounts& counts() const { return counts_; }
  /// The tiles that they would have if each were one list.
  std::uint64_t list_tiles() const { return list_tiles_; }
  /// The tokens that the layer which is ahead has seen, and whether all have seen as many.
  std::uint32_t most_used() const { return most_used_; }
  std::uint32_t most_seen() const { return most_seen_; }
  bool in_step() const { return least_seen_ == most_seen_; }
  /// After the last record.
  bool sound_whole_from() const {
    return whole_from_ == kNotKnown || (any_gone_ ? whole_from_ <= most_seen_ : whole_from_ == 0);
  }
  /// The history of a cache that is restored, after the last record.
  std::uint32_t whole_from() const {
    return whole_from_ != kNotKnown ? static_cast<std::uint32_t>(whole_from_) : any_gone_ ? most_seen_ : 0;
  }
  std::uint32_t exact_from() const { return any_gone_ || any_lowered_ ? most_seen_ : 0; }

 private:
  bool sound(const ChainRecord& record);
  bool right_budget(const ChainRecord& record);
  bool own_budget(const ChainRecord& record);

  const ArenaView& to_;
  std::uint64_t whole_from_;
  std::uint64_t list_tiles_ = 0;
  std::uint32_t most_used_ = 0;
  std::uint32_t most_seen_ = 0;
  std::uint32_t least_seen_ = 0xffffffff;
  bool any_gone_ = false;     // whether any chain lacks tokens, or has some in its folded part
  bool any_lowered_ = false;  // whether any has slots that have moved down
  LayerShares shares_;
  std::size_t index_ = 0;
  detail::SnapshotCounts counts_;
  std::uint32_t layer_seen_ = 0;    // the layer's first head's
  std::uint64_t layer_tiles_ = 0;   // tiles in use, of its heads so far
  std::uint64_t layer_budget_ = 0;  // of its heads so far, in tokens
  bool all_shared_ = true;          // whether all budgets of the layer so far are ones that share_layer can give
};

/// For ChainJudge. 0 stands in snapshots of caches from which nothing is gone, and in those that do not say it.
inline std::uint64_t said_whole_from(const SnapshotHeader& header) {
  return header.whole_from != 0 ? header.whole_from : ChainJudge::kNotKnown;
}

/// Reads the records of chains, one after the other, and computes where their tiles begin in
/// the section of sides.
class ChainReader {
 public:
  ChainReader(const ArenaView& to, const SnapshotSource& source, const Parts& parts)
      : reader_(source, parts.offset[kChains]),
        next_(parts.offset[kSides]),
        end_(next_ + parts.bytes[kSides]),
        stride_(side_record_bytes(to)),
        to_(to) {}

  /// @returns false also when a record has changed since it was checked, and has more
  ///          tiles than there are, or parts that are more than the whole
  bool next();
  const ChainRecord& record() const { return record_; }
  /// The offset of the record of the chain's n-th tile.
  std::uint64_t tile(std::uint32_t n) const { return at_ + std::uint64_t{n} * stride_; }

 private:
  Reader reader_;
  ChainRecord record_{};
  std::uint64_t at_ = 0;
  std::uint64_t next_;
  std::uint64_t end_;
  std::uint32_t stride_;
  const ArenaView& to_;
};

/// Whether what is measured of the keys of heads is what append measures, read from where the records of a snapshot's
/// chains end.
Status check_measured(const ArenaView& to, Reader& records);
/// The same in an arena.
bool sound_measured(const ArenaView& to);

/// Compares a header with a cache, or a description of one.
Status check_header(const ArenaView& to, const SnapshotHeader& header);

/// Checks the content of sections whose checksums are right: everything that restoring relies on.
/// @param judge  a new one for `to` and the snapshot; has judged all records afterwards
Status check_content(const ArenaView& to, const SnapshotSource& source, const Parts& parts, ChainJudge& judge);

}  // namespace nibkv
