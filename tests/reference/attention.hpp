#pragma once

#include <span>
#include <vector>

#include "tests/reference/arena_model.hpp"

namespace nibkv::reference {

using Rows = std::vector<std::vector<double>>;

/// Weights of softmax(q k / sqrt(head_dim)) over the first `visible` keys.
std::vector<double> softmax_weights(std::span<const double> query, const Rows& keys, std::size_t visible);

/// softmax(q k / sqrt(head_dim)) v over the first `visible` slots, in double precision.
std::vector<double> attention(std::span<const double> query, const Rows& keys, const Rows& values, std::size_t visible);

/// Attention of one query row over slots as they are quantised, and a bound on the error of the
/// fixed-point softmax.
struct FixedPointCase {
  std::vector<double> exact;  ///< in the rotated channels
  double norm_bound = 0;      ///< upper bound of the Euclidean norm of (attend's output - exact)
};

/// @param query_codes  [head_dim] int8 codes of the rotated query; the largest magnitude must be 127
/// @param query_scale  what a code of 1 stands for
/// @param biases       1/16 octaves added to each slot's logit; empty: none
/// @param folded       how many of the first slots lie in tiles of their own
FixedPointCase fixed_point_case(std::span<const int> query_codes, double query_scale, const std::vector<Slot>& slots,
                                std::size_t visible, std::span<const int> biases = {}, std::size_t folded = 0);

/// Softmax weights of one query row over slots as they are quantised, and bounds on the errors
/// of the fixed-point ones.
struct WeighedRow {
  std::vector<double> weights;  ///< [visible], with a sum of 1
  std::vector<double> bounds;   ///< [visible]
};

/// Parameters as in fixed_point_case.
WeighedRow weigh_row(std::span<const int> query_codes, double query_scale, const std::vector<Slot>& slots,
                     std::size_t visible, std::span<const int> biases = {});

double norm(std::span<const double> row);
double distance(std::span<const double> a, std::span<const double> b);
std::vector<double> widen(std::span<const float> row);

}  // namespace nibkv::reference
