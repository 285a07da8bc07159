// Learns a head's calibration from queries that are answered exactly as well.
#ifndef ATTIC_SERVER_INDEX_SEARCH_CALIBRATE_H_
#define ATTIC_SERVER_INDEX_SEARCH_CALIBRATE_H_

#include <span>

#include "absl/status/statusor.h"
#include "server/index/estimate/calibration.h"
#include "server/index/indexed_part.h"

namespace attic {

// Answers some of `queries` (n, head_dim), without the logit scale, over the segments of `part` but
// the last:
// exactly, by super-clusters alone, by clusters alone, by codes alone, and as far as errors of some
// sizes ask for. Takes as long as several exact scans. Errors of VectorSource, when vectors cannot
// be read.
absl::StatusOr<Calibration> Calibrate(const IndexedPart& part, std::span<const float> queries);

}  // namespace attic

#endif  // ATTIC_SERVER_INDEX_SEARCH_CALIBRATE_H_
