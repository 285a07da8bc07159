// Vector kernels over two-bit codes (residual_codes.h), compiled for several instruction sets and
// chosen at run time (Highway). All are thread-safe and allocate nothing.
//
// A code of D elements has D / 4 bytes; byte i holds the elements i, i + D/4, i + 2 D/4 and
// i + 3 D/4, two bits each from the lowest, so that a shift and a mask unpack a quarter at once.
#ifndef ATTIC_SERVER_INDEX_CODES_RESIDUAL_KERNELS_H_
#define ATTIC_SERVER_INDEX_CODES_RESIDUAL_KERNELS_H_

#include <cstddef>
#include <cstdint>

namespace attic {

inline constexpr size_t kResidualDimMin = 32;  // D is a power of two, at least this

// Sets element j of a code whose bits are still zero.
inline void PutResidualLevel(uint8_t* code, size_t code_dim, size_t j, uint8_t level) {
  const size_t quarter = code_dim / 4;
  code[j % quarter] |= static_cast<uint8_t>(level << (2 * (j / quarter)));
}

// sums[g * rows + i] = sum_j coefficients[g * code_dim + j] * u_j of row i.
void ScoreResiduals(const uint8_t* codes, size_t rows, size_t code_dim, const int16_t* coefficients,
                    size_t query_count, int32_t* sums);

// out[g * code_dim + j] += sum_i weights[g * rows + i] * u_j of row i. Rows whose weights are zero
// for every query are not read.
void AddResiduals(const uint8_t* codes, size_t rows, size_t code_dim, const float* weights,
                  size_t query_count, float* out);

// Sums over the rows of a cluster, of masses and their squares.
struct RowSums {
  float rest, rest_squares;    // of rows whose flag is zero
  float exact, exact_squares;  // of the others
  float best_rest;             // largest logit of rows whose flag is zero; -infinity: there is none
};
RowSums SumRows(const float* logits, const float* masses, const uint8_t* exact, size_t count);

}  // namespace attic

#endif  // ATTIC_SERVER_INDEX_CODES_RESIDUAL_KERNELS_H_
