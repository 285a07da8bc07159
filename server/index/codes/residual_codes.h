// Two-bit codes of keys: what a key adds to the centroid of its cluster, coarsely.
//
// A residual e = k - c is rotated (sign_codes.h), x = R e, and every element rounded to one of four
// levels: x_j ~ f (u_j - 3/2), u_j in {0, 1, 2, 3}, with the factor f of the row that makes the
// squared error smallest. Elements of x are nearly normal whatever the keys, so a fixed fraction of
// |e|^2 is lost (kResidualLost, of a uniform quantizer with four levels, Max 1960), and
//   E exp(q.k) = exp(q.c + q.x' + kResidualVariance f^2 |q|^2 / 2),   x' the decoded residual,
// were what is lost normal and without direction.
#ifndef ATTIC_SERVER_INDEX_CODES_RESIDUAL_CODES_H_
#define ATTIC_SERVER_INDEX_CODES_RESIDUAL_CODES_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "server/index/codes/residual_kernels.h"
#include "server/index/codes/sign_codes.h"

namespace attic {

inline constexpr size_t kResidualLevels = 4;
inline constexpr float kResidualMiddle = 1.5f;       // of the levels
inline constexpr float kResidualFactorMax = 255.0f;  // in units; the largest of every group has it
// Share of |e|^2 lost, and the same per element in units of f^2: the mean square of u - 3/2 is
// 0.884 where levels are 0.996 standard deviations apart.
inline constexpr float kResidualLost = 0.119f;
inline constexpr float kResidualVariance = 0.1192f;

// Codes of rows in groups (clusters), a row after the other.
struct ResidualCodes {
  size_t row_bytes = 0;            // ResidualRowBytes()
  std::vector<uint8_t> codes;      // (rows, row_bytes), layout in residual_kernels.h
  std::vector<uint8_t> factor;     // (rows): f in units of factor_unit of the row's group
  std::vector<float> factor_unit;  // (groups)

  const uint8_t* row(size_t r) const { return codes.data() + r * row_bytes; }
  // The rows [begin, begin + count) of `group`.
  CodedRows rows(size_t group, size_t begin, size_t count) const {
    return {row(begin), factor.data() + begin, factor_unit[group], count, 4 * row_bytes};
  }
  uint64_t memory_bytes() const {
    return codes.size() + factor.size() + factor_unit.size() * sizeof(float);
  }
};

// Codes of residuals (n, rotation.dim()) to the reference of their groups; group i is the rows from
// group_begin[i] to group_begin[i + 1].
ResidualCodes MakeResidualCodes(const SignRotation& rotation, std::span<const float> residuals,
                                std::span<const uint32_t> group_begin);

// A rotated query as 16-bit integers: q.x' = f (step sum_j coefficients_j u_j + offset).
struct ResidualQuery {
  float step = 0;
  float offset = 0;
  float variance = 0;  // kResidualVariance |q|^2: of a logit, for f = 1
};

// Fills `coefficients` (ResidualCodeDim(rotation)). `rotated` is scratch of rotation.code_dim().
ResidualQuery MakeResidualQuery(const SignRotation& rotation, const float* query, float* rotated,
                                int16_t* coefficients);

// Elements of a code, rotation.code_dim() or more: those beyond are not part of the residual.
size_t ResidualCodeDim(const SignRotation& rotation);
// Of a row: four elements to a byte.
inline size_t ResidualRowBytes(const SignRotation& rotation) {
  return ResidualCodeDim(rotation) / 4;
}

}  // namespace attic

#endif  // ATTIC_SERVER_INDEX_CODES_RESIDUAL_CODES_H_
