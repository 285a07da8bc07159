// Examines a data directory that no process uses: what is whole, what is damaged, and what to do.
#ifndef ATTIC_SERVER_STORAGE_DIRECTORY_CHECK_H_
#define ATTIC_SERVER_STORAGE_DIRECTORY_CHECK_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "api/types.h"

namespace rocksdb {
class FileSystem;
}

namespace attic {

// One thing that is not as it should be.
struct CheckFinding {
  bool damage = true;  // false: worth knowing, but nothing is lost
  std::string file;    // below the directory; a folder where the file is not known
  std::string what;    // with the section, cluster or record where there is one
  // What it concerns, where that is known.
  std::string session_id;
  std::optional<uint32_t> layer;
  std::optional<uint32_t> kv_head;
  std::optional<PositionRange> positions;
  std::string advice;  // empty where that of the session says it all
};

struct CheckedLayer {
  uint32_t layer = 0;
  bool damaged = false;
  size_t segments = 0;     // of all kv heads
  int64_t held_end = 0;    // records speak of positions below it
  int64_t served_end = 0;  // a store that starts serves positions below it
  int64_t whole_end = 0;   // nothing that it serves them from is damaged below this
};

struct CheckedSession {
  std::string session_id;
  uint64_t key = 0;
  bool whole = true;
  std::vector<CheckedLayer> layers;  // in order of layer
  std::string advice;                // empty when it is whole
};

struct DirectoryCheck {
  static constexpr size_t kFindingsMax = 10000;

  std::vector<CheckFinding> findings;  // the first ones
  size_t findings_left_out = 0;
  size_t damages = 0;
  std::vector<CheckedSession> sessions;  // in order of their keys
  size_t segment_files = 0;              // that records refer to
  uint64_t segment_bytes = 0;
  size_t orphan_files = 0;  // of segments that no record refers to
  uint64_t orphan_bytes = 0;
  size_t rows_records = 0;
  uint64_t rows_bytes = 0;
  uint64_t records_bytes = 0;  // of all files of RocksDB

  bool whole() const { return damages == 0; }
};

struct DirectoryCheckOptions {
  size_t threads = 0;  // 0: one per hardware thread
  // Called now and then, from one thread at a time, with the bytes of segment files that were read
  // and those there are.
  std::function<void(uint64_t done, uint64_t total)> progress;
};

// Reads everything and changes nothing. Damage is no error but a finding.
//   NOT_FOUND: there is no directory; FAILED_PRECONDITION: a process uses it, it is of another
//   version, or no data directory; UNAVAILABLE: it cannot be read. All name the file.
absl::StatusOr<DirectoryCheck> CheckDirectory(std::shared_ptr<rocksdb::FileSystem> file_system,
                                              const std::string& directory,
                                              const DirectoryCheckOptions& options = {});
// The same with the file system of the machine.
absl::StatusOr<DirectoryCheck> CheckDirectory(const std::string& directory,
                                              const DirectoryCheckOptions& options = {});

}  // namespace attic

#endif  // ATTIC_SERVER_STORAGE_DIRECTORY_CHECK_H_
