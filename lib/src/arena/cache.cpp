#include "nibkv/cache.hpp"

#include "arena/budget.hpp"
#include "arena/pool.hpp"
#include "arena/select.hpp"
#include "arena/share.hpp"

namespace nibkv {
namespace {

// Makes a list of free tiles of those from `tile` up to `end`.
void free_run(const ArenaView& to, std::uint32_t& free, std::uint32_t& tile, std::uint32_t end) {
  free = tile < end ? tile : kNoTile;
  for (; tile < end; ++tile) to.links()[tile] = tile + 1 < end ? tile + 1 : kNoTile;
}

// Gives the chains of layers with wider codes, or the others, their tiles, but for those of tails and faint ones: each
// gets its own in one run, from `tile` up to `end`.
void divide_pool(const ArenaView& to, bool wide, std::uint32_t end, std::uint32_t& tile) {
  const std::uint32_t apart = !wide && to.layout().first_tiles != 0 ? 1 : 0;  // the first tile of each
  std::uint32_t* newest = nullptr;
  std::uint32_t run = 0;
  for (std::size_t i = 0; i < to.heads(); ++i) {
    Chain& chain = to.chains()[i];
    const auto layer = static_cast<std::uint32_t>(i / to.shape().kv_heads);
    if (to.is_wide_layer(layer) != wide) continue;
    if (newest != nullptr) free_run(to, *newest, tile, tile + run);
    newest = has_tiers(to.policy()) ? &kept_tier(to, chain).free : &chain.free;
    run = run_tiles(to, layer, chain) - apart;
    if (keeps_log(to.policy()) && is_indexed(to, chain)) {
      // The last ones of a run are for what is recalled.
      const std::uint32_t own = run - to.policy().recall / kTileSlots;
      free_run(to, chain.free, tile, tile + own);
      std::uint32_t recalled;
      run -= own;
      free_run(to, recalled, tile, tile + run);
      newest = nullptr;
    }
  }
  if (newest != nullptr) free_run(to, *newest, tile, end);  // and what is left
}

// Makes all chains empty. They keep their budgets.
void reset(const ArenaView& to) {
  const Layout& layout = to.layout();
  ArenaHeader& header = to.header();
  std::memset(&header, 0, sizeof header);
  header.magic = kArenaMagic;
  if (keeps_log(to.policy())) choose_indexed(to);
  const std::uint32_t tail = detail::tail_tiles(to.shape(), to.policy());
  const std::uint32_t faint = detail::faint_tiles(to.policy());
  std::uint32_t tail_tile = layout.wide_tiles;
  std::uint32_t faint_tile = layout.faint_from;
  for (std::size_t i = 0; i < to.heads(); ++i) {
    Chain& chain = to.chains()[i];
    if (to.policy().budget == Budget::kAdaptive) chain.budget = to.policy().tokens;
    chain = {kNoTile, kNoTile, 0, 0, kNoTile, chain.budget, 0, 0};
    if (tail != 0) {
      kept_tier(to, chain) = {};
      free_run(to, chain.free, tail_tile, tail_tile + tail);
    }
    if (faint != 0) {
      faint_tier(to, chain) = {};
      free_run(to, faint_tier(to, chain).free, faint_tile, faint_tile + faint);
    }
  }
  if (to.shape().basis == KeyBasis::kMeasured)
    std::memset(to.measured(0, 0), 0, to.heads() * measured_bytes(to.shape()));
  std::uint32_t tile = layout.first_tiles;
  if (layout.wide_tiles != tile) divide_pool(to, true, layout.wide_tiles, tile);
  tile = layout.kept_from;
  divide_pool(to, false, tile + static_cast<std::uint32_t>(detail::tiles_of_pools(layout)[Pool::kKept]), tile);
  reset_bands(to);
  forget_shares(to);
}

}  // namespace

void forget_shares(const ArenaView& to) {
  if (!divides_heads(to.shape(), to.policy()) || to.shape().workers == 1) return;
  const std::uint32_t blocks = blocks_of(to.layout().chain_tiles);
  for (std::uint32_t head = 0; head < to.shape().query_heads; ++head) {
    for (std::uint32_t block = 0; block < blocks; ++block) partial_of(to, head, block).mark = 0;
  }
}

// Whether the build has the codes of a storage.
static bool is_built(Storage storage) {
  const TileFormat format = format_of(storage);
  return ((format.key_bits | format.value_bits) & ~ports::kCodeBits) == 0;
}

// Whether the profile tells heads apart that look things up.
static bool has_head_scores(const ProfileView& profile, const Shape& shape) {
  bool any = false;
  for (std::uint32_t layer = 0; layer < shape.layers && !profile.empty(); ++layer) {
    for (std::uint32_t head = 0; head < shape.kv_heads; ++head) any = any || profile.head(layer, head).head_score != 0;
  }
  return any;
}

Status find_layout(const Shape& shape, const Policy& policy, Layout& layout) {
  if (!valid(shape) || !is_built(shape.storage)) return Status::kBadShape;
  if (has_log(policy) != keeps_log(policy)) return Status::kBadPolicy;
  if (footprint(shape, policy) == 0 || (has_wide(policy) && !is_built(policy.wide_storage))) return Status::kBadPolicy;
  if (has_tiers(policy) && !is_built(policy.tail_storage)) return Status::kBadPolicy;
  if (policy.faint != 0 && !is_built(policy.faint_storage)) return Status::kBadPolicy;
  layout = layout_of(shape, policy);
  return Status::kOk;
}

bool has_own_layout(const ArenaView& to) {
  const Layout own = layout_of(to.shape(), to.policy());
  return std::memcmp(&own, &to.layout(), sizeof own) == 0;
}

Status Cache::init(std::span<std::byte> arena, const Shape& shape, const Policy& policy, const Options& options) {
  Layout layout;
  if (const Status found = find_layout(shape, policy, layout); found != Status::kOk) return found;
  const auto need = static_cast<std::size_t>(layout.total);
  if (reinterpret_cast<std::uintptr_t>(arena.data()) % kArenaAlignment != 0) return Status::kMisaligned;
  if (arena.size() < need) return Status::kArenaTooSmall;

  const Kernels* kernels = nullptr;
  if (const Status found = select_port(options.port, kernels); found != Status::kOk) return found;

  ProfileView profile;
  if (!options.profile.empty()) {
    if (shape.basis == KeyBasis::kMeasured) return Status::kBadProfile;
    if (const Status read = profile.open(options.profile, shape); read != Status::kOk) return read;
    if (options.weights != 0 && profile.weights() != 0 && options.weights != profile.weights())
      return Status::kBadProfile;
  } else if (shape.outlier_channels != 0 && shape.basis == KeyBasis::kProfile) {
    return Status::kBadProfile;
  }

  const bool aligned = !policy.fold.aligned_keys.empty() || !policy.fold.aligned_values.empty();
  if (aligned && !profile.has_maps()) return Status::kBadProfile;

  if (keeps_log(policy)) {
    if (policy.indexed != 256 && !has_head_scores(profile, shape)) return Status::kBadProfile;
    ColdStore store;
    if (options.store != nullptr) std::memcpy(&store, static_cast<const void*>(options.store), sizeof store);
    if (store.write == nullptr || store.read == nullptr) return Status::kBadArgument;
  }

  if (const Status shared = check_budgets(shape, policy, layout, profile, options.budgets); shared != Status::kOk)
    return shared;

  std::memset(arena.data(), 0, need);
  auto* kept = in_place<Layout>(arena.data() + static_cast<std::size_t>(layout.layout));
  std::memcpy(kept, &layout, sizeof layout);
  ArenaView::set(*this, arena.data(), shape, policy, *kept, profile, *kernels, options.turns,
                 keeps_log(policy) ? options.store : nullptr);
  set_budgets(ArenaView{*this}, options.budgets);
  reset(ArenaView{*this});
  return Status::kOk;
}

Status Cache::clear() {
  if (!ready()) return Status::kNotReady;
  reset(ArenaView{*this});
  return Status::kOk;
}

Status Cache::wipe() {
  if (!ready()) return Status::kNotReady;
  const ArenaView to{*this};
  const Layout& at = to.layout();
  for (const Region& region : kRegions) {
    // Chains have their budgets, and clear makes the rest of them anew.
    if (region.size == Region::Size::kChains || region.size == Region::Size::kLayout) continue;
    const std::uint64_t bytes = region.bytes(to.shape(), to.policy(), at);
    std::memset(to.at<std::byte>(at.*region.offset), 0, static_cast<std::size_t>(bytes));
  }
  return clear();
}

std::string_view Cache::port() const {
  return ready() ? std::string_view{kernels_->name} : std::string_view{};
}

Usage Cache::usage() const {
  if (!ready()) return {};
  const ArenaView to{*this};
  const ArenaHeader& header = to.header();
  const bool counted = counts_bytes(to);
  const std::uint64_t of_chain =
      sizeof(Chain) + (folds(to) ? sizeof(FoldedPart) : 0) + detail::tiers_below(policy_) * sizeof(Tier);
  const std::uint64_t chain_bytes = to.heads() * of_chain;
  const std::uint64_t used = counted ? header.used_bytes : header.used_tiles * pool_tile_bytes(to, Pool::kKept);
  const std::uint64_t peak = counted ? header.peak_bytes : header.peak_tiles * pool_tile_bytes(to, Pool::kKept);
  return {static_cast<std::size_t>(to.layout().total),
          static_cast<std::size_t>(chain_bytes + used),
          static_cast<std::size_t>(chain_bytes + peak),
          static_cast<std::uint32_t>(to.layout().tiles),
          header.used_tiles,
          header.peak_tiles,
          header.drowned};
}

std::uint32_t Cache::held(std::uint32_t layer, std::uint32_t kv_head) const {
  if (!ready() || layer >= shape_.layers || kv_head >= shape_.kv_heads) return 0;
  return ArenaView{*this}.chain(layer, kv_head).used;
}

std::uint32_t Cache::budget(std::uint32_t layer, std::uint32_t kv_head) const {
  if (!ready() || layer >= shape_.layers || kv_head >= shape_.kv_heads) return 0;
  return ArenaView{*this}.chain(layer, kv_head).budget;
}

std::uint32_t Cache::seen(std::uint32_t layer) const {
  if (!ready() || layer >= shape_.layers) return 0;
  return ArenaView{*this}.chain(layer, 0).seen;
}

std::uint32_t Cache::measured(std::uint32_t layer) const {
  if (!ready() || layer >= shape_.layers) return 0;
  return ArenaView{*this}.measured_tokens(layer);
}

}  // namespace nibkv
