#pragma once

#include <cstddef>
#include <cstdint>

namespace nibkv {

/// The doubles of workspace that polar_factor needs for a matrix of `dim` rows and columns.
constexpr std::size_t polar_workspace(std::size_t dim) {
  return 2 * dim * dim;
}

/// Replaces a matrix with the nearest orthogonal one, which among all orthogonal matrices has the
/// largest sum of products of its elements with the matrix's (Procrustes). For a singular matrix
/// it is not unique: the free directions are then mapped to free axes, lowest first, and a matrix
/// of zeros becomes the identity.
///
/// @param matrix  finite, magnitudes 0 or within [1e-100, 1e100], [dim][dim]
/// @param room    workspace of polar_workspace(dim) doubles; its content is not used later
/// @returns the sum of products, which is the sum of the singular values
/// Cost: O(dim^3), about ten sweeps of dim^2 / 2 plane rotations.
double polar_factor(double* matrix, double* room, std::uint32_t dim);

}  // namespace nibkv
