#include "nibkv/move.hpp"

#include "arena/share.hpp"
#include "codec/slot.hpp"
#include "move/mover.hpp"

namespace nibkv {
namespace {

bool overlap(const std::byte* a, std::size_t a_bytes, const std::byte* b, std::size_t b_bytes) {
  const auto first = reinterpret_cast<std::uintptr_t>(a);
  const auto second = reinterpret_cast<std::uintptr_t>(b);
  return first < second + b_bytes && second < first + a_bytes;
}

// The slots of a chain in an arena.
struct ArenaSlots {
  const ArenaView& from;
  const Chain& chain;
  Cursor at;
  std::uint32_t slot = 0;  // of `at`
};

void take_from_arena(void* context, const ArenaView& to, Chain& chain, std::uint32_t slot, std::uint32_t count) {
  auto& all = *static_cast<ArenaSlots*>(context);
  for (; all.slot < slot + count; ++all.slot, all.at.next_slot(all.from.links())) {
    if (all.slot < slot) continue;
    const Place place = add_slot(to, chain, all.from.position_of(all.chain, all.slot, all.at));
    copy_slot(all.from, all.at, to, place);
  }
}

Status check_move(const ArenaView& from, const ArenaView& to) {
  if (&from.header() == &to.header()) return Status::kBadArgument;
  if (const Status kinds = check_kinds(from, to); kinds != Status::kOk) return kinds;
  std::uint64_t tiles = 0;
  std::uint32_t most = 0;  // slots of a chain
  for (std::size_t i = 0; i < from.heads(); ++i) {
    if (from.chains()[i].seen != from.chains()[0].seen) return Status::kBadArgument;
    tiles += tiles_of(from.chains()[i].used);
    most = from.chains()[i].used > most ? from.chains()[i].used : most;
  }
  const bool fits = tiles <= to.layout().tiles && most <= most_slots(to);
  return to.policy().keep == Keep::kAll && !fits ? Status::kFull : Status::kOk;
}

}  // namespace

Status clone(const Cache& from, std::span<std::byte> arena, Cache& to) {
  if (!from.ready()) return Status::kNotReady;
  const ArenaView source{from};
  if (has_log(source.policy())) return Status::kBadPolicy;
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
  ArenaView::set(to, arena.data(), source.shape(), source.policy(), *layout, source.profile(), source.kernels(),
                 source.turns());
  forget_shares(ArenaView{to});
  return Status::kOk;
}

Status move_to(const Cache& from, Cache& to) {
  if (!from.ready() || !to.ready()) return Status::kNotReady;
  const ArenaView source{from};
  const ArenaView target{to};
  if (has_log(source.policy()) || has_log(target.policy())) return Status::kBadPolicy;
  if (const Status fits = check_move(source, target); fits != Status::kOk) return fits;
  if (to.clear() != Status::kOk) return Status::kNotReady;
  if (to.shape().basis == KeyBasis::kMeasured)
    std::memcpy(target.measured(0, 0), source.measured(0, 0), target.heads() * measured_bytes(to.shape()));
  Mover mover(target);
  for (std::uint32_t layer = 0; layer < to.shape().layers; ++layer) {
    for (std::uint32_t head = 0; head < to.shape().kv_heads; ++head) {
      const Chain& chain = source.chain(layer, head);
      ArenaSlots slots{source, chain, source.first_slot(chain)};
      mover.fill(layer, head, {source.policy(), chain, take_from_arena, &slots});
    }
  }
  mover.finish(from.seen(0), source.header().whole_from, source.header().exact_from);
  return Status::kOk;
}

}  // namespace nibkv
