// The arrays of a segment in the order in which its file holds them: one list for whoever measures,
// writes or reads them.
#ifndef ATTIC_SERVER_STORAGE_SEGMENT_ARRAYS_H_
#define ATTIC_SERVER_STORAGE_SEGMENT_ARRAYS_H_

#include <cstddef>

#include "attention/element_type.h"
#include "server/index/codes/code_kernels.h"
#include "server/index/codes/residual_codes.h"
#include "server/index/codes/sign_codes.h"
#include "server/index/segment/segment.h"
#include "server/storage/segment_format.h"

namespace attic {

template <typename Sums, typename Visit>
void ForEachArrayOfSums(Sums& sums, size_t count, const SegmentShape& shape, SectionKind kind,
                        const Visit& visit) {
  constexpr size_t kBytes = ElementBytes(ElementType::kBFloat16);
  visit(kind, sums.row_begin, count + 1);
  visit(kind, sums.centroids, count * shape.head_dim * kBytes);
  visit(kind, sums.mean_values, count * shape.value_dim * kBytes);
  visit(kind, sums.log_count, count);
  visit(kind, sums.deviation, count);
  visit(kind, sums.deviation_limit, count);
  visit(kind, sums.radius, count);
}

// Calls visit(kind, array, elements) for every array that lies in a section, where `elements` is
// the size it has in a segment of this shape. S is Segment or const Segment.
template <typename S, typename Visit>
void ForEachArray(S& segment, const SegmentShape& shape, const Visit& visit) {
  const SignRotation rotation(shape.head_dim);
  const size_t code_bytes = rotation.code_dim() / 8;
  visit(SectionKind::kRowPositions, segment.row_position, shape.tokens);
  ForEachArrayOfSums(segment.clusters, shape.clusters, shape, SectionKind::kClusters, visit);
  ForEachArrayOfSums(segment.super_clusters, shape.super_clusters, shape,
                     SectionKind::kSuperClusters, visit);
  visit(SectionKind::kSuperClusterBegin, segment.super_cluster_begin, shape.super_clusters + 1);
  visit(SectionKind::kSignCodes, segment.codes.group_block, shape.super_clusters + 1);
  visit(SectionKind::kSignCodes, segment.codes.blocks,
        shape.sign_blocks * (code_bytes + 1) * kCodeBlockRows);
  visit(SectionKind::kSignCodes, segment.codes.row, shape.sign_blocks * kCodeBlockRows);
  visit(SectionKind::kSignCodes, segment.codes.radius, shape.sign_blocks);
  visit(SectionKind::kSignCodes, segment.codes.factor, shape.sign_blocks);
  visit(SectionKind::kResidualCodes, segment.residuals.codes,
        shape.tokens * ResidualRowBytes(rotation));
  visit(SectionKind::kResidualCodes, segment.residuals.factor, shape.tokens);
  visit(SectionKind::kResidualCodes, segment.residuals.factor_unit, shape.clusters);
}

// The numbers of kFacts, in order.
template <typename S, typename Visit>
void ForEachFact(S& segment, const Visit& visit) {
  visit(segment.value_scatter);
  visit(segment.clusters.scatter);
  visit(segment.clusters.value_scatter);
  visit(segment.super_clusters.scatter);
  visit(segment.super_clusters.value_scatter);
}
inline constexpr size_t kFactCount = 5;

}  // namespace attic

#endif  // ATTIC_SERVER_STORAGE_SEGMENT_ARRAYS_H_
