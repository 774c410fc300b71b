#include "bench/eval/report/divergence_report.hpp"

#include <cstdio>

namespace nibkv::llm {
namespace {

// A line of the table.
template <typename... Numbers>
std::string line(const char* format, Numbers... numbers) {
  char text[120];
  std::snprintf(text, sizeof text, format, numbers...);
  return std::string(text) + '\n';
}

std::string line(const char* name, const Estimate& estimate) {
  return line("%-30s: %10.6f +/- %10.6f", name, estimate.value, estimate.error);
}

std::string percent_line(const char* name, const Estimate& estimate) {
  return line("%s: %6.3f +/- %5.3f %%", name, 100 * estimate.value, 100 * estimate.error);
}

std::string name_of(double level) {
  if (level == 1) return "Maximum";
  if (level == 0.5) return "Median ";
  if (level == 0) return "Minimum";
  char text[24];
  std::snprintf(text, sizeof text, "%4.1f%%  ", 100 * level);
  return text;
}

}  // namespace

std::string as_table(const DivergenceFigures& figures) {
  std::string table = "====== Perplexity statistics ======\n";
  table += line("Mean PPL(Q)", figures.perplexity);
  table += line("Mean PPL(base)", figures.base_perplexity);
  table += line("Cor(ln(PPL(Q)), ln(PPL(base))): %6.2f%%", 100 * figures.correlation);
  table += line("Mean ln(PPL(Q)/PPL(base))", figures.log_ratio);
  table += line("Mean PPL(Q)/PPL(base)", figures.ratio);
  table += line("Mean PPL(Q)-PPL(base)", figures.difference);

  table += "\n====== KL divergence statistics ======\n";
  table += line("Mean    KLD: %10.6f +/- %10.6f", figures.divergence.value, figures.divergence.error);
  for (std::size_t i = 0; i < kDivergenceLevels.size(); ++i) {
    table += line("%s KLD: %10.6f", name_of(kDivergenceLevels[i]).c_str(), figures.divergences[i]);
  }

  table += "\n====== Token probability statistics ======\n";
  table += percent_line("Mean    Delta p", figures.change);
  for (std::size_t i = 0; i < kChangeLevels.size(); ++i) {
    table += line("%s Delta p: %6.3f%%", name_of(kChangeLevels[i]).c_str(), 100 * figures.changes[i]);
  }
  table += percent_line("RMS Delta p    ", figures.change_rms);
  table += percent_line("Same top p     ", figures.same_top);
  return table;
}

}  // namespace nibkv::llm
