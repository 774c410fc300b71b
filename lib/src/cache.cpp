#include "nibkv/cache.hpp"

#include "access.hpp"
#include "ports/select.hpp"

namespace nibkv {
namespace {

void reset(const Access& to) {
  const Layout& layout = to.layout();
  ArenaHeader& header = to.header();
  std::memset(&header, 0, sizeof header);
  header.magic = kArenaMagic;
  std::uint32_t* links = to.links();
  std::uint32_t tile = 0;
  for (std::uint32_t layer = 0; layer < to.shape().layers; ++layer) {
    for (std::uint32_t head = 0; head < to.shape().kv_heads; ++head) {
      to.chain(layer, head) = {kNoTile, kNoTile, 0, 0, tile};
      for (std::uint32_t i = 1; i < layout.tiles_per_head; ++i, ++tile) links[tile] = tile + 1;
      links[tile++] = kNoTile;
    }
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

  std::memset(arena.data(), 0, need);
  Access::set(*this, arena.data(), shape, policy, layout_of(shape, policy), profile, *kernels);
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
  const std::size_t tile_bytes = std::size_t{layout_.code_bytes} + layout_.side_bytes + 4;
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

std::uint32_t Cache::seen(std::uint32_t layer) const {
  if (!ready() || layer >= shape_.layers) return 0;
  return Access{*this}.chain(layer, 0).seen;
}

}  // namespace nibkv
