#include "server/index/search/needle_scan.h"

#include <algorithm>
#include <atomic>
#include <functional>
#include <limits>

#include "server/index/search/needle_query.h"
#include "server/index/search/needle_stretch.h"

namespace attic {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
// The super-clusters that may hide the largest logits come first, one in so many: what is found
// there raises the floor for the others.
constexpr size_t kFirstShare = 64;
constexpr size_t kSampleStride = 8;
// A stretch is long enough to be worth the hand-over to another thread.
constexpr size_t kStretchSupersMin = 256;
constexpr size_t kStretchesMax = 8;

// The super-clusters of segments with positions in `range`.
SuperRange SupersOf(const IndexedPart& part, PositionRange range) {
  size_t begin = 0, end = part.segments.size();
  while (begin < end && part.segments[begin]->end_position() <= range.begin) ++begin;
  while (end > begin && part.segments[end - 1]->begin_position >= range.end) --end;
  return {begin * part.super_clusters_per_segment, end * part.super_clusters_per_segment};
}

// The whole scan: raises the floors, hands out stretches, scores what they found.
class NeedleScan {
 public:
  NeedleScan(const IndexedPart& part, const NeedleRequest& request,
             std::span<const float> log_total, NeedleScratch& scratch, ReadStatistics& read)
      : part_(part),
        request_(request),
        range_(SupersOf(part, request.range)),
        stretches_(std::clamp<size_t>(range_.size() / kStretchSupersMin, 1, kStretchesMax)),
        log_total_(log_total.size()),
        scratch_(scratch),
        read_(read) {
    for (size_t g = 0; g < log_total.size(); ++g) log_total_[g] = log_total[g];
  }

  float log_total(size_t g) const { return log_total_[g]; }

  void Run(ThreadPool* helpers) {
    if (range_.size() == 0) return;
    Prepare();
    RaiseFloors();
    const auto scan = [this](size_t i) { Scan(scratch_.stretches[i], i); };
    if (helpers != nullptr) {
      helpers->ParallelFor(stretches_, scan);
    } else {
      for (size_t i = 0; i < stretches_; ++i) scan(i);
    }
    for (size_t g = 0; g < queries_.size(); ++g) Score(g);
    scratch_.status = scratch_.rows.status();
    for (size_t i = 0; i < stretches_; ++i) {
      read_ += scratch_.stretches[i].read;
      scratch_.status.Update(scratch_.stretches[i].rows.status());
    }
  }

 private:
  void Prepare() {
    const size_t group = log_total_.size();
    const size_t head_dim = part_.shape.head_dim;
    const size_t table_bytes = CodedQuery::TableBytes(part_);
    scratch_.tables.resize(group * table_bytes);
    scratch_.rotated.resize(part_.rotation->code_dim());
    scratch_.blocks_read.assign(part_.super_cluster_count(), 0);
    scratch_.stretches.resize(std::max(scratch_.stretches.size(), stretches_));
    scratch_.rows.Begin(part_);
    for (NeedleStretchScratch& stretch : scratch_.stretches) {
      stretch.rows.Begin(part_);
      stretch.best.resize(group);
      stretch.listed.resize(2 * group);
    }
    const float radius = OrdinaryRadius();
    for (size_t g = 0; g < group; ++g) {
      queries_.emplace_back(part_, request_.queries.data() + g * head_dim, scratch_.rotated.data(),
                            scratch_.tables.data() + g * table_bytes);
      const bool all = request_.log_share_min == -kInfinity;  // not only those that matter
      counts_.push_back(all ? request_.count
                            : CandidatesToKeep(queries_[g], radius, request_.count));
    }
  }

  // Half of a super-cluster's largest is about what an ordinary row of it has.
  float OrdinaryRadius() const {
    float sum = 0;
    size_t sampled = 0;
    for (size_t i = range_.begin; i < range_.end; i += kSampleStride, ++sampled) {
      sum += part_.tables.super_radius.data()[i];
    }
    return 0.5f * sum / static_cast<float>(sampled);
  }

  void AddQueries(NeedleStretch& scan) {
    for (size_t g = 0; g < queries_.size(); ++g) {
      scan.AddQuery(queries_[g], log_total_[g], StretchCount(g));
    }
  }

  // Candidates that one stretch keeps: its share, twice, because they may lie close together.
  size_t StretchCount(size_t g) const {
    return std::min(counts_[g], 1 + 2 * counts_[g] / stretches_);
  }

  void RaiseFloors() {
    if (!request_.raises) return;
    NeedleStretch scan(part_, request_, scratch_.blocks_read, scratch_.stretches.front());
    AddQueries(scan);
    for (size_t g = 0; g < queries_.size(); ++g) scan.RaiseFloor(g, range_, FirstBound(g));
    read_ += scan.read();
  }

  void Scan(NeedleStretchScratch& stretch, size_t i) {
    NeedleStretch scan(part_, request_, scratch_.blocks_read, stretch);
    AddQueries(scan);
    scan.Collect({range_.begin + range_.size() * i / stretches_,
                  range_.begin + range_.size() * (i + 1) / stretches_});
    stretch.read = scan.read();
  }

  // What one in kFirstShare super-clusters reaches: the largest logit that a row of it can have.
  float FirstBound(size_t g) {
    const float* radius = part_.tables.super_radius.data();
    const float* base = request_.super_logits.data() + g * part_.super_cluster_count();
    std::vector<float>& sample = scratch_.sample;
    sample.clear();
    for (size_t i = range_.begin; i < range_.end; i += kSampleStride) {
      sample.push_back(base[i] + queries_[g].code.length * radius[i]);
    }
    const auto at = sample.begin() + static_cast<std::ptrdiff_t>(sample.size() / kFirstShare);
    std::nth_element(sample.begin(), at, sample.end(), std::greater<float>());
    return *at;
  }

  // Puts the candidates of all stretches together.
  void Score(size_t g) {
    std::vector<NeedleCandidate>& best = scratch_.best[g];
    for (size_t i = 0; i < stretches_; ++i) {
      const NeedleStretchScratch& stretch = scratch_.stretches[i];
      best.insert(best.end(), stretch.best[g].begin(), stretch.best[g].end());
    }
    NeedleQuery query(part_, request_, queries_[g], log_total_[g], counts_[g], best, scratch_.rows,
                      read_);
    query.ScoreCandidates();
  }

  const IndexedPart& part_;
  const NeedleRequest& request_;
  const SuperRange range_;
  const size_t stretches_;
  std::vector<std::atomic<float>> log_total_;
  NeedleScratch& scratch_;
  ReadStatistics& read_;
  std::vector<CodedQuery> queries_;
  std::vector<size_t> counts_;  // candidates kept of each
};

}  // namespace

void FindNeedles(const IndexedPart& part, const NeedleRequest& request, ThreadPool* helpers,
                 std::span<float> log_total, NeedleScratch& scratch, ReadStatistics& read) {
  scratch.best.resize(log_total.size());
  for (auto& best : scratch.best) best.clear();
  scratch.status = absl::OkStatus();
  if (request.count == 0) return;
  NeedleScan scan(part, request, log_total, scratch, read);
  scan.Run(helpers);
  for (size_t g = 0; g < log_total.size(); ++g) log_total[g] = scan.log_total(g);
}

}  // namespace attic
