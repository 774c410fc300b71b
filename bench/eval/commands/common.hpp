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

/// Prints the figures, and writes them to `json` if it is a path; `-` prints JSON instead of lines.
void publish(const Report& report, const std::string& json);

/// A model and the tokens of a text.
struct Subject {
  /// @throws Error for files that cannot be read, or a model whose shape nibkv does not support
  Subject(const std::string& model_path, const std::string& text_path, std::size_t threads);

  ThreadPool pool;
  Gguf file;
  std::vector<std::int32_t> tokens;
  std::optional<Model> model;
};

/// The options that determine what is measured, for every command that measures.
struct Measured {
  std::string model, text, json;
  StoreArguments cache;

  /// @param room  how many tokens a store that keeps everything must hold
  Measured(const Arguments& arguments, std::size_t room);

  /// The store, now that the model is known.
  StoreOptions store(const Config& config) const;
};

/// Says what policy_notes has of a cache, each line once in the life of the program.
void say_notes(const Config& model, const StoreOptions& options);

/// --context
std::size_t context_of(const Arguments& arguments, std::size_t otherwise);

}  // namespace nibkv::llm
