#include "server/index/search/needle_query.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>

#include "attention/vector_kernels.h"
#include "base/prefetch.h"
#include "server/index/codes/residual_codes.h"

namespace attic {
namespace {

constexpr float kSqrtTwoOverPi = 0.79788456f;
constexpr size_t kRaisesMax = 4;  // keys scored to raise the floor, of blocks scanned together
constexpr size_t kFirstScored = 32;
constexpr size_t kPrefetchKeys = 8;
// A key is not read when its two-bit code is so many standard deviations from mattering: so many
// that answers are those of keys in memory.
constexpr float kResidualErrors = 5.0f;
constexpr size_t kKeysFetchedTogether = 2048;  // whose clusters, where on disk, are held together
// Where codes err by fewer logits than this, no key that they miss outweighs the others by much:
// fewer candidates do, one in kFewerCandidates.
constexpr float kSmallMargin = 10.0f;
constexpr size_t kFewerCandidates = 16;

bool HigherLogit(const NeedleCandidate& a, const NeedleCandidate& b) { return a.logit > b.logit; }

}  // namespace

CodedQuery::CodedQuery(const IndexedPart& part, const float* vector, float* rotated,
                       uint8_t* tables)
    : vector(vector),
      tables(tables),
      code(MakeSignQuery(*part.rotation, vector, rotated, tables)),
      reach_per_factor(code.length * std::sqrt(static_cast<float>(part.rotation->code_dim())) *
                       kSqrtTwoOverPi) {}

size_t CandidatesToKeep(const CodedQuery& query, float radius, size_t count) {
  const float margin = CodeMargin(query.code, query.code.length * radius, 0.0f, 0.0f);
  return margin < kSmallMargin ? std::max<size_t>(1, count / kFewerCandidates) : count;
}

NeedleQuery::NeedleQuery(const IndexedPart& part, const NeedleRequest& request,
                         const CodedQuery& query, std::atomic<float>& log_total, size_t count,
                         std::vector<NeedleCandidate>& best, RowReader& rows, ReadStatistics& read)
    : part_(part),
      request_(request),
      query_(query),
      count_(count),
      log_total_(log_total),
      estimate_floor_(-std::numeric_limits<float>::infinity()),
      best_(best),
      rows_(rows),
      read_(read) {}

CodeQuestion NeedleQuery::Question(bool outweigh) const {
  CodeQuestion question;
  question.step = query_.code.step;
  question.offset = query_.code.offset;
  if (outweigh) {
    question.floor = question.estimate_floor = log_total();
    return question;
  }
  question.floor = floor();
  question.estimate_floor = estimate_floor_;
  question.error = kCodeErrors * query_.code.error;
  question.table_error = kCodeErrors * query_.code.table_error;
  question.length = query_.code.length;
  question.reach = query_.reach_per_factor;
  return question;
}

void NeedleQuery::Consider(const ScannedRow& row) {
  NeedleCandidate key;
  key.base = row.base;
  key.factor = row.factor;
  key.logit =
      key.base + key.factor * (query_.code.step * static_cast<float>(row.sum) + query_.code.offset);
  if (key.logit < estimate_floor_ || !MayMatter(key)) return;
  key.segment = row.segment;
  key.slot = row.slot;
  // Elsewhere the row, which costs a read from memory, is found for those that are scored.
  if (IsCut(*part_.segments[key.segment])) {
    FindRows({&key, 1});
    if (!key.in_range) return;
  }
  promising_ |= key.logit > log_total();
  best_.push_back(key);
}

void NeedleQuery::RaiseFloor(bool keep) {
  if (promising_ && request_.raises) RaiseFloorBy(std::span(best_).subspan(settled_));
  promising_ = false;
  if (!keep) best_.resize(settled_);
  if (best_.size() >= 2 * count_) Prune();
  settled_ = best_.size();
}

// What the most promising hold decides for most others.
void NeedleQuery::ScoreCandidates() {
  Prune();
  const size_t first = std::min(kFirstScored, best_.size());
  std::nth_element(best_.begin(), best_.begin() + first, best_.end(), HigherLogit);
  ScoreExactly(std::span(best_).first(first));
  const auto rest = std::remove_if(best_.begin() + first, best_.end(),
                                   [&](const NeedleCandidate& key) { return !MayMatter(key); });
  best_.erase(rest, best_.end());
  ScoreExactly(std::span(best_).subspan(first));
  std::erase_if(best_,
                [&](const NeedleCandidate& key) { return !key.in_range || key.logit < floor(); });
  std::sort(best_.begin(), best_.end(), HigherLogit);
}

void NeedleQuery::RaiseLogTotal(float logit) {
  if (!request_.raises) return;
  float known = log_total();
  while (logit > known &&
         !log_total_.compare_exchange_weak(known, logit, std::memory_order_relaxed)) {
  }
}

void NeedleQuery::RaiseFloorBy(std::span<const NeedleCandidate> candidates) {
  NeedleCandidate keys[kRaisesMax];
  const auto end = std::partial_sort_copy(candidates.begin(), candidates.end(), std::begin(keys),
                                          std::end(keys), HigherLogit);
  const auto promising =
      std::find_if(keys, end, [&](const auto& key) { return key.logit <= log_total(); });
  ScoreExactly({keys, promising});
}

void NeedleQuery::ScoreExactly(std::span<NeedleCandidate> keys) {
  FindRows(keys);
  DropHopeless(keys);
  for (size_t begin = 0; begin < keys.size(); begin += kKeysFetchedTogether) {
    ScoreFetched(keys.subspan(begin, std::min(kKeysFetchedTogether, keys.size() - begin)));
  }
}

void NeedleQuery::DropHopeless(std::span<NeedleCandidate> keys) {
  for (NeedleCandidate& key : keys) {
    if (!key.in_range || rows_.resident(key.segment)) continue;
    if (coefficients_.empty()) {
      std::vector<float> rotated(part_.rotation->code_dim());
      coefficients_.resize(ResidualCodeDim(*part_.rotation));
      residual_ =
          MakeResidualQuery(*part_.rotation, query_.vector, rotated.data(), coefficients_.data());
    }
    const Segment& segment = *part_.segments[key.segment];
    const size_t cluster = segment.cluster_of_row(key.row);
    const VectorsView centroids{segment.clusters.centroids.data(), ElementType::kBFloat16,
                                segment.clusters.count, segment.head_dim};
    float base = 0, logit = 0, best = 0;
    ScoreVectors(query_.vector, 1, centroids.rows(cluster, 1), &base);
    const CodedRows row = segment.residuals.rows(cluster, key.row, 1);
    const ResidualScoring scoring{coefficients_.data(), residual_.step, residual_.offset,
                                  /*half_variance=*/0, base};
    ScoreResiduals(row, {&scoring, 1}, &logit, {&best, 1});
    read_.bytes_read += centroids.row_bytes() + segment.residuals.row_bytes;
    const float factor = row.factor_unit * static_cast<float>(*row.factors);
    if (logit + kResidualErrors * std::sqrt(residual_.variance) * factor >= floor()) continue;
    key.logit = logit;
    key.in_range = false;
  }
}

void NeedleQuery::ScoreFetched(std::span<NeedleCandidate> keys) {
  to_fetch_.clear();
  for (const NeedleCandidate& key : keys) {
    if (!key.in_range || rows_.resident(key.segment)) continue;
    const Segment& segment = *part_.segments[key.segment];
    const size_t cluster = segment.cluster_of_row(key.row);
    to_fetch_.push_back({static_cast<uint32_t>(key.segment * part_.clusters_per_segment + cluster),
                         key.row - segment.clusters.row_begin[cluster]});
  }
  if (!to_fetch_.empty() && !rows_.Fetch(to_fetch_, read_)) return;
  addresses_.clear();
  size_t fetched = 0;
  for (const NeedleCandidate& key : keys) {
    if (!key.in_range) continue;
    const std::byte* resident = rows_.ResidentKey(key.segment, key.row);
    addresses_.push_back(resident != nullptr ? resident : rows_.key(to_fetch_[fetched++]));
  }
  const size_t dim = part_.shape.head_dim;
  const size_t key_bytes = dim * ElementBytes(part_.shape.element_type);
  size_t scored = 0;
  for (NeedleCandidate& key : keys) {
    if (!key.in_range) continue;
    if (scored + kPrefetchKeys < addresses_.size()) {
      PrefetchBytes(addresses_[scored + kPrefetchKeys], key_bytes);
    }
    ScoreVectors(query_.vector, 1, {addresses_[scored++], part_.shape.element_type, 1, dim},
                 &key.logit);
    RaiseLogTotal(key.logit);
  }
  read_.bytes_read += addresses_.size() * key_bytes;
}

bool NeedleQuery::MayMatter(const NeedleCandidate& key) const {
  const float reach = query_.reach_per_factor * key.factor;
  return key.logit >= floor() - CodeMargin(query_.code, reach, floor() - key.base, key.factor);
}

// Sets row and in_range.
void NeedleQuery::FindRows(std::span<NeedleCandidate> keys) const {
  for (const NeedleCandidate& key : keys) {
    __builtin_prefetch(part_.segments[key.segment]->codes.row.data() + key.slot);
  }
  for (NeedleCandidate& key : keys) {
    const Segment& segment = *part_.segments[key.segment];
    key.row = segment.codes.row[key.slot];
    key.in_range = key.row != SignCodes::kNoRow;
    if (!key.in_range || !IsCut(segment)) continue;
    const int64_t position = segment.position(key.row);
    key.in_range = position >= request_.range.begin && position < request_.range.end;
  }
}

// Only segments cut by the range hold rows outside it.
bool NeedleQuery::IsCut(const Segment& segment) const {
  return request_.range.begin > segment.begin_position ||
         request_.range.end < segment.end_position();
}

// Keeps the `count_` candidates with the largest estimates.
void NeedleQuery::Prune() {
  std::erase_if(best_, [&](const NeedleCandidate& key) { return !MayMatter(key); });
  if (best_.size() <= count_) return;
  std::nth_element(best_.begin(), best_.begin() + (count_ - 1), best_.end(), HigherLogit);
  estimate_floor_ = best_[count_ - 1].logit;
  best_.resize(count_);
}

}  // namespace attic
