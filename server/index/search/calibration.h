// Learns a head's error model from queries that are answered exactly as well.
#ifndef ATTIC_SERVER_INDEX_SEARCH_CALIBRATION_H_
#define ATTIC_SERVER_INDEX_SEARCH_CALIBRATION_H_

#include <span>

#include "server/index/estimate/error_model.h"
#include "server/index/indexed_part.h"

namespace attic {

struct Calibration {
  ErrorModel errors;
  float hidden_mass = 1;  // see IndexedPart
};

// Answers some of `queries` (n, head_dim), without the logit scale, over all segments of `part`:
// exactly, by super-clusters alone, by clusters alone, by codes alone, and as far as errors of some
// sizes ask for. Takes as long as several exact scans.
Calibration Calibrate(const IndexedPart& part, std::span<const float> queries);

}  // namespace attic

#endif  // ATTIC_SERVER_INDEX_SEARCH_CALIBRATION_H_
