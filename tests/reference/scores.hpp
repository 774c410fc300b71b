#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "nibkv/score.hpp"
#include "tests/reference/attention.hpp"

namespace nibkv::reference {

/// The scores that the slots of a chain should have if it loses none, in double
/// precision from exact weights.
class ScoreModel {
 public:
  struct Score {
    double value = 0;  ///< in units of SlotInfo, before any halving
    double bound = 0;  ///< bound on the error of a score in integers
  };

  ScoreModel(const Shape& shape, const Policy& policy) : shape_(shape), policy_(policy) {}

  /// One attend call.
  /// @param weighed  of one KV head, [query][head of the group], in order of position
  void attend(const std::vector<WeighedRow>& weighed);

  const std::vector<Score>& global() const { return global_; }
  const std::vector<Score>& local() const { return local_; }
  /// The maximum number of roundings of a global score to an integer.
  double roundings() const { return roundings_; }

 private:
  std::vector<WeighedRow> in_uniform_shares(const std::vector<WeighedRow>& rows) const;
  /// Attention that every slot gets from the queries [first, end), 1 for a weight of 1.
  std::vector<Score> sum_of(const std::vector<WeighedRow>& rows, std::size_t first, std::size_t end) const;

  Shape shape_;
  Policy policy_;
  std::vector<Score> global_;
  std::vector<Score> local_;
  double roundings_ = 0;
};

/// The importance of every slot by which a policy ranks, from what explain() says; without
/// pooling. Scores that are combined have a mean of 1 over the slots that may be dropped. Not
/// for Score::kKeyNorm.
std::vector<double> importance(const Policy& policy, std::uint32_t seen, std::span<const SlotInfo> slots);

/// What slots rank by before pooling, if none has members: `scores`, times the norms of values under
/// Policy::value_norms, as far as scales say, in units of their mean and at least 1/16.
std::vector<double> ranks(const Policy& policy, std::vector<double> scores, std::span<const Slot> slots);

/// The largest of `width` neighbours, for every slot.
std::vector<double> pooled(const std::vector<double>& scores, std::size_t width);

}  // namespace nibkv::reference
