#include "bench/runner/text/chat.hpp"

#include <algorithm>

#include "bench/runner/gguf/gguf_cursor.hpp"

namespace nibkv::llm {
namespace {

bool speaks_of(const ChatTemplate& row, std::string_view token) {
  const std::string_view marks[] = {row.system,   row.system_end, row.user,
                                    row.user_end, row.answer_end, row.after_answer};
  return std::any_of(std::begin(marks), std::end(marks),
                     [&](std::string_view mark) { return mark.find(token) != std::string_view::npos; });
}

// Whether a template prints BOS at the beginning: by its name, or spelled out before the first mark.
bool begins_with(std::string_view text, const ChatTemplate& row, std::string_view bos) {
  if (text.find("bos_token") != std::string_view::npos) return true;
  std::size_t first_mark = text.size();
  for (const std::string_view mark : row.needs) {
    if (!mark.empty()) first_mark = std::min(first_mark, text.find(mark));
  }
  return !bos.empty() && text.substr(0, first_mark).find(bos) != std::string_view::npos;
}

}  // namespace

/// Converts markers and text to ids. Text between two control tokens is encoded as one piece,
/// wherever its parts come from.
class Chat::Writer {
 public:
  explicit Writer(const Chat& chat) : chat_(chat) {}

  void id(std::int32_t id) {
    flush();
    ids_.push_back(id);
  }

  void text(std::string_view text) { stretch_ += text; }

  void mark(std::string_view mark) {
    while (!mark.empty()) {
      const auto token = std::find_if(chat_.tokens_.begin(), chat_.tokens_.end(),
                                      [&](const auto& each) { return mark.starts_with(each.first); });
      if (token == chat_.tokens_.end()) {
        stretch_.push_back(mark[0]);
        mark.remove_prefix(1);
      } else {
        id(token->second);
        mark.remove_prefix(token->first.size());
      }
    }
  }

  std::vector<std::int32_t> take() {
    flush();
    return std::move(ids_);
  }

 private:
  void flush() {
    const std::vector<std::int32_t> more = chat_.tokenizer_->encode(stretch_, false, false);
    ids_.insert(ids_.end(), more.begin(), more.end());
    stretch_.clear();
  }

  const Chat& chat_;
  std::vector<std::int32_t> ids_;
  std::string stretch_;
};

Chat::Chat(const Tokenizer& tokenizer, const ChatTemplate& row)
    : tokenizer_(&tokenizer), row_(&row), begins_with_bos_(tokenizer.adds_bos()) {
  const auto require = [&](std::string_view spelling, std::optional<std::int32_t> id) {
    if (!speaks_of(row, spelling)) return;
    if (!id) {
      throw Error("the vocabulary has no " + std::string(spelling) + ", which the chat template " +
                  std::string(row.title) + " needs");
    }
    tokens_.emplace_back(spelling, *id);
    if (row.answer_end == spelling) end_ = id;
  };
  for (const std::string_view spelling : row.tokens) {
    if (!spelling.empty()) require(spelling, tokenizer.find(spelling));
  }
  require("{bos}", tokenizer.bos());
  require("{eos}", tokenizer.eos());
}

Chat Chat::from(const Gguf& file, const Tokenizer& tokenizer, const std::optional<std::string>& name) {
  const std::string_view text = file.text("tokenizer.chat_template").value_or("");
  const ChatTemplate* row = &plain_template();
  if (name) {
    row = find_chat_template(*name);
    if (row == nullptr)
      throw Error("unknown template " + detail::quoted(*name) + "; there are " + chat_template_names());
  } else if (!text.empty()) {
    row = recognise_chat_template(text, tokenizer);
  }
  const std::string advice =
      "; --template NAME chooses one of " + chat_template_names() + " (messages as they stand: none)";
  if (row == nullptr) throw Error(file.path() + ": tokenizer.chat_template is none of those known here" + advice);
  try {
    Chat chat(tokenizer, *row);
    if (row == &plain_template()) return chat;
    chat.default_system_ = default_system_message(text, *row);
    chat.has_dated_system_ = !chat.default_system_ && has_dated_system_message(text);
    const std::optional<std::int32_t> bos = tokenizer.bos();
    if (bos && begins_with(text, *row, tokenizer.is_special(*bos) ? tokenizer.decode(*bos) : "")) {
      chat.begins_with_bos_ = true;
    }
    return chat;
  } catch (const Error& error) {
    throw Error(file.path() + ": " + error.what() + advice);
  }
}

std::vector<std::int32_t> Chat::first(std::optional<std::string_view> system, std::string_view message) const {
  Writer writer(*this);
  if (row_->system_in_user) writer.mark(row_->user);
  if (system) {
    writer.mark(row_->system);
    writer.text(said(*system));
    writer.mark(row_->system_end);
  }
  if (!row_->system_in_user) writer.mark(row_->user);
  write_message(message, writer);
  std::vector<std::int32_t> ids = writer.take();
  // Some models begin their turns with the token that they call BOS.
  const std::optional<std::int32_t> bos = tokenizer_->bos();
  if (begins_with_bos_ && (ids.empty() || ids.front() != *bos)) ids.insert(ids.begin(), *bos);
  return ids;
}

std::vector<std::int32_t> Chat::next(bool end_is_cached, std::string_view message) const {
  Writer writer(*this);
  if (!end_is_cached) writer.mark(row_->answer_end);
  writer.mark(row_->after_answer);
  writer.mark(row_->user);
  write_message(message, writer);
  return writer.take();
}

bool Chat::ends_answer(std::int32_t id) const {
  return id == end_ || tokenizer_->ends_turn(id);
}

void Chat::write_message(std::string_view message, Writer& writer) const {
  writer.text(said(message));
  writer.mark(row_->user_end);
}

std::string_view Chat::said(std::string_view text) const {
  if (!row_->trims) return text;
  constexpr std::string_view kSpace = " \t\n\r\f\v";
  const std::size_t start = text.find_first_not_of(kSpace);
  if (start == std::string_view::npos) return {};
  return text.substr(start, text.find_last_not_of(kSpace) + 1 - start);
}

}  // namespace nibkv::llm
