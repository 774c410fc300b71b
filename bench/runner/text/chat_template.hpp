#pragma once

#include <array>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "bench/runner/text/tokenizer.hpp"

namespace nibkv::llm {

/// How a conversation is written for a model: markers around what is said. In a marker, `{bos}` and
/// `{eos}` stand for the tokens that the file names as such, and each of `tokens` is one control
/// token; everything else is text.
///
///     system S system_end  user U user_end  A answer_end after_answer  user U user_end  A ...
///
/// If the system message is a part of the first user's message, it is
/// `user system S system_end U user_end ...`.
struct ChatTemplate {
  std::string_view name = {};   ///< name for the option --template
  std::string_view title = {};  ///< name for people
  bool system_in_user = false;
  bool trims = false;  ///< whether the white space around messages is removed
  std::string_view system = {}, system_end = {};
  std::string_view user = {}, user_end = {};    ///< user_end: up to where the model answers
  std::string_view answer_end = {};             ///< the token with which the model ends its answer
  std::string_view after_answer = {};           ///< before the next `user`
  std::array<std::string_view, 4> tokens = {};  ///< control tokens in the markers; the rest is empty
  std::array<std::string_view, 3> needs = {};   ///< what the template's text contains, without spaces and with one
                                                ///< kind of quotes
  std::array<std::string_view, 3> lacks = {};   ///< what only other templates contain
  std::string_view not_a_token = {};            ///< other templates have a token for this; may be empty
};

/// All known templates. The first writes plain messages, without markers; its name is "none".
std::span<const ChatTemplate> chat_templates();

/// Plain messages.
const ChatTemplate& plain_template();

/// The names for --template, separated by commas.
std::string chat_template_names();

/// @returns nullptr for an unknown name.
const ChatTemplate* find_chat_template(std::string_view name);

/// The row that matches a file's `tokenizer.chat_template`, by its control tokens and by how it
/// writes a turn. nullptr if no row matches for certain.
const ChatTemplate* recognise_chat_template(std::string_view text, const Tokenizer& tokenizer);

/// The system message that `text`, a chat template of the kind `row`, writes if a conversation
/// has none of its own.
std::optional<std::string> default_system_message(std::string_view text, const ChatTemplate& row);

/// Whether `text` writes a system message that contains today's date, so that the
/// text changes every day.
bool has_dated_system_message(std::string_view text);

}  // namespace nibkv::llm
