#include "server/session/query_executor.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "base/status_macros.h"

namespace attic {
namespace {

// Scanning this many tokens takes about as long as waking another thread.
constexpr int64_t kInlineTokensMax = 512;

struct HeadTask {
  size_t query;
  size_t kv_head;
};

struct HeadCost {
  ReadStatistics read;
  bool degraded = false;
  absl::Status status;
};

HeadRequest RequestOf(const PreparedQuery& query, size_t kv_head, absl::Time deadline) {
  const Fingerprint& fingerprint = query.session->fingerprint();
  const size_t size = size_t{fingerprint.group()} * fingerprint.head_dim;
  return {.queries = query.queries.subspan(kv_head * size, size),
          .range = query.range,
          .mode = query.mode,
          .selection = query.selection,
          .deadline = deadline};
}

int64_t RangeTokens(const PreparedQuery& query) { return query.range.end - query.range.begin; }

void SizeAnswer(const PreparedQuery& query, AttendAnswer& answer) {
  const Fingerprint& fingerprint = query.session->fingerprint();
  answer.output.resize(size_t{fingerprint.q_heads} * fingerprint.value_dim);
  answer.log_sum_exp.resize(fingerprint.q_heads);
  answer.coverage.resize(fingerprint.q_heads);
  answer.estimated_error.resize(fingerprint.q_heads);
  answer.range = query.range;
}

// What is left of an answer that failed.
void DropAnswer(AttendAnswer& answer) {
  answer.output.clear();
  answer.log_sum_exp.clear();
  answer.coverage.clear();
  answer.estimated_error.clear();
  answer.range = {0, 0};
  answer.read = {};
}

// Heads write disjoint parts of the answer.
void CopyHead(const HeadAnswer& head, size_t kv_head, AttendAnswer& answer) {
  std::copy(head.output.begin(), head.output.end(),
            answer.output.begin() + kv_head * head.output.size());
  std::copy(head.log_sum_exp.begin(), head.log_sum_exp.end(),
            answer.log_sum_exp.begin() + kv_head * head.log_sum_exp.size());
  std::copy(head.coverage.begin(), head.coverage.end(),
            answer.coverage.begin() + kv_head * head.coverage.size());
  std::copy(head.error.begin(), head.error.end(),
            answer.estimated_error.begin() + kv_head * head.error.size());
}

absl::Status CopyHitVectors(const HeadSnapshot& head, const Fingerprint& fingerprint,
                            const std::vector<SearchHit>& hits, std::vector<std::byte>& keys,
                            std::vector<std::byte>& values) {
  const size_t element_bytes = ElementBytes(fingerprint.element_type);
  const size_t key_bytes = fingerprint.head_dim * element_bytes;
  const size_t value_bytes = fingerprint.value_dim * element_bytes;
  keys.resize(hits.size() * key_bytes);
  values.resize(hits.size() * value_bytes);
  std::vector<int64_t> positions;
  for (const SearchHit& hit : hits) positions.push_back(hit.position);
  return head.CopyVectors(positions, keys.data(), values.data());
}

}  // namespace

class QueryExecutor::ScratchLease {
 public:
  explicit ScratchLease(QueryExecutor& executor) : executor_(executor) {
    {
      MutexLock lock(executor_.mutex_);
      if (!executor_.free_.empty()) {
        scratch_ = std::move(executor_.free_.back());
        executor_.free_.pop_back();
      }
    }
    if (scratch_ == nullptr) scratch_ = std::make_unique<Scratch>(*executor_.pool_);
  }
  ~ScratchLease() {
    MutexLock lock(executor_.mutex_);
    executor_.free_.push_back(std::move(scratch_));
  }
  Scratch* operator->() { return scratch_.get(); }

 private:
  QueryExecutor& executor_;
  std::unique_ptr<Scratch> scratch_;
};

void QueryExecutor::Run(size_t count, int64_t tokens, const std::function<void(size_t)>& body) {
  if (tokens > kInlineTokensMax) {
    pool_->ParallelFor(count, body);
    return;
  }
  for (size_t i = 0; i < count; ++i) body(i);
}

void QueryExecutor::Attend(std::span<const PreparedQuery> queries, absl::Time deadline,
                           std::span<AttendAnswer* const> answers) {
  std::vector<HeadTask> tasks;
  int64_t tokens = 0;
  for (size_t i = 0; i < queries.size(); ++i) {
    SizeAnswer(queries[i], *answers[i]);
    for (size_t head = 0; head < queries[i].layer.heads.size(); ++head) {
      tasks.push_back({i, head});
      tokens += RangeTokens(queries[i]);
    }
  }
  std::vector<HeadCost> costs(tasks.size());
  Run(tasks.size(), tokens, [&](size_t t) {
    const PreparedQuery& query = queries[tasks[t].query];
    const size_t head = tasks[t].kv_head;
    ScratchLease scratch(*this);
    HeadAnswer& answer = scratch->answer;
    absl::Status status =
        query.layer.heads[head]->Attend(RequestOf(query, head, deadline), *scratch->search, answer);
    if (status.ok()) CopyHead(answer, head, *answers[tasks[t].query]);
    costs[t] = {.read = answer.read, .degraded = answer.degraded, .status = std::move(status)};
  });
  for (size_t t = 0; t < tasks.size(); ++t) {
    AttendAnswer& answer = *answers[tasks[t].query];
    answer.read += costs[t].read;
    answer.degraded = answer.degraded || costs[t].degraded;
    answer.status.Update(costs[t].status);
  }
  for (AttendAnswer* answer : answers) {
    if (!answer->status.ok()) DropAnswer(*answer);
  }
}

absl::StatusOr<SearchAnswer> QueryExecutor::Search(const PreparedQuery& query, size_t k,
                                                   bool with_vectors) {
  const Fingerprint& fingerprint = query.session->fingerprint();
  const size_t group = fingerprint.group();
  SearchAnswer answer;
  answer.hits.resize(fingerprint.q_heads);
  if (with_vectors) {
    answer.keys.resize(fingerprint.q_heads);
    answer.values.resize(fingerprint.q_heads);
  }
  const size_t heads = query.layer.heads.size();
  std::vector<ReadStatistics> reads(heads);
  std::vector<absl::Status> statuses(heads);
  Run(heads, RangeTokens(query) * static_cast<int64_t>(heads), [&](size_t head) {
    const HeadSnapshot& snapshot = *query.layer.heads[head];
    ScratchLease scratch(*this);
    std::vector<std::vector<SearchHit>> hits;
    statuses[head] = snapshot.Search(RequestOf(query, head, absl::InfiniteFuture()), k,
                                     *scratch->search, hits, reads[head]);
    if (!statuses[head].ok()) return;
    for (size_t g = 0; g < hits.size() && g < group; ++g) {
      const size_t q_head = head * group + g;
      answer.hits[q_head] = std::move(hits[g]);
      if (!with_vectors) continue;
      statuses[head].Update(CopyHitVectors(snapshot, fingerprint, answer.hits[q_head],
                                           answer.keys[q_head], answer.values[q_head]));
    }
  });
  for (const absl::Status& status : statuses) ATTIC_RETURN_IF_ERROR(status);
  for (const ReadStatistics& read : reads) answer.read += read;
  return answer;
}

}  // namespace attic
