#include "bench/runner/text/chat_template.hpp"

#include <algorithm>
#include <cctype>
#include <vector>

namespace nibkv::llm {
namespace {

constexpr ChatTemplate kTemplates[] = {
    {.name = "none", .title = "plain text"},
    {.name = "chatml",
     .title = "ChatML",
     .system = "<|im_start|>system\n",
     .system_end = "<|im_end|>\n",
     .user = "<|im_start|>user\n",
     .user_end = "<|im_end|>\n<|im_start|>assistant\n",
     .answer_end = "<|im_end|>",
     .after_answer = "\n",
     .tokens = {"<|im_start|>", "<|im_end|>"},
     .needs = {"<|im_start|>", "<|im_end|>"},
     .lacks = {"<|im_sep|>", "<|im_middle|>"}},
    {.name = "llama3",
     .title = "Llama 3",
     .trims = true,
     .system = "<|start_header_id|>system<|end_header_id|>\n\n",
     .system_end = "<|eot_id|>",
     .user = "<|start_header_id|>user<|end_header_id|>\n\n",
     .user_end = "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
     .answer_end = "<|eot_id|>",
     .tokens = {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"},
     .needs = {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"}},
    {.name = "gemma",
     .title = "Gemma",
     .system_in_user = true,
     .trims = true,
     .system_end = "\n\n",
     .user = "<start_of_turn>user\n",
     .user_end = "<end_of_turn>\n<start_of_turn>model\n",
     .answer_end = "<end_of_turn>",
     .after_answer = "\n",
     .tokens = {"<start_of_turn>", "<end_of_turn>"},
     .needs = {"<start_of_turn>", "<end_of_turn>"}},
    {.name = "llama2",
     .title = "Llama 2",
     .system_in_user = true,
     .trims = true,
     .system = "<<SYS>>\n",
     .system_end = "\n<</SYS>>\n\n",
     .user = "[INST] ",
     .user_end = " [/INST]",
     .answer_end = "{eos}",
     .after_answer = "{bos}",
     .needs = {"[INST]", "[/INST]", "<<SYS>>"},
     .not_a_token = "[INST]"},
    // The first two versions. Later ones have tokens for [INST], and put spaces in other places.
    {.name = "mistral",
     .title = "Mistral",
     .system_in_user = true,
     .system_end = "\n\n",
     .user = "[INST] ",
     .user_end = " [/INST]",
     .answer_end = "{eos}",
     .needs = {"[INST]", "[/INST]", "eos_token"},
     .lacks = {"<<SYS>>", "[SYSTEM_PROMPT]", "[AVAILABLE_TOOLS]"},
     .not_a_token = "[INST]"},
    // Its tokens include the line breaks that the template's text has after them.
    {.name = "phi3",
     .title = "Phi-3",
     .system = "<|system|>",
     .system_end = "<|end|>",
     .user = "<|user|>",
     .user_end = "<|end|><|assistant|>",
     .answer_end = "<|end|>",
     .tokens = {"<|system|>", "<|user|>", "<|end|>", "<|assistant|>"},
     .needs = {"<|user|>", "<|end|>", "<|assistant|>"},
     .lacks = {"[gMASK]"}},
    {.name = "zephyr",
     .title = "Zephyr",
     .system = "<|system|>\n",
     .system_end = "{eos}\n",
     .user = "<|user|>\n",
     .user_end = "{eos}\n<|assistant|>\n",
     .answer_end = "{eos}",
     .after_answer = "\n",
     .needs = {"'<|user|>\n'+message['content']+eos_token", "<|assistant|>"},
     .lacks = {"[gMASK]", "<|end|>"}},
};

/// A template is text with code in it. This is a piece of it that is written literally: text
/// outside of code, or literals in code with only `+` between them.
struct Stretch {
  std::string text;
  std::string_view before;  // the code before a literal, back to the last text outside of code
};

char unescaped(char letter) {
  if (letter == 'n') return '\n';
  return letter == 't' ? '\t' : letter;
}

// Reads the literal whose opening quote is text[at], and moves `at` past it.
std::string literal_at(std::string_view text, std::size_t& at) {
  const char quote = text[at++];
  std::string literal;
  for (; at < text.size() && text[at] != quote; ++at) {
    if (text[at] == '\\' && at + 1 < text.size()) {
      literal.push_back(unescaped(text[++at]));
    } else {
      literal.push_back(text[at]);
    }
  }
  ++at;
  return literal;
}

std::vector<Stretch> stretches_of(std::string_view text) {
  std::vector<Stretch> stretches(1);
  bool is_code = false, is_comment = false, is_joined = false;
  std::size_t code_start = 0;
  for (std::size_t at = 0; at < text.size();) {
    const std::string_view two = text.substr(at, 2);
    if (is_comment || (is_code && (two == "}}" || two == "%}"))) {
      if (!is_comment || two == "#}") {
        is_code = is_comment = false;
        stretches.emplace_back();
        ++at;
      }
      ++at;
    } else if (!is_code && (two == "{{" || two == "{%" || two == "{#")) {
      is_comment = two == "{#";
      is_code = !is_comment;
      is_joined = false;
      code_start = at += 2;
    } else if (!is_code) {
      stretches.back().text.push_back(text[at++]);
    } else if (text[at] == '\'' || text[at] == '"') {
      const std::string_view before = text.substr(code_start, at - code_start);
      const std::string literal = literal_at(text, at);
      if (!is_joined) stretches.push_back({"", before});
      stretches.back().text += literal;
      is_joined = true;
    } else {
      is_joined = is_joined && (text[at] == '+' || std::isspace(static_cast<unsigned char>(text[at])) != 0);
      ++at;
    }
  }
  return stretches;
}

// Removes spaces, unifies quotes and keeps line breaks: what different spellings of one
// template have in common.
std::string squeezed(std::string_view text) {
  std::string result;
  for (std::size_t at = 0; at < text.size(); ++at) {
    if (text[at] == ' ') continue;
    const bool is_break = text.substr(at, 2) == "\\n";
    result.push_back(is_break ? '\n' : text[at] == '"' ? '\'' : text[at]);
    at += is_break ? 1 : 0;
  }
  return result;
}

bool ends_with_assignment(std::string_view code) {
  constexpr std::string_view kName = "system_message=";
  const std::string squeezed_code = squeezed(code);
  return std::string_view(squeezed_code).ends_with(kName);
}

}  // namespace

std::span<const ChatTemplate> chat_templates() {
  return kTemplates;
}

const ChatTemplate& plain_template() {
  return kTemplates[0];
}

std::string chat_template_names() {
  std::string names;
  for (const ChatTemplate& row : kTemplates) names += (names.empty() ? "" : ", ") + std::string(row.name);
  return names;
}

const ChatTemplate* find_chat_template(std::string_view name) {
  const auto found = std::find_if(std::begin(kTemplates), std::end(kTemplates),
                                  [&](const ChatTemplate& row) { return row.name == name; });
  return found == std::end(kTemplates) ? nullptr : found;
}

const ChatTemplate* recognise_chat_template(std::string_view text, const Tokenizer& tokenizer) {
  const std::string plain = squeezed(text);
  const auto is_there = [&](std::string_view part) { return plain.find(part) != std::string::npos; };
  const auto is_missing = [&](std::string_view part) { return !part.empty() && !is_there(part); };
  const auto is_unwanted = [&](std::string_view part) { return !part.empty() && is_there(part); };
  for (const ChatTemplate& row : chat_templates().subspan(1)) {
    if (std::any_of(row.needs.begin(), row.needs.end(), is_missing)) continue;
    if (std::any_of(row.lacks.begin(), row.lacks.end(), is_unwanted)) continue;
    if (!row.not_a_token.empty() && tokenizer.find(row.not_a_token)) continue;
    return &row;
  }
  return nullptr;
}

// Either the markers and the message between them are one piece, or a variable gets the message.
std::optional<std::string> default_system_message(std::string_view text, const ChatTemplate& row) {
  const std::string_view end = row.system_end.substr(0, row.system_end.find_last_not_of('\n') + 1);
  for (const Stretch& stretch : stretches_of(text)) {
    if (ends_with_assignment(stretch.before) && !stretch.text.empty()) return stretch.text;
    if (row.system.empty() || end.empty()) continue;
    std::size_t start = stretch.text.find(row.system);
    if (start == std::string::npos) continue;
    start += row.system.size();
    const std::size_t stop = stretch.text.find(end, start);
    if (stop != std::string::npos && stop > start) return stretch.text.substr(start, stop - start);
  }
  return std::nullopt;
}

bool has_dated_system_message(std::string_view text) {
  return text.find("date_string") != std::string_view::npos || text.find("strftime_now") != std::string_view::npos;
}

}  // namespace nibkv::llm
