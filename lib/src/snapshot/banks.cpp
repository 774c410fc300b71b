#include "nibkv/banks.hpp"

namespace nibkv {
namespace {

// One of the banks as a source and as a sink.
struct Bank {
  const SnapshotBanks& banks;
  std::uint32_t bank;
  std::uint64_t written = 0;
};

bool read_bank(void* context, std::uint64_t offset, std::byte* bytes, std::size_t count) {
  const auto& from = *static_cast<const Bank*>(context);
  return from.banks.read(from.banks.context, from.bank, offset, bytes, count);
}

bool write_bank(void* context, const std::byte* bytes, std::size_t count) {
  auto& to = *static_cast<Bank*>(context);
  const std::uint64_t offset = to.written;
  to.written += count;
  return to.banks.write(to.banks.context, to.bank, offset, bytes, count);
}

}  // namespace

Status newest_bank(const SnapshotBanks& banks, std::uint32_t& bank, SnapshotInfo& info) {
  if (banks.read == nullptr) return Status::kBadArgument;
  Status status[2];
  SnapshotInfo found[2];
  for (std::uint32_t i = 0; i < 2; ++i) {
    Bank one{banks, i};
    status[i] = inspect(SnapshotSource{read_bank, &one, banks.bytes}, found[i]);
  }
  const bool whole[] = {status[0] == Status::kOk, status[1] == Status::kOk};
  if (!whole[0] && !whole[1]) {
    for (const Status worst : {Status::kStorageFailed, Status::kNewerSnapshot}) {
      if (status[0] == worst || status[1] == worst) return worst;
    }
    return Status::kBadSnapshot;
  }
  const std::uint32_t ahead = found[1].sequence - found[0].sequence;  // 2^31 or more means older
  bank = whole[1] && (!whole[0] || (ahead != 0 && ahead < 0x80000000)) ? 1 : 0;
  info = found[bank];
  return Status::kOk;
}

Status save_to_banks(const Cache& cache, const SnapshotBanks& banks, std::span<const std::byte> note) {
  if (!cache.ready()) return Status::kNotReady;
  if (banks.read == nullptr || banks.write == nullptr) return Status::kBadArgument;
  if (snapshot_bytes(cache, note.size()) > banks.bytes) return Status::kBadArgument;
  std::uint32_t newest = 1;
  SnapshotInfo info;
  if (newest_bank(banks, newest, info) != Status::kOk) info.sequence = 0;
  Bank other{banks, 1 - newest};
  if (banks.erase != nullptr && !banks.erase(banks.context, other.bank)) return Status::kStorageFailed;
  return save(cache, SnapshotSink{write_bank, &other}, {info.sequence + 1, note});
}

Status restore_from_banks(Cache& cache, const SnapshotBanks& banks) {
  if (!cache.ready()) return Status::kNotReady;
  Bank newest{banks, 0};
  SnapshotInfo info;
  if (const Status found = newest_bank(banks, newest.bank, info); found != Status::kOk) return found;
  return restore(cache, SnapshotSource{read_bank, &newest, banks.bytes});
}

}  // namespace nibkv
