#include "server/storage/records_check.h"

#include <algorithm>
#include <cctype>
#include <functional>
#include <set>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "server/storage/file_io.h"
#include "server/storage/records_db.h"

namespace attic {
namespace {

constexpr char kFolder[] = "records";
constexpr char kNoStart[] =
    "a store does not start: restore the directory from a copy, or the sessions from exports";

bool IsNumberedFile(std::string_view name) {
  constexpr size_t kDigits = 6;
  if (name.starts_with("MANIFEST-")) return true;
  if (name == "CURRENT") return true;
  if (name.size() <= kDigits + 1 || name[kDigits] != '.') return false;
  for (size_t i = 0; i < kDigits; ++i) {
    if (std::isdigit(static_cast<unsigned char>(name[i])) == 0) return false;
  }
  return true;
}

// The file of RocksDB that a message speaks of, below the directory; the folder when there is none.
std::string FileIn(std::string_view message) {
  constexpr std::string_view kWordEnds = " /:;,\"'()[]";
  for (size_t begin = 0; begin < message.size();) {
    size_t end = message.find_first_of(kWordEnds, begin);
    if (end == std::string_view::npos) end = message.size();
    std::string_view word = message.substr(begin, end - begin);
    while (word.ends_with('.')) word.remove_suffix(1);
    if (IsNumberedFile(word)) {
      // Where a table is missing, RocksDB tries an older ending last and names that.
      constexpr std::string_view kOldEnding = ".ldb";
      if (!word.ends_with(kOldEnding)) return absl::StrCat(kFolder, "/", std::string(word));
      word.remove_suffix(kOldEnding.size());
      return absl::StrCat(kFolder, "/", std::string(word), ".sst");
    }
    begin = end + 1;
  }
  return kFolder;
}

// What the store keeps of a session that could not be one.
const char* WrongIn(const SessionRecord& record) {
  const Fingerprint& f = record.fingerprint;
  if (f.kv_heads == 0 || f.q_heads % f.kv_heads != 0 || f.head_dim == 0 || f.value_dim == 0) {
    return "its fingerprint makes no sense";
  }
  for (size_t i = 0; i < record.stored_layers.size(); ++i) {
    const uint32_t layer = record.stored_layers[i];
    if (layer >= f.layers || (i > 0 && layer <= record.stored_layers[i - 1])) {
      return "its stored layers make no sense";
    }
  }
  return record.stored_layers.empty() ? "it has no stored layers" : nullptr;
}

class Reader {
 public:
  Reader(const std::shared_ptr<rocksdb::FileSystem>& file_system, RecordsDb& db,
         CheckReport& report)
      : file_system_(file_system), db_(db), report_(report) {}

  CheckedRecords Run() {
    for (const std::string& path : db_.Tables()) {
      const absl::Status verified = RecordsDb::VerifyTable(file_system_, path);
      if (verified.ok()) continue;
      records_.complete = false;
      report_.Damage(FileIn(path), std::string(verified.message()), kNoStart);
    }
    Family(RecordSpace::kCounters, "counters", [](std::string_view key, std::string_view value) {
      return DecodeCounter(key, value).status();
    });
    Family(RecordSpace::kSessions, "sessions",
           [this](std::string_view key, std::string_view value) -> absl::Status {
             ATTIC_ASSIGN_OR_RETURN(SessionRecord record, DecodeSession(key, value));
             if (const char* wrong = WrongIn(record); wrong != nullptr) {
               return absl::DataLossError(absl::StrCat("session ", record.session_id, ": ", wrong));
             }
             records_.sessions.emplace(record.key, std::move(record));
             return absl::OkStatus();
           });
    Family(RecordSpace::kSegments, "references to segments",
           [this](std::string_view key, std::string_view value) -> absl::Status {
             ATTIC_ASSIGN_OR_RETURN(const SegmentEntry entry, DecodeSegment(key, value));
             records_.segments[HeadOf(key)].push_back(entry);
             return absl::OkStatus();
           });
    Family(RecordSpace::kRows, "rows",
           [this](std::string_view key, std::string_view value) -> absl::Status {
             ATTIC_ASSIGN_OR_RETURN(const RowsHeader header, DecodeRows(key, value));
             records_.rows[{KeyU64(key, 0), KeyU32(key, kSessionKeyBytes)}].push_back(
                 {.header = header});
             return absl::OkStatus();
           });
    ReadHeads();
    for (auto& [layer, pieces] : records_.rows) {
      for (CheckedRows& piece : pieces) ReadData(layer, piece);
    }
    return std::move(records_);
  }

 private:
  using Visit = std::function<absl::Status(std::string_view, std::string_view)>;

  static HeadName HeadOf(std::string_view key) {
    return {KeyU64(key, 0), KeyU32(key, kSessionKeyBytes), KeyU32(key, kLayerKeyBytes)};
  }

  // Visits all records of a family and goes on behind those that are damaged.
  void Family(RecordSpace space, const char* of, const Visit& visit) {
    const absl::Status scanned =
        db_.Scan(space, {}, {}, [&](std::string_view key, std::string_view value) {
          if (const absl::Status visited = visit(key, value); !visited.ok()) {
            records_.complete = false;
            report_.Damage(kFolder, std::string(visited.message()), kNoStart);
          }
          return absl::OkStatus();
        });
    if (scanned.ok()) return;
    records_.complete = false;
    const std::string message(scanned.message());
    report_.Damage(FileIn(message),
                   absl::StrCat("records of ", of, " cannot be read to the end: ", message),
                   kNoStart);
  }

