#include <algorithm>
#include <array>
#include <cstring>
#include <string>

#include "bench/llm/conversation.hpp"

namespace nibkv::llm {
namespace {

constexpr std::uint32_t kMagic = 0x434b424e;  // "NBKC"
constexpr std::uint32_t kVersion = 1;

// What the note of a conversation's snapshot begins with; then come i32[pending], and the cache in words.
struct Note {
  std::uint32_t magic;
  std::uint32_t version;
  std::uint64_t model;
  std::array<std::uint64_t, 4> sampler;
  std::uint64_t prompt_tokens;
  std::uint64_t answer_tokens;
  std::uint64_t decode_steps;
  std::uint32_t turn_is_open;
  std::uint32_t pending;
  std::uint64_t words;
};
static_assert(sizeof(Note) == 88);

}  // namespace

std::uint64_t model_fingerprint(const Gguf& file) {
  std::uint64_t hash = 0xcbf29ce484222325;  // FNV-1a
  const auto add = [&hash](std::span<const std::byte> bytes) {
    for (const std::byte byte : bytes) hash = (hash ^ static_cast<std::uint64_t>(byte)) * 0x100000001b3;
    hash = (hash ^ bytes.size()) * 0x100000001b3;
  };
  for (const std::string_view token : file.texts("tokenizer.ggml.tokens")) add(std::as_bytes(std::span(token)));
  for (const Tensor& tensor : file.tensors()) {
    constexpr std::size_t kPiece = 1024;
    add(std::as_bytes(std::span(tensor.name)));
    add(std::as_bytes(std::span(tensor.shape)));
    const std::size_t size = tensor.data.size();
    const std::size_t piece = std::min(size, kPiece);
    add(tensor.data.first(piece));
    add(tensor.data.subspan((size - piece) / 2, piece));
    add(tensor.data.last(piece));
  }
  file.give_back();
  return hash;
}

std::vector<std::byte> Conversation::save(std::uint64_t model, std::string_view cache) const {
  const Note head = {kMagic,
                     kVersion,
                     model,
                     sampler_.state(),
                     counts_.prompt_tokens,
                     counts_.answer_tokens,
                     counts_.decode_steps,
                     turn_is_open_ ? 1u : 0u,
                     static_cast<std::uint32_t>(pending_.size()),
                     cache.size()};
  std::vector<std::byte> note;
  const auto add = [&note](std::span<const std::byte> bytes) { note.insert(note.end(), bytes.begin(), bytes.end()); };
  add(std::as_bytes(std::span(&head, 1)));
  add(std::as_bytes(std::span(pending_)));
  add(std::as_bytes(std::span(cache)));
  return store_.save(note);
}

void Conversation::load(std::span<const std::byte> bytes, std::uint64_t model) {
  SnapshotInfo info;
  if (const Status read = inspect(bytes, info); read != Status::kOk) throw Error(std::string(text(read)));
  std::span<const std::byte> note =
      bytes.subspan(static_cast<std::size_t>(info.note_offset), static_cast<std::size_t>(info.note_bytes));
  Note head;
  if (note.size() < sizeof head) throw Error("a snapshot, but of no conversation");
  std::memcpy(&head, note.data(), sizeof head);
  note = note.subspan(sizeof head);
  if (head.magic != kMagic) throw Error("a snapshot, but of no conversation");
  if (head.version != kVersion) throw Error("a conversation of a later version of this program");
  if (head.pending > note.size() / 4 || head.words != note.size() - std::size_t{head.pending} * 4 ||
      head.turn_is_open > 1) {
    throw Error("a damaged conversation");
  }
  if (head.model != model) throw Error("a conversation with another model");
  std::vector<std::int32_t> pending(head.pending);
  if (!pending.empty()) std::memcpy(pending.data(), note.data(), pending.size() * 4);
  for (const std::int32_t token : pending) {
    if (token < 0 || static_cast<std::size_t>(token) >= logits_.size()) throw Error("a damaged conversation");
  }
  if (const Status status = store_.restore(bytes); status != Status::kOk) {
    std::string words(static_cast<std::size_t>(head.words), ' ');
    if (!words.empty()) std::memcpy(words.data(), note.data() + pending.size() * 4, words.size());
    throw Error(std::string(text(status)) + "; it was saved with a cache of " + words);
  }
  pending_ = std::move(pending);
  turn_is_open_ = head.turn_is_open != 0;
  sampler_.set_state(head.sampler);
  counts_ = {};
  counts_.prompt_tokens = head.prompt_tokens;
  counts_.answer_tokens = head.answer_tokens;
  counts_.decode_steps = head.decode_steps;
}

}  // namespace nibkv::llm
