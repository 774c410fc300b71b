#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "bench/runner/model/model.hpp"
#include "bench/runner/text/tokenizer.hpp"

// Needles in a haystack: facts hidden in the prose of a book, followed by a question that can only
// be answered by remembering the fact.

namespace nibkv::llm {

/// What is hidden.
enum class NeedleKind : std::uint8_t {
  kPasskey,   ///< a number of five digits, said twice
  kSentence,  ///< a plain sentence; the answer is a word of it
  kSeveral,   ///< the pass keys of three people, one of which is asked for
  kCode,      ///< the form that the tiny model was trained on
};

/// "passkey", "sentence", "several", "code".
std::string_view needle_name(NeedleKind kind);
/// @throws UsageError for another name
NeedleKind parse_needle(const std::string& name);

/// What surrounds the haystack.
enum class PromptForm : std::uint8_t { kPlain, kChatMl };

/// @throws UsageError for a name that is neither "plain" nor "chat"
PromptForm parse_prompt_form(const std::string& name);

struct Needle {
  std::vector<std::string> facts;  ///< the first one is asked for
  std::string question;
  std::string lead;    ///< how the answer begins: put into the model's mouth
  std::string answer;  ///< must be part of what the model says
};

/// @param seed  the same gives the same on every machine
Needle make_needle(NeedleKind kind, std::uint64_t seed);

/// Whether `said` contains the answer.
bool is_right(const Needle& needle, std::string_view said);

struct Prompt {
  std::vector<std::int32_t> tokens;
  std::size_t question = 0;      ///< the first token of what follows the haystack
  std::size_t needle_first = 0;  ///< of the fact that is asked for
  std::size_t needle_count = 0;
};

/// Where and how a needle is hidden.
struct Hiding {
  NeedleKind kind = NeedleKind::kPasskey;
  PromptForm form = PromptForm::kPlain;
  std::size_t length = 1024;  ///< number of tokens of the whole prompt
  double depth = 0.5;         ///< where the fact is, [0, 1]: 0 at the beginning of the haystack, 1 at its end
  std::uint64_t seed = 1;     ///< also chooses the part of the text
};

/// A text to hide needles in.
class Haystack {
 public:
  /// @param tokens  of the text; they and the tokenizer must outlive this object
  Haystack(const Tokenizer& tokenizer, std::span<const std::int32_t> tokens) : tokenizer_(tokenizer), tokens_(tokens) {}

  /// The fact that is asked for is at `depth`, the others at equal distances from it, wrapping
  /// around; each after the end of a sentence or a line, if there is one nearby.
  /// @throws Error if the text is too short for the length, or the length for the needle
  Prompt hide(const Needle& needle, const Hiding& hiding) const;

 private:
  std::size_t cut_near(std::size_t at, std::size_t first) const;

  const Tokenizer& tokenizer_;
  std::span<const std::int32_t> tokens_;
};

/// The maximum number of tokens of an answer.
inline constexpr std::size_t kAnswerTokens = 10;

/// What a model said.
struct Answer {
  std::string text;
  bool right = false;
};

/// Feeds the prompt and lets the model answer: greedily, token by token, until `enough` of the answer so far, the model
/// ends its turn, or it has said `most` tokens.
///
/// @param store          empty
/// @param before_answer  called after all but the last token of the prompt are fed, so that every
///                       token of the answer comes from what is in the store then; may be empty
/// @throws Error if the store refuses
std::string let_answer(Model& model, const Tokenizer& tokenizer, KvStore& store, std::span<const std::int32_t> prompt,
                       const std::function<void()>& before_answer, std::size_t most,
                       const std::function<bool(const std::string& said)>& enough);

/// Feeds the prompt and lets the model answer: greedily, token by token, until the answer is in it, the model ends its
/// turn, or it has said `most` tokens. The rest is as of let_answer.
Answer ask_for_needle(Model& model, const Tokenizer& tokenizer, KvStore& store, const Prompt& prompt,
                      const Needle& needle, const std::function<void()>& before_answer,
                      std::size_t most = kAnswerTokens);

}  // namespace nibkv::llm
