// Reads all records of a data directory, going on behind what is damaged.
#ifndef ATTIC_SERVER_STORAGE_RECORDS_CHECK_H_
#define ATTIC_SERVER_STORAGE_RECORDS_CHECK_H_

#include <compare>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "rocksdb/file_system.h"
#include "server/storage/check_report.h"
#include "server/storage/durable_store.h"
#include "server/storage/record_codec.h"

namespace attic {

struct LayerName {
  uint64_t session_key = 0;
  uint32_t layer = 0;
  auto operator<=>(const LayerName&) const = default;
};

struct CheckedRows {
  RowsHeader header;
  std::string damage;  // of the data: why they cannot be read; empty when they can
  std::string file;    // where that is
};

struct CheckedRecords {
  std::map<uint64_t, SessionRecord> sessions;  // by key
  std::map<HeadName, std::vector<SegmentEntry>> segments;
  std::map<LayerName, std::vector<CheckedRows>> rows;
  bool opened = true;
  bool complete = true;  // every record could be read
};

// Reports what is damaged in the records themselves; what that means for rows' data and segments
// is for the caller to say.
CheckedRecords CheckRecords(const std::shared_ptr<rocksdb::FileSystem>& file_system,
                            const std::string& directory, CheckReport& report);

}  // namespace attic

#endif  // ATTIC_SERVER_STORAGE_RECORDS_CHECK_H_
