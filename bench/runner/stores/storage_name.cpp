#include "bench/runner/stores/storage_name.hpp"

#include "bench/runner/programs/arguments.hpp"

namespace nibkv::llm {
namespace {

struct Named {
  Storage storage;
  std::string_view name;
};
constexpr Named kNames[] = {{Storage::kQ4, "q4"},     {Storage::kQ8, "q8"}, {Storage::kQ8Q4, "q8q4"},
                            {Storage::kQ4Q2, "q4q2"}, {Storage::kQ2, "q2"}, {Storage::kF32, "f32"}};

}  // namespace

std::string_view storage_name(Storage storage) {
  for (const Named& named : kNames) {
    if (named.storage == storage) return named.name;
  }
  return "unknown";
}

Storage parse_storage(const std::string& name) {
  for (const Named& named : kNames) {
    if (named.name == name) return named.storage;
  }
  throw UsageError("--storage takes q4, q8, q8q4, q4q2, q2 or f32, not '" + name + "'");
}

}  // namespace nibkv::llm
