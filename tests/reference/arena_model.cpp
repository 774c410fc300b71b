#include "tests/reference/arena_model.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>

namespace nibkv::reference {
namespace {

[[noreturn]] void wrong(const std::string& what) {
  throw std::runtime_error(what);
}

std::uint16_t u16_at(const std::uint8_t* bytes, std::size_t index) {
  return static_cast<std::uint16_t>(bytes[2 * index] + 256 * bytes[2 * index + 1]);
}

double bf16_at(const std::uint8_t* bytes, std::size_t index) {
  return static_cast<double>(std::bit_cast<float>(static_cast<std::uint32_t>(u16_at(bytes, index)) << 16));
}

std::vector<double> levels_times(int bits, const std::vector<int>& codes, double scale) {
  std::vector<double> row;
  for (const int code : codes) row.push_back(level_of(bits, code) * scale);
  return row;
}

// A code of a byte that holds 8 / bits of them, the lowest first.
int code_of(int bits, std::uint8_t byte, std::uint32_t index) {
  if (bits == 8) return static_cast<std::int8_t>(byte);
  return byte >> static_cast<int>(index) * bits & ((1 << bits) - 1);
}

}  // namespace

int level_of(int bits, int code) {
  constexpr int kFour[4] = {-63, -19, 19, 63};
  return bits == 8 ? code : bits == 4 ? kCodebook[code] : kFour[code];
}

double scale16_value(std::uint16_t scale) {
  const int exponent = scale >> 8;
  const int fraction = scale & 255;
  return exponent == 0 ? std::ldexp(fraction, -126 - 8) : std::ldexp(256 + fraction, exponent - 127 - 8);
}

std::vector<double> hadamard(std::span<const double> row) {
  std::vector<double> out(row.size(), 0.0);
  std::size_t start = 0;
  while (start < row.size()) {
    const std::size_t block = std::bit_floor(row.size() - start);
    const double norm = 1 / std::sqrt(static_cast<double>(block));
    for (std::size_t i = 0; i < block; ++i) {
      double sum = 0;
      for (std::size_t j = 0; j < block; ++j) sum += std::popcount(i & j) % 2 == 0 ? row[start + j] : -row[start + j];
      out[start + i] = sum * norm;
    }
    start += block;
  }
  return out;
}

namespace {

std::vector<double> with_signs(std::vector<double> row) {
  for (std::size_t c = 0; c < row.size(); ++c) {
    int pairs = 0;
    for (int bit = 0; bit < 8; bit += 2) pairs += (c >> bit & 3) == 3 ? 1 : 0;
    if (pairs % 2 != 0) row[c] = -row[c];
  }
  return row;
}

}  // namespace

std::vector<double> rotated(std::span<const double> row) {
  return hadamard(with_signs({row.begin(), row.end()}));
}
std::vector<double> rotated_back(std::span<const double> row) {
  return with_signs(hadamard(row));
}

std::vector<double> Slot::rotated_key() const {
  return levels_times(key_bits, key_codes, scale16_value(key_scale));
}
std::vector<double> Slot::rotated_value() const {
  return levels_times(value_bits, value_codes, scale16_value(value_scale));
}

ArenaModel::ArenaModel(std::span<const std::byte> arena, const Shape& shape, const Policy& policy)
    : arena_(arena), shape_(shape), policy_(policy), layout_(layout_of(shape, policy)) {}

template <typename T>
T ArenaModel::read(std::uint64_t offset) const {
  if (offset + sizeof(T) > arena_.size()) wrong("a read past the arena");
  T value;
  std::memcpy(&value, arena_.data() + static_cast<std::size_t>(offset), sizeof value);
  return value;
}

Chain ArenaModel::chain(std::uint32_t layer, std::uint32_t kv_head) const {
  return read<Chain>(layout_.chains + (std::uint64_t{layer} * shape_.kv_heads + kv_head) * sizeof(Chain));
}

Folded ArenaModel::folded(std::uint32_t layer, std::uint32_t kv_head) const {
  if (layout_.views == 0) return {};
  const std::uint64_t at = layout_.folds + (std::uint64_t{layer} * shape_.kv_heads + kv_head) * 32;
  Folded part;
  part.first = read<std::uint32_t>(at);
  part.last = read<std::uint32_t>(at + 4);
  part.used = read<std::uint32_t>(at + 8);
  part.retained = read<std::uint32_t>(at + 12);
  return part;
}

Tier ArenaModel::tier(std::uint32_t layer, std::uint32_t kv_head, std::uint32_t which) const {
  const std::uint32_t tiers = policy_.tail == 0 ? 0 : policy_.faint == 0 ? 1 : 2;
  if (which >= tiers) return {};
  const std::uint64_t head = std::uint64_t{layer} * shape_.kv_heads + kv_head;
  const std::uint64_t at = layout_.tiers + (head * tiers + which) * 16;
  return {read<std::uint32_t>(at), read<std::uint32_t>(at + 4), read<std::uint32_t>(at + 8),
          read<std::uint32_t>(at + 12)};
}

// The tiles of a tier, all of them in its pool, but for the first one of kept slots, which may be one apart.
std::vector<std::uint32_t> ArenaModel::tier_tiles(std::uint32_t layer, std::uint32_t kv_head,
                                                  std::uint32_t which) const {
  const Tier tier = this->tier(layer, kv_head, which);
  const std::string where = "layer " + std::to_string(layer) + ", head " + std::to_string(kv_head) + ", " +
                            (which == 0 ? "kept: " : "faint: ");
  const auto tiles = list(tier.first, tier.last, tier.used, 0, layout_.tiles, where);
  for (std::size_t i = 0; i < tiles.size(); ++i) {
    const bool wide = which == 0 && (policy_.wide.has(layer) || (policy_.wide_first && i == 0));
    const std::uint64_t begin = wide ? 0 : which == 0 ? layout_.kept_from : layout_.faint_from;
    const std::uint64_t end = wide         ? layout_.wide_tiles
                              : which == 1 ? layout_.tiles
                                           : std::min<std::uint64_t>(layout_.tiles, layout_.faint_from);
    if (tiles[i] < begin || tiles[i] >= end) wrong(where + "tile " + std::to_string(tiles[i]) + " is of another pool");
  }
  return tiles;
}

std::vector<std::uint32_t> ArenaModel::list(std::uint32_t first, std::uint32_t last, std::uint32_t used,
                                            std::uint64_t begin, std::uint64_t end, const std::string& where) const {
  std::vector<std::uint32_t> list;
  for (std::uint32_t tile = first; tile != kNoTile;
       tile = read<std::uint32_t>(layout_.links + std::uint64_t{tile} * 4)) {
    if (tile < begin || tile >= end) wrong(where + "tile " + std::to_string(tile) + " does not exist");
    list.push_back(tile);
    if (list.size() > end) wrong(where + "the chain is a cycle");
  }
  if (last != (list.empty() ? kNoTile : list.back())) wrong(where + "`last` is not the last tile");
  if (list.size() != (used + 31) / 32)
    wrong(where + std::to_string(list.size()) + " tiles for " + std::to_string(used) + " slots");
  return list;
}

std::vector<std::uint32_t> ArenaModel::tiles(std::uint32_t layer, std::uint32_t kv_head) const {
  const Chain chain = this->chain(layer, kv_head);
  const std::string where = "layer " + std::to_string(layer) + ", head " + std::to_string(kv_head) + ": ";
  const std::uint32_t before = folded(layer, kv_head).used + kept(layer, kv_head).used + faint(layer, kv_head).used;
  if (before > chain.used) wrong(where + "more slots in tiers than in all");
  const auto own = list(chain.first, chain.last, chain.used - before, 0, layout_.tiles, where);
  for (const std::uint32_t tile : own) {
    if (policy_.tail != 0 && (tile < layout_.wide_tiles || tile >= layout_.kept_from))
      wrong(where + "not a tail's tile");
  }
  return own;
}

std::vector<Place> ArenaModel::places(std::uint32_t layer, std::uint32_t kv_head) const {
  const Folded part = folded(layer, kv_head);
  const std::string where = "layer " + std::to_string(layer) + ", head " + std::to_string(kv_head) + ", folded: ";
  const auto views = list(part.first, part.last, part.used, layout_.tiles, layout_.tiles + layout_.views, where);
  const auto own = tiles(layer, kv_head);
  std::vector<Place> all;
  const auto add = [&](const std::vector<std::uint32_t>& tiles, std::uint32_t slots) {
    for (std::uint32_t i = 0; i < slots; ++i) all.push_back({tiles.at(i / 32), i % 32});
  };
  add(views, part.used);
  for (const std::uint32_t which : {1u, 0u}) add(tier_tiles(layer, kv_head, which), tier(layer, kv_head, which).used);
  add(own, chain(layer, kv_head).used - static_cast<std::uint32_t>(all.size()));
  return all;
}

// Planes of 16 * head_dim bytes: [keys][values] of entries of both, [keys a][keys b][values] of values only,
// [keys][values a][values b] of keys only.
std::pair<std::uint64_t, std::uint64_t> ArenaModel::codes_of(std::uint32_t tile) const {
  const std::uint64_t plane = 16u * shape_.head_dim;
  if (tile < layout_.tiles) {
    const auto bytes = [&](const TileFormat& of) { return 4u * (of.key_bits + of.value_bits) * shape_.head_dim; };
    std::uint64_t keys = layout_.codes;
    std::uint64_t begin = 0;
    const std::pair<std::uint64_t, Storage> pools[] = {{layout_.wide_tiles, policy_.wide_storage},
                                                       {layout_.kept_from, policy_.tail_storage},
                                                       {layout_.faint_from, shape_.storage},
                                                       {layout_.tiles, policy_.faint_storage}};
    for (const auto& [end, storage] : pools) {
      const std::uint64_t before = std::min<std::uint64_t>(tile, end);
      if (before > begin) keys += (before - begin) * bytes(format_of(storage));
      begin = std::max(begin, before);
    }
    return {keys, keys + 4u * format(tile).key_bits * shape_.head_dim};
  }
  const std::uint64_t entry = (tile - layout_.tiles) / 2;
  const std::uint64_t which = (tile - layout_.tiles) % 2;
  std::uint64_t base = layout_.shared;
  for (std::uint64_t i = 0; i < entry; ++i) base += (i < layout_.both_entries ? 2 : 3) * plane;
  if (entry < layout_.both_entries) return {base, base + plane};
  if (entry < layout_.value_entries) return {base + which * plane, base + 2 * plane};
  return {base, base + (1 + which) * plane};
}

TileFormat ArenaModel::format(std::uint32_t tile) const {
  if (tile < layout_.wide_tiles) return format_of(policy_.wide_storage);
  if (tile < layout_.kept_from) return format_of(policy_.tail_storage);
  return format_of(tile < layout_.faint_from ? shape_.storage : policy_.faint_storage);
}

Slot ArenaModel::slot_of(std::uint32_t tile, std::uint32_t lane) const {
  const std::uint64_t side = layout_.sides + std::uint64_t{tile} * layout_.side_bytes;
  const auto [keys_at, values_at] = codes_of(tile);
  const std::uint64_t keys = keys_at;
  const std::uint64_t values = values_at;
  const TileFormat format = this->format(tile);
  Slot slot;
  slot.key_bits = format.key_bits;
  slot.value_bits = format.value_bits;
  // Codes of 8 bits fill a byte; those of 4 share it with the slot 16 further; those of 2 with the next group of four
  // channels (values: slots), too.
  const std::uint32_t row = 4u * shape_.head_dim;
  const std::uint32_t upper = lane / 16;
  const std::uint32_t group = lane % 16 / 4;
  for (std::uint32_t c = 0; c < shape_.head_dim; ++c) {
    const std::uint32_t four = c / 4;
    if (format.key_bits == 8) {
      slot.key_codes.push_back(code_of(8, read<std::uint8_t>(keys + four * 128 + lane * 4 + c % 4), 0));
    } else if (format.key_bits == 4) {
      slot.key_codes.push_back(code_of(4, read<std::uint8_t>(keys + four * 64 + lane % 16 * 4 + c % 4), upper));
    } else {
      const auto byte = read<std::uint8_t>(keys + four / 2 * 64 + lane % 16 * 4 + c % 4);
      slot.key_codes.push_back(code_of(2, byte, four % 2 * 2 + upper));
    }
    const std::uint64_t at = values + c * 4 + lane % 4;
    if (format.value_bits == 8) {
      slot.value_codes.push_back(code_of(8, read<std::uint8_t>(at + lane / 4 * row), 0));
    } else if (format.value_bits == 4) {
      slot.value_codes.push_back(code_of(4, read<std::uint8_t>(at + group * row), upper));
    } else {
      slot.value_codes.push_back(code_of(2, read<std::uint8_t>(at + group / 2 * row), group % 2 * 2 + upper));
    }
  }
  slot.key_scale = read<std::uint16_t>(side + lane * 2);
  slot.value_scale = read<std::uint16_t>(side + 64 + lane * 2);
  for (std::uint32_t n = 0; n < shape_.outlier_channels; ++n) {
    slot.outliers.push_back(read<std::int8_t>(side + 128 + n / 4 * 128 + lane * 4 + n % 4));
  }
  return slot;
}

void widen(Slot& slot, const TileFormat& format) {
  const auto one = [](std::vector<int>& codes, int& bits, std::uint16_t& scale, int to) {
    if (bits >= to) return;
    for (int& code : codes) {
      const int level = level_of(bits, code);
      if (to == 8) {
        code = 2 * level;
      } else {
        code = level == 63 ? 14 : level == 19 ? 10 : level == -19 ? 5 : 1;
      }
    }
    const double wider = scale16_value(scale) * (to == 8 ? 0.5 : 63.0 / 48);
    if (scale != 0)
      scale = static_cast<std::uint16_t>((std::bit_cast<std::uint32_t>(static_cast<float>(wider)) + 0x4000) >> 15);
    bits = to;
  };
  one(slot.key_codes, slot.key_bits, slot.key_scale, format.key_bits);
  one(slot.value_codes, slot.value_bits, slot.value_scale, format.value_bits);
}

Slot ArenaModel::slot(std::uint32_t layer, std::uint32_t kv_head, std::uint32_t index) const {
  const Place place = places(layer, kv_head).at(index);
  return slot_of(place.tile, place.lane);
}

std::vector<Slot> ArenaModel::slots(std::uint32_t layer, std::uint32_t kv_head) const {
  std::vector<Slot> all;
  for (const Place& place : places(layer, kv_head)) all.push_back(slot_of(place.tile, place.lane));
  return all;
}

Notes ArenaModel::notes_of(std::uint32_t tile, std::uint32_t lane) const {
  const std::uint64_t side = layout_.sides + std::uint64_t{tile} * layout_.side_bytes;
  const Side& at = layout_.side;
  Notes notes;
  notes.position = read<std::uint32_t>(layout_.bases + std::uint64_t{tile} * 4) +
                   read<std::uint16_t>(side + at.positions + lane * 2);
  // An array ends where the next one begins: an array of length 0 does not exist.
  if (at.positions != at.global) notes.global = read<std::uint32_t>(side + at.global + lane * 4);
  if (at.bias != at.local) notes.local = read<std::uint16_t>(side + at.local + lane * 2);
  if (at.merged != at.bias) notes.bias = read<std::uint8_t>(side + at.bias + lane);
  if (at.classes != at.merged) notes.merged = read<std::uint8_t>(side + at.merged + lane);
  return notes;
}

std::vector<Notes> ArenaModel::notes(std::uint32_t layer, std::uint32_t kv_head) const {
  std::vector<Notes> all;
  for (const Place& place : places(layer, kv_head)) all.push_back(notes_of(place.tile, place.lane));
  return all;
}

std::vector<float> ArenaModel::key_f32(std::uint32_t layer, std::uint32_t kv_head, std::uint32_t index) const {
  const std::uint64_t codes = layout_.codes + std::uint64_t{tiles(layer, kv_head).at(index / 32)} * layout_.code_bytes;
  std::vector<float> row;
  for (std::uint32_t c = 0; c < shape_.head_dim; ++c) row.push_back(read<float>(codes + 4 * (c * 32 + index % 32)));
  return row;
}

std::vector<float> ArenaModel::value_f32(std::uint32_t layer, std::uint32_t kv_head, std::uint32_t index) const {
  const std::uint64_t codes = layout_.codes + std::uint64_t{tiles(layer, kv_head).at(index / 32)} * layout_.code_bytes;
  const std::uint32_t dim = shape_.head_dim;
  std::vector<float> row;
  for (std::uint32_t c = 0; c < dim; ++c) row.push_back(read<float>(codes + 4 * (32 * dim + index % 32 * dim + c)));
  return row;
}

std::uint32_t ArenaModel::check_chains() const {
  std::vector<bool> taken(static_cast<std::size_t>(layout_.tiles), false);
  std::uint32_t used = 0;
  for (std::uint32_t layer = 0; layer < shape_.layers; ++layer) {
    for (std::uint32_t head = 0; head < shape_.kv_heads; ++head) {
      for (const auto& list : {tiles(layer, head), tier_tiles(layer, head, 0), tier_tiles(layer, head, 1)}) {
        for (const std::uint32_t tile : list) {
          if (taken[tile]) wrong("tile " + std::to_string(tile) + " is in two chains");
          taken[tile] = true;
          ++used;
        }
      }
    }
  }
  check_free_tiles(taken, used);
  return used;
}

void ArenaModel::check_free_tiles(const std::vector<bool>& taken, std::uint32_t used) const {
  std::vector<bool> free(taken.size(), false);
  std::uint64_t count = 0;
  for (std::uint32_t layer = 0; layer < shape_.layers; ++layer) {
    for (std::uint32_t head = 0; head < shape_.kv_heads; ++head) {
      const std::uint64_t run = (std::uint64_t{layer} * shape_.kv_heads + head) * layout_.tiles_per_head;
      // If layers share codes, runs differ in length.
      const bool equal = layout_.views == 0 && layout_.kept_from == 0 &&
                         (policy_.budget == Budget::kUniform || policy_.budget == Budget::kAdaptive);
      for (std::uint32_t tile : {chain(layer, head).free, kept(layer, head).free, faint(layer, head).free}) {
        for (; tile != kNoTile; ++count) {
          const std::string where = "free tile " + std::to_string(tile);
          if (tile >= layout_.tiles) wrong(where + " does not exist");
          if (equal && (tile < run || tile >= run + layout_.tiles_per_head)) wrong(where + " is of another run");
          if (taken[tile] || free[tile]) wrong(where + " is in use or in the list twice");
          free[tile] = true;
          tile = read<std::uint32_t>(layout_.links + std::uint64_t{tile} * 4);
        }
      }
    }
  }
  // First tiles of empty chains wait apart.
  for (std::uint32_t i = 0; policy_.wide_first && i < shape_.layers * std::uint32_t{shape_.kv_heads}; ++i) {
    const std::uint32_t layer = i / shape_.kv_heads, head = i % shape_.kv_heads;
    const std::uint32_t slots = policy_.tail != 0 ? kept(layer, head).used : chain(layer, head).used;
    count += !policy_.wide.has(layer) && slots == 0 ? 1 : 0;
  }
  if (count + used != layout_.tiles)
    wrong(std::to_string(count) + " free tiles, " + std::to_string(used) + " used ones");
}

std::vector<double> decode_key(const Slot& slot, const ProfileView& profile, std::uint32_t layer,
                               std::uint32_t kv_head) {
  std::vector<double> row = rotated_back(slot.rotated_key());
  if (profile.empty()) return row;
  const HeadProfile head = profile.head(layer, kv_head);
  for (std::size_t n = 0; n < slot.outliers.size(); ++n) {
    row[head.channels[n]] = slot.outliers[n] * scale16_value(u16_at(head.outlier_scales, n));
  }
  for (std::size_t c = 0; c < row.size(); ++c) row[c] += bf16_at(head.key_means, c);
  return row;
}

std::vector<double> decode_value(const Slot& slot) {
  return rotated_back(slot.rotated_value());
}

}  // namespace nibkv::reference
