#include "bench/runner/stores/policy_notes.hpp"

#include "bench/runner/stores/policy_settings.hpp"

namespace nibkv::llm {
namespace {

bool has_head_scores(const std::vector<std::byte>& bytes, const Shape& shape) {
  ProfileView profile;
  if (profile.open(bytes, shape) != Status::kOk) return false;
  for (std::uint32_t layer = 0; layer < shape.layers; ++layer) {
    for (std::uint32_t head = 0; head < shape.kv_heads; ++head) {
      if (profile.head(layer, head).head_score != 0) return true;
    }
  }
  return false;
}

// Why layers that may fold do not.
std::string reason_not_to_fold(const StoreOptions& options, const CachePlan& plan) {
  if (has_pairs(plan.policy)) return pairs_text(plan.policy.fold) + " would save no bytes";
  if (fold_choice(options.settings).how != FoldChoice::How::kGate) return "there are no two layers from fold_start on";
  const char* const advice = " (--set fold=direct folds all the same)";
  if (options.profile.empty()) return std::string("without a profile no layers are known to be similar") + advice;
  return std::string("no neighbouring layers are similar enough in the profile") + advice;
}

}  // namespace

std::string basis_note(const StoreOptions& options) {
  if (options.basis != KeyBasis::kMeasured || !may_fold(options.policy)) return "";
  return "policy '" + policy_text(options) +
         "' measures nothing of the keys, since its layers may share codes: they are coded as they come (--profile "
         "PATH)";
}

std::vector<std::string> policy_notes(const StoreOptions& options, const CachePlan& plan) {
  std::vector<std::string> notes;
  const Policy& policy = plan.policy;
  const std::string name = "policy '" + policy_text(options) + "' ";
  const bool by_score = policy.budget == Budget::kScores, by_rank = policy.budget == Budget::kRetrieval;
  if ((by_score || by_rank) && !has_head_scores(options.profile, plan.shape)) {
    notes.push_back(name +
                    (by_score ? "gives all heads the same budget" : "takes the first heads for those that retrieve") +
                    ": the profile has no head scores (nibkv-eval head-scores)");
  }
  if (const std::string note = basis_note(options); !note.empty()) notes.push_back(note);
  if (may_fold(options.policy) && layout_of(plan.shape, policy).views == 0) {
    notes.push_back(name + "folds no layers: " + reason_not_to_fold(options, plan));
  }
  return notes;
}

}  // namespace nibkv::llm
