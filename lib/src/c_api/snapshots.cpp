// Snapshots of the C interface.
#include "c_api/convert.hpp"

namespace nibkv {
namespace {

static_assert(NIBKV_SNAPSHOT_CHUNK == kSnapshotChunk);

// Adapters that call the C callbacks.
bool write_c(void* sink, const std::byte* bytes, std::size_t count) {
  const auto& [write, context] = *static_cast<const nibkv_sink*>(sink);
  return write(context, bytes, count);
}
bool read_bank_c(void* banks, std::uint32_t bank, std::uint64_t offset, std::byte* to, std::size_t count) {
  const auto& from = *static_cast<const nibkv_banks*>(banks);
  return from.read(from.context, bank, offset, to, count);
}
bool write_bank_c(void* banks, std::uint32_t bank, std::uint64_t offset, const std::byte* bytes, std::size_t count) {
  const auto& to = *static_cast<const nibkv_banks*>(banks);
  return to.write(to.context, bank, offset, bytes, count);
}
bool erase_bank_c(void* banks, std::uint32_t bank) {
  const auto& in = *static_cast<const nibkv_banks*>(banks);
  return in.erase(in.context, bank);
}

// @param banks  not null
SnapshotBanks to_cpp(const nibkv_banks* banks) {
  const auto& [read, write, erase, context, bytes] = *banks;
  SnapshotBanks to;
  auto& [to_read, to_write, to_erase, to_context, to_bytes] = to;
  to_read = read != nullptr ? read_bank_c : nullptr;
  to_write = write != nullptr ? write_bank_c : nullptr;
  to_erase = erase != nullptr ? erase_bank_c : nullptr;
  to_context = const_cast<nibkv_banks*>(banks);
  to_bytes = bytes;
  return to;
}

// Whether these can be bytes of memory.
bool is_note(const void* note, std::size_t bytes) {
  return bytes <= SIZE_MAX / 2 && (note != nullptr || bytes == 0);
}

// False for a note that claims bytes where there are none.
bool to_cpp(const nibkv_note* from, SaveOptions& to) {
  if (from == nullptr) return true;
  const auto& [sequence, note, note_bytes] = *from;
  if (!is_note(note, note_bytes)) return false;
  auto& [to_sequence, to_note] = to;
  to_sequence = sequence;
  if (note != nullptr) to_note = {static_cast<const std::byte*>(note), note_bytes};
  return true;
}

nibkv_snapshot_info to_c(const SnapshotInfo& from) {
  const auto& [bytes, note_offset, note_bytes, sequence] = from;
  return {bytes, note_offset, note_bytes, sequence};
}

}  // namespace
}  // namespace nibkv

using namespace nibkv;

uint64_t nibkv_most_snapshot_bytes_sized(const nibkv_shape* shape, const nibkv_policy* policy, uint64_t note_bytes,
                                         const nibkv_sizes* sizes) {
  Taken in;
  const bool good = in.take_shape(shape, sizes) && in.take_policy(policy, sizes);
  return good ? most_snapshot_bytes(in.shape, in.policy, note_bytes) : 0;
}

uint64_t nibkv_snapshot_bytes(const nibkv_cache* cache, uint64_t note_bytes) {
  const Cache* const in = ready(cache);
  return in == nullptr ? 0 : snapshot_bytes(*in, note_bytes);
}

nibkv_status nibkv_save(const nibkv_cache* cache, void* bytes, size_t count, const nibkv_note* note) {
  const Cache* const in = ready(cache);
  if (in == nullptr) return NIBKV_NOT_READY;
  SaveOptions options;
  if (bytes == nullptr || !to_cpp(note, options)) return NIBKV_BAD_ARGUMENT;
  return to_c(save(*in, {static_cast<std::byte*>(bytes), count}, options));
}

nibkv_status nibkv_save_to(const nibkv_cache* cache, const nibkv_sink* sink, const nibkv_note* note) {
  const Cache* const in = ready(cache);
  if (in == nullptr) return NIBKV_NOT_READY;
  SaveOptions options;
  if (sink == nullptr || sink->write == nullptr || !to_cpp(note, options)) return NIBKV_BAD_ARGUMENT;
  return to_c(save(*in, SnapshotSink{write_c, const_cast<nibkv_sink*>(sink)}, options));
}

nibkv_status nibkv_inspect(const void* bytes, size_t count, nibkv_snapshot_info* info) {
  if (bytes == nullptr || info == nullptr) return NIBKV_BAD_ARGUMENT;
  SnapshotInfo found;
  const Status status = inspect(std::span{static_cast<const std::byte*>(bytes), count}, found);
  if (status == Status::kOk) *info = to_c(found);
  return to_c(status);
}

nibkv_status nibkv_inspect_from(const nibkv_source* source, nibkv_snapshot_info* info) {
  if (source == nullptr || info == nullptr) return NIBKV_BAD_ARGUMENT;
  SnapshotInfo found;
  const Status status = inspect(to_cpp(source), found);
  if (status == Status::kOk) *info = to_c(found);
  return to_c(status);
}

nibkv_status nibkv_restore(nibkv_cache* cache, const void* bytes, size_t count) {
  Cache* const in = ready(cache);
  if (in == nullptr) return NIBKV_NOT_READY;
  if (bytes == nullptr) return NIBKV_BAD_ARGUMENT;
  return to_c(restore(*in, std::span{static_cast<const std::byte*>(bytes), count}));
}

nibkv_status nibkv_restore_from(nibkv_cache* cache, const nibkv_source* source) {
  Cache* const in = ready(cache);
  if (in == nullptr) return NIBKV_NOT_READY;
  return source == nullptr ? NIBKV_BAD_ARGUMENT : to_c(restore(*in, to_cpp(source)));
}

nibkv_status nibkv_newest_bank(const nibkv_banks* banks, uint32_t* bank, nibkv_snapshot_info* info) {
  if (banks == nullptr || bank == nullptr || info == nullptr) return NIBKV_BAD_ARGUMENT;
  SnapshotInfo found;
  const Status status = newest_bank(to_cpp(banks), *bank, found);
  if (status == Status::kOk) *info = to_c(found);
  return to_c(status);
}

nibkv_status nibkv_save_to_banks(const nibkv_cache* cache, const nibkv_banks* banks, const void* note,
                                 size_t note_bytes) {
  const Cache* const in = ready(cache);
  if (in == nullptr) return NIBKV_NOT_READY;
  if (banks == nullptr || !is_note(note, note_bytes)) return NIBKV_BAD_ARGUMENT;
  std::span<const std::byte> bytes;
  if (note != nullptr) bytes = {static_cast<const std::byte*>(note), note_bytes};
  return to_c(save_to_banks(*in, to_cpp(banks), bytes));
}

nibkv_status nibkv_restore_from_banks(nibkv_cache* cache, const nibkv_banks* banks) {
  Cache* const in = ready(cache);
  if (in == nullptr) return NIBKV_NOT_READY;
  return banks == nullptr ? NIBKV_BAD_ARGUMENT : to_c(restore_from_banks(*in, to_cpp(banks)));
}
