#include "client/cpp/cluster/cluster_search.h"

#include <algorithm>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "client/cpp/cluster/attend_parts.h"
#include "client/cpp/cluster/cluster_attend.h"
#include "client/cpp/cluster/read_candidates.h"
#include "client/cpp/rpc.h"
#include "wire/convert.h"

namespace attic {
namespace {

// Before another replica is asked; twice as long every time.
constexpr absl::Duration kFirstRoundTime = absl::Seconds(1);
constexpr absl::Duration kBackoff = absl::Milliseconds(20);
constexpr int kRoundsForRefusal = 2;

bool MayPass(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsAborted(status) ||
         absl::IsDeadlineExceeded(status) || absl::IsCancelled(status);
}

struct PartSearch {
  AttendPart part;
  std::set<std::string> asked;
  int rounds = 0;
  bool may_pass = false;
  absl::Status trouble;
  std::optional<SearchAnswer> answer;
};

// Answers of one round; shared with the calls in progress.
struct Inbox {
  Mutex mutex;
  CondVar came;
  std::map<size_t, absl::StatusOr<v1::SearchResponse>> answers ATTIC_GUARDED_BY(mutex);
};

v1::SearchRequest RequestFor(const SearchRequest& request, const AttendPart& part) {
  SearchRequest one = request;
  one.session_id = part.item.session_id;
  one.range = part.item.range;
  one.queries = part.item.queries;
  return wire::ToWire(one);
}

absl::Status CheckAnswer(const SessionInfo& info, const SearchRequest& request,
                         const SearchAnswer& answer) {
  const Fingerprint& f = info.fingerprint;
  if (answer.hits.size() != f.group()) {
    return absl::InternalError("a shard's answer has the wrong number of query heads");
  }
  if (!request.with_vectors || answer.keys.empty()) return absl::OkStatus();
  const size_t element = ElementBytes(f.element_type);
  for (size_t head = 0; head < answer.hits.size(); ++head) {
    const size_t hits = answer.hits[head].size();
    if (answer.keys[head].size() != hits * f.head_dim * element ||
        answer.values[head].size() != hits * f.value_dim * element) {
      return absl::InternalError("a shard's answer has vectors of the wrong size");
    }
  }
  return absl::OkStatus();
}

// The best of several blocks' hits for one query head.
class HeadHits {
 public:
  HeadHits(const SessionInfo& info, uint32_t in_group) : info_(info), in_group_(in_group) {}

  void Add(const AttendPart& part, const SearchAnswer& answer) {
    const std::vector<SearchHit>& hits = answer.hits[in_group_];
    for (size_t i = 0; i < hits.size(); ++i) {
      hits_.push_back({{hits[i].position + part.block_begin, hits[i].score}, &answer, i});
    }
  }

  void WriteTo(uint32_t k, bool with_vectors, SearchAnswer& out) {
    std::stable_sort(hits_.begin(), hits_.end(),
                     [](const Hit& a, const Hit& b) { return a.hit.score > b.hit.score; });
    if (hits_.size() > k) hits_.resize(k);
    const size_t element = ElementBytes(info_.fingerprint.element_type);
    std::vector<SearchHit>& hits = out.hits.emplace_back();
    for (const Hit& hit : hits_) hits.push_back(hit.hit);
    if (!with_vectors) return;
    const auto copy = [&](auto rows_of, size_t row_bytes, std::vector<std::byte>& rows) {
      for (const Hit& hit : hits_) {
        const std::vector<std::byte>& from = rows_of(*hit.answer)[in_group_];
        const auto row = from.begin() + static_cast<ptrdiff_t>(hit.row * row_bytes);
        rows.insert(rows.end(), row, row + static_cast<ptrdiff_t>(row_bytes));
      }
    };
    copy(
        [](const SearchAnswer& a) -> const auto& { return a.keys; },
        info_.fingerprint.head_dim* element, out.keys.emplace_back());
    copy(
        [](const SearchAnswer& a) -> const auto& { return a.values; },
        info_.fingerprint.value_dim* element, out.values.emplace_back());
  }

 private:
  struct Hit {
    SearchHit hit;
    const SearchAnswer* answer;
    size_t row;
  };
  const SessionInfo& info_;
  const uint32_t in_group_;
  std::vector<Hit> hits_;
};

class Operation {
 public:
  Operation(ClusterCore& core, const SessionInfo& info, const SearchRequest& request,
            absl::Time deadline)
      : core_(core), info_(info), request_(request), deadline_(deadline) {}

  absl::StatusOr<SearchAnswer> Run(std::vector<AttendPart> parts) {
    for (AttendPart& part : parts) parts_.push_back({.part = std::move(part)});
    for (;;) {
      map_ = core_.directory.map();
      ATTIC_ASSIGN_OR_RETURN(const bool all, Round());
      if (all) break;
      if (absl::Now() >= deadline_) return Late();
    }
    return Merge();
  }

