#include "nibkv/move.hpp"

#include "arena/band.hpp"
#include "arena/pool.hpp"
#include "codec/slot.hpp"
#include "numbers/numbers.hpp"
#include "pipeline/compact_chain.hpp"

namespace nibkv {
namespace {

bool overlap(const std::byte* a, std::size_t a_bytes, const std::byte* b, std::size_t b_bytes) {
  const auto first = reinterpret_cast<std::uintptr_t>(a);
  const auto second = reinterpret_cast<std::uintptr_t>(b);
  return first < second + b_bytes && second < first + a_bytes;
}

// Fills a chain of `to`, which is empty, with the slots of a chain of `from`.
class ChainMove {
 public:
  /// @param unguarded  `to` with a policy that has no recent window
  ChainMove(const ArenaView& from, const ArenaView& to, const ArenaView& unguarded, std::uint32_t layer,
            std::uint32_t kv_head)
      : from_(from),
        to_(to),
        unguarded_(unguarded),
        layer_(layer),
        kv_head_(kv_head),
        source_(from.chain(layer, kv_head)),
        chain_(to.chain(layer, kv_head)) {}

  /// @returns whether all slots have found space
  bool run();

 private:
  void take_recent();
  void take_by_score();
  void cut(std::uint32_t kept);
  void take(std::uint32_t slot, const Place& at);

