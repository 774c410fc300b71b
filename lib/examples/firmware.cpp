// A device without heap, stdio or operating system: a conversation in a static arena, saved to flash, and restored
// after the power failed while it was saved again.
//
// Returns 0 when it goes on as if nothing had happened, else the number of a status (status.hpp) or 100. Flash is an
// array here; everything else is as on a board, where the tests run this file too.
#include <array>
#include <cstring>

#include "nibkv/nibkv.hpp"

namespace {

using nibkv::Status;

constexpr nibkv::Shape kShape{.layers = 2, .query_heads = 4, .kv_heads = 2, .head_dim = 32};
constexpr nibkv::Policy kPolicy = nibkv::ems(96);

// Handle, keys, values and scratch: all the memory that the library ever uses. A board that lacks it is told here.
nibkv::StaticCache<kShape, kPolicy> memory;
static_assert(sizeof memory <= 64 * 1024);
nibkv::Cache& cache() {
  return memory.cache();
}

/// Two banks of flash. A driver's functions go here; they return false when the hardware says so.
constexpr std::size_t kBankBytes = nibkv::most_snapshot_bytes(kShape, kPolicy);
std::array<std::array<std::byte, kBankBytes>, 2> flash;
std::size_t bytes_until_power_cut = static_cast<std::size_t>(-1);

bool read_flash(void*, std::uint32_t bank, std::uint64_t offset, std::byte* bytes, std::size_t count) {
  std::memcpy(bytes, flash[bank].data() + offset, count);
  return true;
}

bool write_flash(void*, std::uint32_t bank, std::uint64_t offset, const std::byte* bytes, std::size_t count) {
  if (count > bytes_until_power_cut) return false;
  bytes_until_power_cut -= count;
  std::memcpy(flash[bank].data() + offset, bytes, count);
  return true;
}

bool erase_flash(void*, std::uint32_t bank) {
  flash[bank].fill(std::byte{0xff});
  return true;
}

constexpr nibkv::SnapshotBanks kBanks{
    .read = read_flash, .write = write_flash, .erase = erase_flash, .bytes = kBankBytes};

using Row = std::array<float, kShape.kv_heads * kShape.head_dim>;
using Queries = std::array<float, kShape.query_heads * kShape.head_dim>;

/// In place of a model: numbers in [-1, 1), others for every position.
template <typename Rows>
void project(Rows& rows, std::uint32_t seed) {
  for (float& number : rows) {
    seed = seed * 1664525u + 1013904223u;
    number = static_cast<float>(seed >> 8) * 0x1p-23f - 1.0f;
  }
}

/// Takes in tokens until `end` were seen; `out` is what the last layer says to the last of them.
Status go_on(std::uint32_t end, Queries& out) {
  Row keys, values;
  Queries queries;
  while (cache().seen(0) < end) {
    const std::uint32_t position = cache().seen(0);  // of this token: what its keys and queries are rotated by
    for (std::uint32_t layer = 0; layer < kShape.layers; ++layer) {
      project(keys, position * 8 + layer);
      project(values, position * 8 + layer + 2);
      project(queries, position * 8 + layer + 4);
      if (const Status status = nibkv::append(cache(), layer, keys, values); status != Status::kOk) return status;
      if (const Status status = nibkv::attend(cache(), layer, queries, out); status != Status::kOk) return status;
    }
  }
  return Status::kOk;
}

/// Start-up: the newest whole snapshot, or an empty cache where there is none.
Status start() {
  if (const Status status = memory.init(); status != Status::kOk) return status;
  const Status status = nibkv::restore_from_banks(cache(), kBanks);
  return status == Status::kBadSnapshot ? Status::kOk : status;  // flash as it came from the factory
}

/// A day of the device. `wrong` is set when what it says after the power cut is not what it said before.
Status live(bool& wrong) {
  Queries expected, again;
  if (const Status status = start(); status != Status::kOk) return status;
  if (const Status status = go_on(150, expected); status != Status::kOk) return status;
  if (const Status status = nibkv::save_to_banks(cache(), kBanks); status != Status::kOk) return status;

  if (const Status status = go_on(200, expected); status != Status::kOk) return status;
  bytes_until_power_cut = 2000;
  wrong = nibkv::save_to_banks(cache(), kBanks) != Status::kStorageFailed;

  bytes_until_power_cut = static_cast<std::size_t>(-1);
  if (const Status status = start(); status != Status::kOk) return status;
  wrong = wrong || cache().seen(0) != 150;  // what was saved last is lost, what was saved before is there
  if (const Status status = go_on(200, again); status != Status::kOk) return status;
  wrong = wrong || expected != again;
  return Status::kOk;
}

}  // namespace

int main() {
  bool wrong = false;
  const Status status = live(wrong);
  return wrong ? 100 : static_cast<int>(status);
}
