#include "server/index/graph/exact_neighbors.h"

#include <algorithm>
#include <limits>
#include <span>

#include "attention/vector_kernels.h"
#include "base/check.h"

namespace attic {
namespace {

constexpr size_t kQueryBlock = 32;
constexpr size_t kRowBlock = 1024;
constexpr float kLowest = std::numeric_limits<float>::lowest();

// Keeps the k best of a stream. Between cuts up to 2k are held, so a cut costs O(1) a node.
class BestNodes {
 public:
  explicit BestNodes(size_t k) : k_(k) { nodes_.reserve(2 * k); }

  void Add(std::span<const float> scores, uint32_t first_node) {
    for (size_t i = 0; i < scores.size(); ++i) {
      // Written so that NaN, which orders with nothing, becomes the lowest score.
      const float score = scores[i] > kLowest ? scores[i] : kLowest;
      if (score <= threshold_ && nodes_.size() >= k_) continue;
      nodes_.push_back({score, first_node + static_cast<uint32_t>(i)});
      if (nodes_.size() == 2 * k_) Cut();
    }
  }

  void MoveTo(std::vector<ScoredNode>& out) {
    if (nodes_.size() > k_) Cut();
    std::sort(nodes_.begin(), nodes_.end(), BetterNode);
    out.insert(out.end(), nodes_.begin(), nodes_.end());
    nodes_.clear();
    threshold_ = kLowest;
  }

 private:
  void Cut() {
    std::nth_element(nodes_.begin(), nodes_.begin() + (k_ - 1), nodes_.end(), BetterNode);
    nodes_.resize(k_);
    threshold_ = nodes_.back().score;
  }

  const size_t k_;
  float threshold_ = kLowest;  // nodes not above it cannot be among the best once k are held
  std::vector<ScoredNode> nodes_;
};

}  // namespace

std::vector<ScoredNode> ExactNeighbors(const float* queries, size_t query_count,
                                       const VectorsView& vectors, size_t k) {
  ATTIC_CHECK(vectors.count < std::numeric_limits<uint32_t>::max());
  k = std::min(k, vectors.count);
  std::vector<ScoredNode> result;
  if (k == 0) return result;
  result.reserve(query_count * k);
  std::vector<BestNodes> best(std::min(kQueryBlock, query_count), BestNodes(k));
  std::vector<float> scores(kQueryBlock * kRowBlock);
  for (size_t query = 0; query < query_count; query += kQueryBlock) {
    const size_t queries_now = std::min(kQueryBlock, query_count - query);
    for (size_t row = 0; row < vectors.count; row += kRowBlock) {
      const VectorsView rows = vectors.rows(row, std::min(kRowBlock, vectors.count - row));
      ScoreVectors(queries + query * vectors.dim, queries_now, rows, scores.data());
      for (size_t g = 0; g < queries_now; ++g) {
        best[g].Add({scores.data() + g * rows.count, rows.count}, static_cast<uint32_t>(row));
      }
    }
    for (size_t g = 0; g < queries_now; ++g) best[g].MoveTo(result);
  }
  return result;
}

}  // namespace attic
