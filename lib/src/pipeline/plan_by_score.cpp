#include "arena/budget.hpp"
#include "attention/class_mass.hpp"
#include "codec/row.hpp"
#include "nibkv/classify.hpp"
#include "nibkv/plan.hpp"
#include "pipeline/plan_chain.hpp"

namespace nibkv {
namespace {

// Scores are scaled to this mean before they are combined.
constexpr std::uint64_t kMean = 1u << 12;

constexpr std::uint8_t number(TokenClass value) {
  return static_cast<std::uint8_t>(value);
}

std::uint32_t saturated(std::uint64_t value) {
  return value < 0xffffffff ? static_cast<std::uint32_t>(value) : 0xffffffff;
}

// The sum over the queries, or 2^16 times the mean over those that could see the slot. 0 if it is not kept.
std::uint64_t global_at(const ArenaView& to, const Chain& chain, const Place& at) {
  if (!keeps_global(to.policy())) return 0;
  const std::uint64_t score = to.global(at.tile)[at.lane];
  if (!to.policy().per_query) return score;
  const std::uint32_t queries = chain.seen - to.position(at.tile, at.lane);
  return (score << 16) / (queries != 0 ? queries : 1);
}

std::uint64_t local_at(const ArenaView& to, const Place& at) {
  return keeps_local(to.policy()) ? to.local(at.tile)[at.lane] : 0;
}

// A score from the norm of the key: the bit pattern of a float ranks like its value. A key
// of norm 0 ranks first.
std::uint32_t norm_score(float squared_norm) {
  return 0x7f800000 - bits_from_float(squared_norm);
}

// The mean scale of the values of all slots, 1 if all are 0.
float mean_value_scale(const ArenaView& to, const Chain& chain) {
  float sum = 0;
  to.each_slot(chain, [&](std::uint32_t, const Place& at) { sum += from_scale16(to.value_scales(at.tile)[at.lane]); });
  return sum > 0 ? sum / static_cast<float>(chain.used) : 1;
}

// A rank times the norm of a value, in units of their mean. A slot that is dropped also leaves its weight to the
// others, so it counts for something even if its value is 0, and one huge value does not make all others equal.
// @param norm  below 2^32
std::uint32_t times_norm(std::uint32_t rank, float norm) {
  constexpr float kLeastNorm = 1.0f / 16;
  const float product = static_cast<float>(rank) * (norm > kLeastNorm ? norm : kLeastNorm);
  return product < 0x1p32f ? static_cast<std::uint32_t>(product) : 0xffffffff;
}

// What slots rank by: what each is worth without its members, times the norm of its value if that counts, then the
// largest of its neighbours.
void rank_slots(const ArenaView& to, const Chain& chain, const std::uint32_t* score, std::uint32_t* rank) {
  const Policy& policy = to.policy();
  const bool masses = has_masses(policy);
  const float mean = policy.value_norms ? mean_value_scale(to, chain) : 1;
  constexpr std::uint32_t kMostSide = 7;
  const std::uint32_t side = policy.pool / 2u;
  std::uint32_t before[kMostSide];  // of the slots before, which were overwritten: slot i at i % kMostSide
  to.each_slot(chain, [&](std::uint32_t i, const Place& at) {
    rank[i] = static_cast<std::uint32_t>(own_share(score[i], masses ? to.bias(at.tile)[at.lane] : 0));
    if (policy.value_norms) rank[i] = times_norm(rank[i], from_scale16(to.value_scales(at.tile)[at.lane]) / mean);
  });
  const std::uint32_t ordered = faint_slots(to, chain);  // neighbours of faint slots are any
  for (std::uint32_t i = ordered; side != 0 && i < chain.used; ++i) {
    const std::uint32_t end = i + side + 1 < chain.used ? i + side + 1 : chain.used;
    std::uint32_t most = 0;
    for (std::uint32_t j = i - ordered > side ? i - side : ordered; j < i; ++j)
      most = before[j % kMostSide] > most ? before[j % kMostSide] : most;
    for (std::uint32_t j = i; j < end; ++j) most = rank[j] > most ? rank[j] : most;
    before[i % kMostSide] = rank[i];
    rank[i] = most;
  }
}

// What slots rank by in a head with a rule: classes first, then the newest, then what is attended to.
// @param rank  may be score
void rank_by_rule(const ArenaView& to, const Chain& chain, HeadRule rule, std::uint32_t kept,
                  const std::uint32_t* score, std::uint32_t* rank) {
  constexpr std::uint32_t kFirst = 0xffffffff;
  const auto marks = [&](const Place& at) {
    return rule >= HeadRule::kPunctuation && to.classes(at.tile)[at.lane] == number(TokenClass::kPunctuation);
  };
  std::uint32_t oldest = 0;  // punctuation beyond a quarter of the budget, which counts as ordinary tokens
  to.each_slot(chain, [&](std::uint32_t, const Place& at) { oldest += marks(at) ? 1 : 0; });
  oldest = oldest > kept / 4 ? oldest - kept / 4 : 0;
  to.each_slot(chain, [&](std::uint32_t i, const Place& at) {
    if (to.classes(at.tile)[at.lane] == number(TokenClass::kSpecial)) {
      rank[i] = kFirst;
    } else if (marks(at) && oldest == 0) {
      rank[i] = kFirst - 1;
    } else if (rule >= HeadRule::kNewest && chain.used - i <= kept / 2) {
      rank[i] = kFirst - 2;
    } else {
      rank[i] = rule < HeadRule::kFrequent ? 0 : score[i] < kFirst - 3 ? score[i] : kFirst - 3;
    }
    if (marks(at) && oldest != 0) --oldest;
  });
}

// The scores that decide: the sums over the layers of the band.
void score_planned(const ArenaView& to, const Chain& chain, std::uint32_t layer, std::uint32_t kv_head,
                   const PlanArrays& arrays) {
  score_slots(to, chain, layer, kv_head, arrays.score);
  const Band band = band_of(to, layer);
  for (std::uint32_t other = band.first; other < band.end(); ++other) {
    if (other == layer) continue;
    score_slots(to, to.chain(other, kv_head), other, kv_head, arrays.other);
    for (std::uint32_t i = 0; i < chain.used; ++i) {
      arrays.score[i] = saturated(std::uint64_t{arrays.score[i]} + arrays.other[i]);
    }
  }
}

// The end of the slots that may be dropped where there are tiers. Where heads compete, a tail counts as full: however a
// caller's plan has dropped its slots, the kept tier of a head that has to give slots to others has some.
std::uint32_t tiers_end(const ArenaView& to, const Chain& chain) {
  const std::uint32_t end = slots_below(to, chain) + ripe_slots(to, chain);
  const std::uint32_t left = chain.used - end;
  const bool full = to.policy().budget == Budget::kAdaptive && left < to.policy().tail;
  const std::uint32_t newest = full ? to.policy().tail : left;
  const std::uint32_t recent = recent_of(to.policy(), chain.seen);
  const std::uint32_t more = recent > newest ? recent - newest : 0;
  const std::uint32_t faint = faint_slots(to, chain);  // none of them is recent
  return end > faint + more ? end - more : faint;
}

}  // namespace

Droppable::Droppable(const ArenaView& to, const Chain& chain) {
  const Policy& policy = to.policy();
  begin_ = policy.sinks < chain.used ? policy.sinks : chain.used;
  const std::uint32_t recent = recent_of(policy, chain.seen);
  end_ = chain.used > recent ? chain.used - recent : 0;
  if (has_tiers(policy)) end_ = tiers_end(to, chain);
  if (to.unordered(chain) != 0) {
    choose(to, chain);
    return;
  }
  if (end_ < begin_) end_ = begin_;
  count_ = end_ - begin_;
}

// The slots after the unordered ones are in order, and newer than those.
void Droppable::choose(const ArenaView& to, const Chain& chain) {
  const Policy& policy = to.policy();
  const std::uint32_t own = to.sinks_from(chain);
  const std::uint32_t mixed = to.unordered(chain);
  const std::uint32_t last = has_tiers(policy) ? 0 : recent_of(policy, chain.seen);
  const std::uint32_t newest = chain.used > last ? chain.used - last : 0;
  begin_ = 0;
  if (!has_tiers(policy)) end_ = chain.used;
  bits_ = PlanArrays(to).droppable;
  for (std::uint32_t i = 0; i < tiles_of(chain.used); ++i) bits_[i] = 0;
  to.each_slot(chain, [&](std::uint32_t i, const Place& at) {
    const bool sink = i >= own && i - own < policy.sinks;
    const bool by_position = i < mixed && newest < mixed;
    const bool recent =
        by_position ? std::uint64_t{to.position(at.tile, at.lane)} + last >= chain.seen : i >= mixed && i >= newest;
    if (sink || recent || i >= end_) return;
    bits_[i / 32] |= 1u << i % 32;
    ++count_;
  });
}

void score_slots(const ArenaView& to, const Chain& chain, std::uint32_t layer, std::uint32_t kv_head,
                 std::uint32_t* score) {
  const Policy& policy = to.policy();
  if (policy.score == Score::kKeyNorm) {
    const Basis basis(to, layer, kv_head);
    float* row = to.encoding();
    to.each_slot(chain, [&](std::uint32_t i, const Place& at) {
      restore_key(to, basis, at.tile, at.lane, row);
      float energy = 0;
      for (std::uint32_t c = 0; c < to.shape().head_dim; ++c) energy += row[c] * row[c];
      score[i] = norm_score(energy);
    });
    return;
  }
  const Droppable inner(to, chain);
  const std::uint64_t count = inner.count();
  std::uint64_t globals = 0;
  std::uint64_t locals = 0;
  to.each_slot(chain, [&](std::uint32_t i, const Place& at) {
    if (!inner.has(i)) return;
    globals += global_at(to, chain, at);  // below 2^48 * 2^24
    locals += local_at(to, at);
  });
  // Scales both to the same mean over the slots that may be dropped. Each is below 2^48, so a shift
  // keeps the products within 64 bits.
  const std::uint64_t global_mean = count != 0 && globals / count != 0 ? globals / count : 1;
  const std::uint64_t local_mean256 = count != 0 && locals * 256 / count != 0 ? locals * 256 / count : 1;
  to.each_slot(chain, [&](std::uint32_t i, const Place& at) {
    const std::uint64_t aligned_global = global_at(to, chain, at) * kMean / global_mean;
    const std::uint64_t aligned_local = local_at(to, at) * 256 * kMean / local_mean256;
    score[i] = saturated(policy.combine == Combine::kSum  ? aligned_global + aligned_local
                         : aligned_global > aligned_local ? aligned_global
                                                          : aligned_local);
  });
}

namespace {

// Of the slots that `each` and `each_back` visit, in ascending and in descending order, those `count` that rank highest
// get the target `stays`; of equal ones, the newest. The others get kDrop.
template <typename Each, typename EachBack>
void choose_best(const std::uint32_t* rank, std::uint32_t count, std::uint32_t stays, Each each, EachBack each_back,
                 std::uint32_t* target) {
  std::uint32_t limit = 0xffffffff;
  std::uint32_t above = 0;
  if (count != 0) {
    std::uint32_t most = 0;
    each([&](std::uint32_t i) { most = rank[i] > most ? rank[i] : most; });
    limit = largest_that([&](std::uint32_t least) {
      if (least > most) return false;
      std::uint32_t reach = 0;
      each([&](std::uint32_t i) { reach += rank[i] >= least ? 1 : 0; });
      return reach >= count;
    });
    each([&](std::uint32_t i) { above += rank[i] > limit ? 1 : 0; });
  }
  std::uint32_t at_limit = count > above ? count - above : 0;
  each_back([&](std::uint32_t i) {
    bool best = count != 0 && rank[i] > limit;
    if (count != 0 && rank[i] == limit && at_limit != 0) {
      best = true;
      --at_limit;
    }
    target[i] = best ? stays : kDrop;
  });
}

// Plans which of the slots that may be dropped become or stay faint: the best of those that are dropped so far.
void choose_faint(const std::uint32_t* rank, std::uint32_t used, std::uint32_t count, std::uint32_t* target) {
  std::uint32_t dropped = 0;
  for (std::uint32_t i = 0; i < used; ++i) dropped += target[i] == kDrop ? 1 : 0;
  const auto each = [&](auto visit) {
    for (std::uint32_t i = 0; i < used; ++i) {
      if (target[i] == kDrop) visit(i);
    }
  };
  const auto each_back = [&](auto visit) {
    for (std::uint32_t i = used; i-- > 0;) {
      if (target[i] == kDrop) visit(i);
    }
  };
  choose_best(rank, count < dropped ? count : dropped, kFaint, each, each_back, target);
}

}  // namespace

void plan_by_score(const ArenaView& to, const Chain& chain, std::uint32_t layer, std::uint32_t kv_head,
                   std::uint32_t kept, const PlanArrays& arrays, std::uint32_t* target) {
  const Policy& policy = to.policy();
  const std::uint32_t faint = faint_slots(to, chain);  // they come first
  // A chain within its budget may have slots that must become faint.
  if (has_faint(to) ? kept == kAllStay : kept >= chain.used) {
    for (std::uint32_t i = 0; i < chain.used; ++i) target[i] = i < faint ? kFaint : i - faint;
    return;
  }
  const Droppable inner(to, chain);
  const std::uint32_t always = chain.used - inner.count();
  const std::uint32_t best = kept > always ? kept - always : 0;
  const std::uint32_t best_faint = best < policy.faint ? best : policy.faint;
  const std::uint32_t candidates = inner.count() - faint;  // for other places than faint ones
  const std::uint32_t centres = best - best_faint < candidates ? best - best_faint : candidates;
  score_planned(to, chain, layer, kv_head, arrays);
  const std::uint32_t* rank = arrays.score;
  if (policy.pool > 1 || has_masses(policy) || policy.value_norms) {
    rank_slots(to, chain, arrays.score, arrays.rank);
    rank = arrays.rank;
  }
  if (keeps_classes(policy)) {
    rank_by_rule(to, chain, rule_of(to, layer, kv_head), kept, rank, arrays.rank);
    rank = arrays.rank;
  }
  if (faint == 0) {
    choose_best(
        rank, centres, 0, [&](auto visit) { inner.each(visit); }, [&](auto visit) { inner.each_back(visit); }, target);
  } else {
    for (std::uint32_t i = 0; i < faint; ++i) target[i] = kDrop;
    const auto above = [&](auto visit) {
      return [=](std::uint32_t i) {
        if (i >= faint) visit(i);
      };
    };
    choose_best(
        rank, centres, 0, [&](auto visit) { inner.each(above(visit)); },
        [&](auto visit) { inner.each_back(above(visit)); }, target);
  }
  std::uint32_t next = 0;
  for (std::uint32_t i = 0; i < chain.used; ++i) {
    if (inner.has(i) && target[i] == kDrop) continue;
    target[i] = next++;
  }
  NIBKV_ASSERT(next == always + centres);
  if (has_faint(to)) choose_faint(rank, chain.used, best_faint, target);
  if (!merges(policy) || centres == 0) return;
  const std::uint32_t judge = judging_layer(to, band_of(to, layer));
  assign_members(to, to.chain(judge, kv_head), judge, kv_head, arrays, target);
}

}  // namespace nibkv
