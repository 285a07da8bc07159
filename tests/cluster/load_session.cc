#include "tests/cluster/load_session.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"

namespace attic {
namespace {

// Exact answers of two sides differ by rounding only: relative to the output, or where the values,
// normal numbers, all but cancel each other, relative to a value. One token of 100,000 is more.
constexpr double kExactError = 1e-5;
constexpr double kRounding = 1e-6;
constexpr double kExactMassError = 1e-5;
// Answers through the index keep to the error asked for but for few; an answer that lacks tokens,
// or has others, is off by more.
constexpr double kIndexedError = 0.25;

std::vector<float> Normal(uint64_t seed, size_t count) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> numbers(count);
  for (float& number : numbers) number = normal(random);
  return numbers;
}

Fingerprint Model(const LoadShape& shape) {
  return {.model_id = "cluster-load",
          .revision = "1",
          .layers = shape.layers,
          .q_heads = shape.q_heads,
          .kv_heads = shape.kv_heads,
          .head_dim = shape.head_dim,
          .value_dim = shape.head_dim,
          .element_type = ElementType::kFloat32,
          .logit_scale = 1.0f / std::sqrt(static_cast<float>(shape.head_dim)),
          .position_encoding = "none"};
}

// Of each query head, the largest |a - b| / |b|, less what is rounding of a value.
double Difference(std::span<const float> a, std::span<const float> b, size_t dim) {
  if (a.size() != b.size()) return INFINITY;
  double worst = 0;
  for (size_t begin = 0; begin < a.size(); begin += dim) {
    double difference = 0, length = 0;
    for (size_t i = begin; i < begin + dim; ++i) {
      difference += (double{a[i]} - b[i]) * (double{a[i]} - b[i]);
      length += double{b[i]} * b[i];
    }
    const double rounding = kRounding * std::sqrt(static_cast<double>(dim));
    worst =
        std::max(worst, (std::sqrt(difference) - rounding) / std::sqrt(std::max(length, 1e-30)));
  }
  return worst;
}

double MassDifference(const AttendAnswer& a, const AttendAnswer& b) {
  if (a.log_sum_exp.size() != b.log_sum_exp.size()) return INFINITY;
  double worst = 0;
  for (size_t h = 0; h < a.log_sum_exp.size(); ++h) {
    worst = std::max(worst, std::abs(double{a.log_sum_exp[h]} - b.log_sum_exp[h]));
  }
  return worst;
}

}  // namespace

absl::StatusOr<std::unique_ptr<LoadSession>> LoadSession::Open(Client& cluster, Client& oracle,
                                                               const std::string& id,
                                                               uint64_t content_seed,
                                                               const LoadShape& shape) {
  OpenSessionRequest request{.session_id = id,
                             .fingerprint = Model(shape),
                             .durability = shape.durability,
                             .replication = shape.replication};
  for (uint32_t layer = 0; layer < shape.layers; ++layer) request.stored_layers.push_back(layer);
  ATTIC_RETURN_IF_ERROR(cluster.OpenSession(request).status());
  request.durability = Durability::kMemory;
  ATTIC_RETURN_IF_ERROR(oracle.OpenSession(request).status());
  std::unique_ptr<LoadSession> session(new LoadSession(cluster, oracle, id, content_seed, shape));
  ATTIC_ASSIGN_OR_RETURN(session->oracle_stream_, oracle.OpenAppendStream());
  return session;
}

absl::Status LoadSession::AppendTo(AppendStream& stream, int64_t begin) const {
  const size_t count = shape_.batch_tokens;
  for (uint32_t layer = 0; layer < shape_.layers; ++layer) {
    const uint64_t seed =
        (content_seed_ * 1'000'003 + static_cast<uint64_t>(begin)) * 1'009 + layer;
    const size_t row = size_t{shape_.kv_heads} * shape_.head_dim;
    const std::vector<float> rows = Normal(seed, 2 * count * row);
    const std::vector<float> queries = Normal(seed + 1, size_t{shape_.q_heads} * shape_.head_dim);
    const std::span<const float> keys = std::span(rows).first(count * row);
    ATTIC_RETURN_IF_ERROR(
        stream.Append({.session_id = id_,
                       .layer = layer,
                       .begin_position = begin,
                       .count = count,
                       .keys = std::as_bytes(keys),
                       .values = std::as_bytes(std::span(rows).subspan(count * row)),
                       .query_sample = queries}));
  }
  return absl::OkStatus();
}

absl::Status LoadSession::Send(int64_t begin, absl::Time deadline) {
  if (stream_ == nullptr) {
    ATTIC_ASSIGN_OR_RETURN(stream_, cluster_.OpenAppendStream());
  }
  ATTIC_RETURN_IF_ERROR(AppendTo(*stream_, begin));
  return stream_->Flush(deadline).status();
}

absl::Status LoadSession::WriteBatch(absl::Time deadline) {
  const int64_t begin = acknowledged_;
  const int64_t end = begin + static_cast<int64_t>(shape_.batch_tokens);
  if (in_oracle_ < end) {
    ATTIC_RETURN_IF_ERROR(AppendTo(*oracle_stream_, begin));
    ATTIC_RETURN_IF_ERROR(oracle_stream_->Flush(absl::InfiniteFuture()).status());
    in_oracle_ = end;
  }
  const absl::Status sent = Send(begin, deadline);
  if (sent.ok()) {
    acknowledged_ = end;
  } else {
    stream_.reset();
  }
  return sent;
}

Asked LoadSession::Ask(std::mt19937_64& random, AttendMode mode, absl::Time deadline,
                       absl::Duration& took) {
  const int64_t held = acknowledged_;
  const std::vector<float> queries = Normal(random(), size_t{shape_.q_heads} * shape_.head_dim);
  AttendItem item{.session_id = id_,
                  .layer = static_cast<uint32_t>(random() % shape_.layers),
                  .range = {.begin = 0, .end = held},
                  .min_watermark = held,
                  .mode = mode,
                  .queries = queries};
  const absl::Time begin = absl::Now();
  auto answers = cluster_.Attend({&item, 1}, deadline);
  took = absl::Now() - begin;
  if (!answers.ok()) return {.status = answers.status()};
  const AttendAnswer& answer = answers->front();
  if (!answer.status.ok()) return {.status = answer.status};
  item.mode = AttendMode::kExact;
  auto right = oracle_.Attend({&item, 1}, absl::InfiniteFuture());
  if (!right.ok()) return {.status = right.status()};
  if (!right->front().status.ok()) return {.status = right->front().status};

  const bool exact = mode == AttendMode::kExact;
  const double difference = Difference(answer.output, right->front().output, shape_.head_dim);
  const double mass = MassDifference(answer, right->front());
  const PositionRange expected{.begin = 0, .end = held};
  Asked asked;
  // Near the deadline a store may stop early, and says so; it leaves nothing out.
  asked.wrong = answer.range != expected ||
                (!answer.degraded && (difference > (exact ? kExactError : kIndexedError) ||
                                      mass > (exact ? kExactMassError : 0.1)));
  if (asked.wrong) {
    asked.what = absl::StrCat(id_, " layer ", item.layer, exact ? " exact" : " indexed", " below ",
                              held, ": answered for [", answer.range.begin, ", ", answer.range.end,
                              "), output off by ", difference, ", log-sum-exp by ", mass);
  }
  return asked;
}

}  // namespace attic
