// The walk down the levels of a head for one group of queries: super-clusters, clusters, codes of
// keys, keys. Every level refines the one above and is read only where that can be seen in the
// answer; every row in range is stood for by exactly one level.
//
// What a level leaves in doubt is told by EstimateDoubt() and, for keys known by their codes, by
// the variance of the code. Reading on is worth most where doubt per byte is largest, so one
// threshold on that ratio serves all levels, and a lower threshold goes on where a higher one
// stopped. Another threshold, on logits, serves those who want the best keys.
#ifndef ATTIC_SERVER_INDEX_SEARCH_DESCENT_H_
#define ATTIC_SERVER_INDEX_SEARCH_DESCENT_H_

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "absl/time/time.h"
#include "api/types.h"
#include "server/index/codes/residual_codes.h"
#include "server/index/graph/graph_search.h"
#include "server/index/indexed_part.h"
#include "server/index/search/needle_scan.h"
#include "server/index/search/row_reader.h"

namespace attic {

enum class SuperState : uint8_t { kWhole, kOpened, kExcluded };
enum class ClusterState : uint8_t {
  kEstimated,
  kCoded,     // its rows are known by their codes, or exactly
  kPartial,   // some rows are out of range: the others are attended exactly, from the start
  kExcluded,  // all rows out of range
};

struct OpenedSuper {
  uint32_t first_node;
  uint32_t count;   // clusters
  uint32_t offset;  // of its clusters among all opened; its log masses begin at group * offset
};

struct CodedCluster {
  uint32_t node;
  uint32_t opened;  // the place of its super-cluster in `opened`
  uint32_t rows;
  uint32_t offset;  // of its rows among all coded; its logits begin at group * offset
  uint32_t exact;   // rows known exactly
};

inline constexpr uint8_t kRowExact = 1;   // the logit is exact, the value will be read
inline constexpr uint8_t kRowWanted = 2;  // on the list of those to become exact

// The rows of a coded cluster for one query, masses relative to exp(reference).
struct RowTotals {
  float best_rest;   // largest logit of a row not exact
  float best_mass;   // likewise its mass
  float deviation;   // standard deviation of a logit as the code leaves it, of the longest residual
  float doubt;       // doubt about a row of it with mass 1...
  float mean_doubt;  // ...and about an ordinary row
  float rest, rest_squares;    // masses of rows not exact, and their squares
  float exact, exact_squares;  // of exact rows
};

// Thresholds from which on something is read. Infinite ones ask for nothing.
struct DescentThreshold {
  float doubt_per_byte = std::numeric_limits<float>::infinity();
  std::vector<float> logit;  // (group): clusters whose keys may reach it are wanted; empty: none
  float reach = 1;           // how far keys may lie, in terms of the largest of normal ones
  std::vector<float> row_logit;  // (group): keys that may reach it, by their codes; empty: none
  float row_deviations = 0;      // standard deviations of a code that a key may lie higher
  double bytes_max = std::numeric_limits<double>::infinity();  // read in all
};

// What the walk knows; buffers are reused between queries.
struct DescentState {
  std::vector<SuperState> super_state;  // (super-clusters)
  std::vector<float> super_logits;      // (group, super-clusters)
  std::vector<float> super_log_mass;    // (group, super-clusters)
  std::vector<OpenedSuper> opened;
  std::vector<uint32_t> opened_index;       // (super-clusters): 1 + its place in `opened`, or 0
  std::vector<ClusterState> cluster_state;  // (clusters of opened super-clusters)
  std::vector<float> cluster_logits;        // per opened super-cluster (group, count)
  std::vector<float> cluster_log_mass;      // likewise
  std::vector<CodedCluster> coded;
  std::vector<uint32_t> coded_index;  // (clusters opened): 1 + its place in `coded`, or 0
  // Per coded cluster (group, rows): the logit, or log E exp(logit) as the code has it.
  std::vector<float> row_logits;
  std::vector<float> row_mass;        // likewise, exp(logit - reference)
  std::vector<uint8_t> row_exact;     // (rows coded): 0, kRowExact or kRowWanted
  std::vector<RowTotals> row_totals;  // (coded, group)

  // What levels hold, relative to exp(reference) or its square, zero where a lower level took over.
  std::vector<float> reference;                // (group); empty before the first totals
  std::vector<float> super_mass, super_doubt;  // (group, super-clusters)
  // The same with the variance of keys, where masses are estimated without: for coverage, which
  // must not be promised too high. Else empty.
  std::vector<float> super_wide_mass, cluster_wide_mass;
  std::vector<float> cluster_mass, cluster_doubt;  // as cluster_logits
  std::vector<uint32_t> partial;                   // nodes attended exactly from the start