 private:
  // Asks one replica of each part that has no answer yet; true when all have.
  absl::StatusOr<bool> Round() {
    const absl::Time now = absl::Now();
    std::map<size_t, std::shared_ptr<PooledNode>> asked;
    std::map<uint32_t, size_t> planned;
    const auto slots = static_cast<uint32_t>(map_->slots.size());
    bool all = true;
    for (size_t p = 0; p < parts_.size(); ++p) {
      PartSearch& part = parts_[p];
      if (part.answer.has_value()) continue;
      all = false;
      const SlotRoute route =
          RouteOf(*map_, SlotOfShard(info_.placement_key, part.part.shard, slots),
                  info_.replication.replicas);
      const auto node = ChooseReader(core_, *map_, route.readers, part.asked, planned, now);
      if (!node.has_value()) {
        ATTIC_RETURN_IF_ERROR(EndRound(part));
        continue;
      }
      part.asked.insert(map_->nodes[*node].id);
      ++planned[*node];
      asked[p] = core_.Node(*map_, *node);
    }
    if (all) return true;
    if (asked.empty()) {
      core_.directory.Refresh();
      core_.directory.WaitForNewer(map_->epoch, std::min(deadline_, now + kBackoff));
      return false;
    }
    ATTIC_RETURN_IF_ERROR(Ask(asked, now));
    return false;
  }

  absl::Status Ask(const std::map<size_t, std::shared_ptr<PooledNode>>& asked, absl::Time now) {
    const absl::Time until = std::min(deadline_, now + round_time_);
    const auto inbox = std::make_shared<Inbox>();
    for (const auto& [p, node] : asked) {
      node->load->Started(1);
      node->link->Search(
          RequestFor(request_, parts_[p].part), until,
          [inbox, p = p, now, load = node->load](absl::StatusOr<v1::SearchResponse> response) {
            const absl::Time end = absl::Now();
            load->Finished(
                1, end - now,
                response.ok() ? NodeLoad::Outcome::kAnswered : NodeLoad::Outcome::kFailed, end);
            MutexLock lock(inbox->mutex);
            inbox->answers.emplace(p, std::move(response));
            inbox->came.NotifyOne();
          });
    }
    MutexLock lock(inbox->mutex);
    while (inbox->answers.size() < asked.size() && absl::Now() < until) {
      inbox->came.WaitFor(inbox->mutex, WaitTime(until));
    }
    if (inbox->answers.size() < asked.size()) round_time_ *= 2;
    for (auto& [p, response] : inbox->answers) ATTIC_RETURN_IF_ERROR(Take(parts_[p], response));
    return absl::OkStatus();
  }

  absl::Status Take(PartSearch& part, const absl::StatusOr<v1::SearchResponse>& response) {
    absl::StatusOr<SearchAnswer> answer =
        response.ok() ? wire::FromWire(*response) : absl::StatusOr<SearchAnswer>(response.status());
    if (answer.ok()) {
      if (const absl::Status shape = CheckAnswer(info_, request_, *answer); !shape.ok()) {
        answer = shape;
      }
    }
    if (answer.ok()) {
      part.answer = *std::move(answer);
      return absl::OkStatus();
    }
    part.trouble = answer.status();
    part.may_pass |= MayPass(part.trouble);
    return absl::IsInvalidArgument(part.trouble) ? part.trouble : absl::OkStatus();
  }

  // All replicas of the part were asked: its error when it is no passing one.
  absl::Status EndRound(PartSearch& part) {
    if (part.asked.empty()) part.trouble = absl::UnavailableError("no live replica of a shard");
    const bool refused = !part.asked.empty() && !part.may_pass && !part.trouble.ok();
    part.asked.clear();
    part.may_pass = false;
    if (!refused || ++part.rounds < kRoundsForRefusal) return absl::OkStatus();
    if (absl::IsNotFound(part.trouble)) core_.cache.Drop(info_.session_id);
    return part.trouble;
  }

  absl::Status Late() const {
    for (const PartSearch& part : parts_) {
      if (part.answer.has_value()) continue;
      if (absl::IsUnavailable(part.trouble)) return part.trouble;
      return absl::DeadlineExceededError(
          absl::StrCat("shard ", part.part.item.session_id, " was not searched in time"));
    }
    return absl::DeadlineExceededError("search: deadline passed");
  }

  SearchAnswer Merge() const {
    SearchAnswer merged;
    const uint32_t group = info_.fingerprint.group();
    bool with_vectors = false;
    for (const PartSearch& part : parts_) {
      merged.read += part.answer->read;
      with_vectors = with_vectors || !part.answer->keys.empty();
    }
    for (uint32_t q = 0; q < info_.fingerprint.q_heads; ++q) {
      HeadHits head(info_, q % group);
      for (const PartSearch& part : parts_) {
        if (part.part.shard.kv_head == q / group) head.Add(part.part, *part.answer);
      }
      head.WriteTo(request_.k, with_vectors, merged);
    }
    return merged;
  }

  ClusterCore& core_;
  const SessionInfo& info_;
  const SearchRequest& request_;
  const absl::Time deadline_;
  std::shared_ptr<const ClusterMap> map_;
  absl::Duration round_time_ = kFirstRoundTime;
  std::vector<PartSearch> parts_;
};

}  // namespace

absl::StatusOr<SearchAnswer> ClusterSearch(ClusterCore& core, ClusterSessions& sessions,
                                           const SearchRequest& request, absl::Time deadline) {
  ATTIC_ASSIGN_OR_RETURN(const auto info, sessions.Resolve(request.session_id, deadline));
  const AttendItem item{.session_id = request.session_id,
                        .layer = request.layer,
                        .range = request.range,
                        .queries = request.queries};
  ATTIC_RETURN_IF_ERROR(CheckAttend(*info, item));
  ATTIC_ASSIGN_OR_RETURN(const PositionRange range,
                         ResolveRange(core, sessions, *info, item, deadline));
  return Operation(core, *info, request, deadline).Run(SplitItem(*info, item, range));
}

}  // namespace attic
