// Vector kernels, compiled for several instruction sets and chosen at run time (Highway). All are
// thread-safe, allocate nothing, and accept unaligned data.
#ifndef ATTIC_ATTENTION_VECTOR_KERNELS_H_
#define ATTIC_ATTENTION_VECTOR_KERNELS_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "attention/element_type.h"

namespace attic {

// sum_i a_i b_i in float32.
float Dot(const float* a, const float* b, size_t dim);

// Squared Euclidean distance in float32.
float SquaredDistance(const float* a, const float* b, size_t dim);

// The same of two rows of `dim` elements of one type.
float SquaredDistance(ElementType type, const std::byte* a, const std::byte* b, size_t dim);

// y += a * x.
void AddScaled(float a, const float* x, size_t dim, float* y);

// Scores of several queries against the same rows, each row read once:
// scores[g * vectors.count + i] = queries[g] . vectors[i]. queries is (query_count, vectors.dim).
void ScoreVectors(const float* queries, size_t query_count, const VectorsView& vectors,
                  float* scores);

// sums[g] += sum_i weights[g * vectors.count + i] * vectors[i]; sums is (query_count, vectors.dim).
// Rows whose weights are zero for every query are not read.
void AddWeightedVectors(const float* weights, size_t query_count, const VectorsView& vectors,
                        float* sums);

// The same with the sums of each query at its own place: sums[g] has vectors.dim elements and
// weights is (sums.size(), vectors.count).
void AddWeightedVectors(const float* weights, const VectorsView& vectors,
                        std::span<float* const> sums);

// The same of rows anywhere: sums[g] += sum_i weights[g * rows.size() + i] * rows[i].
void AddWeightedVectors(const float* weights, size_t query_count, const ScatteredRows& vectors,
                        float* sums);

// x_i = scale * x_i in place, infinities replaced by the largest finite float of that sign and NaN
// by the lowest, so that sums of exponentials stay finite; returns the largest, -infinity when
// empty.
float ScaleLogits(float scale, std::span<float> x);

// x_i = exp(x_i - shift) in place (relative error below 1e-6; results under the smallest normal
// float, and NaN, become 0); returns the sum.
float ExpInPlace(float shift, std::span<float> x);

// Largest element; -infinity when empty.
float MaxElement(std::span<const float> x);

// The instruction set in use, for status output: "AVX3_ZEN4", "AVX2", ...
const char* VectorTargetName();

}  // namespace attic

#endif  // ATTIC_ATTENTION_VECTOR_KERNELS_H_
