// attic cluster status|drain|add|remove|rebalance.
#include <iostream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "attic/v1/cluster.grpc.pb.h"
#include "base/status_macros.h"
#include "client/cli/cluster_summary.h"
#include "client/cli/cluster_survey.h"
#include "client/cli/command.h"
#include "client/cli/table.h"
#include "client/cli/text_format.h"
#include "client/cpp/rpc.h"
#include "wire/channel.h"

namespace attic::cli {
namespace {

// A node that does not answer is left out after this.
constexpr absl::Duration kNodeTime = absl::Seconds(2);
constexpr size_t kMessageBytesMax = 64u << 20;

using Stub = v1::ClusterService::Stub;

std::unique_ptr<Stub> StubFor(const std::string& address) {
  return v1::ClusterService::NewStub(wire::MakeChannel(address, kMessageBytesMax));
}

std::vector<std::string> ServersOf(const GlobalOptions& global) {
  return absl::StrSplit(global.server, ',', absl::SkipWhitespace());
}

// What `call` returns of the first of the servers that answers; the last one's error if none does.
template <typename Call>
auto AskAny(const GlobalOptions& global, const Call& call)
    -> decltype(call(std::declval<Stub&>())) {
  decltype(call(std::declval<Stub&>())) answer = absl::InvalidArgumentError("--server: empty");
  for (const std::string& address : ServersOf(global)) {
    answer = call(*StubFor(address));
    const absl::StatusCode code = answer.status().code();
    if (code != absl::StatusCode::kUnavailable && code != absl::StatusCode::kDeadlineExceeded) {
      break;
    }
  }
  return answer;
}

// Says so of a node that does not know the newest map.
std::string StateText(const ClusterSurvey& survey, size_t i) {
  const ClusterNode& node = survey.map.nodes[i];
  std::string text(NodeStateName(node.state));
  if (node.joining) text += ", joining";
  if (node.draining) text += ", draining";
  const uint64_t epoch = survey.nodes[i].map_epoch;
  if (epoch != 0 && epoch != survey.map.epoch) absl::StrAppend(&text, ", at epoch ", epoch);
  return text;
}

std::string RepairText(const absl::StatusOr<v1::RepairStatus>& repair) {
  if (!repair.ok()) return "does not answer";
  std::string text = repair->synced() ? "in step" : "filling";
  if (repair->shards_left() > 0) {
    text += ", " + FormatCount(static_cast<int64_t>(repair->shards_left())) + " shards left";
  }
  if (!repair->last_error().empty()) text += ", last error: " + EscapeText(repair->last_error());
  return text;
}

nlohmann::ordered_json StatusJson(const ClusterSurvey& survey, const ClusterSummary& summary) {
  const ClusterMap& map = survey.map;
  auto nodes = nlohmann::ordered_json::array();
  for (size_t i = 0; i < map.nodes.size(); ++i) {
    const ClusterNode& node = map.nodes[i];
    const NodeSummary& held = summary.nodes[i];
    nlohmann::ordered_json entry = {{"id", node.id},
                                    {"address", node.address},
                                    {"zone", node.zone},
                                    {"state", NodeStateName(node.state)},
                                    {"draining", node.draining},
                                    {"capacity", node.capacity},
                                    {"boot_id", node.boot_id},
                                    {"slots_first", held.first},
                                    {"slots_other", held.other},
                                    {"slots_incoming", held.incoming},
                                    {"share", held.share},
                                    {"fair_share", held.fair_share}};
    if (survey.nodes[i].map_epoch != 0) entry["epoch"] = survey.nodes[i].map_epoch;
    const absl::StatusOr<v1::RepairStatus>& repair = survey.nodes[i].repair;
    if (repair.ok()) {
      entry["repair"] = {{"controller", repair->controller()},
                         {"synced", repair->synced()},
                         {"shards_left", repair->shards_left()},
                         {"bytes_pulled", repair->bytes_pulled()},
                         {"shards_pulled", repair->shards_pulled()},
                         {"shards_dropped", repair->shards_dropped()},
                         {"last_error", repair->last_error()}};
    }
    nodes.push_back(std::move(entry));
  }
  return {{"cluster", map.cluster},
          {"epoch", map.epoch},
          {"replicas_default", map.replicas_default},
          {"slots", map.slots.size()},
          {"slots_lost", summary.slots_lost},
          {"slots_short", summary.slots_short},
          {"slots_moving", summary.slots_moving},
          {"nodes", nodes}};
}

void PrintStatus(const ClusterSurvey& survey, const ClusterSummary& summary) {
  const ClusterMap& map = survey.map;
  std::string controller = "none that answers";
  Table table({{"node", Align::kLeft},
               {"address", Align::kLeft},
               {"zone", Align::kLeft},
               {"state", Align::kLeft},
               {"first"},
               {"other"},
               {"incoming"},
               {"share"},
               {"fair"},
               {"pulled"},
               {"repair", Align::kLeft}});
  for (size_t i = 0; i < map.nodes.size(); ++i) {
    const ClusterNode& node = map.nodes[i];
    const NodeSummary& held = summary.nodes[i];
    const absl::StatusOr<v1::RepairStatus>& repair = survey.nodes[i].repair;
    if (repair.ok() && repair->controller()) controller = node.id;
    table.AddRow(
        {node.id, node.address, node.zone, StateText(survey, i),
         FormatCount(static_cast<int64_t>(held.first)),
         FormatCount(static_cast<int64_t>(held.other)),
         FormatCount(static_cast<int64_t>(held.incoming)), FormatPercent(held.share),
         FormatPercent(held.fair_share),
         repair.ok() ? FormatBytes(static_cast<double>(repair->bytes_pulled())) : "",
         RepairText(repair)});
  }
  std::cout << "cluster " << map.cluster << ": epoch " << map.epoch << ", "
            << FormatCount(static_cast<int64_t>(map.slots.size())) << " slots, "
            << map.replicas_default << " replicas, controller " << controller << "\n\n";
  table.Print(std::cout);
  std::cout << '\n';
  for (const std::string& sentence : DescribeHealth(map, summary)) std::cout << sentence << '\n';
}

absl::StatusOr<int> RunStatus(const GlobalOptions& global) {
  ATTIC_ASSIGN_OR_RETURN(const ClusterSurvey survey,
                         SurveyCluster(ServersOf(global), kNodeTime));
  const ClusterSummary summary = SummarizeCluster(survey.map);
  if (global.json) {
    PrintJson(StatusJson(survey, summary));
  } else {
    PrintStatus(survey, summary);
  }
  // As a script would ask.
  return summary.slots_lost == 0 ? 0 : 1;
}

absl::StatusOr<int> Done(const GlobalOptions& global, const std::string& what) {
  if (global.json) {
    PrintJson({{"accepted", true}});
  } else {
    std::cout << what << "; `attic cluster status` shows how far it is\n";
  }
  return 0;
}

absl::StatusOr<int> RunChange(const GlobalOptions& global, const std::string& node_id,
                              v1::NodeChange change, const std::string& what) {
  v1::ChangeNodeRequest request;
  request.set_node_id(node_id);
  request.set_change(change);
  ATTIC_RETURN_IF_ERROR(AskAny(global, [&request](Stub& stub) {
                          return CallUnary<v1::ChangeNodeResponse>(
                              request, CommandDeadline(),
                              [&stub](auto* context, const auto& asked, auto* answer) {
                                return stub.ChangeNode(context, asked, answer);
                              });
                        }).status());
  return Done(global, node_id + " " + what);
}

absl::StatusOr<int> RunRebalance(const GlobalOptions& global) {
  ATTIC_RETURN_IF_ERROR(AskAny(global, [](Stub& stub) {
                          return CallUnary<v1::RebalanceResponse>(
                              v1::RebalanceRequest(), CommandDeadline(),
                              [&stub](auto* context, const auto& asked, auto* answer) {
                                return stub.Rebalance(context, asked, answer);
                              });
                        }).status());
  return Done(global, "the placement of all slots is looked at again");
}

void AddChange(CLI::App& cluster, SelectedCommand& selected, const char* name, const char* help,
               v1::NodeChange change, const char* what) {
  CLI::App* const command = cluster.add_subcommand(name, help);
  const auto node_id = std::make_shared<std::string>();
  command->add_option("node", *node_id, "The node's id")->required();
  command->callback([&selected, node_id, change, what] {
    selected.run = [&selected, node_id, change, what] {
      return RunChange(selected.global, *node_id, change, what);
    };
  });
}

}  // namespace

void AddClusterCommand(CLI::App& app, SelectedCommand& selected) {
  CLI::App* const cluster = app.add_subcommand("cluster", "The nodes of a cluster and their slots");
  cluster->require_subcommand(1);
  cluster->add_subcommand("status", "Nodes, what they hold, and what is wrong")
      ->callback(
          [&selected] { selected.run = [&selected] { return RunStatus(selected.global); }; });
  AddChange(*cluster, selected, "drain",
            "Moves a node's slots to others; it serves until they have", v1::NODE_CHANGE_DRAIN,
            "gives its slots away");
  AddChange(*cluster, selected, "add", "Takes back a drain or a removal", v1::NODE_CHANGE_ADD,
            "takes slots");
  AddChange(*cluster, selected, "remove", "Fills a node's slots from others: it does not come back",
            v1::NODE_CHANGE_REMOVE, "is removed, and its slots are filled from other replicas");
  cluster->add_subcommand("rebalance", "Looks at the placement of all slots again")
      ->callback(
          [&selected] { selected.run = [&selected] { return RunRebalance(selected.global); }; });
}

}  // namespace attic::cli
