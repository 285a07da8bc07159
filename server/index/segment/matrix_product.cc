#include "server/index/segment/matrix_product.h"

#include <cblas.h>

namespace attic {
namespace {

// Parallelism is across heads, so each product stays on its caller's thread.
void UseOneThread() {
  static const bool done = [] {
    openblas_set_num_threads(1);
    return true;
  }();
  static_cast<void>(done);
}

}  // namespace

void MultiplyTransposed(const float* a, const float* b, size_t rows, size_t columns, size_t inner,
                        float* out) {
  UseOneThread();
  const auto m = static_cast<int>(rows), n = static_cast<int>(columns), k = static_cast<int>(inner);
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, m, n, k, 1.0f, a, k, b, k, 0.0f, out, n);
}

void MultiplyOuter(const float* a, const float* b, size_t rows, size_t columns, size_t inner,
                   float* out) {
  UseOneThread();
  const auto m = static_cast<int>(rows), n = static_cast<int>(columns), k = static_cast<int>(inner);
  cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, m, n, k, 1.0f, a, m, b, n, 0.0f, out, n);
}

}  // namespace attic
