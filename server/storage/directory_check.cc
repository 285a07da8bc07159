#include "server/storage/directory_check.h"

#include <algorithm>
#include <limits>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "base/thread_pool.h"
#include "rocksdb/file_system.h"
#include "server/storage/check_report.h"
#include "server/storage/checked_file.h"
#include "server/storage/data_directory.h"
#include "server/storage/layer_check.h"
#include "server/storage/read_only_file_system.h"
#include "server/storage/records_check.h"
#include "server/storage/rocksdb_status.h"
#include "server/storage/segment_registry.h"

namespace attic {
namespace {

using rocksdb::IOOptions;

constexpr char kNoRecords[] = "which session it belongs to is not known, for records are damaged";
constexpr char kOrphanAdvice[] = "nothing refers to it: a store that starts deletes it";

class DirectoryChecker {
 public:
  DirectoryChecker(std::shared_ptr<rocksdb::FileSystem> file_system, std::string directory,
                   const DirectoryCheckOptions& options)
      : file_system_(std::move(file_system)),
        directory_(std::move(directory)),
        options_(options),
        report_(check_) {}

  absl::StatusOr<DirectoryCheck> Run() {
    ATTIC_ASSIGN_OR_RETURN(held_, DataDirectory::OpenToExamine(file_system_, directory_));
    ATTIC_RETURN_IF_ERROR(LookAround());
    records_ = CheckRecords(file_system_, directory_, report_);
    if (held_->is_new()) ReportNoVersion();
    ListReferences();
    ATTIC_RETURN_IF_ERROR(ListSegmentFiles());
    ExamineFiles();
    for (const auto& [key, record] : records_.sessions) CheckSession(record);
    ReportStrays();
    return std::move(check_);
  }

 private:
  absl::StatusOr<std::vector<std::string>> Names(const std::string& folder) const {
    std::vector<std::string> names;
    ATTIC_RETURN_IF_ERROR(
        FromRocksDb(file_system_->GetChildren(folder, IOOptions(), &names, nullptr), folder));
    std::erase_if(names, [](const std::string& name) { return name == "." || name == ".."; });
    std::sort(names.begin(), names.end());
    return names;
  }

  uint64_t Bytes(const std::string& path) const {
    uint64_t bytes = 0;
    const bool known = file_system_->GetFileSize(path, IOOptions(), &bytes, nullptr).ok();
    return known ? bytes : 0;
  }

  absl::Status LookAround() {
    if (!held_->locked()) {
      report_.Note("LOCK", "it cannot be locked",
                   "no store may be started here while the directory is examined");
    }
    ATTIC_ASSIGN_OR_RETURN(const std::vector<std::string> names, Names(directory_));
    for (const std::string& name : names) {
      if (!DataDirectory::IsOwnName(name)) {
        report_.Note(name, "it does not belong here", "a store leaves it alone");
      }
    }
    const auto map = LoadCheckedFile(directory_, kClusterMapName, kClusterMapBytesMax);
    if (!map.ok() && !absl::IsNotFound(map.status())) {
      report_.Note(kClusterMapName, "it is damaged", "a store goes on with the map that etcd has");
    }
    // When the folder is missing, its records are reported.
    const absl::StatusOr<std::vector<std::string>> records = Names(directory_ + "/records");
    if (!records.ok()) return absl::OkStatus();
    for (const std::string& name : *records) {
      check_.records_bytes += Bytes(absl::StrCat(directory_, "/records/", name));
    }
    return absl::OkStatus();
  }

  void ReportNoVersion() {
    // A store that was stopped while it made the directory leaves no VERSION, and nothing else.
    const absl::StatusOr<std::vector<std::string>> segments = Names(held_->segments_path());
    if (records_.sessions.empty() && segments.ok() && segments->empty()) {
      report_.Note("VERSION", "it is missing, and nothing was kept here",
                   "a store that starts makes the directory anew");
      return;
    }
    report_.Damage("VERSION", "it is missing",
                   "a store does not start: copy VERSION from another directory of this version");
  }

  void ListReferences() {
    for (const auto& [head, entries] : records_.segments) {
      for (const SegmentEntry& entry : entries) {
        const uint64_t number = entry.reference.file;
        ExaminedFile& file = files_[number];
        if (!file.name.empty()) continue;
        file.name = NameOf(number);
        file.examination.opened = absl::NotFoundError("it is missing");
      }
    }
  }

  std::string NameOf(uint64_t number) const {
    const SegmentRegistry registry(file_system_, "segments");
    return registry.Path(number);
  }

  absl::Status ListSegmentFiles() {
    const absl::StatusOr<std::vector<std::string>> names = Names(held_->segments_path());
    if (absl::IsNotFound(names.status())) {
      report_.Damage("segments", "the folder is missing", "a store does not start without it");
      return absl::OkStatus();
    }
    ATTIC_RETURN_IF_ERROR(names.status());
    for (const std::string& name : *names) {
      const std::string below = absl::StrCat("segments/", name);
      bool unfinished = false;
      const std::optional<uint64_t> number = SegmentRegistry::NumberOf(name, &unfinished);
      const uint64_t bytes = Bytes(absl::StrCat(directory_, "/", below));
      if (!number) {
        report_.Note(below, "it does not belong here", "a store leaves it alone");
      } else if (!unfinished && files_.contains(*number)) {
        present_.push_back({*number, bytes});
        ++check_.segment_files;
        check_.segment_bytes += bytes;
      } else if (!unfinished && !records_.opened) {
        ExamineAlone(below);
      } else {
        ++check_.orphan_files;
        check_.orphan_bytes += bytes;
        // Which records are missing is not known, so the file may be needed.
        const bool known = records_.complete;
        report_.Note(below, unfinished ? "it was never finished" : "no record refers to it",
                     known || unfinished ? kOrphanAdvice : "keep it: some records are damaged");
      }
    }
    return absl::OkStatus();
  }

