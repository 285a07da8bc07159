#include "server/index/search/descent.h"

#include <algorithm>
#include <cmath>

#include "attention/gather_scores.h"
#include "attention/vector_kernels.h"
#include "base/check.h"
#include "server/index/codes/residual_kernels.h"
#include "server/index/search/row_kernels.h"

namespace attic {
namespace {

constexpr size_t kRowsScoredTogether = 512;  // for all queries of a group
// Rows whose clusters, where they are on disk, are read and held together.
constexpr size_t kRowsFetchedTogether = 4096;

// The factor 255 is the largest of its group (residual_codes.h).
float LargestFactorSquare(const CodedRows& rows) {
  const float largest = kResidualFactorMax * rows.factor_unit;
  return largest * largest;
}

}  // namespace

Descent::Descent(const IndexedPart& part, const DescentRequest& request, DescentState& state,
                 ReadStatistics& read)
    : part_(part),
      request_(request),
      group_(request.queries.size() / part.shape.head_dim),
      super_count_(part.super_cluster_count()),
      code_dim_(ResidualCodeDim(*part.rotation)),
      key_bytes_((part.shape.head_dim + part.shape.value_dim) *
                 ElementBytes(part.shape.element_type)),
      s_(state),
      read_(read) {}

void Descent::Begin() {
  s_.super_state.assign(super_count_, SuperState::kWhole);
  s_.opened_index.assign(super_count_, 0);
  s_.opened.clear();
  s_.cluster_state.clear();
  s_.cluster_logits.clear();
  s_.cluster_log_mass.clear();
  s_.coded.clear();
  s_.coded_index.clear();
  s_.row_logits.clear();
  s_.row_mass.clear();
  s_.row_exact.clear();
  s_.row_totals.clear();
  s_.exact_rows.clear();
  s_.exact_values.clear();
  s_.rows.Begin(part_);
  s_.reference.clear();
  s_.super_wide_mass.clear();
  s_.cluster_wide_mass.clear();
  s_.cluster_mass.clear();
  s_.cluster_doubt.clear();
  s_.partial.clear();
  s_.keys_may_hide = true;
  s_.doubts_known = false;
  s_.coarse_square.assign(group_, 0.0f);
  s_.scale.assign(group_, 1.0f);
  s_.residual_queries.clear();
  ScoreSuperClusters();
  for (size_t i = 0; i < part_.segments.size(); ++i) MarkSegment(i);
}

void Descent::ScoreSuperClusters() {
  const EstimateTerms& terms = *part_.terms;
  const size_t head_dim = part_.shape.head_dim;
  s_.super_norms.resize(group_);
  s_.cluster_norms.resize(group_);
  s_.super_doubt_norms.resize(group_);
  s_.cluster_doubt_norms.resize(group_);
  s_.super_logits.resize(group_ * super_count_);
  s_.super_log_mass.resize(group_ * super_count_);
  ScoreVectors(request_.queries.data(), group_, part_.super_centroids(), s_.super_logits.data());
  const float wide = std::max(terms.variance_share, part_.calibration.wide_norm);
  for (size_t g = 0; g < group_; ++g) {
    const std::span<const float> query = request_.queries.subspan(g * head_dim, head_dim);
    s_.super_doubt_norms[g] = wide * DeviationNorm(terms.super_clusters, query);
    s_.cluster_doubt_norms[g] = wide * DeviationNorm(terms.clusters, query);
    s_.super_norms[g] = terms.variance_share * DeviationNorm(terms.super_clusters, query);
    s_.cluster_norms[g] = terms.variance_share * DeviationNorm(terms.clusters, query);
    EstimateLogMass(s_.super_logits.data() + g * super_count_, part_.super_sums(),
                    s_.super_norms[g], s_.super_log_mass.data() + g * super_count_);
  }
  read_.bytes_read += super_count_ * (head_dim * 2 + kSumsBytes);
}

void Descent::MarkSegment(size_t index) {
  const Segment& segment = *part_.segments[index];
  const PositionRange range = request_.range;
  if (range.begin <= segment.begin_position && range.end >= segment.end_position()) return;
  const size_t first_super = index * part_.super_clusters_per_segment;
  if (segment.end_position() <= range.begin || segment.begin_position >= range.end) {
    std::fill_n(s_.super_state.begin() + first_super, part_.super_clusters_per_segment,
                SuperState::kExcluded);
    return;
  }
  for (size_t s = 0; s < segment.super_clusters.count; ++s) {
    const size_t begin = segment.super_cluster_begin[s], end = segment.super_cluster_begin[s + 1];
    size_t rows = 0;
    for (size_t c = begin; c < end; ++c) {
      const Segment::Rows in_range = segment.RowsInRange(c, range);
      rows += in_range.end - in_range.begin;
    }
    if (rows == segment.super_clusters.rows(s)) continue;
    if (rows == 0) {
      s_.super_state[first_super + s] = SuperState::kExcluded;
      continue;
    }
    const size_t place = OpenSuper(first_super + s);
    for (size_t c = begin; c < end; ++c) {
      const Segment::Rows in_range = segment.RowsInRange(c, range);
      const size_t n = in_range.end - in_range.begin;
      if (n == segment.clusters.rows(c)) continue;
      s_.cluster_state[s_.opened[place].offset + c - begin] =
          n == 0 ? ClusterState::kExcluded : ClusterState::kPartial;
      if (n != 0) {
        s_.partial.push_back(static_cast<uint32_t>(index * part_.clusters_per_segment + c));
      }
    }
  }
}

void Descent::PrepareQueries() {
  if (!s_.residual_queries.empty()) return;
  const size_t head_dim = part_.shape.head_dim, packed = PackedQueryFloats(head_dim);
  s_.packed.resize(group_ * packed);
  for (size_t g = 0; g < group_; ++g) {
    PackQuery(request_.queries.data() + g * head_dim, head_dim, part_.shape.element_type,
              s_.packed.data() + g * packed);
  }
  s_.coefficients.resize(group_ * code_dim_);
  s_.rotated.resize(part_.rotation->code_dim());
  for (size_t g = 0; g < group_; ++g) {
    s_.residual_queries.push_back(
        MakeResidualQuery(*part_.rotation, request_.queries.data() + g * part_.shape.head_dim,
                          s_.rotated.data(), s_.coefficients.data() + g * code_dim_));
  }
}

size_t Descent::OpenSuper(size_t super_cluster) {
  if (s_.opened_index[super_cluster] != 0) return s_.opened_index[super_cluster] - 1;
  s_.super_state[super_cluster] = SuperState::kOpened;
  const size_t index = super_cluster / part_.super_clusters_per_segment;
  const size_t local = super_cluster % part_.super_clusters_per_segment;
  const Segment& segment = *part_.segments[index];
  const size_t begin = segment.super_cluster_begin[local];
  const size_t count = segment.super_cluster_begin[local + 1] - begin;
  const size_t first_node = index * part_.clusters_per_segment + begin;
  const size_t offset = s_.cluster_state.size();
  s_.opened.push_back({static_cast<uint32_t>(first_node), static_cast<uint32_t>(count),
                       static_cast<uint32_t>(offset)});
  s_.opened_index[super_cluster] = static_cast<uint32_t>(s_.opened.size());
  s_.cluster_state.resize(offset + count, ClusterState::kEstimated);
  s_.coded_index.resize(offset + count, 0);
  s_.cluster_logits.resize(group_ * (offset + count));
  s_.cluster_log_mass.resize(group_ * (offset + count));
  float* logits = s_.cluster_logits.data() + group_ * offset;
  const VectorsView centroids{segment.clusters.centroids.data(), ElementType::kBFloat16,
                              segment.clusters.count, part_.shape.head_dim};
  ScoreVectors(request_.queries.data(), group_, centroids.rows(begin, count), logits);
  const GroupSums sums = GroupSums::Of(segment.clusters, begin, count);
  for (size_t g = 0; g < group_; ++g) {
    EstimateLogMass(logits + g * count, sums, s_.cluster_norms[g],
                    s_.cluster_log_mass.data() + group_ * offset + g * count);
  }
  read_.bytes_read += count * cluster_bytes();
  if (!s_.reference.empty()) {
    for (size_t g = 0; g < group_; ++g) {
      s_.super_mass[g * super_count_ + super_cluster] = 0;
      s_.super_doubt[g * super_count_ + super_cluster] = 0;
      if (masses_are_narrow()) s_.super_wide_mass[g * super_count_ + super_cluster] = 0;
    }
    WeighClusters(s_.opened.back());
  }
  return s_.opened.size() - 1;
}

void Descent::CodeCluster(size_t opened, size_t cluster) {
  ATTIC_CHECK(!s_.reference.empty());
  PrepareQueries();
  const OpenedSuper open = s_.opened[opened];
  const auto node = static_cast<uint32_t>(open.first_node + cluster);
  const Segment& segment = SegmentOf(open);
  const size_t rows = segment.clusters.rows(node % part_.clusters_per_segment);
  const size_t offset = s_.row_exact.size();
  s_.cluster_state[open.offset + cluster] = ClusterState::kCoded;
  s_.coded_index[open.offset + cluster] = static_cast<uint32_t>(s_.coded.size() + 1);
  s_.coded.push_back({.node = node,
                      .opened = static_cast<uint32_t>(opened),
                      .rows = static_cast<uint32_t>(rows),
                      .offset = static_cast<uint32_t>(offset),
                      .exact = 0});
  s_.row_exact.resize(offset + rows, 0);
  s_.row_logits.resize(group_ * (offset + rows));
  s_.row_mass.resize(group_ * (offset + rows));
  s_.scorings.resize(group_);
  s_.best_logits.resize(group_);
  for (size_t g = 0; g < group_; ++g) {
    const size_t at = group_ * open.offset + g * open.count + cluster;
    const ResidualQuery& query = s_.residual_queries[g];
    s_.scorings[g] = {.coefficients = s_.coefficients.data() + g * code_dim_,
                      .step = query.step,
                      .offset = query.offset,
                      .half_variance = 0.5f * query.variance,
                      .base = s_.cluster_logits[at]};
    s_.cluster_mass[at] = s_.cluster_doubt[at] = 0;
    if (masses_are_narrow()) s_.cluster_wide_mass[at] = 0;
  }
  const CodedCluster coded = s_.coded.back();
  ScoreResiduals(RowsOf(coded), s_.scorings, s_.row_logits.data() + RowsBegin(coded, 0),
                 s_.best_logits);
  for (size_t g = 0; g < group_; ++g) WeighCoded(coded, g, s_.best_logits[g]);
  read_.bytes_read += rows * (segment.residuals.row_bytes + 1);
}

// Masses and totals of the cluster last added, for query g, from its logits.
void Descent::WeighCoded(const CodedCluster& coded, size_t g, float best) {
  const CodedRows rows = RowsOf(coded);
  const ResidualQuery& query = s_.residual_queries[g];
  RaiseReference(g, best);
  const RowSums sums = WeighRows(s_.reference[g], s_.row_logits.data() + RowsBegin(coded, g),
                                 s_.row_exact.data() + coded.offset, coded.rows,
                                 s_.row_mass.data() + RowsBegin(coded, g));
  const float variance = query.variance * LargestFactorSquare(rows);
  const float mean_square =
      SumFactorSquares(rows) / static_cast<float>(std::max<size_t>(rows.count, 1));
  s_.row_totals.push_back({.best_rest = sums.best_rest,
                           .best_mass = sums.best_mass,
                           .deviation = std::sqrt(variance),
                           .doubt = RowDoubt(variance),
                           .mean_doubt = RowDoubt(query.variance * mean_square),
                           .rest = sums.rest,
                           .rest_squares = sums.rest_squares,
                           .exact = 0,
                           .exact_squares = 0});
}

bool Descent::MakeWantedExact(const DescentThreshold& threshold) {
  std::vector<DescentState::RowPlace>& wanted = s_.wanted;
  const double left = threshold.bytes_max - static_cast<double>(read_.bytes_read);
  const double affordable = std::max(0.0, left / static_cast<double>(key_bytes_));
  const bool all = affordable >= static_cast<double>(wanted.size());
  while (static_cast<double>(wanted.size()) > affordable) {
    s_.row_exact[s_.coded[wanted.back().coded].offset + wanted.back().offset] = 0;
    wanted.pop_back();
  }
  for (size_t begin = 0; begin < wanted.size(); begin += kRowsFetchedTogether) {
    const size_t count = std::min(kRowsFetchedTogether, wanted.size() - begin);
    if (!ScoreFetched({wanted.data() + begin, count})) return false;
  }
  for (size_t i = 0; i < wanted.size(); ++i) {
    const uint32_t coded = wanted[i].coded;
    if (i + 1 == wanted.size() || wanted[i + 1].coded != coded) SumRowsAgain(coded);
  }
  s_.exact_rows.insert(s_.exact_rows.end(), wanted.begin(), wanted.end());
  read_.exact_tokens += wanted.size();
  read_.bytes_read += wanted.size() * key_bytes_;
  return all;
}

bool Descent::ScoreFetched(std::span<const DescentState::RowPlace> rows) {
  s_.to_fetch.clear();
  for (const DescentState::RowPlace& row : rows) s_.to_fetch.push_back(ClusterRowOf(row));
  if (!s_.rows.Fetch(s_.to_fetch, read_)) return false;
  for (const ClusterRow& row : s_.to_fetch) s_.exact_values.push_back(s_.rows.KeepValue(row));
  for (size_t begin = 0; begin < rows.size(); begin += kRowsScoredTogether) {
    ScoreExactly(rows.subspan(begin, std::min(kRowsScoredTogether, rows.size() - begin)));
  }
  return true;
}

// Sums of their clusters do not follow.
void Descent::ScoreExactly(std::span<const DescentState::RowPlace> rows) {
  const size_t packed = PackedQueryFloats(part_.shape.head_dim);
  s_.addresses.clear();
  for (const DescentState::RowPlace& row : rows) {
    CodedCluster& coded = s_.coded[row.coded];
    s_.row_exact[coded.offset + row.offset] = kRowExact;
    ++coded.exact;
    s_.addresses.push_back(s_.rows.key(ClusterRowOf(row)));
  }
  const ScatteredRows keys{s_.addresses, part_.shape.element_type, part_.shape.head_dim};
  s_.buffer.resize(2 * rows.size());
  const std::span<float> logits(s_.buffer.data(), rows.size());
  const std::span<float> masses(s_.buffer.data() + rows.size(), rows.size());
  for (size_t g = 0; g < group_; ++g) {
    GatherScores(s_.packed.data() + g * packed, keys, logits.data());
    RaiseReference(g, MaxElement(logits));
    std::copy(logits.begin(), logits.end(), masses.begin());
    ExpInPlace(s_.reference[g], masses);
    for (size_t i = 0; i < rows.size(); ++i) {
      const size_t at = RowsBegin(s_.coded[rows[i].coded], g) + rows[i].offset;
      s_.row_logits[at] = logits[i];
      s_.row_mass[at] = masses[i];
    }
  }
}

void Descent::ReadLevel(bool codes) {
  for (size_t i = 0; i < super_count_; ++i) {
    if (s_.super_state[i] == SuperState::kWhole) OpenSuper(i);
  }
  if (!codes) return;
  for (size_t i = 0; i < s_.opened.size(); ++i) {
    for (size_t c = 0; c < s_.opened[i].count; ++c) {
      const ClusterState state = s_.cluster_state[s_.opened[i].offset + c];
      if (state == ClusterState::kEstimated) CodeCluster(i, c);
    }
  }
}

}  // namespace attic