  const ArenaView& from_;
  const ArenaView& to_;
  const ArenaView& unguarded_;
  std::uint32_t layer_;
  std::uint32_t kv_head_;
  const Chain& source_;
  Chain& chain_;
};

void ChainMove::take(std::uint32_t slot, const Place& at) {
  const std::uint32_t lane = chain_.used % kTileSlots;
  const std::uint32_t tile = lane == 0 ? grow(to_, chain_) : chain_.last;
  if (to_.policy().keep == Keep::kScore) start_slot(to_, tile, lane, from_.position_of(source_, slot, at));
  copy_slot(from_, at, to_, {tile, lane});
  chain_.used += 1;
}

// Cuts the chain back by score alone: the slots that will be its recent ones come later.
void ChainMove::cut(std::uint32_t kept) {
  const PlanArrays arrays(unguarded_);
  plan_by_score(unguarded_, chain_, layer_, kv_head_, kept, arrays, arrays.target);
  carry_out(unguarded_, layer_, kv_head_, arrays.target, 0, arrays);
}

void ChainMove::take_by_score() {
  const std::uint32_t recent = to_.policy().recent;
  const std::uint32_t older = source_.used > recent ? source_.used - recent : 0;
  const std::uint32_t kept = chain_.budget - recent;
  from_.each_slot(source_, [&](std::uint32_t slot, const Place& at) {
    const bool full = chain_.used == capacity_of(to_, chain_);
    if ((slot < older && full) || (slot == older && chain_.used > kept)) cut(kept);
    take(slot, at);
  });
  if (chain_.used > chain_.budget) cut(chain_.budget);  // without a recent window
}

void ChainMove::take_recent() {
  const std::uint32_t sinks = to_.policy().sinks;
  const std::uint32_t newest = source_.used - (to_.policy().tokens - sinks);
  from_.each_slot(source_, [&](std::uint32_t slot, const Place& at) {
    if (slot < sinks || slot >= newest) take(slot, at);
  });
}

bool ChainMove::run() {
  chain_.seen = source_.seen;
  if (keeps_global(from_.policy()) && keeps_global(to_.policy())) {
    chain_.heaviest = source_.heaviest;
    chain_.exponent = source_.exponent;
  }
  if (to_.policy().keep == Keep::kAll || source_.used <= capacity_of(to_, chain_)) {
    from_.each_slot(source_, [&](std::uint32_t slot, const Place& at) { take(slot, at); });
    return true;
  }
  to_.policy().keep == Keep::kRecent ? take_recent() : take_by_score();
  return false;
}

Status check_move(const ArenaView& from, const ArenaView& to) {
  const Shape& a = from.shape();
  const Shape& b = to.shape();
  if (&from.header() == &to.header()) return Status::kBadArgument;
  if (a.layers != b.layers || a.query_heads != b.query_heads || a.kv_heads != b.kv_heads || a.head_dim != b.head_dim ||
      a.outlier_channels != b.outlier_channels || a.storage != b.storage)
    return Status::kOtherShape;
  if (a.storage == Storage::kQ4 && from.profile().checksum() != to.profile().checksum()) return Status::kOtherProfile;
  if (folds(from) || folds(to)) return Status::kOtherPolicy;
  std::uint64_t tiles = 0;
  for (std::size_t i = 0; i < from.heads(); ++i) {
    if (from.chains()[i].seen != from.chains()[0].seen) return Status::kBadArgument;
    tiles += tiles_of(from.chains()[i].used);
  }
  return to.policy().keep == Keep::kAll && tiles > to.layout().tiles ? Status::kFull : Status::kOk;
}

}  // namespace

Status clone(const Cache& from, std::span<std::byte> arena, Cache& to) {
  if (!from.ready()) return Status::kNotReady;
  const ArenaView source{from};
  const Layout& at = source.layout();
  const auto total = static_cast<std::size_t>(at.total);
  if (reinterpret_cast<std::uintptr_t>(arena.data()) % kArenaAlignment != 0) return Status::kMisaligned;
  if (arena.size() < total) return Status::kArenaTooSmall;
  if (overlap(source.at<std::byte>(0), total, arena.data(), arena.size())) return Status::kBadArgument;
  const auto copy = [&](std::uint64_t offset, std::uint64_t bytes) {
    std::memcpy(arena.data() + static_cast<std::size_t>(offset), source.at<std::byte>(offset),
                static_cast<std::size_t>(bytes));
  };
  copy(0, detail::kHeaderBytes);
  for (const Region& region : kRegions) {
    // From the plan on it is workspace, but for the layout.
    const bool held = at.*region.offset < at.plan || region.size == Region::Size::kLayout;
    if (held) copy(at.*region.offset, region.bytes(source.shape(), source.policy(), at));
  }
  const auto* layout = in_place<Layout>(arena.data() + static_cast<std::size_t>(at.layout));
  ArenaView::set(to, arena.data(), source.shape(), source.policy(), *layout, source.profile(), source.kernels());
  return Status::kOk;
}

Status move_to(const Cache& from, Cache& to) {
  if (!from.ready() || !to.ready()) return Status::kNotReady;
  const ArenaView source{from};
  const ArenaView target{to};
  if (const Status fits = check_move(source, target); fits != Status::kOk) return fits;
  if (to.clear() != Status::kOk) return Status::kNotReady;
  Policy policy = to.policy();
  policy.recent = 0;
  Cache unguarded;
  ArenaView::set(unguarded, target.at<std::byte>(0), to.shape(), policy, target.layout(), target.profile(),
                 target.kernels());
  const ArenaView by_score{unguarded};
  bool all = true;
  for (std::uint32_t layer = 0; layer < to.shape().layers; ++layer) {
    for (std::uint32_t head = 0; head < to.shape().kv_heads; ++head) {
      all = ChainMove(source, target, by_score, layer, head).run() && all;
    }
  }
  // What was cut is older than the slots that its policy never drops.
  const std::uint32_t seen = from.seen(0);
  const std::uint32_t whole = policy.keep == Keep::kRecent ? policy.tokens - policy.sinks : to.policy().recent;
  const std::uint32_t cut = all ? 0 : seen - whole;
  const ArenaHeader& known = source.header();
  target.header().whole_from = cut > known.whole_from ? cut : known.whole_from;
  target.header().exact_from = all ? known.exact_from : seen;
  return Status::kOk;
}

}  // namespace nibkv
