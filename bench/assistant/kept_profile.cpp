#include "bench/assistant/kept_profile.hpp"

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string_view>

#include "bench/runner/profile/profile_maker.hpp"
#include "bench/runner/programs/output_file.hpp"
#include "bench/runner/text/builtin_text.hpp"

namespace nibkv::llm {
namespace {

namespace fs = std::filesystem;

// Distinguishes models of the same name in different folders.
std::string fingerprint(std::string_view text) {
  std::uint64_t hash = 0xcbf29ce484222325;  // FNV-1a
  for (const char character : text) hash = (hash ^ static_cast<unsigned char>(character)) * 0x100000001b3;
  char digits[17];
  std::snprintf(digits, sizeof digits, "%016llx", static_cast<unsigned long long>(hash));
  return digits;
}

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string() : std::string(value);
}

}  // namespace

std::vector<std::int32_t> calibration_tokens(const Tokenizer& tokenizer, const Chat& chat) {
  const std::span<const std::string_view> text = builtin_text();
  std::vector<std::int32_t> tokens;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool is_answer = i % 2 == 1;
    const std::vector<std::int32_t> more = is_answer ? tokenizer.encode(text[i], false, false)
                                           : i == 0  ? chat.first("You are a helpful assistant.", text[i])
                                                     : chat.next(false, text[i]);
    tokens.insert(tokens.end(), more.begin(), more.end());
  }
  return tokens;
}

std::vector<std::string> profile_places(const std::string& model_path) {
  std::vector<std::string> places = {model_path + ".nibkv-profile"};
  fs::path folder = environment("NIBKV_CACHE");
  if (folder.empty()) {
    fs::path base = environment("XDG_CACHE_HOME");
    if (const std::string home = environment("HOME"); base.empty() && !home.empty()) base = fs::path(home) / ".cache";
    if (base.empty()) return places;
    folder = base / "nibkv";
  }
  std::error_code ignored;
  const fs::path absolute = fs::absolute(model_path, ignored);
  const std::string name = fs::path(model_path).filename().string() + "-" + fingerprint(absolute.string());
  places.push_back((folder / (name + ".nibkv-profile")).string());
  return places;
}

std::vector<std::byte> find_or_make_profile(std::span<const std::string> places, const Config& model,
                                            const std::function<std::vector<std::byte>()>& make,
                                            const std::function<void(const std::string&)>& say) {
  std::error_code ignored;
  for (const std::string& place : places) {
    if (!fs::is_regular_file(place, ignored)) continue;
    try {
      return read_profile(place, model);
    } catch (const Error& error) {
      say(std::string(error.what()) + "; not used");
    }
  }
  std::vector<std::byte> profile = make();
  std::string reasons;
  for (const std::string& place : places) {
    // A device or a pipe stores nothing.
    if (fs::exists(place, ignored) && !fs::is_regular_file(place, ignored)) continue;
    // Not for the folder of the model: it exists, or is not meant to be used.
    if (place != places.front()) fs::create_directories(fs::path(place).parent_path(), ignored);
    try {
      write_file(place, profile);
      say("profile kept in " + place);
      return profile;
    } catch (const Error& error) {
      reasons += std::string("; ") + error.what();
    }
  }
  say("the profile cannot be kept, and the next start makes it again" + reasons);
  return profile;
}

}  // namespace nibkv::llm