  // (group): DeviationNorm as masses are estimated by, and as is known of the keys.
  std::vector<float> super_norms, cluster_norms;
  std::vector<float> super_doubt_norms, cluster_doubt_norms;
  std::vector<float> other_log_mass;  // (group): log_sum_exp of what is attended exactly elsewhere
  std::vector<float> log_total;       // (group): log_sum_exp over everything, as known so far
  std::vector<float> coarse_square;   // (group): |output|^2 as the super-clusters have it
  std::vector<float> scale;           // (group): 1 / |output|^2, estimated
  std::vector<LevelDoubts> doubt;     // (group), relative to |output|^2 as in `scale`
  std::vector<double> exact_mass;     // (group): as a share of what is estimated in all
  std::vector<double> wide_factor;    // (group): what is not exact, with the variance of keys
  std::vector<double> exact_share;    // (group): the same with estimates taken for too low
  bool doubts_known = false;
  // Keys that sums hide were not looked for everywhere.
  bool keys_may_hide = true;

  std::vector<ResidualQuery> residual_queries;  // (group)
  std::vector<ResidualScoring> scorings;        // (group): of the cluster being read
  std::vector<float> best_logits;               // (group): likewise
  std::vector<int16_t> coefficients;            // (group, code_dim)
  std::vector<float> rotated;
  std::vector<float> super_ratio;     // (super-clusters): doubt per byte, largest over the group
  std::vector<float> log_floor;       // (group): log_total as hidden keys are measured by
  std::vector<float> row_floor;       // (group): square of the mass that is wanted, of doubt 1
  std::vector<float> cluster_factor;  // (group)
  struct WantedCluster {
    uint32_t opened;   // the place of its super-cluster in `opened`
    uint32_t cluster;  // within it
  };
  std::vector<WantedCluster> to_code;
  struct RowPlace {
    uint32_t coded;   // its place in `coded`
    uint32_t offset;  // within the cluster
  };
  std::vector<RowPlace> wanted;
  std::vector<RowPlace> exact_rows;            // in the order they became exact...
  std::vector<const std::byte*> exact_values;  // ...and their values
  RowReader rows;
  std::vector<ClusterRow> to_fetch;
  std::vector<uint32_t> found;
  std::vector<const std::byte*> addresses;
  std::vector<float> packed;  // (group, PackedQueryFloats): queries as GatherScores takes them
  std::vector<float> buffer;
  NeedleScratch needles;
  GraphSearchScratch graph;
  std::vector<ScoredNode> graph_best;
};

struct DescentRequest {
  std::span<const float> queries;  // (group, head_dim), times the logit scale
  PositionRange range;
  ThreadPool* helpers = nullptr;  // of the scan for needles; may be null
};

// Not thread-safe; borrows everything for its lifetime.
class Descent {
 public:
  Descent(const IndexedPart& part, const DescentRequest& request, DescentState& state,
          ReadStatistics& read);

  // Marks what is out of range and scores every super-cluster: enough for a complete estimate.
  // state.other_log_mass is set.
  void Begin();

  // Looks for keys that sums hide by the one-bit codes: those whose share of the mass may reach
  // exp(log_share_min). They become exact. Where that takes more than bytes_max, only codes are
  // read that may hide the largest.
  void FindHiddenKeys(float log_share_min, double bytes_max);

  // Makes the `count` best keys of each query exact, as far as the one-bit codes of all keys tell
  // them: of those whose logit may reach floors (group); -infinity: of all.
  void FindKeysAbove(std::span<const float> floors, size_t count);

  // Reads the codes of about `width` clusters with the best centroids for each query, found through
  // the graph, or without one in the best super-clusters.
  void SeekClusters(size_t width);

  // Reads on until nothing is left above the thresholds. Returns false when bytes_max, the deadline
  // or a failure to read rows (see status()) ended it before.
  bool Refine(const DescentThreshold& threshold, absl::Time deadline);

  // Opens every super-cluster and, if `codes`, reads the codes of every cluster.
  void ReadLevel(bool codes);

  // Brings log_total, doubt and exact_share up to date.
  void UpdateTotals();

  // Makes doubts known: before, they count as zero, and Refine() goes by logits only. Totals are up
  // to date before and after.
  void WeighDoubts();

  // What is not exact cannot be seen in the answer, whatever is in doubt about it.
  bool IsSettled();

  // A threshold that leaves no more than this squared error in super-clusters not opened.
  float ThresholdFor(double squared_error) const;

