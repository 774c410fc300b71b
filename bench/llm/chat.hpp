#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "bench/llm/gguf.hpp"
#include "bench/llm/tokenizer.hpp"

namespace nibkv::llm {

/// How a conversation is written: as it stands, or in ChatML (`<|im_start|>role\ntext<|im_end|>\n` a turn).
enum class ChatFormat : std::uint8_t { kPlain, kChatMl };

/// The format of a file's `tokenizer.chat_template`: ChatML if it speaks of `<|im_start|>`, else plain, as without one.
ChatFormat chat_format_of(std::string_view chat_template);

/// The tokens of a conversation, piece by piece, so that what a cache already holds is never written again:
///
///     open(system)  ask(message)  <the model's answer>  close(...)  ask(message)  <answer>  close(...) ...
///
/// The pieces in a row are the ids of the whole conversation. Messages are text only: a control token spelled in one
/// stays text, so that no message can end its turn or pose as another role.
class Chat {
 public:
  /// @param tokenizer  must outlive this object.
  /// @throws Error for ChatML without its two control tokens in the vocabulary.
  Chat(const Tokenizer& tokenizer, ChatFormat format);

  /// The format that the file's template asks for.
  static Chat from(const Gguf& file, const Tokenizer& tokenizer);

  ChatFormat format() const { return format_; }

  /// Once, at the beginning: BOS if the model wants one, and the system message if there is one. May be empty. No
  /// default system message is made up, whatever the file's template does.
  std::vector<std::int32_t> open(std::optional<std::string_view> system) const;

  /// A user's message, and the header that makes the model answer it. Plain: the message as it stands.
  std::vector<std::int32_t> ask(std::string_view message) const;

  /// What ends the model's answer before the next message. Plain: nothing.
  ///
  /// @param end_is_cached  whether the answer's end-of-turn token was fed to the model as well; false when generation
  ///                       stopped at it or was cut short.
  std::vector<std::int32_t> close(bool end_is_cached) const;

  /// Whether the model says with `id` that its answer is complete.
  bool ends_answer(std::int32_t id) const;

 private:
  void append_text(std::string_view text, std::vector<std::int32_t>& ids) const;
  void append_turn(std::string_view role, std::string_view text, std::vector<std::int32_t>& ids) const;

  const Tokenizer* tokenizer_;
  ChatFormat format_;
  std::int32_t start_ = -1;  // ChatML only
  std::int32_t end_ = -1;    // ChatML only
};

}  // namespace nibkv::llm
