// Vector kernels of k-means, compiled for several instruction sets and chosen at run time
// (Highway). All are thread-safe and allocate nothing.
#ifndef ATTIC_SERVER_INDEX_SEGMENT_KMEANS_KERNELS_H_
#define ATTIC_SERVER_INDEX_SEGMENT_KMEANS_KERNELS_H_

#include <cstddef>
#include <cstdint>

namespace attic {

// Index of the largest a[i] + b[i], and that value in `best`. count >= 1.
size_t ArgMaxSum(const float* a, const float* b, size_t count, float& best);

}  // namespace attic

#endif  // ATTIC_SERVER_INDEX_SEGMENT_KMEANS_KERNELS_H_
