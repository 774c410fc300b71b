#include "tests/reference/quantiser.hpp"

#include <algorithm>
#include <cmath>

#include "tests/reference/arena_model.hpp"

namespace nibkv::reference {
namespace {

double nearest_level(double x) {
  double best = kCodebook[0];
  for (const int level : kCodebook) {
    if (std::abs(x - level) < std::abs(x - best)) best = level;
  }
  return best;
}

}  // namespace

double best_relative_error(std::span<const double> row) {
  double energy = 0;
  double most = 0;
  for (const double x : row) {
    energy += x * x;
    most = std::max(most, std::abs(x));
  }
  if (energy == 0) return 0;
  double best = 1;
  // The largest magnitude is taken to be 30 to 130 units: far beyond the range of the optimum for
  // any row that is not nearly constant.
  for (int step = 0; step <= 400; ++step) {
    const double scale = most / (30 + 0.25 * step);
    double product = 0;
    double levels = 0;
    for (const double x : row) {
      const double level = nearest_level(x / scale);
      product += x * level;
      levels += level * level;
    }
    best = std::min(best, 1 - product * product / (levels * energy));
  }
  return best;
}

}  // namespace nibkv::reference
