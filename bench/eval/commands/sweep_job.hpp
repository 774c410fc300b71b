#pragma once

#include <set>
#include <string>
#include <vector>

#include "bench/eval/commands/common.hpp"
#include "bench/eval/report/sweep_report.hpp"

namespace nibkv::llm {

/// Measures a list of caches on one text, and stores the rows: for sweep and ablate.
class SweepJob {
 public:
  /// The options of all such commands.
  static const std::set<std::string>& option_names();

  /// @throws UsageError or Error for wrong options
  /// @param budgets  used if the options have none
  SweepJob(const Arguments& arguments, const std::string& budgets);

  /// What is measured, in this order. Duplicates are measured once.
  void set_cases(const std::vector<SweepCase>& cases);
  /// --budgets
  const std::vector<std::string>& budgets() const { return budgets_; }

  /// Whether the library can rotate keys by the model's rotary embedding.
  /// @throws Error for a bad file
  bool turns_keys() const;

  void operator()();

 private:
  void go_on();
  void say_notes_of(const SweepCase& what, const Config& model) const;
  void keep(const std::vector<SweepRow>& rows, double reference_cross_entropy);

  SweepOptions options_;
  Measured measured_;
  std::string svg_;
  bool resume_ = false;
  std::vector<std::string> budgets_;
  std::vector<SweepCase> cases_;
  SweepReport report_;
};

}  // namespace nibkv::llm
