#include <string>
#include <vector>

#include "bench/eval/commands/commands.hpp"
#include "bench/eval/commands/sweep_job.hpp"
#include "bench/runner/stores/policy_settings.hpp"

// nibkv-eval ablate

namespace nibkv::llm {
namespace {

constexpr const char* kHelp =
    R"(nibkv-eval ablate --text PATH [options]
  What each part of the policy ems is worth: the policy as it is, and with one setting changed at a
  time. Settings that turn keys by their positions (rephase, position_free) are left out for a model
  whose frequencies are divided.

  --budgets LIST       of a head: tokens such as 410, shares of the context such as 10%, or bytes of
                       arena such as 1M (default 5%,10%)
  --json PATH          write the rows as JSON, anew whenever there are more; - prints JSON instead
                       of a table
)";

// The values to try in addition to the default, which is skipped if a list has it.
constexpr const char* kTried[] = {
    "mass=none",
    "mass=share",
    "mass=count",
    "merge=none",
    "merge=values",
    "merge=both",
    "per_query=1",
    "per_query=0",
    "combine=sum",
    "combine=max",
    "group=mean",
    "group=max",
    "window=8",
    "window=32",
    "window=128",
    "recent=12%",
    "recent=25%",
    "recent=50%",
    "recent=75%",
    "pool=1",
    "pool=7",
    "similarity=key",
    "similarity=value",
    "similarity=key_value",
    "threshold=0",
    "threshold=64",
    "threshold=128",
    "threshold=mean",
    "candidate_mass=0",
    "candidate_mass=230",
    "candidate_mass=205",
    "rephase=1",
    "position_free=1",
    "merge=values,position_free=1",
    "rephase=1,position_free=1",
    "position_free=1,threshold=mean",
};

// Whether to measure the setting on this model.
bool changes_something(const PolicySettings& settings, bool turns_keys) {
  constexpr std::uint32_t kTokens = 1000;  // any budget
  const Policy usual = ems(kTokens);
  Policy policy = usual;
  apply_settings(settings, policy);
  return policy != usual && (turns_keys || !(policy.rephase || policy.position_free));
}

Job prepare(const Arguments& arguments) {
  SweepJob job(arguments, "5%,10%");
  const bool turns_keys = job.turns_keys();
  std::vector<SweepCase> cases;
  for (const std::string& budget : job.budgets()) {
    cases.push_back({"ems", budget, {}, "default"});
    for (const char* tried : kTried) {
      const PolicySettings settings = parse_settings(tried);
      if (changes_something(settings, turns_keys)) cases.push_back({"ems", budget, settings, tried});
    }
  }
  job.set_cases(cases);
  return job;
}

}  // namespace

Command ablate_command() {
  return {"ablate", "what each part of the policy ems is worth", kHelp, SweepJob::option_names(), {"resume"}, prepare};
}

}  // namespace nibkv::llm
