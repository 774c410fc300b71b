#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "bench/llm/chat.hpp"
#include "bench/llm/model.hpp"
#include "bench/llm/sampler.hpp"
#include "bench/llm/tile_store.hpp"
#include "bench/llm/tokenizer.hpp"

namespace nibkv::llm {

/// Turns bytes that come in pieces into valid UTF-8 that goes out in whole characters. Bytes that can be part of no
/// character come out as U+FFFD.
class Utf8Stream {
 public:
  /// Takes more bytes and returns all characters that are complete now.
  std::string push(std::string_view bytes);
  /// Ends the text: U+FFFD for each byte that still waited for the rest of its character.
  std::string flush();

 private:
  std::string held_;  // the first bytes of a character, at most 3
};

/// How answers are made.
struct ConversationOptions {
  SamplerOptions sampler;
  std::size_t max_tokens = 256;       ///< of an answer, at least 1
  std::optional<std::string> system;  ///< what the conversation begins with
  std::size_t limit = 0;              ///< most tokens that the model reads without a break, 0: as it was trained for
  /// Gets how much of what is new was read, while it is read.
  std::function<void(std::size_t done, std::size_t all)> reading;
  /// Gets a line where the conversation comes to the limit.
  std::function<void(const std::string&)> say;
};

/// Why an answer ended: the model said so, it was max_tokens long, or the caller stopped it.
enum class Ending : std::uint8_t { kComplete, kCut, kStopped };

/// What a conversation has done since it began or was loaded.
struct Counts {
  std::uint64_t prompt_tokens = 0;  ///< fed as messages and what goes around them
  std::uint64_t answer_tokens = 0;  ///< chosen by the sampler and shown
  std::uint64_t decode_steps = 0;   ///< single tokens of answers fed back
  std::uint64_t read_again = 0;     ///< tokens fed a second time, at the limit
  double prefill_seconds = 0;
  double decode_seconds = 0;
};

/// Questions and answers over one store. What the store holds is never fed again: a turn feeds only what is new.
///
/// Models get lost past the positions that they were trained for. Where the next token would be beyond the limit, the
/// store is cleared, and the system message and the newest half of the conversation are read again: whole turns where
/// one fits, or else the end of the newest. So it goes on for ever, with at least half of what the model can read.
class Conversation {
 public:
  /// Gets the text of an answer as it is made, in whole UTF-8 characters.
  using Output = std::function<void(std::string_view)>;
  /// Asked before each step; true ends the answer.
  using Stop = std::function<bool()>;

  /// @param store  empty. All references must outlive this object.
  Conversation(Model& model, const Tokenizer& tokenizer, const Chat& chat, TileStore& store,
               const ConversationOptions& options);

  /// Asks the model and writes its answer to `output`. However the answer ended, the next one goes on from there: what
  /// was shown of it stands in the conversation, and its turn is closed.
  /// @throws Error when the message is empty and so are its surroundings, when it alone is longer than the limit, and
  ///         when the store is full and its policy drops nothing. Then nothing of the message was fed, and all is as
  ///         before; or the answer stands as far as shown.
  Ending answer(std::string_view message, const Output& output, const Stop& stop = {});

  /// Forgets everything that was said: what comes is as in a new conversation with the same options.
  void reset();

  /// All that the next answer depends on, as a snapshot of the cache with the rest as its note: tokens that wait to be
  /// fed, what the sampler draws next, what was said. The options are not part of it.
  /// @param model  model_fingerprint() of its file
  /// @param cache  in words: what an error of load() shows to who has another one
  std::vector<std::byte> save(std::uint64_t model, std::string_view cache) const;
  /// Goes on where save() was called, byte for byte, on any port and with any number of threads.
  /// @throws Error when the bytes are damaged, no conversation, or of another model, cache or profile. What was said is
  ///         still there then.
  void load(std::span<const std::byte> bytes, std::uint64_t model);

  const Counts& counts() const { return counts_; }
  /// Tokens fed since the beginning or the limit, that is, the position of the next one.
  std::size_t position() const { return store_.cache().seen(0); }
  const TileStore& store() const { return store_; }

 private:
  struct Turn {
    std::string message;
    std::vector<std::int32_t> answer;
  };

  void require_room(std::size_t held, std::size_t tokens) const;
  bool feed(const Stop& stop);
  bool prefill(std::size_t again, const Stop& stop);
  Ending generate(const Output& output, const Stop& stop);

  // What is read again at the limit; in conversation_limit.cpp.
  std::vector<std::int32_t> written(std::span<const Turn> turns) const;
  std::vector<Turn> newest_half(std::vector<Turn> turns) const;
  void shorten(std::vector<Turn>& turns, std::size_t room) const;
  void begin_again(std::vector<Turn> turns);

  Model& model_;
  const Tokenizer& tokenizer_;
  const Chat& chat_;
  TileStore& store_;
  ConversationOptions options_;
  Sampler sampler_;
  Counts counts_;
  std::size_t limit_;
  std::vector<float> logits_;
  std::vector<Turn> turns_;            // since the beginning or the limit; the answer to the last one is not closed
  std::vector<std::int32_t> pending_;  // tokens of the conversation that are not in the store yet
};

/// The short table of what a conversation took, one figure a line.
std::string summary(const Conversation& conversation);

/// @throws Error naming the model when nibkv has no shape for it
void check_shape(const Config& model, const std::string& name);

/// The built-in text as a conversation in the model's own format.
std::vector<std::int32_t> calibration_tokens(const Tokenizer& tokenizer, const Chat& chat);

/// Where the profile of a model may lie, best place first: beside the model; in the cache folder $NIBKV_CACHE, or else
/// nibkv/ under $XDG_CACHE_HOME or ~/.cache, if there is any.
std::vector<std::string> profile_places(const std::string& model_path);

/// The first profile that fits out of `places`. Without one, makes one and keeps it at the first place that can be
/// written, or only in memory.
///
/// @param make  makes a profile
/// @param say   gets a line for each thing that the user should know
std::vector<std::byte> find_or_make_profile(std::span<const std::string> places, const Config& model,
                                            const std::function<std::vector<std::byte>()>& make,
                                            const std::function<void(const std::string&)>& say);

}  // namespace nibkv::llm
