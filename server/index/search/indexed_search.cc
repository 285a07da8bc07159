#include "server/index/search/indexed_search.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "attention/vector_kernels.h"
#include "base/status_macros.h"
#include "server/index/search/descent.h"
#include "server/index/search/selection.h"

namespace attic {
namespace {

constexpr size_t kBlockRows = 256;

bool Better(const SearchHit& a, const SearchHit& b) {
  return a.score != b.score ? a.score > b.score : a.position < b.position;
}

// Collects the best hits of each query: a heap of at most k with the worst on top.
class HitCollector {
 public:
  HitCollector(const SearchParameters& search, SearchScratch& scratch,
               std::vector<std::vector<SearchHit>>& hits, ReadStatistics& read)
      : search_(search), scratch_(scratch), hits_(hits), read_(read) {
    hits_.resize(search.group);
    for (auto& best : hits_) best.clear();
  }

  // Scores `keys`; position_of(i) is the position of row i. Rows outside the range are skipped.
  template <typename PositionOf>
  void AddRows(const VectorsView& keys, const PositionOf& position_of) {
    for (size_t begin = 0; begin < keys.count; begin += kBlockRows) {
      const size_t n = std::min(kBlockRows, keys.count - begin);
      scratch_.scores.resize(search_.group * n);
      ScoreVectors(search_.queries.data(), search_.group, keys.rows(begin, n),
                   scratch_.scores.data());
      for (size_t g = 0; g < search_.group; ++g) {
        for (size_t i = 0; i < n; ++i) {
          Add(g, position_of(begin + i), scratch_.scores[g * n + i]);
        }
      }
    }
    read_.exact_tokens += keys.count;
    read_.bytes_read += keys.bytes();
  }

  void Add(size_t g, int64_t position, float score) {
    std::vector<SearchHit>& best = hits_[g];
    const bool full = best.size() == search_.k;
    if (full && (search_.k == 0 || !Better({position, score}, best.front()))) return;
    if (position < search_.range.begin || position >= search_.range.end) return;
    if (full) {
      std::pop_heap(best.begin(), best.end(), Better);
      best.pop_back();
    }
    best.push_back({position, score});
    std::push_heap(best.begin(), best.end(), Better);
  }

  void AddTail(const TailView& tail) {
    tail.ForEachRun(search_.range, [&](int64_t begin, const VectorsView& keys, const VectorsView&) {
      AddRows(keys, [begin](size_t row) { return begin + static_cast<int64_t>(row); });
    });
  }

  // The keys of rows from `begin` on.
  void AddSegmentRows(const Segment& segment, size_t begin, const VectorsView& keys) {
    AddRows(keys, [&](size_t row) { return segment.position(begin + row); });
  }

  void Finish() {
    for (auto& best : hits_) std::sort_heap(best.begin(), best.end(), Better);
  }

 private:
  const SearchParameters& search_;
  SearchScratch& scratch_;
  std::vector<std::vector<SearchHit>>& hits_;
  ReadStatistics& read_;
};

// The rows that a walk knows exactly.
void AddExactRows(const IndexedPart& part, const DescentState& state, float scale,
                  HitCollector& collector) {
  const size_t group = state.log_total.size();
  for (const CodedCluster& coded : state.coded) {
    if (coded.exact == 0) continue;
    const Segment& segment = part.segment_of_node(coded.node);
    const size_t first = segment.clusters.row_begin[coded.node % part.clusters_per_segment];
    for (size_t i = 0; i < coded.rows; ++i) {
      if (state.row_exact[coded.offset + i] == 0) continue;
      const int64_t position = segment.position(first + i);
      for (size_t g = 0; g < group; ++g) {
        const float logit = state.row_logits[group * coded.offset + g * coded.rows + i];
        collector.Add(g, position, logit / scale);
      }
    }
  }
}

}  // namespace

absl::Status SearchExactly(const IndexedPart& part, const TailView& tail,
                           const SearchParameters& search, SearchScratch& scratch,
                           std::vector<std::vector<SearchHit>>& hits, ReadStatistics& read) {
  HitCollector collector(search, scratch, hits, read);
  RowReader& rows = scratch.descent.rows;
  rows.Begin(part);
  for (size_t i = 0; i < part.segments.size(); ++i) {
    const Segment& segment = *part.segments[i];
    if (segment.end_position() <= search.range.begin) continue;
    if (segment.begin_position >= search.range.end) continue;
    const VectorArrays* arrays = rows.Arrays(i, read);
    if (arrays == nullptr) return rows.status();
    collector.AddSegmentRows(segment, 0, segment.key_rows(*arrays));
  }
  collector.AddTail(tail);
  collector.Finish();
  return absl::OkStatus();
}

absl::Status SearchIndexed(const IndexedPart& part, const TailView& tail,
                           const SearchParameters& search, SearchScratch& scratch,
                           std::vector<std::vector<SearchHit>>& hits, ReadStatistics& read) {
  HitCollector collector(search, scratch, hits, read);
  collector.AddTail(tail);
  if (!part.segments.empty()) {
    const float logit_scale = std::abs(part.shape.logit_scale);
    const float scale = logit_scale > 0 ? logit_scale : 1.0f;
    scratch.queries.assign(search.queries.begin(), search.queries.end());
    for (float& x : scratch.queries) x *= scale;
    const DescentRequest request{
        .queries = scratch.queries, .range = search.range, .helpers = scratch.helpers};
    DescentState& state = scratch.descent;
    state.other_log_mass.assign(search.group, kEmptyLogSumExp);
    Descent descent(part, request, state, read);
    descent.Begin();
    descent.UpdateTotals();
    ReadBestKeys(search.k, descent);
    for (const uint32_t node : state.partial) {
      const size_t cluster = node % part.clusters_per_segment;
      const Segment& segment = part.segment_of_node(node);
      const Segment::Rows rows = segment.RowsInRange(cluster, search.range);
      if (rows.begin == rows.end) continue;
      const ClusterRow first{node, rows.begin - segment.clusters.row_begin[cluster]};
      if (!state.rows.Fetch({&first, 1}, read)) break;
      collector.AddSegmentRows(
          segment, rows.begin,
          {state.rows.key(first), segment.element_type, rows.end - rows.begin, segment.head_dim});
    }
    ATTIC_RETURN_IF_ERROR(descent.status());
    AddExactRows(part, state, scale, collector);
  }
  collector.Finish();
  return absl::OkStatus();
}

}  // namespace attic
