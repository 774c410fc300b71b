#include "bench/runner/profile/needles.hpp"

#include <algorithm>
#include <cmath>

#include "bench/runner/model/sampler.hpp"
#include "bench/runner/programs/arguments.hpp"

namespace nibkv::llm {
namespace {

/// SplitMix64.
class Draws {
 public:
  explicit Draws(std::uint64_t seed) : state_(seed) {}

  /// [0, bound)
  std::uint64_t below(std::uint64_t bound) {
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return (z ^ z >> 31) % bound;
  }

  std::string five_digits() { return std::to_string(10000 + below(90000)); }

 private:
  std::uint64_t state_;
};

struct Fact {
  std::string_view city, advice, answer;
};

// The answer is a word that neither the question nor a book reveals.
constexpr Fact kFacts[] = {
    {"Helsinki", "bathe in the harbour sauna", "sauna"},
    {"Lisbon", "eat a custard tart by the river", "custard"},
    {"Nairobi", "watch the giraffes at sunrise", "giraffes"},
    {"Oslo", "ride the wooden ferry to the islands", "ferry"},
    {"Quito", "climb the volcano with a guide", "volcano"},
    {"Dublin", "hear a harp in a quiet pub", "harp"},
    {"Kyoto", "sit in the moss garden", "moss"},
    {"Vienna", "visit the butterfly house", "butterfly"},
};

constexpr std::string_view kNames[] = {"Anna", "Boris", "Clara", "David", "Elena", "Felix", "Greta", "Hugo"};
constexpr std::string_view kWords[] = {"willow", "river", "candle", "harbor", "meadow", "lantern"};

// A fact is in a separate paragraph: in the middle of one, small models overlook it.
std::string paragraph(const std::string& text) {
  return "\n\n" + text + "\n\n";
}

Needle passkey(Draws& draws) {
  const std::string key = draws.five_digits();
  return {{paragraph("The pass key is " + key + ". Remember it. " + key + " is the pass key.")},
          "What is the pass key?",
          "The pass key is",
          key};
}

Needle sentence(Draws& draws) {
  const Fact& fact = kFacts[draws.below(std::size(kFacts))];
  const std::string lead = "The best thing to do in " + std::string(fact.city) + " is to";
  return {{paragraph(lead + " " + std::string(fact.advice) + ".")},
          "What is the best thing to do in " + std::string(fact.city) + "?",
          lead,
          std::string(fact.answer)};
}

Needle several(Draws& draws) {
  constexpr std::size_t kKeys = 3;
  Needle needle;
  std::vector<std::string_view> names(std::begin(kNames), std::end(kNames));
  for (std::size_t i = 0; i < kKeys; ++i) {
    const auto at = names.begin() + static_cast<std::ptrdiff_t>(draws.below(names.size()));
    const std::string whose = "The pass key of " + std::string(*at);
    const std::string key = draws.five_digits();
    names.erase(at);
    needle.facts.push_back(
        paragraph(whose + " is " + key + ". Remember it. " + key + " is the" + whose.substr(3) + "."));
    if (i != 0) continue;
    needle.question = "What is the" + whose.substr(3) + "?";
    needle.lead = whose + " is";
    needle.answer = key;
  }
  return needle;
}

Needle code(Draws& draws) {
  const std::string word(kWords[draws.below(std::size(kWords))]);
  const std::string number = draws.five_digits();
  return {{"\nThe code for " + word + " is " + number + ".\n"}, "\nWhat is the code for " + word + "? ", "", number};
}

struct Frame {
  std::string before, after;
};

Frame frame_of(const Needle& needle, const Hiding& hiding) {
  if (hiding.kind == NeedleKind::kCode) return {"", needle.question};
  if (hiding.form == PromptForm::kPlain) {
    return {"There is an important fact hidden in the text below. Find it and remember it.\n\n",
            "\n\nQuestion: " + needle.question + "\nAnswer: " + needle.lead};
  }
  return {"<|im_start|>user\n", "\n\nThat was the text. Quote from the text above: " + needle.question +
                                    "<|im_end|>\n<|im_start|>assistant\nAs the text says: \"" + needle.lead};
}

struct Name {
  NeedleKind kind;
  std::string_view text;
};
constexpr Name kKinds[] = {{NeedleKind::kPasskey, "passkey"},
                           {NeedleKind::kSentence, "sentence"},
                           {NeedleKind::kSeveral, "several"},
                           {NeedleKind::kCode, "code"}};

}  // namespace

std::string_view needle_name(NeedleKind kind) {
  for (const Name& name : kKinds) {
    if (name.kind == kind) return name.text;
  }
  return {};
}

NeedleKind parse_needle(const std::string& text) {
  for (const Name& name : kKinds) {
    if (name.text == text) return name.kind;
  }
  throw UsageError("--needles takes passkey, sentence, several or code, not '" + text + "'");
}

PromptForm parse_prompt_form(const std::string& name) {
  if (name == "plain") return PromptForm::kPlain;
  if (name == "chat") return PromptForm::kChatMl;
  throw UsageError("--prompt takes plain or chat, not '" + name + "'");
}

Needle make_needle(NeedleKind kind, std::uint64_t seed) {
  Draws draws(seed);
  switch (kind) {
    case NeedleKind::kPasskey:
      return passkey(draws);
    case NeedleKind::kSentence:
      return sentence(draws);
    case NeedleKind::kSeveral:
      return several(draws);
    case NeedleKind::kCode:
      break;
  }
  return code(draws);
}

bool is_right(const Needle& needle, std::string_view said) {
  return said.find(needle.answer) != std::string_view::npos;
}

// The nearest position at or before `at` where a sentence or a line ends, but not before `first`.
std::size_t Haystack::cut_near(std::size_t at, std::size_t first) const {
  constexpr std::size_t kReach = 64;
  for (std::size_t place = at; place > first && at - place < kReach; --place) {
    if (tokenizer_.decode(tokens_[place - 1]).find_last_of(".!?\n") != std::string::npos) return place;
  }
  return at - first < kReach ? first : at;
}

Prompt Haystack::hide(const Needle& needle, const Hiding& hiding) const {
  const Frame frame = frame_of(needle, hiding);
  const std::vector<std::int32_t> before = tokenizer_.encode(frame.before, true, true);
  const std::vector<std::int32_t> after = tokenizer_.encode(frame.after, true, false);
  struct Piece {
    std::size_t at;  // in tokens_
    bool is_asked_for;
    std::vector<std::int32_t> tokens;
  };
  std::vector<Piece> pieces;
  std::size_t taken = before.size() + after.size();
  for (const std::string& fact : needle.facts) {
    pieces.push_back({0, pieces.empty(), tokenizer_.encode(fact, false, false)});
    taken += pieces.back().tokens.size();
  }
  if (hiding.length <= taken) {
    throw Error("a length of " + std::to_string(hiding.length) +
                " tokens is too short for the needle and its question");
  }
  const std::size_t hay = hiding.length - taken;
  if (hay > tokens_.size()) {
    throw Error("the text has " + std::to_string(tokens_.size()) + " tokens, less than the " + std::to_string(hay) +
                " of the haystack");
  }
  const std::size_t first = Draws(~hiding.seed).below(tokens_.size() - hay + 1);
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    double depth = hiding.depth + static_cast<double>(i) / static_cast<double>(pieces.size());
    if (depth > 1) depth -= 1;
    pieces[i].at = cut_near(first + static_cast<std::size_t>(std::lround(depth * static_cast<double>(hay))), first);
  }
  std::stable_sort(pieces.begin(), pieces.end(), [](const Piece& a, const Piece& b) { return a.at < b.at; });

