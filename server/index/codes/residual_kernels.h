// Vector kernels over two-bit codes (residual_codes.h), compiled for several instruction sets and
// chosen at run time (Highway). All are thread-safe and allocate nothing.
//
// A code of D elements has D / 4 bytes; byte i holds the elements i, i + D/4, i + 2 D/4 and
// i + 3 D/4, two bits each from the lowest, so that a shift and a mask unpack a quarter at once.
#ifndef ATTIC_SERVER_INDEX_CODES_RESIDUAL_KERNELS_H_
#define ATTIC_SERVER_INDEX_CODES_RESIDUAL_KERNELS_H_

#include <cstddef>
#include <cstdint>
#include <span>

namespace attic {

inline constexpr size_t kResidualDimMin = 32;  // D is a power of two, at least this

// Sets element j of a code whose bits are still zero.
inline void PutResidualLevel(uint8_t* code, size_t code_dim, size_t j, uint8_t level) {
  const size_t quarter = code_dim / 4;
  code[j % quarter] |= static_cast<uint8_t>(level << (2 * (j / quarter)));
}

// Rows of one group of ResidualCodes, as they are stored. f = factor_unit * factors[i] of row i.
struct CodedRows {
  const uint8_t* codes;
  const uint8_t* factors;
  float factor_unit;
  size_t count;
  size_t code_dim;
};

// A query as it meets the rows of a group: step, offset and variance as in ResidualQuery.
struct ResidualScoring {
  const int16_t* coefficients;  // (code_dim)
  float step;
  float offset;
  float half_variance;
  float base;  // q.c, c the reference of the group
};

// logits[g * rows.count + i] = base + f (step sum_j coefficients_j u_j + offset + half_variance f)
// of query g, which is log E exp(q.k) of row i. best[g] becomes the largest, -infinity when there
// are no rows.
void ScoreResiduals(const CodedRows& rows, std::span<const ResidualScoring> queries, float* logits,
                    std::span<float> best);

// sum_i f^2.
float SumFactorSquares(const CodedRows& rows);

// out[j] += sum_i (masses[i] - less) f u_j over the rows whose flag is zero, out (code_dim);
// returns sum_i (masses[i] - less) f of them.
float AddResiduals(const CodedRows& rows, const float* masses, const uint8_t* exact, float less,
                   float* out);

}  // namespace attic

#endif  // ATTIC_SERVER_INDEX_CODES_RESIDUAL_KERNELS_H_
