#include "nibkv/cache.hpp"

#include "access.hpp"
#include "budget.hpp"
#include "ports/select.hpp"

namespace nibkv {
namespace {

// Empty chains that keep their budgets, each with tiles of its own in one run of the pool.
void reset(const Access& to) {
  const Layout& layout = to.layout();
  ArenaHeader& header = to.header();
  std::memset(&header, 0, sizeof header);
  header.magic = kArenaMagic;
  const bool equal = equal_runs(to.policy());
  const std::size_t heads = std::size_t{to.shape().layers} * to.shape().kv_heads;
  std::uint32_t* links = to.links();
  std::uint32_t tile = 0;
  for (std::size_t i = 0; i < heads; ++i) {
    Chain& chain = to.at<Chain>(layout.chains)[i];
    if (to.policy().budget == Budget::kAdaptive) chain.budget = to.policy().tokens;
    const std::uint32_t own = equal ? layout.tiles_per_head : chain.budget / kTileSlots + 1;
    const std::uint32_t end = i + 1 == heads ? static_cast<std::uint32_t>(layout.tiles) : tile + own;
    chain = {kNoTile, kNoTile, 0, 0, tile, chain.budget, 0, 0};
    for (; tile + 1 < end; ++tile) links[tile] = tile + 1;
    links[tile++] = kNoTile;
  }
}

}  // namespace

Status Cache::init(std::span<std::byte> arena, const Shape& shape, const Policy& policy, const Options& options) {
  if (!valid(shape)) return Status::kBadShape;
  const std::size_t need = footprint(shape, policy);
  if (need == 0) return Status::kBadPolicy;
  if (reinterpret_cast<std::uintptr_t>(arena.data()) % kArenaAlignment != 0) return Status::kMisaligned;
  if (arena.size() < need) return Status::kArenaTooSmall;

  const Kernels* kernels = nullptr;
  if (const Status found = select_port(options.port, kernels); found != Status::kOk) return found;

  ProfileView profile;
  if (!options.profile.empty()) {
    if (const Status read = profile.open(options.profile, shape); read != Status::kOk) return read;
  } else if (shape.outlier_channels != 0) {
    return Status::kBadProfile;
  }

  if (const Status shared = check_budgets(shape, policy, profile, options.budgets); shared != Status::kOk)
    return shared;

  std::memset(arena.data(), 0, need);
  Access::set(*this, arena.data(), shape, policy, layout_of(shape, policy), profile, *kernels);
  set_budgets(Access{*this}, options.budgets);
  reset(Access{*this});
  return Status::kOk;
}

Status Cache::clear() {
  if (!ready()) return Status::kNotReady;
  reset(Access{*this});
  return Status::kOk;
}

std::string_view Cache::port() const {
  return ready() ? std::string_view{kernels_->name} : std::string_view{};
}

Usage Cache::usage() const {
  if (!ready()) return {};
  const ArenaHeader& header = Access{*this}.header();
  const std::size_t tile_bytes =
      std::size_t{layout_.code_bytes} + layout_.side_bytes + 4 + (policy_.keep == Keep::kScore ? 4 : 0);
  const std::size_t chain_bytes = std::size_t{shape_.layers} * shape_.kv_heads * sizeof(Chain);
  return {static_cast<std::size_t>(layout_.total),
          chain_bytes + header.used_tiles * tile_bytes,
          chain_bytes + header.peak_tiles * tile_bytes,
          static_cast<std::uint32_t>(layout_.tiles),
          header.used_tiles,
          header.peak_tiles};
}

std::uint32_t Cache::held(std::uint32_t layer, std::uint32_t kv_head) const {
  if (!ready() || layer >= shape_.layers || kv_head >= shape_.kv_heads) return 0;
  return Access{*this}.chain(layer, kv_head).used;
}

std::uint32_t Cache::budget(std::uint32_t layer, std::uint32_t kv_head) const {
  if (!ready() || layer >= shape_.layers || kv_head >= shape_.kv_heads) return 0;
  return Access{*this}.chain(layer, kv_head).budget;
}

std::uint32_t Cache::seen(std::uint32_t layer) const {
  if (!ready() || layer >= shape_.layers) return 0;
  return Access{*this}.chain(layer, 0).seen;
}

}  // namespace nibkv
