// Whether the segments and rows of a layer join, and how far they are whole.
#ifndef ATTIC_SERVER_STORAGE_LAYER_CHECK_H_
#define ATTIC_SERVER_STORAGE_LAYER_CHECK_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "server/storage/check_report.h"
#include "server/storage/records_check.h"
#include "server/storage/segment_file.h"

namespace attic {

// Files of segments that records refer to, by number.
struct ExaminedFile {
  std::string name;  // below the directory
  SegmentExamination examination;
};
using ExaminedFiles = std::map<uint64_t, ExaminedFile>;

// Follows what a store does that reads the layer when it starts, and reports what stops it.
CheckedLayer CheckLayer(const SessionRecord& session, uint32_t layer, const CheckedRecords& records,
                        const ExaminedFiles& files, CheckReport& report);

}  // namespace attic

#endif  // ATTIC_SERVER_STORAGE_LAYER_CHECK_H_
