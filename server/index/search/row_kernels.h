// Vector kernels over the rows of a cluster as a walk knows them: logits, masses and flags.
// Compiled for several instruction sets and chosen at run time (Highway); thread-safe, allocate
// nothing.
#ifndef ATTIC_SERVER_INDEX_SEARCH_ROW_KERNELS_H_
#define ATTIC_SERVER_INDEX_SEARCH_ROW_KERNELS_H_

#include <cstddef>
#include <cstdint>

namespace attic {

// Sums over the rows of a cluster, of masses and their squares.
struct RowSums {
  float rest, rest_squares;    // of rows whose flag is zero
  float exact, exact_squares;  // of the others
  float best_rest;             // largest logit of rows whose flag is zero; -infinity: there is none
  float best_mass;             // likewise, the largest mass; zero: there is none
};
RowSums SumRows(const float* logits, const float* masses, const uint8_t* exact, size_t count);

// masses[i] = exp(logits[i] - reference), and their sums.
RowSums WeighRows(float reference, const float* logits, const uint8_t* exact, size_t count,
                  float* masses);

// Lists the rows whose flag is zero and whose value is at least `floor`; `found` has room for
// count + 1. Returns how many there are.
size_t FindRows(const float* values, const uint8_t* exact, size_t count, float floor,
                uint32_t* found);

}  // namespace attic

#endif  // ATTIC_SERVER_INDEX_SEARCH_ROW_KERNELS_H_
