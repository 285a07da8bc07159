#include "server/session/session_recovery.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "server/index/segment/segment.h"

namespace attic {
namespace {

constexpr size_t kSegmentsTogether = 16;  // of one head, read before they are added

bool IsDamage(const absl::Status& status) {
  return absl::IsDataLoss(status) || absl::IsNotFound(status);
}

class Recovery {
 public:
  Recovery(const SessionRecord& record, const SessionResources& resources, ThreadPool& pool,
           const std::atomic<bool>& stop, Session& session)
      : record_(record), resources_(resources), pool_(pool), stop_(stop), session_(session) {}

  void Run() {
    const absl::Status failed = ReadAll();
    if (stop_) return;
    if (!failed.ok()) {
      session_.FinishRecovery(
          Session::State::kFailed,
          absl::Status(failed.code(), absl::StrCat("session_id: the session cannot be read from "
                                                   "disk: ",
                                                   std::string(failed.message()))));
    } else if (!damage_.ok()) {
      session_.FinishRecovery(Session::State::kDamaged, damage_);
    } else {
      session_.FinishRecovery(Session::State::kServing, absl::OkStatus());
    }
  }

 private:
  struct Head {
    StoredLayer* layer;
    HeadName name;
    std::vector<SegmentReference> segments;
    bool learnt = false;
    std::vector<absl::StatusOr<SegmentFile>> files;  // read, and to be added next
    absl::Status status;                             // of the work done last
    bool damaged = false;
    SessionHead& head() const { return layer->head(name.kv_head); }
  };

  absl::Status ReadAll() {
    size_t segments = 0;
    for (const auto& layer : session_.layers()) {
      for (uint32_t h = 0; h < layer->kv_heads(); ++h) {
        Head head{.layer = layer.get(), .name = {record_.key, layer->layer(), h}};
        ATTIC_ASSIGN_OR_RETURN(head.segments, resources_.disk->Segments(head.name));
        segments = std::max(segments, head.segments.size());
        heads_.push_back(std::move(head));
      }
    }
    ForEachHead([this](Head& head) { return ReadLearnt(head); });
    ATTIC_RETURN_IF_ERROR(Statuses());
    for (size_t i = 0; i < segments && !stop_; i += kSegmentsTogether) {
      ReadFiles(i);
      ForEachHead([this](Head& head) { return AddSegments(head); });
      ATTIC_RETURN_IF_ERROR(Statuses());
      for (const auto& layer : session_.layers()) layer->PublishRecovered();
    }
    for (const auto& layer : session_.layers()) {
      if (!stop_) ATTIC_RETURN_IF_ERROR(ReadRows(*layer));
    }
    ForEachHead([this](Head& head) {
      return head.learnt || head.damaged || stop_ ? absl::OkStatus()
                                                  : head.head().index().LearnFromSegments();
    });
    ATTIC_RETURN_IF_ERROR(Statuses());
    for (const auto& layer : session_.layers()) {
      ATTIC_RETURN_IF_ERROR(layer->FinishRecovery(layer->watermark()));
    }
    // What was read may have been in the memory of the machine only.
    return resources_.disk->Sync();
  }

  template <typename F>
  void ForEachHead(const F& work) {
    pool_.ParallelFor(heads_.size(), [&](size_t i) { heads_[i].status = work(heads_[i]); });
  }

  // Damage is noted, and ends a head before it; other errors are returned.
  absl::Status Statuses() {
    for (Head& head : heads_) {
      if (head.status.ok()) continue;
      if (!IsDamage(head.status)) return head.status;
      head.damaged = true;
      NoteDamage(*head.layer, head.status, head.head().index().token_count());
      head.status = absl::OkStatus();
    }
    return absl::OkStatus();
  }

