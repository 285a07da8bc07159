// Inner products of one query with rows scattered over memory: the inner loop of graph search, and
// of scoring the keys that a walk singles out. Thread-safe; compiled for several instruction sets
// and chosen at run time (Highway).
#ifndef ATTIC_ATTENTION_GATHER_SCORES_H_
#define ATTIC_ATTENTION_GATHER_SCORES_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "attention/element_type.h"

namespace attic {

// Floats that PackQuery writes for a query of `dim` elements.
size_t PackedQueryFloats(size_t dim);

// Reorders `query` (dim float32) as the loader of `type` orders its lanes and pads it with zeros,
// once per search, so that scoring a row does not have to. `packed` holds PackedQueryFloats(dim).
void PackQuery(const float* query, size_t dim, ElementType type, float* packed);

// scores[i] = query . vectors[rows[i]], with `packed` from PackQuery for vectors.type. Every row is
// below vectors.count. Rows ahead are prefetched.
void GatherScores(const float* packed, const VectorsView& vectors, std::span<const uint32_t> rows,
                  float* scores);

// The same for rows anywhere, of the element type and dimension that `packed` was made for.
void GatherScores(const float* packed, const ScatteredRows& rows, float* scores);

}  // namespace attic

#endif  // ATTIC_ATTENTION_GATHER_SCORES_H_
