#pragma once

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>

// What some tests need that the project does not carry: files that variables of the environment name. Tests are skipped
// without them, and say what to set; with both all of them run.

namespace nibkv::test {

/// The path in a variable; nothing where it is not set, or empty.
inline std::optional<std::filesystem::path> named_by(const char* variable) {
  const char* value = std::getenv(variable);
  if (value == nullptr || *value == '\0') return std::nullopt;
  return value;
}

inline constexpr const char* kNeedsModel =
    "needs a real model: set NIBKV_MODEL to SmolLM2-135M-Instruct, NIBKV_MODEL=$(bench/models/get_model)";

/// @param files  in the folder, and where they come from
inline std::string needs_data(const std::string& files) {
  return "needs files that are not part of the project: set NIBKV_TEST_DATA to a folder with " + files;
}

}  // namespace nibkv::test
