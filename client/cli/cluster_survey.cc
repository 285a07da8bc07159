#include "client/cli/cluster_survey.h"

#include <algorithm>
#include <functional>
#include <memory>
#include <utility>

#include "absl/time/clock.h"
#include "attic/v1/cluster.grpc.pb.h"
#include "base/status_macros.h"
#include "base/thread_pool.h"
#include "client/cpp/rpc.h"
#include "wire/channel.h"
#include "wire/convert_cluster.h"

namespace attic::cli {
namespace {

constexpr size_t kMessageBytesMax = 64u << 20;
constexpr size_t kAskedAtOnce = 64;
// Maps that come while one is being asked about are looked at so often.
constexpr int kRoundsMax = 3;

// What one node said.
struct Answer {
  absl::StatusOr<ClusterMap> map = absl::UnavailableError("not asked");
  absl::StatusOr<v1::RepairStatus> repair = absl::UnavailableError("not asked");
};

absl::StatusOr<ClusterMap> FetchMap(v1::ClusterService::Stub& stub, absl::Time deadline) {
  ATTIC_ASSIGN_OR_RETURN(
      const auto response,
      CallUnary<v1::GetMapResponse>(v1::GetMapRequest(), deadline,
                                    [&stub](auto* context, const auto& request, auto* answer) {
                                      return stub.GetMap(context, request, answer);
                                    }));
  return wire::FromWire(response.map());
}

absl::StatusOr<v1::RepairStatus> FetchRepair(v1::ClusterService::Stub& stub, absl::Time deadline) {
  return CallUnary<v1::RepairStatus>(v1::GetRepairRequest(), deadline,
                                     [&stub](auto* context, const auto& request, auto* answer) {
                                       return stub.GetRepair(context, request, answer);
                                     });
}

// Addresses that are empty are not asked.
std::vector<Answer> AskAll(const std::vector<std::string>& addresses, absl::Duration node_time) {
  std::vector<Answer> answers(addresses.size());
  ThreadPool pool(std::clamp<size_t>(addresses.size(), 1, kAskedAtOnce));
  pool.ParallelFor(addresses.size(), [&](size_t i) {
    if (addresses[i].empty()) return;
    const auto stub =
        v1::ClusterService::NewStub(wire::MakeChannel(addresses[i], kMessageBytesMax));
    const absl::Time deadline = absl::Now() + node_time;
    answers[i].map = FetchMap(*stub, deadline);
    if (answers[i].map.ok()) answers[i].repair = FetchRepair(*stub, deadline);
  });
  return answers;
}

// True when it was newer.
bool TakeNewest(const std::vector<Answer>& answers, ClusterMap& map) {
  const uint64_t known = map.epoch;
  for (const Answer& answer : answers) {
    if (!answer.map.ok() || answer.map->epoch <= map.epoch) continue;
    if (known == 0 || answer.map->cluster == map.cluster) map = *answer.map;
  }
  return map.epoch > known;
}

std::vector<std::string> AddressesOf(const ClusterMap& map) {
  std::vector<std::string> addresses;
  for (const ClusterNode& node : map.nodes) {
    addresses.push_back(node.state == NodeState::kDown ? "" : node.address);
  }
  return addresses;
}

}  // namespace

absl::StatusOr<ClusterSurvey> SurveyCluster(const std::vector<std::string>& servers,
                                            absl::Duration node_time) {
  ClusterSurvey survey;
  std::vector<Answer> answers = AskAll(servers, node_time);
  if (!TakeNewest(answers, survey.map)) {
    if (answers.empty()) return absl::InvalidArgumentError("--server: empty");
    ATTIC_RETURN_IF_ERROR(answers.back().map.status());
    return absl::UnavailableError("no server knows a map of the cluster");
  }
  answers = AskAll(AddressesOf(survey.map), node_time);
  for (int round = 1; round < kRoundsMax && TakeNewest(answers, survey.map); ++round) {
    answers = AskAll(AddressesOf(survey.map), node_time);
  }
  survey.nodes.resize(answers.size());
  for (size_t i = 0; i < answers.size(); ++i) {
    if (answers[i].map.ok()) survey.nodes[i].map_epoch = answers[i].map->epoch;
    survey.nodes[i].repair = std::move(answers[i].repair);
  }
  return survey;
}

}  // namespace attic::cli
