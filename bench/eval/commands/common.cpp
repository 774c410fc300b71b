#include "bench/eval/commands/common.hpp"

#include <cstdio>
#include <iostream>
#include <set>

#include "bench/runner/profile/profile_maker.hpp"
#include "bench/runner/programs/json.hpp"
#include "bench/runner/stores/policy_notes.hpp"
#include "bench/runner/stores/storage_name.hpp"

namespace nibkv::llm {
namespace {

std::string as_json(const Report& report) {
  JsonWriter json;
  json.begin_object();
  for (const auto& member : report) {
    std::visit([&](const auto& value) { json.member(member.first, value); }, member.second);
  }
  json.end_object();
  return json.text();
}

}  // namespace

void say(const std::string& line) {
  std::cerr << kProgram << ": " << line << '\n';
}

std::string required(const Arguments& arguments, const std::string& name) {
  const auto given = arguments.text(name);
  if (!given || given->empty()) throw UsageError("--" + name + " is missing");
  return *given;
}

Subject::Subject(const std::string& model_path, const std::string& text_path, std::size_t threads)
    : pool(threads), file(Gguf::open(model_path)) {
  check_shape(Config::from(file), model_path);
  tokens = Tokenizer::from(file).encode(read_text(text_path), false, false);
  model.emplace(file, pool);
}

MeasuredCache::MeasuredCache(const Arguments& arguments, std::size_t room, const std::string& storage_otherwise)
    : model(choose_model(arguments)),
      json(arguments.text("json", "")),
      cache(read_store_arguments(arguments, "full", "measured")) {
  cache.store.storage = parse_storage(arguments.text("storage", storage_otherwise));
  if (cache.store.storage == Storage::kF32) {
    if (arguments.text("profile", "none") != "none") throw UsageError("--storage f32 takes no --profile");
    take_no_basis();
  }
  if (cache.store.tokens == 0 && cache.store.arena_bytes == 0) {
    Policy policy;
    require(find_policy(cache.store.policy, 1, policy), "policy '" + cache.store.policy + "'");
    if (policy.keep != Keep::kAll) throw UsageError("policy '" + cache.store.policy + "' needs --tokens or --arena");
    cache.store.tokens = static_cast<std::uint32_t>(room);
  }
}

void MeasuredCache::take_no_basis() {
  if (cache.outliers.value_or(0) != 0) throw UsageError("--outliers needs a profile");
  cache.profile = "none";
  cache.store.basis = KeyBasis::kProfile;
}

StoreOptions MeasuredCache::store(const Config& config) const {
  StoreOptions store = cache.store;
  store.workers = cache.threads;
  if (cache.profile != "none" && cache.profile != "measured") store.profile = read_profile(cache.profile, config);
  store.outlier_channels = cache.outliers.value_or(default_outliers(store));
  store.warn = say_once;
  return store;
}

std::string as_lines(const Report& report) {
  std::string lines;
  for (const auto& [name, value] : report) {
    lines += name + ' ';
    if (const auto* number = std::get_if<double>(&value)) {
      char digits[40];
      std::snprintf(digits, sizeof digits, "%.7g", *number);
      lines += digits;
    } else if (const auto* count = std::get_if<std::uint64_t>(&value)) {
      lines += std::to_string(*count);
    } else {
      lines += std::get<std::string>(value);
    }
    lines += '\n';
  }
  return lines;
}

void publish(const Report& report, const std::string& json, const std::optional<std::string>& lines) {
  // The file first, because the reader of the lines may go away.
  if (!json.empty() && json != "-") write_file(json, as_json(report));
  print(json == "-" ? as_json(report) : lines.value_or(as_lines(report)));
}

void say_once(const std::string& note) {
  static std::set<std::string> said;
  if (!note.empty() && said.insert(note).second) say("note: " + note);
}

void say_notes(const Config& model, const StoreOptions& options) {
  for (const std::string& note : policy_notes(options, plan_cache(model, options))) say_once(note);
}

std::size_t context_of(const Arguments& arguments, std::size_t otherwise) {
  return static_cast<std::size_t>(arguments.integer("context", otherwise, 2, kMaxTokens));
}

}  // namespace nibkv::llm