  // Where no record can be read, files speak for themselves.
  void ExamineAlone(const std::string& below) {
    const SegmentExamination found =
        ExamineSegmentFile(*file_system_, absl::StrCat(directory_, "/", below));
    ++check_.segment_files;
    check_.segment_bytes += found.file_bytes;
    if (found.whole()) return;
    const absl::Status& why = found.opened.ok() ? found.read : found.opened;
    report_.Damage(below, why.ok() ? found.clusters.front().what : std::string(why.message()),
                   kNoRecords);
  }

  void ExamineFiles() {
    Mutex mutex;
    uint64_t done = 0;
    ThreadPool pool(options_.threads);
    pool.ParallelFor(present_.size(), [&](size_t i) {
      ExaminedFile& file = files_.at(present_[i].number);
      file.examination =
          ExamineSegmentFile(*file_system_, absl::StrCat(directory_, "/", file.name));
      if (!options_.progress) return;
      MutexLock lock(mutex);
      done += present_[i].bytes;
      options_.progress(done, check_.segment_bytes);
    });
  }

  void CheckSession(const SessionRecord& record) {
    CheckedSession session{.session_id = record.session_id, .key = record.key};
    for (const uint32_t layer : record.stored_layers) {
      session.layers.push_back(CheckLayer(record, layer, records_, files_, report_));
      const auto rows = records_.rows.find({record.key, layer});
      if (rows == records_.rows.end()) continue;
      check_.rows_records += rows->second.size();
      for (const CheckedRows& piece : rows->second) check_.rows_bytes += piece.header.data_bytes();
    }
    session.whole = std::none_of(session.layers.begin(), session.layers.end(),
                                 [](const CheckedLayer& layer) { return layer.damaged; });
    if (!session.whole) session.advice = Advice(session);
    check_.sessions.push_back(std::move(session));
  }

  static std::string Advice(const CheckedSession& session) {
    int64_t whole = std::numeric_limits<int64_t>::max();
    int64_t served = std::numeric_limits<int64_t>::max();
    for (const CheckedLayer& layer : session.layers) {
      // Layers that are whole do not limit the others, though they may have less.
      if (!layer.damaged) continue;
      whole = std::min(whole, layer.whole_end);
      served = std::min(served, layer.served_end);
    }
    const std::string close = absl::StrCat("`attic sessions close ", session.session_id, "`");
    if (whole == 0) {
      return absl::StrCat("nothing of it is whole from its beginning on: ", close,
                          ", and import an export");
    }
    return absl::StrCat("a store that starts serves it up to position ", served,
                        whole < served ? ", but queries that read what is damaged fail" : "",
                        "; `attic sessions truncate ", session.session_id, " ", whole,
                        "` to go on from there, or ", close, " and import an export");
  }

  // Records of sessions and layers that there are not.
  void ReportStrays() {
    const auto is_stray = [this](uint64_t key, uint32_t layer) {
      const auto session = records_.sessions.find(key);
      if (session == records_.sessions.end()) return true;
      const std::vector<uint32_t>& layers = session->second.stored_layers;
      return !std::binary_search(layers.begin(), layers.end(), layer);
    };
    std::set<LayerName> strays;
    for (const auto& [head, entries] : records_.segments) {
      if (is_stray(head.session_key, head.layer)) strays.insert({head.session_key, head.layer});
    }
    for (const auto& [layer, pieces] : records_.rows) {
      if (is_stray(layer.session_key, layer.layer)) strays.insert(layer);
    }
    for (const LayerName& stray : strays) {
      CheckFinding finding{
          .damage = false,
          .file = "records",
          .what = absl::StrCat("there are records of a session with key ", stray.session_key,
                               ", but no such session or layer"),
          .layer = stray.layer};
      report_.Add(std::move(finding));
    }
  }

  struct Present {
    uint64_t number = 0;
    uint64_t bytes = 0;
  };

  const std::shared_ptr<rocksdb::FileSystem> file_system_;
  const std::string directory_;
  const DirectoryCheckOptions& options_;
  std::unique_ptr<DataDirectory> held_;
  DirectoryCheck check_;
  CheckReport report_;
  CheckedRecords records_;
  ExaminedFiles files_;
  std::vector<Present> present_;
};

}  // namespace

absl::StatusOr<DirectoryCheck> CheckDirectory(std::shared_ptr<rocksdb::FileSystem> file_system,
                                              const std::string& directory,
                                              const DirectoryCheckOptions& options) {
  return DirectoryChecker(ReadOnlyFileSystem(std::move(file_system)), directory, options).Run();
}

absl::StatusOr<DirectoryCheck> CheckDirectory(const std::string& directory,
                                              const DirectoryCheckOptions& options) {
  return CheckDirectory(rocksdb::FileSystem::Default(), directory, options);
}

}  // namespace attic
