// The two matrix products the index needs, by BLAS on the calling thread. Row-major float32.
#ifndef ATTIC_SERVER_INDEX_SEGMENT_MATRIX_PRODUCT_H_
#define ATTIC_SERVER_INDEX_SEGMENT_MATRIX_PRODUCT_H_

#include <cstddef>

namespace attic {

// out (rows, columns) = a (rows, inner) times b (columns, inner) transposed.
void MultiplyTransposed(const float* a, const float* b, size_t rows, size_t columns, size_t inner,
                        float* out);

// out (rows, columns) = a (inner, rows) transposed times b (inner, columns).
void MultiplyOuter(const float* a, const float* b, size_t rows, size_t columns, size_t inner,
                   float* out);

}  // namespace attic

#endif  // ATTIC_SERVER_INDEX_SEGMENT_MATRIX_PRODUCT_H_
