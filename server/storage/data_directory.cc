#include "server/storage/data_directory.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "server/storage/checked_file.h"
#include "server/storage/file_io.h"
#include "server/storage/rocksdb_status.h"

namespace attic {
namespace {

using rocksdb::IOOptions;

constexpr char kVersionName[] = "VERSION";
constexpr char kVersion[] = "attic data directory 1\n";
constexpr size_t kVersionBytesMax = 256;
constexpr std::array<std::string_view, 10> kNames = {
    "LOCK",    "PROBE",    "VERSION.tmp", "DURABLE",       "DURABLE.tmp",
    "records", "segments", kVersionName,  kClusterMapName, "CLUSTER_MAP.tmp"};

std::string FolderOf(const std::string& path) {
  const size_t end = path.find_last_not_of('/');
  const size_t slash = path.find_last_of('/', end);
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace

DataDirectory::DataDirectory(std::shared_ptr<rocksdb::FileSystem> file_system, std::string path)
    : file_system_(std::move(file_system)), path_(std::move(path)) {}

DataDirectory::~DataDirectory() {
  if (lock_ != nullptr) {
    file_system_->UnlockFile(lock_, IOOptions(), nullptr).PermitUncheckedError();
  }
}

absl::StatusOr<std::unique_ptr<DataDirectory>> DataDirectory::Open(
    std::shared_ptr<rocksdb::FileSystem> file_system, const std::string& path) {
  std::unique_ptr<DataDirectory> directory(new DataDirectory(std::move(file_system), path));
  rocksdb::FileSystem& files = *directory->file_system_;
  if (!files.FileExists(path, IOOptions(), nullptr).ok()) {
    ATTIC_RETURN_IF_ERROR(FromRocksDb(files.CreateDirIfMissing(path, IOOptions(), nullptr), path));
    ATTIC_RETURN_IF_ERROR(SyncFolder(files, FolderOf(path)));
  }
  ATTIC_RETURN_IF_ERROR(directory->Lock());
  ATTIC_RETURN_IF_ERROR(directory->CheckVersion());
  if (directory->is_new()) {
    ATTIC_RETURN_IF_ERROR(directory->CheckLeftovers());
    ATTIC_RETURN_IF_ERROR(directory->MakeFolders());
  }
  return directory;
}

absl::StatusOr<std::unique_ptr<DataDirectory>> DataDirectory::OpenToExamine(
    std::shared_ptr<rocksdb::FileSystem> file_system, const std::string& path) {
  std::unique_ptr<DataDirectory> directory(new DataDirectory(std::move(file_system), path));
  rocksdb::FileSystem& files = *directory->file_system_;
  std::vector<std::string> names;
  const absl::Status listed =
      FromRocksDb(files.GetChildren(path, IOOptions(), &names, nullptr), path);
  if (absl::IsNotFound(listed)) {
    return absl::NotFoundError(absl::StrCat(path, ": there is no such directory"));
  }
  ATTIC_RETURN_IF_ERROR(listed);
  ATTIC_RETURN_IF_ERROR(directory->LockIfPossible());
  ATTIC_RETURN_IF_ERROR(directory->CheckVersion());
  const bool has_content = std::any_of(names.begin(), names.end(), [](const std::string& name) {
    return name == "records" || name == "segments";
  });
  if (directory->is_new() && !has_content) {
    return absl::FailedPreconditionError(absl::StrCat(path,
                                                      " is no data directory: it holds neither ",
                                                      kVersionName, " nor records nor segments"));
  }
  return directory;
}

bool DataDirectory::IsOwnName(std::string_view name) {
  return std::find(kNames.begin(), kNames.end(), name) != kNames.end();
}

absl::Status DataDirectory::LockIfPossible() {
  // Without a file to lock nobody holds it; nor does who could not open it to write.
  const std::string name = absl::StrCat(path_, "/LOCK");
  if (!file_system_->FileExists(name, IOOptions(), nullptr).ok()) return absl::OkStatus();
  const absl::Status locked = Lock();
  return absl::IsFailedPrecondition(locked) ? locked : absl::OkStatus();
}

absl::Status DataDirectory::Lock() {
  const std::string name = absl::StrCat(path_, "/LOCK");
  const absl::Status locked =
      FromRocksDb(file_system_->LockFile(name, IOOptions(), &lock_, nullptr), name);
  if (!locked.ok()) lock_ = nullptr;
  if (absl::IsFailedPrecondition(locked)) {
    return absl::FailedPreconditionError(
        absl::StrCat("a process is using the data directory ", path_));
  }
  return locked;
}

absl::Status DataDirectory::CheckVersion() {
  const std::string path = absl::StrCat(path_, "/", kVersionName);
  const absl::StatusOr<std::string> version = ReadSmallFile(*file_system_, path, kVersionBytesMax);
  if (absl::IsNotFound(version.status())) {
    is_new_ = true;
    return absl::OkStatus();
  }
  ATTIC_RETURN_IF_ERROR(version.status());
  if (*version != kVersion) {
    return absl::FailedPreconditionError(absl::StrCat(path, " says \"", absl::CEscape(*version),
                                                      "\", this program reads \"",
                                                      absl::CEscape(kVersion), "\""));
  }
  return absl::OkStatus();
}

absl::Status DataDirectory::CheckLeftovers() {
  std::vector<std::string> names;
  ATTIC_RETURN_IF_ERROR(
      FromRocksDb(file_system_->GetChildren(path_, IOOptions(), &names, nullptr), path_));
  for (const std::string& name : names) {
    if (name == "." || name == "..") continue;
    if (!IsOwnName(name)) {
      return absl::FailedPreconditionError(
          absl::StrCat(path_, " is no data directory: it holds ", name, " and no ", kVersionName));
    }
  }
  std::vector<std::string> segments;
  if (!file_system_->GetChildren(segments_path(), IOOptions(), &segments, nullptr).ok()) {
    return absl::OkStatus();
  }
  for (const std::string& name : segments) {
    if (name == "." || name == "..") continue;
    return absl::DataLossError(
        absl::StrCat(path_, "/", kVersionName, " is missing, but there are segments"));
  }
  return absl::OkStatus();
}

absl::Status DataDirectory::MakeFolders() {
  for (const char* name : {"records", "segments"}) {
    const std::string folder = absl::StrCat(path_, "/", name);
    ATTIC_RETURN_IF_ERROR(
        FromRocksDb(file_system_->CreateDirIfMissing(folder, IOOptions(), nullptr), folder));
  }
  return SyncFolder(*file_system_, path_);
}

absl::Status DataDirectory::Complete() {
  ATTIC_RETURN_IF_ERROR(ReplaceFile(*file_system_, path_, kVersionName, kVersion));
  is_new_ = false;
  return absl::OkStatus();
}

}  // namespace attic
