// What one query of a group has found in the codes and still looks for; the workings of
// needle_scan.h.
#ifndef ATTIC_SERVER_INDEX_SEARCH_NEEDLE_QUERY_H_
#define ATTIC_SERVER_INDEX_SEARCH_NEEDLE_QUERY_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "server/index/search/needle_scan.h"

namespace attic {

// A query in the form that codes are compared with.
struct CodedQuery {
  // Fills `tables` (TableBytes). `vector` (head_dim) is times the logit scale; both are borrowed.
  CodedQuery(const IndexedPart& part, const float* vector, float* rotated, uint8_t* tables);

  static size_t TableBytes(const IndexedPart& part) {
    return part.rotation->code_dim() / 8 * 2 * kNibbleTableBytes;
  }

  const float* vector;
  const uint8_t* tables;
  SignQuery code;
  float reach_per_factor;  // |q| |r| / f, about
};

// How many of `count` candidates to keep: fewer where codes err little. `radius` is that of an
// ordinary row.
size_t CandidatesToKeep(const CodedQuery& query, float radius, size_t count);

// Not thread-safe. All references must outlive it.
class NeedleQuery {
 public:
  // Keeps `count` candidates in `best`. `log_total`, which scans of other stretches may share,
  // rises as keys are scored.
  NeedleQuery(const IndexedPart& part, const NeedleRequest& request, const CodedQuery& query,
              std::atomic<float>& log_total, size_t count, std::vector<NeedleCandidate>& best,
              RowReader& rows, ReadStatistics& read);

  const uint8_t* tables() const { return query_.tables; }
  // |q|, a little more for rounding: q.r <= length() |r|.
  float length() const { return query_.code.length * (1 + 1e-5f); }
  float log_total() const { return log_total_.load(std::memory_order_relaxed); }
  float floor() const { return log_total() + request_.log_share_min; }

  // What a row must have to matter; or, if `outweigh`, to seem to outweigh everything known.
  CodeQuestion Question(bool outweigh) const;

  // A row whose code has this sum.
  struct ScannedRow {
    uint32_t segment = 0;
    uint32_t slot = 0;  // of the segment's codes
    float base = 0;     // q.c of its reference
    float factor = 0;
    uint32_t sum = 0;
  };
  void Consider(const ScannedRow& row);

  // Of the candidates since the last call scores those that seem to outweigh everything, which
  // raises the floor for all that follow. Forgets the candidates unless `keep`.
  void RaiseFloor(bool keep);

  // Scores the candidates exactly and keeps those that matter, best first.
  void ScoreCandidates();

 private:
  void RaiseLogTotal(float logit);
  void RaiseFloorBy(std::span<const NeedleCandidate> candidates);
  void ScoreExactly(std::span<NeedleCandidate> keys);
  bool MayMatter(const NeedleCandidate& key) const;
  void FindRows(std::span<NeedleCandidate> keys) const;
  bool IsCut(const Segment& segment) const;
  void Prune();
  // Takes those on disk that their two-bit codes, which err less, show not to matter out of the
  // range: a row costs a read of its cluster there.
  void DropHopeless(std::span<NeedleCandidate> keys);
  // Those that the range holds; what cannot be read is left as it is.
  void ScoreFetched(std::span<NeedleCandidate> keys);

  const IndexedPart& part_;
  const NeedleRequest& request_;
  const CodedQuery& query_;
  const size_t count_;
  std::atomic<float>& log_total_;
  float estimate_floor_;  // of estimates, once more than `count_` are known
  std::vector<NeedleCandidate>& best_;
  size_t settled_ = 0;      // of best_, seen by RaiseFloor
  bool promising_ = false;  // one that was not seems to outweigh everything
  RowReader& rows_;
  ReadStatistics& read_;
  std::vector<ClusterRow> to_fetch_;
  std::vector<const std::byte*> addresses_;  // of the keys being scored
  ResidualQuery residual_;                   // once it was needed
  std::vector<int16_t> coefficients_;
};

}  // namespace attic

#endif  // ATTIC_SERVER_INDEX_SEARCH_NEEDLE_QUERY_H_
