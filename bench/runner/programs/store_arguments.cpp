#include "bench/runner/programs/store_arguments.hpp"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <string_view>
#include <thread>
#include <vector>

#include "bench/runner/stores/policy_settings.hpp"

namespace nibkv::llm {
namespace {

namespace fs = std::filesystem;

// `name` if `name_at` gives it for some index.
std::string known(const std::string& what, const std::string& name, std::string_view (*name_at)(std::uint32_t)) {
  std::string all;
  for (std::uint32_t i = 0; !name_at(i).empty(); ++i) {
    if (name_at(i) == name) return name;
    all += (i == 0 ? "" : ", ") + std::string(name_at(i));
  }
  throw UsageError("unknown " + what + " '" + name + "'; there are " + all);
}

}  // namespace

StoreArguments read_store_arguments(const Arguments& arguments, const std::string& default_policy,
                                    const std::string& default_profile) {
  if (arguments.text("arena") && arguments.text("tokens")) {
    throw UsageError("--arena and --tokens exclude each other");
  }
  StoreArguments read;
  read.store.policy = known("policy", arguments.text("policy", default_policy), policy_name);
  if (const auto set = arguments.text("set")) read.store.settings = parse_settings(*set);
  read.store.tokens = static_cast<std::uint32_t>(arguments.integer("tokens", 0, 1, kMaxTokens));
  read.store.arena_bytes = arguments.bytes("arena", 0);
  read.store.reach = static_cast<std::uint32_t>(arguments.integer("reach", 0, 2, kMaxTokens));
  read.store.cold_file = arguments.text("cold", "");
  if (!read.store.cold_file.empty() && read.store.policy != "recall") throw UsageError("--cold is for --policy recall");
  if (const auto port = arguments.text("port")) read.store.port = known("port", *port, port_name);
  read.profile = arguments.text("profile", default_profile);
  if (read.profile == "measured") read.store.basis = KeyBasis::kMeasured;
  if (arguments.text("outliers")) {
    const std::uint64_t count = arguments.integer("outliers", 0, 0, kMaxOutlierChannels);
    if (count % 4 != 0) throw UsageError("--outliers takes 0, 4, 8, 12 or 16, not '" + std::to_string(count) + "'");
    if (count != 0 && read.profile == "none") throw UsageError("--outliers needs a profile");
    read.outliers = static_cast<std::uint16_t>(count);
  }
  const std::uint64_t cores = std::clamp(std::thread::hardware_concurrency(), 1u, 256u);
  read.threads = static_cast<std::size_t>(arguments.integer("threads", cores, 1, 256));
  return read;
}

std::string find_tiny_model(const std::string& folder, const std::string& sources) {
  const fs::path program(folder), name = fs::path(sources).filename();
  std::vector<fs::path> places;
  if (!folder.empty()) places = {program / name, program / NIBKV_DATA_FOLDER / name};
  places.emplace_back(sources);
  for (const fs::path& path : places) {
    std::error_code ignored;
    if (fs::is_regular_file(path, ignored)) return path.lexically_normal().string();
  }
  return "";
}

std::string tiny_model() {
  std::error_code ignored;
  return find_tiny_model(fs::read_symlink("/proc/self/exe", ignored).parent_path().string(), NIBKV_TINY_MODEL);
}

std::string choose_model(const Arguments& arguments) {
  if (const auto given = arguments.text("model")) return *given;
  const char* path = std::getenv("NIBKV_MODEL");
  if (path != nullptr && *path != '\0') return path;
  std::string tiny = tiny_model();
  if (!tiny.empty()) return tiny;
  throw UsageError("--model is missing, and " + fs::path(NIBKV_TINY_MODEL).filename().string() +
                   ", the tiny model, is not beside this program; bench/models/get_model downloads one");
}

}  // namespace nibkv::llm
