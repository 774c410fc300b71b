#include <algorithm>
#include <string>
#include <utility>

#include "bench/assistant/conversation.hpp"

namespace nibkv::llm {

/// The position where the last `tokens` tokens of the conversation begin; none if what was fed is not what the
/// turns say: a conversation that was loaded with another system message or template than it was saved with.
std::optional<std::size_t> Conversation::start_of_last(std::size_t tokens) const {
  const std::size_t all = position() + pending_.size();
  if (tokens > all || written(turns_).size() != all) return std::nullopt;
  return all - tokens;
}

/// Takes back all tokens from position `seen` on, in the store and pending.
/// @returns false if the store cannot go back so far. Nothing is changed then.
bool Conversation::go_back(std::size_t seen) {
  if (position() > seen) {
    if (store_.truncate(seen) != Status::kOk) return false;
    pending_.clear();
  } else {
    pending_.resize(seen - position());
  }
  again_ = std::min(again_, pending_.size());
  return true;
}

/// Makes `turns`, or the newest half if all are too long, pending, and says so.
/// @throws Error as newest_half and begin_again do. Nothing is changed then.
void Conversation::read_again(std::vector<Turn> turns) {
  if (written(turns).size() > readable_) turns = newest_half(std::move(turns));
  begin_again(std::move(turns), 0);
  if (!options_.say) return;
  options_.say("the cache cannot go back so far: " + std::to_string(pending_.size()) +
               " tokens of the conversation will be read again before the next answer");
}

bool Conversation::undo() {
  if (turns_.empty()) return false;
  if (turns_.size() == 1) {
    store_.clear();
    turns_.clear();
    pending_.clear();
    again_ = 0;
  } else {
    const Turn& last = turns_.back();
    const std::optional<std::size_t> start = start_of_last(chat_.next(false, last.message).size() + last.answer.size());
    if (start && go_back(*start)) {
      turns_.pop_back();
    } else {
      read_again({turns_.begin(), turns_.end() - 1});
    }
  }
  question_.clear();
  return true;
}

Ending Conversation::regenerate(const Output& output, const Stop& stop) {
  if (turns_.empty()) throw Error("there is no question to answer again");
  std::vector<Turn> turns = turns_;
  Turn& last = turns.back();
  const bool is_whole = question_.empty() || question_ == last.message;
  if (!is_whole) last.message = question_;
  // The logits after the question come with its last token.
  const std::optional<std::size_t> end = start_of_last(last.answer.size());
  last.answer.clear();
  const std::vector<std::int32_t> asked = written(turns);
  if (asked.empty()) throw Error("the message is empty");
  const bool is_read = end && position() >= *end;
  if (is_whole && end && go_back(is_read ? *end - 1 : *end)) {
    if (is_read) {
      pending_.assign(1, asked.back());
      again_ = 1;
    }
    turns_ = std::move(turns);
  } else {
    read_again(std::move(turns));
  }
  return prefill(stop) ? generate(output, stop) : Ending::kStopped;
}

}  // namespace nibkv::llm
