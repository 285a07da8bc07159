#include "server/storage/layer_check.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "attention/element_type.h"

namespace attic {
namespace {

constexpr char kFolder[] = "records";
constexpr int64_t kNoEnd = std::numeric_limits<int64_t>::max();

class LayerChecker {
 public:
  LayerChecker(const SessionRecord& session, uint32_t layer, const CheckedRecords& records,
               const ExaminedFiles& files, CheckReport& report)
      : session_(session), records_(records), files_(files), report_(report) {
    result_.layer = layer;
  }

  CheckedLayer Run() {
    int64_t served = kNoEnd, whole = kNoEnd;
    for (uint32_t head = 0; head < session_.fingerprint.kv_heads; ++head) {
      const Ends ends = CheckHead(head);
      served = std::min(served, ends.served);
      whole = std::min(whole, ends.whole);
    }
    const auto rows = records_.rows.find({session_.key, result_.layer});
    if (rows != records_.rows.end()) {
      for (const CheckedRows& piece : rows->second) {
        result_.held_end = std::max(result_.held_end, piece.header.end());
        ReportRows(piece, whole);
      }
      // Rows stand in for segments that cannot be opened, but not for those that are used.
      const bool all_whole = whole == served;
      served = FollowRows(rows->second, served);
      if (all_whole) whole = served;
    }
    result_.served_end = served;
    result_.whole_end = whole;
    if (served < result_.held_end && !reported_) {
      Report(kFolder, "positions are missing: what is recorded behind them is not served",
             std::nullopt, {served, result_.held_end});
    }
    result_.damaged = reported_;
    return result_;
  }

 private:
  struct Ends {
    int64_t served = 0;
    int64_t whole = 0;
  };

  void Report(const std::string& file, const std::string& what, std::optional<uint32_t> head,
              PositionRange positions) {
    reported_ = true;
    report_.Add({.file = file,
                 .what = what,
                 .session_id = session_.session_id,
                 .layer = result_.layer,
                 .kv_head = head,
                 .positions = positions});
  }

  Ends CheckHead(uint32_t head) {
    Ends ends;
    const auto found = records_.segments.find({session_.key, result_.layer, head});
    if (found == records_.segments.end()) return ends;
    bool served = true, whole = true;
    int64_t next = 0;
    for (const SegmentEntry& entry : found->second) {
      const SegmentReference& reference = entry.reference;
      const PositionRange positions{reference.begin_position,
                                    reference.begin_position + reference.tokens};
      ++result_.segments;
      result_.held_end = std::max(result_.held_end, positions.end);
      if (positions.begin != next) {
        Report(
            kFolder,
            absl::StrCat("a segment begins at ", positions.begin, ", but ", next, " was to follow"),
            head, positions);
        served = whole = false;
      }
      next = positions.end;
      const ExaminedFile& file = files_.at(reference.file);
      const std::string wrong = WhyNotOpened(entry, file);
      if (!wrong.empty()) {
        Report(file.name, wrong, head, positions);
        served = whole = false;
      } else if (!file.examination.whole()) {
        ReportVectors(file, head);
        whole = false;
      }
      if (served) ends.served = positions.end;
      if (whole) ends.whole = positions.end;
    }
    return ends;
  }

  // Why a store would not use the file; empty when it would.
  std::string WhyNotOpened(const SegmentEntry& entry, const ExaminedFile& file) const {
    const SegmentExamination& found = file.examination;
    const Fingerprint& f = session_.fingerprint;
    if (absl::IsNotFound(found.opened)) return "it is missing";
    if (!found.opened.ok()) return std::string(found.opened.message());
    const PositionRange recorded{entry.reference.begin_position,
                                 entry.reference.begin_position + entry.reference.tokens};
    if (found.identity != entry.identity || found.positions != recorded) {
      return "it is not the file that was recorded";
    }
    if (found.element_type != f.element_type || found.head_dim != f.head_dim ||
        found.value_dim != f.value_dim) {
      return "its keys and values have another shape than those of the session";
    }
    return {};
  }

  void ReportVectors(const ExaminedFile& file, uint32_t head) {
    const SegmentExamination& found = file.examination;
    for (const auto& cluster : found.clusters) {
      Report(file.name, absl::StrCat("section vectors: ", cluster.what), head, cluster.positions);
    }
    if (found.damaged_clusters > found.clusters.size()) {
      Report(file.name,
             absl::StrCat("section vectors: ", found.damaged_clusters - found.clusters.size(),
                          " more clusters are damaged"),
             head, found.positions);
    }
    if (!found.read.ok())
      Report(file.name, std::string(found.read.message()), head, found.positions);
  }

  bool HasShape(const RowsHeader& header) const {
    const Fingerprint& f = session_.fingerprint;
    const uint64_t elements = header.count * f.kv_heads;
    const uint64_t bytes = ElementBytes(f.element_type);
    return header.keys_bytes == elements * f.head_dim * bytes &&
           header.values_bytes == elements * f.value_dim * bytes &&
           header.sample_floats % (uint64_t{f.q_heads} * f.head_dim) == 0;
  }

  bool IsWhole(const CheckedRows& piece) const {
    return piece.damage.empty() && HasShape(piece.header);
  }

  // Rows that whole segments hold, too, are read by nobody.
  void ReportRows(const CheckedRows& piece, int64_t segments_end) {
    const PositionRange positions{piece.header.begin, piece.header.end()};
    if (IsWhole(piece)) return;
    const std::string what = piece.damage.empty() ? "rows have another shape than the session"
                                                  : absl::StrCat("rows: ", piece.damage);
    const std::string file = piece.file.empty() ? kFolder : piece.file;
    if (positions.end > segments_end) {
      Report(file, what, std::nullopt, positions);
      return;
    }
    report_.Add({.damage = false,
                 .file = file,
                 .what = what,
                 .session_id = session_.session_id,
                 .layer = result_.layer,
                 .positions = positions,
                 .advice = "segments hold the same rows: nothing is lost"});
  }

  // How far whole rows go on from `begin`.
  int64_t FollowRows(const std::vector<CheckedRows>& pieces, int64_t begin) const {
    int64_t next = begin;
    bool first = true;
    for (const CheckedRows& piece : pieces) {
      if (piece.header.end() <= begin) continue;
      const bool follows = first ? piece.header.begin <= begin : piece.header.begin == next;
      if (!follows || !IsWhole(piece)) break;
      first = false;
      next = piece.header.end();
    }
    return next;
  }

  const SessionRecord& session_;
  const CheckedRecords& records_;
  const ExaminedFiles& files_;
  CheckReport& report_;
  CheckedLayer result_;
  bool reported_ = false;
};

}  // namespace

CheckedLayer CheckLayer(const SessionRecord& session, uint32_t layer, const CheckedRecords& records,
                        const ExaminedFiles& files, CheckReport& report) {
  return LayerChecker(session, layer, records, files, report).Run();
}

}  // namespace attic
