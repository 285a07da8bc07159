#include "server/storage/segment_registry.h"

#include <algorithm>
#include <cstdio>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "server/storage/rocksdb_status.h"

namespace attic {
namespace {

using rocksdb::IOOptions;

constexpr char kEnding[] = ".seg";
constexpr size_t kDigits = 16;

std::string NameOf(uint64_t number) { return absl::StrFormat("%016x%s", number, kEnding); }

}  // namespace

std::optional<uint64_t> SegmentRegistry::NumberOf(const std::string& name, bool* unfinished) {
  if (name.size() < kDigits + sizeof(kEnding) - 1 || name.substr(kDigits, 4) != kEnding) {
    return std::nullopt;
  }
  uint64_t number = 0;
  for (size_t i = 0; i < kDigits; ++i) {
    const char digit = name[i];
    const bool decimal = digit >= '0' && digit <= '9';
    if (!decimal && (digit < 'a' || digit > 'f')) return std::nullopt;
    number = number << 4 | static_cast<uint64_t>(decimal ? digit - '0' : digit - 'a' + 10);
  }
  *unfinished = name.size() > kDigits + sizeof(kEnding) - 1;
  return number;
}

SegmentRegistry::SegmentRegistry(std::shared_ptr<rocksdb::FileSystem> file_system,
                                 std::string folder)
    : file_system_(std::move(file_system)), folder_(std::move(folder)) {}

std::string SegmentRegistry::Path(uint64_t number) const {
  return absl::StrCat(folder_, "/", NameOf(number));
}

absl::StatusOr<std::vector<uint64_t>> SegmentRegistry::Load(const std::map<uint64_t, File>& files,
                                                            uint64_t number_max,
                                                            bool delete_orphans) {
  std::vector<std::string> names;
  ATTIC_RETURN_IF_ERROR(
      FromRocksDb(file_system_->GetChildren(folder_, IOOptions(), &names, nullptr), folder_));
  std::map<uint64_t, Entry> entries;
  for (const auto& [number, file] : files) {
    entries[number] = {.references = file.references, .identity = file.identity};
    number_max = std::max(number_max, number);
  }
  std::set<uint64_t> present;
  uint64_t disk_bytes = 0;
  for (const std::string& name : names) {
    bool unfinished = false;
    const std::optional<uint64_t> number = NumberOf(name, &unfinished);
    if (!number) continue;
    number_max = std::max(number_max, *number);
    const std::string path = absl::StrCat(folder_, "/", name);
    const auto entry = entries.find(*number);
    if (unfinished || entry == entries.end()) {
      // One that cannot be deleted is in nobody's way.
      if (delete_orphans) {
        file_system_->DeleteFile(path, IOOptions(), nullptr).PermitUncheckedError();
      }
      continue;
    }
    present.insert(*number);
    uint64_t bytes = 0;
    if (file_system_->GetFileSize(path, IOOptions(), &bytes, nullptr).ok()) {
      entry->second.file_bytes = bytes;
      disk_bytes += bytes;
    }
  }
  std::vector<uint64_t> missing;
  for (const auto& [number, file] : files) {
    if (!present.contains(number)) missing.push_back(number);
  }
  MutexLock lock(mutex_);
  entries_ = std::move(entries);
  disk_bytes_ = disk_bytes;
  number_max_ = number_max;
  return missing;
}

std::shared_ptr<SegmentRegistry::Hold> SegmentRegistry::MakeHold(uint64_t number) {
  ++entries_[number].holds;
  unneeded_.erase(number);
  return std::make_shared<Hold>(shared_from_this(), number);
}

std::shared_ptr<SegmentRegistry::Hold> SegmentRegistry::Add() {
  MutexLock lock(mutex_);
  return MakeHold(++number_max_);
}

void SegmentRegistry::Written(uint64_t number, uint64_t file_bytes, uint64_t identity) {
  MutexLock lock(mutex_);
  const auto entry = entries_.find(number);
  ATTIC_CHECK(entry != entries_.end());
  disk_bytes_ += file_bytes - entry->second.file_bytes;
  entry->second.file_bytes = file_bytes;
  entry->second.identity = identity;
}

std::shared_ptr<SegmentRegistry::Hold> SegmentRegistry::Find(uint64_t number) {
  MutexLock lock(mutex_);
  if (!entries_.contains(number)) return nullptr;
  return MakeHold(number);
}

uint64_t SegmentRegistry::Identity(uint64_t number) const {
  MutexLock lock(mutex_);
  const auto entry = entries_.find(number);
  return entry == entries_.end() ? 0 : entry->second.identity;
}

bool SegmentRegistry::AddReference(uint64_t number) {
  MutexLock lock(mutex_);
  const auto entry = entries_.find(number);
  if (entry == entries_.end()) return false;
  ++entry->second.references;
  unneeded_.erase(number);
  return true;
}

void SegmentRegistry::DropReference(uint64_t number, uint64_t write) {
  MutexLock lock(mutex_);
  const auto found = entries_.find(number);
  ATTIC_CHECK(found != entries_.end() && found->second.references > 0);
  Entry& entry = found->second;
  entry.dropped_by = std::max(entry.dropped_by, write);
  if (--entry.references == 0 && entry.holds == 0) unneeded_.insert(number);
}

void SegmentRegistry::Release(uint64_t number) {
  MutexLock lock(mutex_);
  const auto found = entries_.find(number);
  ATTIC_CHECK(found != entries_.end() && found->second.holds > 0);
  if (--found->second.holds > 0 || found->second.references > 0 || closed_) return;
  unneeded_.insert(number);
  if (wake_up_) wake_up_();
}

void SegmentRegistry::Sweep(uint64_t durable_write) {
  std::vector<std::pair<uint64_t, Entry>> leaving;
  {
    MutexLock lock(mutex_);
    if (closed_) return;
    for (auto number = unneeded_.begin(); number != unneeded_.end();) {
      const auto entry = entries_.find(*number);
      if (entry->second.dropped_by > durable_write) {
        ++number;
        continue;
      }
      leaving.emplace_back(*entry);
      entries_.erase(entry);
      number = unneeded_.erase(number);
    }
  }
  uint64_t bytes = 0;
  for (const auto& [number, entry] : leaving) {
    bytes += entry.file_bytes;
    // What cannot be deleted is an orphan, which the next Load deletes.
    file_system_->DeleteFile(Path(number), IOOptions(), nullptr).PermitUncheckedError();
  }
  MutexLock lock(mutex_);
  disk_bytes_ -= bytes;
}

void SegmentRegistry::SetWakeUp(std::function<void()> wake_up) {
  MutexLock lock(mutex_);
  wake_up_ = std::move(wake_up);
}

void SegmentRegistry::Close() {
  MutexLock lock(mutex_);
  closed_ = true;
  wake_up_ = nullptr;
}

uint64_t SegmentRegistry::disk_bytes() const {
  MutexLock lock(mutex_);
  return disk_bytes_;
}

uint64_t SegmentRegistry::number_max() const {
  MutexLock lock(mutex_);
  return number_max_;
}

}  // namespace attic
