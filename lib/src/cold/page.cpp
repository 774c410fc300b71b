#include "cold/page.hpp"

#include <bit>

#include "arena/band.hpp"
#include "codec/slot.hpp"

namespace nibkv {
namespace {

constexpr auto kPageMagic = std::bit_cast<std::uint32_t>(detail::kColdPageMagic);

// Eight sums, each of every eighth word, which compilers compute side by side. A word that changes alone always changes
// the sum: each step is a bijection of its sum, and of its word.
std::uint32_t sum_of(const std::byte* bytes, std::size_t count) {
  constexpr std::uint32_t kPrime = 0x01000193, kLanes = 8;
  std::uint32_t sums[kLanes];
  for (std::uint32_t i = 0; i < kLanes; ++i) sums[i] = 0x811c9dc5 + i;
  std::size_t at = 0;
  for (; count - at >= kLanes * 4; at += kLanes * 4) {
    std::uint32_t words[kLanes];
    std::memcpy(words, bytes + at, sizeof words);
    for (std::uint32_t i = 0; i < kLanes; ++i) {
      const std::uint32_t mixed = (sums[i] ^ words[i]) * kPrime;
      sums[i] = mixed ^ mixed >> 15;
    }
  }
  std::uint32_t all = 0x811c9dc5;
  for (; at < count; ++at) all = (all ^ static_cast<std::uint32_t>(bytes[at])) * kPrime;
  for (const std::uint32_t sum : sums) {
    all = (all ^ sum) * kPrime;
    all ^= all >> 15;
  }
  return all;
}

std::uint32_t sum_of_page(const PageBytes& page, std::uint32_t bytes) {
  constexpr std::uint32_t kFrom = offsetof(PageHeader, identity);
  return sum_of(page.bytes + kFrom, bytes - kFrom);
}

PageHeader header_of(const ArenaView& to, std::size_t head_index, std::uint32_t number) {
  PageHeader header{};
  header.magic = kPageMagic;
  header.identity = to.store().identity;
  header.profile = to.profile().checksum();
  header.head = static_cast<std::uint32_t>(head_index);
  header.page = number;
  header.bytes = cold_page_bytes(to.shape(), to.policy());
  return header;
}

std::uint64_t offset_of(const ArenaView& to, std::uint32_t index, std::uint32_t number) {
  const std::uint32_t pages = log_pages(to);
  if (pages == 0) return 0;  // no log
  return (std::uint64_t{index} * pages + number % pages) * cold_page_bytes(to.shape(), to.policy());
}

// Whether scales are ones that rows have. Whoever can write to a store can make a sum right, too.
bool sound_rows(const PageBytes& page) {
  bool sound = true;
  for (std::uint32_t lane = 0; lane < kTileSlots; ++lane) {
    sound = sound && sound_scale(page.key_scale(lane), kMostKeyScale16);
    sound = sound && sound_scale(page.value_scale(lane), kMostValueScale16);
  }
  const Layout& layout = page.to.layout();
  const TileFormat format = page.to.format(Pool::kKept);
  if (format.key_bits == 8) sound = sound && sound_bytes(page.keys(), layout.key_bytes);
  if (format.value_bits == 8) sound = sound && sound_bytes(page.values(), layout.value_bytes);
  return sound;
}

}  // namespace

void slot_to_page(const PageBytes& page, const Place& from, std::uint32_t lane) {
  const ArenaView& to = page.to;
  for (const SideField& field : kSideFields) {
    const std::uint32_t arrays = field.arrays(to.shape(), to.policy());
    for (std::uint32_t n = 0; n < arrays; ++n) {
      const std::size_t at = to.layout().side.*field.offset + std::size_t{n} * kTileSlots * field.bytes;
      std::memcpy(page.side() + at + lane * field.bytes, to.side(from.tile) + at + from.lane * field.bytes,
                  field.bytes);
    }
  }
  std::uint8_t codes[kMaxHeadDim];
  const CodePlane keys = key_plane(to, from.tile), values = value_plane(to, from.tile);
  get_key_codes(keys, to.key_codes(from.tile), from.lane, codes);
  put_key_codes(keys, page.keys(), lane, codes);
  get_value_codes(values, to.value_codes(from.tile), from.lane, codes);
  put_value_codes(values, page.values(), lane, codes);
}

void slot_from_page(const PageBytes& page, std::uint32_t lane, const Place& place) {
  const ArenaView& to = page.to;
  copy_side({to.policy(), to.layout().side, page.side()}, lane, to, place);
  std::uint8_t codes[kMaxHeadDim];
  const CodePlane keys = key_plane(to, place.tile), values = value_plane(to, place.tile);
  get_key_codes(keys, page.keys(), lane, codes);
  put_key_codes(keys, to.key_codes(place.tile), place.lane, codes);
  get_value_codes(values, page.values(), lane, codes);
  put_value_codes(values, to.value_codes(place.tile), place.lane, codes);
}

bool write_page(const PageBytes& page, std::size_t head_index, std::uint32_t index, std::uint32_t number) {
  const ColdStore store = page.to.store();
  PageHeader header = header_of(page.to, head_index, number);
  const std::uint32_t used = detail::kColdPageHeaderBytes + page.to.layout().side_bytes + page.to.layout().code_bytes;
  std::memset(page.bytes + used, 0, header.bytes - used);
  std::memcpy(page.bytes, &header, sizeof header);
  header.sum = sum_of_page(page, header.bytes);
  std::memcpy(page.bytes, &header, sizeof header);
  const std::uint64_t offset = offset_of(page.to, index, number);
  if (!store.write(store.context, offset, page.bytes, header.bytes)) return false;
  if (!store.verify) return true;
  std::memset(page.bytes, 0, header.bytes);  // so that a store which reads nothing is found, too
  return store.read(store.context, offset, page.bytes, header.bytes) &&
         std::memcmp(page.bytes, &header, sizeof header) == 0 && sum_of_page(page, header.bytes) == header.sum;
}

bool read_page(const PageBytes& page, std::size_t head_index, std::uint32_t index, std::uint32_t number,
               std::uint32_t sum) {
  const ColdStore store = page.to.store();
  PageHeader expected = header_of(page.to, head_index, number);
  if (!store.read(store.context, offset_of(page.to, index, number), page.bytes, expected.bytes)) return false;
  expected.sum = sum;
  return std::memcmp(page.bytes, &expected, sizeof expected) == 0 && sum_of_page(page, expected.bytes) == sum &&
         sound_rows(page);
}

void prefetch_page(const ArenaView& to, std::uint32_t index, std::uint32_t number) {
  const ColdStore store = to.store();
  if (store.prefetch == nullptr) return;
  store.prefetch(store.context, offset_of(to, index, number), cold_page_bytes(to.shape(), to.policy()));
}

}  // namespace nibkv