  void NoteDamage(const StoredLayer& layer, const absl::Status& status, int64_t position) {
    if (!damage_.ok()) return;
    damage_ = absl::DataLossError(absl::StrCat(
        "session_id: layer ", layer.layer(), " is damaged from position ", position, " on (",
        std::string(status.message()), "); truncate the session there to go on"));
  }

  absl::Status ReadLearnt(Head& head) {
    const absl::StatusOr<std::string> state = resources_.disk->HeadState(head.name);
    if (!state.ok()) return IsDamage(state.status()) ? absl::OkStatus() : state.status();
    head.learnt = head.segments.empty() ||
                  head.head().index().RestoreLearntState(*state, head.segments.size()).ok();
    return absl::OkStatus();
  }

  // The next segments of every head from the first'th on, several of one head at a time, too.
  void ReadFiles(size_t first) {
    struct Read {
      const SegmentReference* reference;
      absl::StatusOr<SegmentFile>* file;
    };
    std::vector<Read> reads;
    for (Head& head : heads_) {
      head.files.clear();
      if (head.damaged || first >= head.segments.size()) continue;
      head.files.resize(std::min(kSegmentsTogether, head.segments.size() - first));
      for (size_t i = 0; i < head.files.size(); ++i) {
        reads.push_back({&head.segments[first + i], &head.files[i]});
      }
    }
    pool_.ParallelFor(reads.size(), [&](size_t i) {
      if (!stop_) *reads[i].file = resources_.disk->OpenSegment(*reads[i].reference);
    });
  }

  absl::Status AddSegments(Head& head) {
    for (absl::StatusOr<SegmentFile>& file : head.files) {
      if (stop_) return absl::OkStatus();
      ATTIC_RETURN_IF_ERROR(file.status());
      file->segment->vectors = std::make_shared<SegmentVectors>(
          std::move(file->vectors), file->segment->clusters.count, resources_.budget);
      const absl::Status added = head.head().index().AddSegment(std::move(file->segment));
      head.head().UpdateCharge();
      if (!added.ok()) return absl::FailedPreconditionError(std::string(added.message()));
    }
    return absl::OkStatus();
  }

  absl::Status ReadRows(StoredLayer& layer) {
    const int64_t begin = layer.watermark();
    const absl::Status read = resources_.disk->ReadRows(
        record_.key, layer.layer(), begin, [&](const RowsRecord& rows) -> absl::Status {
          ATTIC_RETURN_IF_ERROR(CheckShape(layer, rows));
          layer.RecoverRows(rows);
          return absl::OkStatus();
        });
    layer.PublishRecovered();
    if (!IsDamage(read)) return read;
    NoteDamage(layer, read, layer.watermark());
    return absl::OkStatus();
  }

  absl::Status CheckShape(const StoredLayer& layer, const RowsRecord& rows) const {
    const Fingerprint& fingerprint = session_.fingerprint();
    const size_t row_elements = rows.count * fingerprint.kv_heads;
    const size_t element = ElementBytes(fingerprint.element_type);
    const bool fits =
        rows.count > 0 && rows.keys.size() == row_elements * fingerprint.head_dim * element &&
        rows.values.size() == row_elements * fingerprint.value_dim * element &&
        rows.query_sample.size() % (size_t{fingerprint.q_heads} * fingerprint.head_dim) == 0;
    if (fits) return absl::OkStatus();
    return absl::DataLossError(absl::StrCat("rows of layer ", layer.layer(), " from position ",
                                            rows.begin_position, " on have another shape"));
  }

  const SessionRecord& record_;
  const SessionResources& resources_;
  ThreadPool& pool_;
  const std::atomic<bool>& stop_;
  Session& session_;
  std::vector<Head> heads_;
  absl::Status damage_;
};

}  // namespace

void RecoverSession(const SessionRecord& record, const SessionResources& resources,
                    ThreadPool& pool, const std::atomic<bool>& stop, Session& session) {
  Recovery(record, resources, pool, stop, session).Run();
}

}  // namespace attic