  Prompt prompt;
  std::size_t at = first;
  const auto add = [&prompt](std::span<const std::int32_t> ids) {
    prompt.tokens.insert(prompt.tokens.end(), ids.begin(), ids.end());
  };
  add(before);
  for (const Piece& piece : pieces) {
    add(tokens_.subspan(at, piece.at - at));
    at = piece.at;
    if (piece.is_asked_for) {
      prompt.needle_first = prompt.tokens.size();
      prompt.needle_count = piece.tokens.size();
    }
    add(piece.tokens);
  }
  add(tokens_.subspan(at, first + hay - at));
  prompt.question = prompt.tokens.size();
  add(after);
  return prompt;
}

std::string let_answer(Model& model, const Tokenizer& tokenizer, KvStore& store, std::span<const std::int32_t> prompt,
                       const std::function<void()>& before_answer, std::size_t most,
                       const std::function<bool(const std::string& said)>& enough) {
  std::vector<float> logits(model.config().vocabulary);
  const std::size_t last = prompt.size() - 1;
  model.forward(prompt.first(last), 0, store, nullptr, 0);
  if (before_answer) before_answer();
  model.forward(prompt.subspan(last), last, store, logits.data(), 1);

  std::string said;
  Sampler sampler({.temperature = 0});
  for (std::size_t made = 0; made < most; ++made) {
    const std::int32_t token = sampler.sample(logits);
    if (tokenizer.ends_turn(token)) break;
    said += tokenizer.decode(token);
    if (enough(said) || made + 1 == most) break;
    model.forward(std::span(&token, 1), prompt.size() + made, store, logits.data(), 1);
  }
  return said;
}

Answer ask_for_needle(Model& model, const Tokenizer& tokenizer, KvStore& store, const Prompt& prompt,
                      const Needle& needle, const std::function<void()>& before_answer, std::size_t most) {
  Answer answer;
  answer.text = let_answer(model, tokenizer, store, prompt.tokens, before_answer, most,
                           [&needle](const std::string& said) { return is_right(needle, said); });
  answer.right = is_right(needle, answer.text);
  return answer;
}

}  // namespace nibkv::llm
