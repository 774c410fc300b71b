#include <algorithm>
#include <array>
#include <cstring>
#include <string>

#include "bench/assistant/conversation.hpp"

namespace nibkv::llm {
namespace {

constexpr std::uint32_t kMagic = 0x434b424e;  // "NBKC"
constexpr std::uint32_t kVersion = 2;

// The beginning of the note in a conversation's snapshot; i32[pending], the turns, and the
// cache in words follow.
struct Note {
  std::uint32_t magic;
  std::uint32_t version;
  std::uint64_t model;
  std::array<std::uint64_t, 4> sampler;
  std::uint32_t pending;
  std::uint32_t turns;
  std::uint64_t words;
};
static_assert(sizeof(Note) == 64);

// The beginning of each turn; i32[answer] and the message follow.
struct TurnNote {
  std::uint32_t answer;
  std::uint32_t message;
};
static_assert(sizeof(TurnNote) == 8);

/// Reads a note piece by piece.
/// @throws Error if it is too short
class NoteReader {
 public:
  NoteReader(std::span<const std::byte> bytes, std::size_t vocabulary) : bytes_(bytes), vocabulary_(vocabulary) {}

  std::size_t remaining() const { return bytes_.size(); }

  template <typename T>
  T take() {
    T value;
    copy(sizeof value, &value);
    return value;
  }

  std::vector<std::int32_t> tokens(std::size_t count) {
    check(count, sizeof(std::int32_t));
    std::vector<std::int32_t> tokens(count);
    copy(count * sizeof(std::int32_t), tokens.data());
    for (const std::int32_t token : tokens) {
      if (token < 0 || static_cast<std::size_t>(token) >= vocabulary_) throw Error("a damaged conversation");
    }
    return tokens;
  }

  std::string text(std::size_t size) {
    check(size, 1);
    std::string text(size, ' ');
    copy(size, text.data());
    return text;
  }

 private:
  void check(std::size_t count, std::size_t bytes) const {
    if (count > bytes_.size() / bytes) throw Error("a damaged conversation");
  }

  void copy(std::size_t size, void* to) {
    check(size, 1);
    if (size != 0) std::memcpy(to, bytes_.data(), size);
    bytes_ = bytes_.subspan(size);
  }

  std::span<const std::byte> bytes_;
  std::size_t vocabulary_;
};

}  // namespace

std::vector<std::byte> Conversation::save(std::uint64_t model, std::string_view cache) const {
  const Note head = {kMagic,
                     kVersion,
                     model,
                     sampler_.state(),
                     static_cast<std::uint32_t>(pending_.size()),
                     static_cast<std::uint32_t>(turns_.size()),
                     cache.size()};
  std::vector<std::byte> note;
  const auto add = [&note](auto span) {
    const std::span<const std::byte> bytes = std::as_bytes(span);
    note.insert(note.end(), bytes.begin(), bytes.end());
  };
  add(std::span(&head, 1));
  add(std::span(pending_));
  for (const Turn& turn : turns_) {
    const TurnNote sizes = {static_cast<std::uint32_t>(turn.answer.size()),
                            static_cast<std::uint32_t>(turn.message.size())};
    add(std::span(&sizes, 1));
    add(std::span(turn.answer));
    add(std::span(turn.message));
  }
  add(std::span(cache));
  return store_.save(note);
}

void Conversation::load(std::span<const std::byte> bytes, std::uint64_t model) {
  SnapshotInfo info;
  if (const Status read = inspect(bytes, info); read != Status::kOk) throw Error(std::string(text(read)));
  NoteReader note(bytes.subspan(static_cast<std::size_t>(info.note_offset), static_cast<std::size_t>(info.note_bytes)),
                  logits_.size());
  if (note.remaining() < sizeof(Note)) throw Error("a snapshot, but of no conversation");
  const Note head = note.take<Note>();
  if (head.magic != kMagic) throw Error("a snapshot, but of no conversation");
  if (head.version != kVersion) throw Error("a conversation of another version of this program");
  if (head.model != model) throw Error("a conversation with another model");
  std::vector<std::int32_t> pending = note.tokens(head.pending);
  std::vector<Turn> turns;
  for (std::uint32_t i = 0; i < head.turns; ++i) {
    const TurnNote sizes = note.take<TurnNote>();
    Turn turn;
    turn.answer = note.tokens(sizes.answer);
    turn.message = note.text(sizes.message);
    turns.push_back(std::move(turn));
  }
  if (note.remaining() != head.words) throw Error("a damaged conversation");
  if (const Status status = store_.restore(bytes); status != Status::kOk) {
    // Of the same model, shapes differ in what follows from the policy, and in outlier channels.
    const bool differs = status == Status::kOtherShape || status == Status::kOtherPolicy;
    throw Error((differs ? "the snapshot is of a cache of another policy, size or number of outlier channels"
                         : std::string(nibkv::text(status))) +
                "; it was saved with a cache of " + note.text(note.remaining()));
  }
  if (const TileStore::LogPages pages = store_.verify_log(); pages.there != pages.expected || pages.others) {
    if (pages.there == 0) {
      reset();
      throw Error(pages.others ? "the file of --cold has pages, and the conversation none yet: they are another one's"
                               : "the file of --cold has none of the " + std::to_string(pages.expected) +
                                     " pages of the conversation");
    }
    if (options_.say) {
      options_.say(std::to_string(pages.expected - pages.there) + " of the " + std::to_string(pages.expected) +
                   " pages that left the cache are lost: they are damaged or were written over in the file of --cold");
    }
  }
  pending_ = std::move(pending);
  again_ = 0;
  question_.clear();
  turns_ = std::move(turns);
  sampler_.set_state(head.sampler);
  counts_ = {};
}

}  // namespace nibkv::llm
