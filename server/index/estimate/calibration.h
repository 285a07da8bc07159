// What a head has learnt from queries that were answered exactly as well.
#ifndef ATTIC_SERVER_INDEX_ESTIMATE_CALIBRATION_H_
#define ATTIC_SERVER_INDEX_ESTIMATE_CALIBRATION_H_

#include "base/byte_codec.h"
#include "server/index/estimate/error_model.h"

namespace attic {

struct Calibration {
  ErrorModel errors;
  // Mean share of the mass that queries find in keys which sums hide.
  float hidden_mass = 1;
  // Where masses are estimated with a share of the deviation of keys: so much of it is what the
  // mass of keys that are not found one by one takes.
  float wide_norm = 0;
  // What is not exact holds at most this times its estimated mass, for 95 of 100 queries.
  float rest_factor = 1;
  // Where errors up to this are asked for, an exact scan took less time than a walk.
  float scan_faster_below = 0;
  // Errors smaller than this no walk was seen to keep to.
  float least_error = 0;
  // The largest coverage that walks were seen to keep to in less time than an exact scan.
  float coverage_max = 1;
};

void EncodeCalibration(const Calibration& calibration, ByteWriter& writer);
// False when it makes no sense; `calibration` is undefined then.
bool DecodeCalibration(ByteReader& reader, Calibration& calibration);

}  // namespace attic

#endif  // ATTIC_SERVER_INDEX_ESTIMATE_CALIBRATION_H_
