// Decides, for one group of queries, which clusters are attended exactly, which are estimated one
// by one, and which only as part of their super-cluster. Every row in range falls to exactly one.
#ifndef ATTIC_SERVER_INDEX_SEARCH_CLUSTER_SELECTION_H_
#define ATTIC_SERVER_INDEX_SEARCH_CLUSTER_SELECTION_H_

#include <cstdint>
#include <span>
#include <vector>

#include "api/types.h"
#include "server/index/graph/query_aware_graph.h"
#include "server/index/indexed_part.h"
#include "server/index/search/needle_scan.h"

namespace attic {

enum class NodeState : uint8_t {
  kEstimated,  // with its super-cluster, or alone when that is opened
  kExact,      // chosen; estimated after all if time runs out
  kPartial,    // some rows are out of range: the others are attended exactly, always
  kExcluded,   // all rows out of range, or already attended
};
enum class SuperState : uint8_t { kWhole, kOpened, kExcluded };

struct OpenedSuper {
  uint32_t super_cluster;
  uint32_t first_node;
  uint32_t count;   // nodes
  uint32_t offset;  // of its log masses in opened_log_mass, in units of (group) floats
};

struct ClusterCandidate {
  float priority;  // log of the estimated share of all mass, largest over the group
  uint32_t node;
};

// The selection and its buffers, reused between queries.
struct ClusterSelection {
  std::vector<SuperState> super_state;  // (super-clusters)
  std::vector<NodeState> node_state;    // (nodes)
  std::vector<float> super_logits;      // (group, super-clusters)
  std::vector<float> super_log_mass;    // (group, super-clusters)
  std::vector<OpenedSuper> opened;
  std::vector<float> opened_log_mass;   // per opened super-cluster (group, count)
  std::vector<ClusterCandidate> exact;  // nodes in state kExact, best first
  std::vector<uint32_t> partial;        // nodes in state kPartial
  std::vector<float> super_norms;       // (group): DeviationNorm of the super-clusters
  std::vector<float> cluster_norms;     // (group): DeviationNorm of the clusters
  std::vector<float> log_total;         // (group): estimated log_sum_exp over everything
  std::vector<float> log_floor;         // (group): log_total as needles are measured by
  std::vector<float> log_rest;          // (group): that of what sums stand for
  std::vector<float> best_needle;       // (group): largest logit found by codes

  std::vector<ClusterCandidate> pool;
  std::vector<ClusterCandidate> super_pool;
  std::vector<uint32_t> pool_slot;  // (nodes): 1 + index in pool, 0 when not there
  std::vector<uint32_t> touched;    // nodes whose state or slot the last query may have set...
  bool ranges_marked = false;       // ...beside whole segments
  std::vector<float> buffer;
  NeedleScratch needles;
  GraphSearchScratch graph;
  std::vector<ScoredNode> graph_best;
};

struct SelectionRequest {
  std::span<const float> queries;         // (group, head_dim), times the logit scale
  std::span<const float> other_log_mass;  // (group): log_sum_exp of what is attended elsewhere
  PositionRange range;
  size_t needle_candidates = 0;
  bool best_keys = false;         // the best keys are wanted, however small their share of the mass
  ThreadPool* helpers = nullptr;  // of the scan for needles; may be null
};

class ClusterSelector {
 public:
  ClusterSelector(const IndexedPart& part, const SelectionRequest& request,
                  ClusterSelection& selection, ReadStatistics& read);

  // Marks what is out of range and scores every super-cluster: enough for a complete estimate.
  void Begin();

  // Opens the best super-clusters and chooses the clusters to attend exactly, from their centroids,
  // the graph and the codes. After Begin.
  void Refine();

 private:
  void ClearNodes();
  void MarkSegment(size_t index);
  void SetNorms();
  void ScoreSuperClusters();
  void UpdateTotals();
  void OpenSuper(size_t super_cluster);
  bool OpenBest();  // false: none was worth it
  bool FloorWasTooHigh();
  void PoolNeedles();
  void PoolGraphHits();
  void PoolOpened();
  void ChooseExact();
  void AddToPool(uint32_t node, float priority);
  size_t SuperOfNode(size_t node) const;
  size_t exact_budget() const;

  const IndexedPart& part_;
  const SelectionRequest request_;
  const size_t group_;
  const size_t super_count_;
  const float log_share_min_;
  ClusterSelection& s_;
  ReadStatistics& read_;
};

}  // namespace attic

#endif  // ATTIC_SERVER_INDEX_SEARCH_CLUSTER_SELECTION_H_
