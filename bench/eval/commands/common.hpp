#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "bench/runner/model/model.hpp"
#include "bench/runner/programs/arguments.hpp"
#include "bench/runner/programs/output_file.hpp"
#include "bench/runner/programs/progress.hpp"
#include "bench/runner/programs/store_arguments.hpp"
#include "bench/runner/stores/tile_store.hpp"
#include "bench/runner/text/tokenizer.hpp"

// What the commands of nibkv-eval share.

namespace nibkv::llm {

/// What a command does after its options were found valid.
using Job = std::function<void()>;

inline constexpr const char* kProgram = "nibkv-eval";

/// Writes a line to standard error, after the program's name.
void say(const std::string& line);

/// The value of a required option.
/// @throws UsageError if it is missing
std::string required(const Arguments& arguments, const std::string& name);

/// Named figures, in the order in which they are printed.
using Report = std::vector<std::pair<std::string, std::variant<std::uint64_t, double, std::string>>>;

/// A line for each figure.
std::string as_lines(const Report& report);

/// Prints the figures, and writes them to `json` if it is a path; `-` prints JSON instead of lines.
/// @param lines  are printed if they are not as_lines(report)
void publish(const Report& report, const std::string& json, const std::optional<std::string>& lines = {});

/// A model and the tokens of a text.
struct Subject {
  /// @throws Error for files that cannot be read, or a model whose shape nibkv does not support
  Subject(const std::string& model_path, const std::string& text_path, std::size_t threads);

  ThreadPool pool;
  Gguf file;
  std::vector<std::int32_t> tokens;
  std::optional<Model> model;
};

/// The options that determine which cache of which model is measured. Without a profile it measures its keys.
struct MeasuredCache {
  std::string model, json;
  StoreArguments cache;

  /// @param room               how many tokens a store that keeps everything must hold; 0: the command will say it
  /// @param storage_otherwise  q4 or f32, without --storage
  MeasuredCache(const Arguments& arguments, std::size_t room, const std::string& storage_otherwise = "q4");

  /// Makes a cache that has no profile measure nothing.
  /// @throws UsageError if it should have outlier channels
  void take_no_basis();

  /// The store, now that the model is known.
  StoreOptions store(const Config& config) const;
};

/// The same with a text, for every command that measures one.
struct Measured : MeasuredCache {
  std::string text;

  Measured(const Arguments& arguments, std::size_t room)
      : MeasuredCache(arguments, room), text(required(arguments, "text")) {}
};

/// Says a note, once in the life of the program; nothing if it is empty.
void say_once(const std::string& note);

/// Says what policy_notes has of a cache, each line once in the life of the program.
void say_notes(const Config& model, const StoreOptions& options);

/// --context
std::size_t context_of(const Arguments& arguments, std::size_t otherwise);

}  // namespace nibkv::llm
