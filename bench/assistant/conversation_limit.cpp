#include <algorithm>
#include <string>

#include "bench/assistant/conversation.hpp"

namespace nibkv::llm {

/// The tokens of a conversation that consists of `turns`, where the answer to the
/// last one is still open.
std::vector<std::int32_t> Conversation::written(std::span<const Turn> turns) const {
  std::vector<std::int32_t> tokens;
  const auto add = [&tokens](const std::vector<std::int32_t>& ids) {
    tokens.insert(tokens.end(), ids.begin(), ids.end());
  };
  for (std::size_t i = 0; i < turns.size(); ++i) {
    add(i == 0 ? chat_.first(options_.system, turns[i].message) : chat_.next(false, turns[i].message));
    add(turns[i].answer);
  }
  return tokens;
}

/// The newest turns of `turns` that fit in half of what the system message leaves of what is worth reading again;
/// always includes the last message.
/// @throws Error if that message is longer than the limit.
std::vector<Conversation::Turn> Conversation::newest_half(std::vector<Turn> turns) const {
  const std::size_t before = chat_.first(options_.system, "").size();
  const std::size_t room = before + (readable_ - std::min(readable_, before)) / 2;
  const bool is_asking = turns.back().answer.empty();
  const std::span<const Turn> all(turns);
  if (is_asking && written(all.last(1)).size() >= limit_) {
    throw Error("the message is too long: with what stands around it, it has " +
                std::to_string(written(all.last(1)).size()) + " tokens, and the model reads at most " +
                std::to_string(limit_ - 1));
  }
  std::size_t kept = 1;
  while (kept < turns.size() && written(all.last(kept + 1)).size() <= room) ++kept;
  // A part of what was said last is better than nothing.
  const bool needs_part = kept == 1 && (!is_asking || turns.size() > 1);
  if (needs_part && is_asking) kept = 2;
  turns.erase(turns.begin(), turns.end() - static_cast<std::ptrdiff_t>(kept));
  if (needs_part) shorten(turns, room);
  return turns;
}

/// Cuts off the beginning of the first turn's message, and of its answer, so that `turns` have
/// at most `room` tokens; drops the turn if that is not enough and another one follows.
void Conversation::shorten(std::vector<Turn>& turns, std::size_t room) const {
  Turn& turn = turns.front();
  const Turn whole = turn;
  turn = {};
  const std::size_t around = written(turns).size();
  if (around >= room && turns.size() > 1) {
    turns.erase(turns.begin());
    return;
  }
  const std::size_t free = room - std::min(room, around);
  const std::size_t message = tokenizer_.encode(whole.message, false, false).size();
  const std::size_t answer = std::min(whole.answer.size(), std::max(free / 2, free - std::min(free, message)));
  turn.answer.assign(whole.answer.end() - static_cast<std::ptrdiff_t>(answer), whole.answer.end());
  turn.message = whole.message;
  for (std::size_t size = 0; !turn.message.empty() && (size = written(turns).size()) > room;) {
    // Cuts the text of the surplus tokens, at least a byte, in whole characters.
    const std::vector<std::int32_t> ids = tokenizer_.encode(turn.message, false, false);
    const std::string cut = tokenizer_.decode(std::span(ids).first(std::min(ids.size(), size - room)));
    std::size_t at = std::clamp<std::size_t>(cut.size(), 1, turn.message.size());
    while (at < turn.message.size() && (static_cast<unsigned char>(turn.message[at]) & 0xC0) == 0x80) ++at;
    turn.message.erase(0, at);
  }
}

/// At the limit: goes on with the newest half of `turns`, and says so.
/// @throws Error as newest_half and begin_again do. Nothing is changed then.
void Conversation::forget_oldest(std::vector<Turn> turns, std::size_t fresh) {
  begin_again(newest_half(std::move(turns)), fresh);
  if (!options_.say) return;
  options_.say("the conversation has come to the " + std::to_string(limit_) +
               " tokens that the model was trained for; it forgets all but the newest " +
               std::to_string(pending_.size()));
}

/// Clears the store, and makes `turns` pending, as if nothing had been said before.
/// @param fresh  how many of the last tokens were never in the store
/// @throws Error if they do not fit the arena. Nothing is changed then.
void Conversation::begin_again(std::vector<Turn> turns, std::size_t fresh) {
  std::vector<std::int32_t> tokens = written(turns);
  require_room(0, tokens.size());
  store_.clear();
  turns_ = std::move(turns);
  pending_ = std::move(tokens);
  again_ = pending_.size() - std::min(pending_.size(), fresh);
}

}  // namespace nibkv::llm
