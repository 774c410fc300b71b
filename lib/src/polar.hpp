#pragma once

#include <cstddef>
#include <cstdint>

namespace nibkv {

/// Doubles of working memory that polar_factor needs for a matrix of `dim` rows and columns.
constexpr std::size_t polar_room(std::size_t dim) {
  return 2 * dim * dim;
}

/// Replaces a matrix by the orthogonal one nearest to it, which of all orthogonal ones has the largest sum of products
/// of its elements with the matrix's (Procrustes). Where the matrix is singular that one is not unique: the free
/// directions are then mapped to free axes, lowest first, and a matrix of zeros becomes the unit matrix.
///
/// @param matrix  finite, magnitudes 0 or within [1e-100, 1e100], [dim][dim]
/// @param room    polar_room(dim); nothing is kept in it
/// @returns the sum of products: that of the singular values
/// Cost: O(dim^3), about ten sweeps of dim^2 / 2 plane rotations.
double polar_factor(double* matrix, double* room, std::uint32_t dim);

}  // namespace nibkv
