#pragma once

#include <array>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "bench/llm/tokenizer.hpp"

namespace nibkv::llm {

/// How a conversation is written for a model: marks around what is said. In a mark, `{bos}` and `{eos}` stand for the
/// tokens that the file calls so, and each of `tokens` is one control token; all else is text.
///
///     system S system_end  user U user_end  A answer_end after_answer  user U user_end  A ...
///
/// Where the system message is a part of the first user's message it is `user system S system_end U user_end ...`.
struct ChatTemplate {
  std::string_view name = {};   ///< of the option --template
  std::string_view title = {};  ///< for people
  bool system_in_user = false;
  bool trims = false;  ///< whether messages lose the white space around them
  std::string_view system = {}, system_end = {};
  std::string_view user = {}, user_end = {};    ///< user_end: up to where the model answers
  std::string_view answer_end = {};             ///< the token with which the model ends its answer
  std::string_view after_answer = {};           ///< before the next `user`
  std::array<std::string_view, 4> tokens = {};  ///< control tokens of the marks; the rest is empty
  std::array<std::string_view, 3> needs = {};   ///< what its text has, without spaces and with one kind of quotes
  std::array<std::string_view, 3> lacks = {};   ///< what other templates have
  std::string_view not_a_token = {};            ///< other templates have a token for this; may be empty
};

/// All that are known. The first writes messages as they stand, without marks; its name is "none".
std::span<const ChatTemplate> chat_templates();

/// Messages as they stand.
const ChatTemplate& plain_template();

/// The names for --template, with commas.
std::string chat_template_names();

/// @returns nullptr for a name that is unknown.
const ChatTemplate* find_chat_template(std::string_view name);

/// The row that a file's `tokenizer.chat_template` means: by its control tokens and how it writes a turn. nullptr when
/// no row is sure.
const ChatTemplate* recognise_chat_template(std::string_view text, const Tokenizer& tokenizer);

/// The system message that `text`, a chat template of the kind `row`, writes where a conversation has none of its own.
std::optional<std::string> default_system_message(std::string_view text, const ChatTemplate& row);

/// Whether `text` writes a system message with the day's date in it, which is not one text for every day.
bool has_dated_system_message(std::string_view text);

}  // namespace nibkv::llm
