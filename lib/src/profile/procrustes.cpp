#include "profile/procrustes.hpp"

#include "numbers/numbers.hpp"

// One-sided Jacobi: plane rotations from the left, R, until the rows of R * matrix are orthogonal.
// The rows are then singular values times the right singular vectors U, and the polar factor is
// R' * U. Unlike Newton's iteration, this handles singular matrices, and small singular values as
// accurately as large ones.

namespace nibkv {
namespace {

constexpr int kMostSweeps = 40;         // ten are enough; the limit is there in case rounding prevents convergence
constexpr double kOrthogonal2 = 1e-28;  // squared cosine of two rows that counts as zero
constexpr double kSingular2 = 1e-24;    // share of the total energy below which a row is noise

double dot(const double* a, const double* b, std::uint32_t dim) {
  double sum = 0;
  for (std::uint32_t c = 0; c < dim; ++c) sum += a[c] * b[c];
  return sum;
}

void turn(double* a, double* b, double cosine, double sine, std::uint32_t dim) {
  for (std::uint32_t c = 0; c < dim; ++c) {
    const double x = a[c], y = b[c];
    a[c] = cosine * x - sine * y;
    b[c] = sine * x + cosine * y;
  }
}

/// Makes two rows orthogonal. Returns false when they already were, or one of them is noise.
bool part(double* rows, double* rotation, std::size_t p, std::size_t q, double noise, std::uint32_t dim) {
  double* a = rows + p * dim;
  double* b = rows + q * dim;
  const double aa = dot(a, a, dim), bb = dot(b, b, dim), ab = dot(a, b, dim);
  if (aa <= noise || bb <= noise || ab * ab <= kOrthogonal2 * aa * bb) return false;
  const double half = (bb - aa) / (2 * ab);
  const double size = half < 0 ? -half : half;
  const double tangent = (half < 0 ? -1 : 1) / (size + square_root(1 + half * half));
  const double cosine = 1 / square_root(1 + tangent * tangent);
  turn(a, b, cosine, cosine * tangent, dim);
  turn(rotation + p * dim, rotation + q * dim, cosine, cosine * tangent, dim);
  return true;
}

void unit(double* row, double energy, std::uint32_t dim) {
  const double inverse = 1 / square_root(energy);
  for (std::uint32_t c = 0; c < dim; ++c) row[c] *= inverse;
}

/// Sets row `free` to a unit vector that is orthogonal to all nonzero rows, starting from the axis
/// that has most left outside their span.
void complete(double* rows, std::size_t free, std::uint32_t dim) {
  std::uint32_t axis = 0;
  double most = -1;
  for (std::uint32_t c = 0; c < dim; ++c) {
    double left = 1;
    for (std::uint32_t k = 0; k < dim; ++k) left -= rows[k * std::size_t{dim} + c] * rows[k * std::size_t{dim} + c];
    // Among equal axes, take the lowest, independent of rounding.
    if (left > most + 1e-9) {
      most = left;
      axis = c;
    }
  }
  double* row = rows + free * dim;
  row[axis] = 1;
  for (int twice = 0; twice < 2; ++twice) {  // a single pass leaves rounding errors as large as what was subtracted
    for (std::uint32_t k = 0; k < dim; ++k) {
      if (k == free) continue;
      const double* other = rows + k * std::size_t{dim};
      const double along = dot(row, other, dim);
      for (std::uint32_t c = 0; c < dim; ++c) row[c] -= along * other[c];
    }
    unit(row, dot(row, row, dim), dim);
  }
}

}  // namespace

double polar_factor(double* matrix, double* room, std::uint32_t dim) {
  const std::size_t size = std::size_t{dim} * dim;
  double* rotation = room;
  double* product = room + size;
  for (std::size_t i = 0; i < size; ++i) rotation[i] = i % (dim + 1) == 0 ? 1 : 0;
  double noise = 0;
  for (std::size_t i = 0; i < size; ++i) noise += kSingular2 * (matrix[i] * matrix[i]);
  bool going = true;
  for (int sweep = 0; sweep < kMostSweeps && going; ++sweep) {
    going = false;
    for (std::size_t p = 0; p + 1 < dim; ++p) {
      for (std::size_t q = p + 1; q < dim; ++q) going = part(matrix, rotation, p, q, noise, dim) || going;
    }
  }

  double sum = 0;
  for (std::size_t k = 0; k < dim; ++k) {
    double* row = matrix + k * dim;
    const double energy = dot(row, row, dim);
    const bool is_noise = energy <= noise;
    if (!is_noise) sum += square_root(energy);
    if (!is_noise) unit(row, energy, dim);
    for (std::uint32_t c = 0; is_noise && c < dim; ++c) row[c] = 0;
  }
  for (std::size_t k = 0; k < dim; ++k) {
    if (dot(matrix + k * dim, matrix + k * dim, dim) == 0) complete(matrix, k, dim);
  }
  for (std::size_t i = 0; i < size; ++i) product[i] = 0;
  for (std::size_t k = 0; k < dim; ++k) {
    for (std::size_t i = 0; i < dim; ++i) {
      const double weight = rotation[k * dim + i];
      for (std::size_t j = 0; j < dim; ++j) product[i * dim + j] += weight * matrix[k * dim + j];
    }
  }
  for (std::size_t i = 0; i < size; ++i) matrix[i] = product[i];
  return sum;
}

}  // namespace nibkv
