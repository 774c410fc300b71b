#pragma once

#include <string>
#include <vector>

#include "bench/runner/stores/tile_store.hpp"

namespace nibkv::llm {

/// What is to be said of a basis that is asked for and cannot be measured under the policy; empty if it can.
std::string basis_note(const StoreOptions& options);

/// What the policy would do and cannot with these options, a line each: head_kv without head scores in the profile gives
/// all heads the same budget, and minicache or ems_fold may find no layers to fold. basis_note is among them.
std::vector<std::string> policy_notes(const StoreOptions& options, const CachePlan& plan);

}  // namespace nibkv::llm
