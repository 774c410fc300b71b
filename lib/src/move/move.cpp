#include "nibkv/move.hpp"

#include "arena/share.hpp"
#include "codec/row.hpp"
#include "codec/slot.hpp"
#include "cold/log.hpp"
#include "move/mover.hpp"

namespace nibkv {
namespace {

bool overlap(const std::byte* a, std::size_t a_bytes, const std::byte* b, std::size_t b_bytes) {
  const auto first = reinterpret_cast<std::uintptr_t>(a);
  const auto second = reinterpret_cast<std::uintptr_t>(b);
  return first < second + b_bytes && second < first + a_bytes;
}

// The slots of a chain in an arena.
class ArenaSlots {
 public:
  ArenaSlots(const ArenaView& from, const ArenaView& to, std::uint32_t layer, std::uint32_t kv_head)
      : from_(from), chain_(from.chain(layer, kv_head)), with_(to, layer, kv_head), at_(from.first_slot(chain_)) {}

  static void take(void* context, const ArenaView& to, Destination& at, std::uint32_t slot, std::uint32_t count) {
    static_cast<ArenaSlots*>(context)->take_run(to, at, slot, count);
  }
  static std::uint32_t before(void* context, const ArenaView&, std::uint32_t slot, std::uint32_t position) {
    return static_cast<ArenaSlots*>(context)->count_before(slot, position);
  }
  static void next_faint(void* context, const ArenaView&, NextFaint& next) {
    const auto& all = *static_cast<const ArenaSlots*>(context);
    const ArenaView& from = all.from_;
    const Tier& faint = faint_tier(from, all.chain_);
    Segments segments;
    segments.add({faint.first, faint.last, 0, faint.used});
    each_slot(segments, from.links(),
              [&](std::uint32_t slot, const Place& at) { next.offer(from.position(at.tile, at.lane), slot); });
  }

 private:
  void take_run(const ArenaView& to, Destination& destination, std::uint32_t slot, std::uint32_t count);
  std::uint32_t count_before(std::uint32_t slot, std::uint32_t position);
  void copy(const Place& at, const ArenaView& to, const Place& place) const;
  Place faint_place(std::uint32_t slot) const;
  void go_to(std::uint32_t slot) {
    for (; slot_ < slot; ++slot_) at_.next_slot(from_.links());
  }

  const ArenaView& from_;
  const Chain& chain_;
  Recoder with_;
  Cursor at_;
  std::uint32_t slot_ = 0;  // of it
};

Place ArenaSlots::faint_place(std::uint32_t slot) const {
  std::uint32_t tile = faint_tier(from_, chain_).first;
  for (std::uint32_t i = slot / kTileSlots; i != 0; --i) tile = from_.links()[tile];
  return {tile, slot % kTileSlots};
}

void ArenaSlots::copy(const Place& at, const ArenaView& to, const Place& place) const {
  if (to.shape().storage == Storage::kF32) return copy_f32_slot(from_, at, to, place);
  copy_side({from_.policy(), from_.layout().side, from_.side(at.tile)}, at.lane, to, place);
  std::uint8_t codes[kMaxHeadDim];
  key_row(from_, at.tile, at.lane, codes);
  with_.put_key(key_plane(from_, at.tile).bits, codes, place);
  value_row(from_, at.tile, at.lane, codes);
  with_.put_value(value_plane(from_, at.tile).bits, codes, place);
}

void ArenaSlots::take_run(const ArenaView& to, Destination& destination, std::uint32_t slot, std::uint32_t count) {
  const std::uint32_t faint = faint_slots(from_, chain_);
  for (const std::uint32_t end = slot + count; slot < end; ++slot) {
    if (slot >= faint) go_to(slot);
    const Place at = slot < faint ? faint_place(slot) : at_;
    copy(at, to, add_slot(to, destination, from_.position_of(chain_, slot, at)));
  }
}

std::uint32_t ArenaSlots::count_before(std::uint32_t slot, std::uint32_t position) {
  go_to(slot);
  Cursor at = at_;
  std::uint32_t count = 0;
  while (at.any() && at.tile == at_.tile && from_.position(at.tile, at.lane) < position) {
    ++count;
    at.next_slot(from_.links());
  }
  return count;
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
  return has_space(to, tiles, most) ? Status::kOk : Status::kFull;
}

// Whether a store can take the pages of a copy, whose pages have the same places: not if it is the same one.
bool is_place_for_copy(const ArenaView& from, const ColdStore* store) {
  ColdStore to;
  if (store != nullptr) std::memcpy(&to, static_cast<const void*>(store), sizeof to);  // it may be the C interface's
  if (to.write == nullptr || to.read == nullptr) return false;
  const ColdStore own = from.store();
  return to.context != own.context || to.write != own.write;
}

}  // namespace

Status clone(const Cache& from, std::span<std::byte> arena, Cache& to, const ColdStore* store) {
  if (!from.ready()) return Status::kNotReady;
  const ArenaView source{from};
  const Layout& at = source.layout();
  const auto total = static_cast<std::size_t>(at.total);
  if (reinterpret_cast<std::uintptr_t>(arena.data()) % kArenaAlignment != 0) return Status::kMisaligned;
  if (arena.size() < total) return Status::kArenaTooSmall;
  if (overlap(source.at<std::byte>(0), total, arena.data(), arena.size())) return Status::kBadArgument;
  if (!keeps_log(source.policy())) store = nullptr;
  if (keeps_log(source.policy()) && !is_place_for_copy(source, store)) return Status::kBadArgument;
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
                 source.turns(), store);
  const ArenaView target{to};
  forget_shares(target);
  if (keeps_log(target.policy())) copy_pages(source, target);
  return Status::kOk;
}

Status move_to(const Cache& from, Cache& to) {
  if (!from.ready() || !to.ready()) return Status::kNotReady;
  const ArenaView source{from};
  const ArenaView target{to};
  if (keeps_log(source.policy()) || keeps_log(target.policy())) return Status::kBadPolicy;
  if (const Status fits = check_move(source, target); fits != Status::kOk) return fits;
  if (to.clear() != Status::kOk) return Status::kNotReady;
  if (to.shape().basis == KeyBasis::kMeasured)
    std::memcpy(target.measured(0, 0), source.measured(0, 0), target.heads() * measured_bytes(to.shape()));
  Mover mover(target);
  for (std::uint32_t layer = 0; layer < to.shape().layers; ++layer) {
    for (std::uint32_t head = 0; head < to.shape().kv_heads; ++head) {
      const Chain& chain = source.chain(layer, head);
      const std::uint32_t tail = has_tiers(source.policy()) ? source.own(chain).slots : 0;
      ArenaSlots slots(source, target, layer, head);
      mover.fill(layer, head,
                 {source.policy(), chain, faint_slots(source, chain), tail, ArenaSlots::take, ArenaSlots::before,
                  ArenaSlots::next_faint, &slots});
    }
  }
  mover.finish(from.seen(0), source.header().whole_from, source.header().exact_from);
  return Status::kOk;
}

}  // namespace nibkv
