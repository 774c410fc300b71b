#include "bench/llm/chat.hpp"

#include <string>

namespace nibkv::llm {
namespace {

constexpr std::string_view kTurnStart = "<|im_start|>";
constexpr std::string_view kTurnEnd = "<|im_end|>";

std::int32_t required(const Tokenizer& tokenizer, std::string_view spelling) {
  const auto id = tokenizer.find(spelling);
  if (!id) throw Error("chat: the template is ChatML, but the vocabulary has no " + std::string(spelling));
  return *id;
}

}  // namespace

ChatFormat chat_format_of(std::string_view chat_template) {
  return chat_template.find(kTurnStart) == std::string_view::npos ? ChatFormat::kPlain : ChatFormat::kChatMl;
}

Chat::Chat(const Tokenizer& tokenizer, ChatFormat format) : tokenizer_(&tokenizer), format_(format) {
  if (format_ == ChatFormat::kPlain) return;
  start_ = required(tokenizer, kTurnStart);
  end_ = required(tokenizer, kTurnEnd);
}

Chat Chat::from(const Gguf& file, const Tokenizer& tokenizer) {
  return Chat(tokenizer, chat_format_of(file.text("tokenizer.chat_template").value_or("")));
}

std::vector<std::int32_t> Chat::open(std::optional<std::string_view> system) const {
  std::vector<std::int32_t> ids;
  if (tokenizer_->adds_bos()) ids.push_back(*tokenizer_->bos());
  if (!system) return ids;
  if (format_ == ChatFormat::kPlain) {
    append_text(*system, ids);
  } else {
    append_turn("system", *system, ids);
  }
  return ids;
}

std::vector<std::int32_t> Chat::ask(std::string_view message) const {
  std::vector<std::int32_t> ids;
  if (format_ == ChatFormat::kPlain) {
    append_text(message, ids);
    return ids;
  }
  append_turn("user", message, ids);
  ids.push_back(start_);
  append_text("assistant\n", ids);
  return ids;
}

std::vector<std::int32_t> Chat::close(bool end_is_cached) const {
  std::vector<std::int32_t> ids;
  if (format_ == ChatFormat::kPlain) return ids;
  if (!end_is_cached) ids.push_back(end_);
  append_text("\n", ids);
  return ids;
}

bool Chat::ends_answer(std::int32_t id) const {
  return (format_ == ChatFormat::kChatMl && id == end_) || id == tokenizer_->eos() || id == tokenizer_->eot();
}

void Chat::append_text(std::string_view text, std::vector<std::int32_t>& ids) const {
  const std::vector<std::int32_t> more = tokenizer_->encode(text, false, false);
  ids.insert(ids.end(), more.begin(), more.end());
}

// Role and text are one stretch between control tokens, so they are encoded as one.
void Chat::append_turn(std::string_view role, std::string_view text, std::vector<std::int32_t>& ids) const {
  ids.push_back(start_);
  append_text(std::string(role) + '\n' + std::string(text), ids);
  ids.push_back(end_);
  append_text("\n", ids);
}

}  // namespace nibkv::llm