  // The estimated error of the worst query's output, squared, in terms of its length.
  double SquaredError() const;

  // The coverage where exact rows hold `exact_mass` of the estimated total.
  double ConservativeShare(size_t g, double exact_mass) const;

  DescentState& state() { return s_; }
  // Not OK when rows could not be read: then what is known is not complete.
  const absl::Status& status() const { return s_.rows.status(); }
  uint64_t bytes_read() const { return read_.bytes_read; }

 private:
  void MarkSegment(size_t index);
  void ScoreSuperClusters();
  void PrepareQueries();
  // Returns its place in `opened`.
  size_t OpenSuper(size_t super_cluster);
  void CodeCluster(size_t opened, size_t cluster);
  void WeighCoded(const CodedCluster& coded, size_t g, float best);
  void ListWantedRows(uint32_t coded, const DescentThreshold& threshold);
  void ListRows(uint32_t coded, const float* values, float floor);
  // Scores the wanted rows exactly, as many as the budget allows; false: not all.
  bool MakeWantedExact(const DescentThreshold& threshold);
  // False when the rows cannot be read.
  bool ScoreFetched(std::span<const DescentState::RowPlace> rows);
  void ScoreExactly(std::span<const DescentState::RowPlace> rows);

  void SeekThroughGraph(size_t g, size_t width);
  void SeekInSuperClusters(size_t g, size_t width);

  // The number of the super-cluster that holds `cluster` of `segment`.
  size_t SuperOf(size_t segment, size_t cluster) const;
  size_t CandidatesMax() const;
  void WantHiddenKey(const NeedleCandidate& needle);
  bool FloorWasTooHigh();
  // True when that keeps some keys from being found.
  bool RaiseFloorsToBudget(float log_share_min, double bytes_max);

  bool SuperIsWanted(size_t super_cluster, const DescentThreshold& threshold) const;
  void ListWantedClusters(uint32_t opened, const DescentThreshold& threshold);
  void PrefetchCodes(const DescentState::WantedCluster& wanted) const;
  void SetRowFloors(const DescentThreshold& threshold);
  bool OverBudget(const DescentThreshold& threshold) const {
    return static_cast<double>(read_.bytes_read) >= threshold.bytes_max;
  }

  void SetReference();
  void RaiseReference(size_t g, float logit);
  void WeighClusters(const OpenedSuper& open);
  void WidenSuperMass(size_t g);
  void WidenClusterMass(const OpenedSuper& open, size_t g);
  bool masses_are_narrow() const { return part_.terms->variance_share < 1; }
  void SumRowsAgain(uint32_t coded);
  void AddTotals(size_t g);
  void UpdateSuperRatios();
  void UpdateScale(size_t g, double exact_squares);
  float RowDoubt(float variance) const;
  float DoubtFactor(size_t g, DoubtLevel level) const;

  // Of centroid, mean value and sums of a cluster.
  size_t cluster_bytes() const {
    return (part_.shape.head_dim + part_.shape.value_dim) * 2 + kSumsBytes;
  }
  double OpeningBytes() const;  // of an ordinary super-cluster
  const Segment& SegmentOf(const OpenedSuper& open) const {
    return part_.segment_of_node(open.first_node);
  }
  const float* ClusterLogits(const OpenedSuper& open, size_t g) const {
    return s_.cluster_logits.data() + group_ * open.offset + g * open.count;
  }
  const float* ClusterLogMass(const OpenedSuper& open, size_t g) const {
    return s_.cluster_log_mass.data() + group_ * open.offset + g * open.count;
  }
  // Where the rows of `coded` are in row_logits and row_mass, for query g.
  size_t RowsBegin(const CodedCluster& coded, size_t g) const {
    return group_ * coded.offset + g * coded.rows;
  }
  CodedRows RowsOf(const CodedCluster& coded) const {
    return part_.segment_of_node(coded.node).coded_rows(coded.node % part_.clusters_per_segment);
  }

  ClusterRow ClusterRowOf(const DescentState::RowPlace& row) const {
    return {s_.coded[row.coded].node, row.offset};
  }

  static constexpr size_t kSumsBytes = 3 * sizeof(float);  // log_count, deviation and its limit

  const IndexedPart& part_;
  const DescentRequest request_;
  const size_t group_;
  const size_t super_count_;
  const size_t code_dim_;
  const size_t key_bytes_;  // of an exact key and value
  DescentState& s_;
  ReadStatistics& read_;
};

}  // namespace attic

#endif  // ATTIC_SERVER_INDEX_SEARCH_DESCENT_H_
