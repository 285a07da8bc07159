#include "server/storage/rocksdb_status.h"

#include "absl/strings/str_cat.h"

namespace attic {
namespace {

// A directory in use is an IOError without a subcode of its own: by another process the one, by
// this process the other (env/fs_posix.cc of RocksDB 7.8).
bool IsLockError(const rocksdb::Status& status) {
  if (!status.IsIOError() || status.getState() == nullptr) return false;
  const std::string text = status.getState();
  return text.find("lock hold by current process") != std::string::npos ||
         text.starts_with("While lock file:");
}

absl::StatusCode Code(const rocksdb::Status& status) {
  using rocksdb::Status;
  // The subcode says more than the code: no room and a missing path are IOError, too.
  switch (status.subcode()) {
    case Status::kNoSpace:
    case Status::kSpaceLimit:
    case Status::kMemoryLimit:
      return absl::StatusCode::kResourceExhausted;
    case Status::kPathNotFound:
      return absl::StatusCode::kNotFound;
    default:
      break;
  }
  switch (status.code()) {
    case Status::kNotFound:
      return absl::StatusCode::kNotFound;
    case Status::kCorruption:
      return absl::StatusCode::kDataLoss;
    case Status::kBusy:
    case Status::kExpired:
    case Status::kNotSupported:
      return absl::StatusCode::kFailedPrecondition;
    case Status::kInvalidArgument:
      return absl::StatusCode::kInternal;
    default:
      break;
  }
  if (IsLockError(status)) return absl::StatusCode::kFailedPrecondition;
  return absl::StatusCode::kUnavailable;
}

}  // namespace

absl::Status FromRocksDb(const rocksdb::Status& status, const std::string& context) {
  if (status.ok()) return absl::OkStatus();
  return absl::Status(Code(status), absl::StrCat(context, ": ", status.ToString()));
}

}  // namespace attic
