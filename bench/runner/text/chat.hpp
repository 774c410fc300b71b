#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "bench/runner/gguf/gguf.hpp"
#include "bench/runner/text/chat_template.hpp"
#include "bench/runner/text/tokenizer.hpp"

namespace nibkv::llm {

/// The tokens of a conversation, piece by piece, so that what a cache already holds is never written again:
///
///     first(system, message)  <the model's answer>  next(..., message)  <answer>  next(..., message)  <answer> ...
///
/// The pieces in a row are the ids of the whole conversation. Messages are plain text:
/// a control token spelled in one stays text, so that no message can end its turn or
/// pretend to be another role.
class Chat {
 public:
  /// @param tokenizer  must outlive this object.
  /// @throws Error if the vocabulary lacks a control token of `row`.
  Chat(const Tokenizer& tokenizer, const ChatTemplate& row);

  /// As the file's template requires; plain messages if it has none.
  ///
  /// @param name  the row to use instead of the one that matches the template
  /// @throws Error naming the file if its template is not one of the known ones, or a token of it
  ///         is missing; for a `name` that is unknown.
  static Chat from(const Gguf& file, const Tokenizer& tokenizer, const std::optional<std::string>& name = {});

  const ChatTemplate& format() const { return *row_; }

  /// The system message of the file's template for a conversation that has none.
  const std::optional<std::string>& default_system() const { return default_system_; }
  /// Whether the file's template makes a new one each day, which this runner does not do.
  bool has_dated_system() const { return has_dated_system_; }

  /// The first message: BOS if the model wants one, the system message if there is one (the default
  /// one is not added here), the message, and the header that makes the model answer. May be empty
  /// if nothing is written around messages.
  std::vector<std::int32_t> first(std::optional<std::string_view> system, std::string_view message) const;

  /// The end of the model's answer, and the message after it.
  ///
  /// @param end_is_cached  whether the token that ends the answer was also fed to the model; false
  ///                       if generation stopped at it or was interrupted.
  std::vector<std::int32_t> next(bool end_is_cached, std::string_view message) const;

  /// Whether the model says with `id` that its answer is complete.
  bool ends_answer(std::int32_t id) const;

 private:
  class Writer;
  void write_message(std::string_view message, Writer& writer) const;
  std::string_view said(std::string_view text) const;

  const Tokenizer* tokenizer_;
  const ChatTemplate* row_;
  std::vector<std::pair<std::string, std::int32_t>> tokens_;  // what represents a control token in the row's markers
  std::optional<std::int32_t> end_;
  std::optional<std::string> default_system_;
  bool has_dated_system_ = false;
  bool begins_with_bos_;
};

}  // namespace nibkv::llm
