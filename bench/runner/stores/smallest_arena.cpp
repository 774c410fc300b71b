#include "bench/runner/stores/smallest_arena.hpp"

#include <unistd.h>

#include <algorithm>
#include <limits>
#include <string_view>
#include <vector>

#include "bench/runner/stores/policy_settings.hpp"

namespace nibkv::llm {
namespace {

/// Options with something changed.
struct Change {
  std::string words;
  StoreOptions options;
  std::uint64_t bytes = 0;
};

// The bytes, and what to write for them, rounded up.
std::string arena_text(std::uint64_t bytes) {
  return std::to_string(bytes) + " (--arena " + std::to_string((bytes + 1023) / 1024) + "K)";
}

// Whether a policy can take the place of another one: it drops tokens or not, as asked, reads what is set, and needs no
// profile that knows more than others do.
bool can_replace(const std::string& name, bool drops, const PolicySettings& settings) {
  Policy policy;
  require(find_policy(name, 1, policy), "policy '" + name + "'");
  if ((policy.keep != Keep::kAll) != drops || !read_in_profile(policy.budget).empty() || may_fold(name)) return false;
  return std::all_of(settings.begin(), settings.end(),
                     [&](const auto& setting) { return reads_setting(name, setting.first); });
}

// The policy that takes the smallest arena, of those that drop tokens or of those that do not;
// unchanged where none is smaller.
Change with_other_policy(const Config& model, const StoreOptions& options, bool drops) {
  Change best{"", options, smallest_arena(model, options)};
  for (std::uint32_t i = 0; !policy_name(i).empty(); ++i) {
    const std::string name(policy_name(i));
    if (!can_replace(name, drops, options.settings)) continue;
    Change change{"--policy " + name, options};
    change.options.policy = name;
    change.bytes = smallest_arena(model, change.options);
    if (change.bytes == 0 || (best.bytes != 0 && change.bytes >= best.bytes)) continue;
    best = change;
  }
  return best;
}

// What makes the arena smaller than `now`, the largest first.
std::vector<Change> single_changes(const Config& model, const StoreOptions& options, std::uint64_t now) {
  Change threads{"--threads 1", options};
  threads.options.workers = 1;
  Change outliers{"--outliers 0", options};
  outliers.options.outlier_channels = 0;
  Change settings{"no --set", options};
  settings.options.settings.clear();
  std::vector<Change> changes = {threads, outliers, settings};
  for (Change& change : changes) change.bytes = smallest_arena(model, change.options);
  changes.push_back(with_other_policy(model, options, true));
  changes.push_back(with_other_policy(model, options, false));
  changes.back().words += " (drops no token: stops when full)";
  std::erase_if(changes, [&](const Change& change) { return change.bytes == 0 || change.bytes >= now; });
  std::stable_sort(changes.begin(), changes.end(), [](const Change& a, const Change& b) { return a.bytes > b.bytes; });
  return changes;
}

// The smallest arena of all.
std::uint64_t with_all_changes(const Config& model, StoreOptions options) {
  options.workers = 1;
  options.outlier_channels = 0;
  options.settings.clear();
  return with_other_policy(model, options, false).bytes;
}

}  // namespace

std::uint64_t smallest_arena(const Config& model, const StoreOptions& options) {
  Shape shape = shape_of(model, options);
  shape.max_chunk = 1;
  shape.workers = workers_of(shape, policy_of(options, shape, options.tokens).keep);
  return smallest_footprint(shape, [&](std::uint32_t tokens) { return policy_of(options, shape, tokens); });
}

std::string too_small_text(const Config& model, const StoreOptions& options) {
  const std::uint64_t now = smallest_arena(model, options);
  std::string text = "an arena of " + std::to_string(options.arena_bytes) +
                     (options.arena_bytes == 1 ? " byte" : " bytes") + " is too small; the smallest has " +
                     arena_text(now);
  const std::vector<Change> changes = single_changes(model, options, now);
  for (const Change& change : changes) text += "\n  " + arena_text(change.bytes) + " with " + change.words;
  if (changes.size() > 1) text += "\n  " + arena_text(with_all_changes(model, options)) + " with all of that";
  return text;
}

std::uint64_t physical_memory() {
  const long pages = ::sysconf(_SC_PHYS_PAGES), page = ::sysconf(_SC_PAGESIZE);
  if (pages <= 0 || page <= 0) return std::numeric_limits<std::uint64_t>::max();
  return static_cast<std::uint64_t>(pages) * static_cast<std::uint64_t>(page);
}

std::string too_large_text(const Config& model, const StoreOptions& options, std::uint64_t bytes,
                           std::uint64_t memory) {
  const std::uint64_t megabytes = memory / 2 >> 20;
  StoreOptions half = options;
  half.tokens = 0;
  half.arena_bytes = megabytes << 20;
  return "an arena of " + std::to_string(bytes) + " bytes exceeds this machine's memory of " + std::to_string(memory) +
         "\n  half of it holds --tokens " + std::to_string(plan_cache(model, half).policy.tokens) + " (--arena " +
         std::to_string(megabytes) + "M)";
}

}  // namespace nibkv::llm
