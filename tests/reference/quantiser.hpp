#pragma once

#include <span>

namespace nibkv::reference {

/// The smallest squared error that the 16 levels can reach for a row with one scale, relative
/// to the row's squared norm: an exhaustive search over scales, each followed by nearest levels and
/// the least-squares scale for them, in double precision.
double best_relative_error(std::span<const double> row);

}  // namespace nibkv::reference
