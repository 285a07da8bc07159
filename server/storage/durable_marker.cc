#include "server/storage/durable_marker.h"

#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "server/storage/file_io.h"
#include "server/storage/record_codec.h"
#include "server/storage/rocksdb_status.h"

namespace attic {
namespace {

constexpr char kName[] = "DURABLE";

}  // namespace

absl::StatusOr<DurableMarker::Found> DurableMarker::Read(rocksdb::FileSystem& file_system,
                                                         const std::string& directory) {
  Found found;
  const size_t entry_bytes = EncodeCounter(kName, 0).size();
  absl::StatusOr<std::string> content =
      ReadSmallFile(file_system, absl::StrCat(directory, "/", kName), kFileBytesMax + entry_bytes);
  if (absl::IsNotFound(content.status())) {
    found.missing = true;
    return found;
  }
  if (absl::IsDataLoss(content.status())) {
    found.damaged = true;
    return found;
  }
  ATTIC_RETURN_IF_ERROR(content.status());
  bool any = false;
  bool bad = false;
  for (std::string_view rest = *content; rest.size() >= entry_bytes;
       rest.remove_prefix(entry_bytes)) {
    const absl::StatusOr<uint64_t> number = DecodeCounter(kName, rest.substr(0, entry_bytes));
    if (!number.ok()) {
      bad = true;
      continue;
    }
    // A good entry behind a bad one: not the torn end.
    if (bad) found.damaged = true;
    any = true;
    found.number = *number;
  }
  if (!any) found.damaged = true;  // the first entry was durable before the file had its name
  return found;
}

DurableMarker::DurableMarker(rocksdb::FileSystem& file_system, std::string directory)
    : file_system_(file_system), directory_(std::move(directory)) {}

absl::Status DurableMarker::Start(uint64_t number) {
  file_.reset();
  const std::string entry = EncodeCounter(kName, number);
  ATTIC_RETURN_IF_ERROR(ReplaceFile(file_system_, directory_, kName, entry, &file_));
  file_bytes_ = entry.size();
  advances_ = 0;
  return absl::OkStatus();
}

void DurableMarker::Advance(uint64_t number) {
  const std::string entry = EncodeCounter(kName, number);
  if (file_ == nullptr || file_bytes_ + entry.size() > kFileBytesMax) {
    Start(number).IgnoreError();
    return;
  }
  if (!file_->Append(entry, rocksdb::IOOptions(), nullptr).ok()) {
    file_.reset();
    return;
  }
  file_bytes_ += entry.size();
  if (++advances_ >= kAdvancesPerSync) Sync().IgnoreError();
}

absl::Status DurableMarker::Sync() {
  if (file_ == nullptr) return absl::UnavailableError(absl::StrCat(kName, " is not open"));
  advances_ = 0;
  const rocksdb::IOStatus status = file_->Sync(rocksdb::IOOptions(), nullptr);
  if (!status.ok()) file_.reset();
  return FromRocksDb(status, absl::StrCat(directory_, "/", kName));
}

}  // namespace attic
