#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "bench/runner/model/model.hpp"
#include "bench/runner/model/sampler.hpp"
#include "bench/runner/stores/tile_store.hpp"
#include "bench/runner/text/chat.hpp"
#include "bench/runner/text/tokenizer.hpp"

namespace nibkv::llm {

/// How answers are made.
struct ConversationOptions {
  SamplerOptions sampler;
  std::size_t max_tokens = 256;       ///< maximum tokens of an answer, at least 1
  std::optional<std::string> system;  ///< system message at the beginning of the conversation
  std::size_t limit = 0;              ///< maximum tokens that the model reads in one sequence; 0: as many as
                                      ///< it was trained for, or without end if the store has a reach
  /// Gets how much of what is new was read, while it is read.
  std::function<void(std::size_t done, std::size_t all)> reading;
  /// Gets a line when the conversation reaches the limit, and when something is read again because the
  /// cache cannot take it back.
  std::function<void(const std::string&)> say;
};

/// Why an answer ended: the model said so, it was max_tokens long, or the caller stopped it.
enum class Ending : std::uint8_t { kComplete, kCut, kStopped };

/// What a conversation did since it began or was loaded. What was taken back later was done, too.
struct Counts {
  std::uint64_t prompt_tokens = 0;  ///< fed as messages and the text around them
  std::uint64_t answer_tokens = 0;  ///< chosen by the sampler and shown
  std::uint64_t decode_steps = 0;   ///< single tokens of answers fed back
  std::uint64_t read_again = 0;     ///< tokens fed a second time, at the limit or after something was taken back
  double prefill_seconds = 0;
  double decode_seconds = 0;
};

/// Questions and answers with one store. What the store holds is never fed again: a turn
/// feeds only what is new.
///
/// Models fail beyond the positions that they were trained for. A store with a Rotary::reach turns queries
/// back to these, and a conversation goes on and on. Otherwise, when the next token would exceed
/// the limit, the store is cleared, and the system message and the newest half of the conversation
/// are read again: whole turns if one fits, otherwise the end of the newest. So a conversation has
/// no end, and keeps at least half of what the model can read.
class Conversation {
 public:
  /// Gets the text of an answer as it is generated, in whole UTF-8 characters.
  using Output = std::function<void(std::string_view)>;
  /// Called before each step; true ends the answer.
  using Stop = std::function<bool()>;

  /// @param store  empty. All references must outlive this object.
  Conversation(Model& model, const Tokenizer& tokenizer, const Chat& chat, TileStore& store,
               const ConversationOptions& options);

  /// Asks the model and writes its answer to `output`. However the answer ended, the next
  /// one continues from there: what was shown of it is part of the conversation, and
  /// its turn is closed.
  /// @throws Error if the message is empty and nothing is written around it, if it alone is longer
  ///         than the limit, and when the store is full and its policy drops nothing. Then nothing
  ///         of the message was fed, and all is as before; or the answer stands as far as shown.
  Ending answer(std::string_view message, const Output& output, const Stop& stop = {});

  /// Takes back the last question and its answer, however it ended. Again and again it goes back to the
  /// empty conversation, or to what the limit left of it. Where the cache has made space since the
  /// question, what came before it waits to be read again with the next question, and
  /// ConversationOptions::say gets a line. The sampler's draws are not taken back.
  /// @returns false if nothing was said
  /// @throws Error if what would be read again does not fit the arena. All is as before then.
  bool undo();

  /// Answers the last question again in place of its last answer, with the next draws of the sampler. Reads
  /// the last token of the question again, or more of the conversation where the cache cannot go back
  /// so far; ConversationOptions::say gets a line then. A question that the limit shortened is asked whole,
  /// unless the conversation was loaded since, or a later one was taken back.
  /// @throws Error if nothing was said, or if what would be read again does not fit the limit or the arena.
  ///         All is as before then. While it generates, as answer() does.
  Ending regenerate(const Output& output, const Stop& stop = {});

  /// Questions that undo() can take back.
  std::size_t turns() const { return turns_.size(); }

  /// Forgets everything that was said. What follows is as in a new conversation
  /// with the same options.
  void reset();

  /// Everything that the next answer depends on, as a snapshot of the cache with the rest as
  /// its note: tokens waiting to be fed, the state of the sampler, what was said. The options
  /// are not part of it.
  /// @param model  model_fingerprint() of its file
  /// @param cache  the cache in words, for the error message of load() if the cache
  ///               is a different one
  std::vector<std::byte> save(std::uint64_t model, std::string_view cache) const;
  /// Continues from the call of save(), byte for byte, on any port and with any number of threads.
  /// @throws Error if the bytes are damaged, not a conversation, or of another model, cache or
  ///         profile: what was said is still there then; and if none of the pages of its log are in their file: then
  ///         it is as after reset().
  void load(std::span<const std::byte> bytes, std::uint64_t model);

  const Counts& counts() const { return counts_; }
  /// Tokens fed since the beginning or the limit, that is, the position of the next one.
  std::size_t position() const { return store_.cache().seen(0); }
  const TileStore& store() const { return store_; }
  std::size_t max_tokens() const { return options_.max_tokens; }

 private:
  struct Turn {
    std::string message;
    std::vector<std::int32_t> answer;
  };

  void require_room(std::size_t held, std::size_t tokens) const;
  bool feed(const Stop& stop);
  bool prefill(const Stop& stop);
  Ending generate(const Output& output, const Stop& stop);

  // What is taken back; see conversation_undo.cpp.
  std::optional<std::size_t> start_of_last(std::size_t tokens) const;
  bool go_back(std::size_t seen);
  void read_again(std::vector<Turn> turns);

  // What is read again at the limit; see conversation_limit.cpp.
  std::vector<std::int32_t> written(std::span<const Turn> turns) const;
  std::vector<Turn> newest_half(std::vector<Turn> turns) const;
  void shorten(std::vector<Turn>& turns, std::size_t room) const;
  void forget_oldest(std::vector<Turn> turns, std::size_t fresh);
  void begin_again(std::vector<Turn> turns, std::size_t fresh);

  Model& model_;
  const Tokenizer& tokenizer_;
  const Chat& chat_;
  TileStore& store_;
  ConversationOptions options_;
  Sampler sampler_;
  Counts counts_;
  std::size_t limit_;     // tokens in one sequence
  std::size_t readable_;  // of these, how many are worth reading again: as many as the model was trained for
  std::vector<float> logits_;
  std::vector<Turn> turns_;  // since the beginning or the limit; the answer to the last one is not closed
  // Tokens of the conversation that are not yet in the store: those in it and these are written(turns_).
  std::vector<std::int32_t> pending_;
  std::size_t again_ = 0;  // how many of these, the first, were in the store before
  std::string question_;   // the last one as it was asked, as the limit may have shortened its turn; empty if unknown
};

/// A short table of what a conversation took, with one figure per line.
std::string summary(const Conversation& conversation);

}  // namespace nibkv::llm