  // A store does without what a head had learnt.
  void ReadHeads() {
    const char* const advice = "what the head had learnt is learnt anew";
    const absl::Status scanned =
        db_.Scan(RecordSpace::kHeads, {}, {}, [&](std::string_view key, std::string_view value) {
          const absl::Status decoded = DecodeHeadState(key, value).status();
          if (decoded.ok()) return absl::OkStatus();
          CheckFinding finding{
              .file = kFolder, .what = std::string(decoded.message()), .advice = advice};
          if (key.size() == kHeadKeyBytes) {
            finding.layer = HeadOf(key).layer;
            finding.kv_head = HeadOf(key).kv_head;
            const auto session = records_.sessions.find(HeadOf(key).session_key);
            if (session != records_.sessions.end()) {
              finding.session_id = session->second.session_id;
            }
          }
          report_.Add(std::move(finding));
          return absl::OkStatus();
        });
    const std::string message(scanned.message());
    if (!scanned.ok()) report_.Damage(FileIn(message), message, advice);
  }

  void ReadData(const LayerName& layer, CheckedRows& piece) {
    const std::string key = RowsKey(layer.session_key, layer.layer, piece.header.begin);
    const std::string data_key = RowsDataKey(key, piece.header.data_checksum);
    const absl::StatusOr<std::string> data = db_.Get(RecordSpace::kRowsData, data_key);
    const absl::Status read = data.ok() ? CheckRowsData(key, piece.header, *data) : data.status();
    if (read.ok()) return;
    piece.damage =
        absl::IsNotFound(read) ? "the data of rows are missing" : std::string(read.message());
    piece.file = FileIn(piece.damage);
    if (piece.file != kFolder) return;
    const std::string found = db_.FindValueFile(RecordSpace::kRowsData, data_key);
    if (!found.empty()) piece.file = FileIn(found);
  }

  const std::shared_ptr<rocksdb::FileSystem>& file_system_;
  RecordsDb& db_;
  CheckReport& report_;
  CheckedRecords records_;
};

// Looks for what keeps RocksDB from opening, when it does not say that. `named` is the file that it
// named, if any.
void FindCulprits(const std::shared_ptr<rocksdb::FileSystem>& file_system,
                  const std::string& directory, const std::string& named, CheckReport& report) {
  constexpr size_t kCurrentBytesMax = 64;
  const std::string folder = absl::StrCat(directory, "/", kFolder);
  std::vector<std::string> names;
  if (!file_system->GetChildren(folder, rocksdb::IOOptions(), &names, nullptr).ok()) return;
  std::sort(names.begin(), names.end());
  bool found = named != kFolder;
  const absl::StatusOr<std::string> current =
      ReadSmallFile(*file_system, folder + "/CURRENT", kCurrentBytesMax);
  const auto manifest = std::find_if(names.begin(), names.end(), [&](const std::string& name) {
    return name.starts_with("MANIFEST-") && current.ok() && *current == name + "\n";
  });
  if (manifest == names.end()) {
    found = true;
    report.Damage("records/CURRENT", "it does not hold the name of a file MANIFEST-*", kNoStart);
  }
  for (const std::string& name : names) {
    if (!name.ends_with(".sst")) continue;
    const absl::Status verified = RecordsDb::VerifyTable(file_system, folder + "/" + name);
    if (verified.ok()) continue;
    found = true;
    report.Damage(absl::StrCat(kFolder, "/", name), std::string(verified.message()), kNoStart);
  }
  if (found) return;
  report.Damage(absl::StrCat(kFolder, "/", *manifest),
                "what it says of other files does not agree with them", kNoStart);
}

void CheckDurable(const std::string& directory, const RecordsDb::Examined& examined,
                  CheckReport& report) {
  const char* const advice = "a store that starts makes a new one, and reports this until then";
  if (examined.durable.missing) report.Damage("DURABLE", "it is missing", advice);
  if (examined.durable.damaged) report.Damage("DURABLE", "it is damaged", advice);
  const std::string file = FileIn(examined.complaints);
  if (examined.held < examined.durable.number) {
    report.Damage(
        file,
        absl::StrCat("writes up to ", examined.held, " are there, but those up to ",
                     examined.durable.number, " were durable; RocksDB: ", examined.complaints),
        absl::StrCat("a store does not start: restore the directory from a copy; or "
                     "remove ",
                     directory,
                     "/DURABLE to start with what there is, "
                     "without the last writes"));
  } else if (!examined.complaints.empty()) {
    report.Note(file,
                absl::StrCat("the end of a log was left out, as after a crash; RocksDB: ",
                             examined.complaints),
                "nothing that was durable is missing");
  }
}

}  // namespace

CheckedRecords CheckRecords(const std::shared_ptr<rocksdb::FileSystem>& file_system,
                            const std::string& directory, CheckReport& report) {
  const absl::StatusOr<RecordsDb::Examined> examined =
      RecordsDb::OpenToExamine(directory, file_system);
  if (!examined.ok()) {
    const std::string message(examined.status().message());
    report.Damage(FileIn(message), message, kNoStart);
    FindCulprits(file_system, directory, FileIn(message), report);
    return {.opened = false, .complete = false};
  }
  CheckDurable(directory, *examined, report);
  return Reader(file_system, *examined->db, report).Run();
}

}  // namespace attic
