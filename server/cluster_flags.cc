#include "server/cluster_flags.h"

#include <unistd.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "base/memory_budget.h"
#include "base/status_macros.h"
#include "server/cluster/etcd_membership.h"
#include "server/cluster/repair/node_repair.h"
#include "server/cluster/saved_map.h"
#include "server/cluster/static_membership.h"
#include "server/service/log.h"

namespace attic {
namespace {

constexpr uint64_t kMebibyte = uint64_t{1} << 20;
// Of the slots, as many are filled by other nodes at a time.
constexpr uint32_t kIncomingShare = 8;

std::string HostName() {
  char name[256] = {};
  if (gethostname(name, sizeof name - 1) != 0) return "";
  return name;
}

void AddEtcdFlags(CLI::App& app, ClusterFlags& flags) {
  app.add_option("--cluster-etcd", flags.etcd.endpoints,
                 "HOST:PORT of the members of etcd, with commas between")
      ->delimiter(',');
  app.add_option("--etcd-ca", flags.etcd.ca_file,
                 "PEM file of the authority of etcd's certificate; etcd is reached by TLS then");
  app.add_option("--etcd-cert", flags.etcd.cert_file, "PEM file of a certificate shown to etcd");
  app.add_option("--etcd-key", flags.etcd.key_file, "PEM file of its key");
  app.add_option("--etcd-user", flags.etcd.user, "name known to etcd");
  app.add_option("--etcd-password-file", flags.etcd.password_file, "file with the password");
  app.add_option("--lease-seconds", flags.lease_seconds,
                 "a node that is silent for so long is down to the others; etcd's least is 2")
      ->check(CLI::Range(1.0, 3600.0))
      ->capture_default_str();
  app.add_option(
         "--probe-nodes", flags.probe_nodes,
         "a node whose address refuses connections is down at once, not when its lease ends")
      ->default_str("true");
}

EtcdMembershipOptions MembershipOptions(const ClusterFlags& flags, uint64_t memory_limit,
                                        const NodeIdentity& identity) {
  EtcdMembershipOptions options;
  options.cluster = flags.cluster;
  // Whole MiB, so that shares of memory that differ by little are not told apart.
  uint64_t capacity = flags.capacity != 0 ? flags.capacity : memory_limit;
  if (capacity == 0) capacity = MemoryBudget(0).bytes_max();
  options.node = {.node_id = flags.node_id,
                  .address = flags.advertise.empty() ? identity.bound_address : flags.advertise,
                  .zone = flags.zone,
                  .capacity = std::max<uint64_t>(1, capacity / kMebibyte),
                  .boot_id = identity.boot_id};
  options.etcd = flags.etcd;
  options.lease = absl::Seconds(flags.lease_seconds);
  options.probe = flags.probe_nodes;
  options.placement = flags.placement;
  options.placement.replace_after = absl::Seconds(flags.replace_after_seconds);
  options.placement.incoming_max =
      std::max(options.placement.incoming_max, options.placement.slots / kIncomingShare);
  options.initial_nodes = flags.initial_nodes;
  return options;
}

// Without the map of before the node goes on with etcd's, which rarely is not there.
void KeepMap(const std::string& data_directory, EtcdMembershipOptions& options) {
  const absl::StatusOr<ClusterMapPtr> saved = LoadMap(data_directory, options.cluster);
  if (saved.ok()) {
    options.saved_map = *saved;
  } else {
    Log(LogLevel::kWarning, "cluster_map", {{"error", std::string(saved.status().message())}});
  }
  options.save_map = [data_directory](const ClusterMap& map) {
    const absl::Status status = SaveMap(data_directory, map);
    if (!status.ok()) {
      Log(LogLevel::kWarning, "cluster_map", {{"error", std::string(status.message())}});
    }
    return status;
  };
}

}  // namespace

void AddClusterFlags(CLI::App& app, ClusterFlags& flags) {
  app.add_option("--cluster", flags.cluster,
                 "name of the cluster the store is a node of; without it the store is alone");
  app.add_option("--node-id", flags.node_id, "id of this node; the host's name if not given");
  app.add_option("--advertise", flags.advertise,
                 "HOST:PORT at which clients and other nodes reach this one; as it listens if not "
                 "given");
  app.add_option("--zone", flags.zone, "replicas are kept in different zones");
  app.add_option("--capacity", flags.capacity,
                 "share of the cluster, such as 64GiB; the memory limit if not given")
      ->transform(CLI::AsSizeValue(false));
  app.add_option("--cluster-file", flags.file,
                 "JSON file that says which nodes there are, instead of etcd");
  AddEtcdFlags(app, flags);
  app.add_option("--cluster-slots", flags.placement.slots,
                 "parts that are placed; of a new cluster, for ever")
      ->check(CLI::Range(1u, kClusterSlotsMax))
      ->capture_default_str();
  app.add_option("--cluster-replicas", flags.placement.replicas_default,
                 "copies of sessions that say nothing else")
      ->check(CLI::Range(1u, kReplicasMax))
      ->capture_default_str();
  app.add_option("--initial-nodes", flags.initial_nodes,
                 "a new cluster begins when so many nodes are there")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  app.add_option("--replace-after-seconds", flags.replace_after_seconds,
                 "a node that is down for so long is replaced by others")
      ->check(CLI::Range(0.0, 1e7))
      ->capture_default_str();
  app.add_option("--repair-mib-per-second", flags.repair_mib_per_second,
                 "at most so much is copied from other nodes")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
}

absl::StatusOr<ClusterOptions> MakeClusterOptions(const ClusterFlags& given, const Limits& limits,
                                                  const std::string& data_directory) {
  const bool by_file = !given.file.empty(), by_etcd = !given.etcd.endpoints.empty();
  if (given.cluster.empty() && !by_file) {
    if (!by_etcd) return ClusterOptions{};
    return absl::InvalidArgumentError("cluster: is asked for with --cluster-etcd");
  }
  if (by_file == by_etcd) {
    return absl::InvalidArgumentError("cluster: either --cluster-etcd or --cluster-file");
  }
  ClusterFlags flags = given;
  if (flags.node_id.empty()) flags.node_id = HostName();
  ClusterOptions options;
  const auto boot_id = std::make_shared<std::string>();  // known once the store has joined
  options.start_repair = [flags, limits, boot_id](SessionStore& store,
                                                  std::shared_ptr<Membership> membership) {
    RepairOptions repair;
    repair.boot_id = *boot_id;
    repair.bytes_per_second =
        static_cast<uint64_t>(flags.repair_mib_per_second * static_cast<double>(kMebibyte));
    repair.await_down = absl::Seconds(flags.replace_after_seconds);
    return StartNodeRepair(store, std::move(membership), repair, limits);
  };
  if (by_file) {
    options.join = [flags](const NodeIdentity&) {
      return ReadStaticMembership(flags.file, flags.node_id);
    };
    return options;
  }
  // Known once the store has joined.
  const auto joined = std::make_shared<std::weak_ptr<EtcdMembership>>();
  options.join = [flags, memory_limit = limits.memory_bytes_max, data_directory, joined, boot_id](
                     const NodeIdentity& identity) -> absl::StatusOr<std::shared_ptr<Membership>> {
    *boot_id = identity.boot_id;
    EtcdMembershipOptions membership_options = MembershipOptions(flags, memory_limit, identity);
    if (!data_directory.empty()) KeepMap(data_directory, membership_options);
    ATTIC_ASSIGN_OR_RETURN(std::shared_ptr<EtcdMembership> membership,
                           EtcdMembership::Start(membership_options));
    *joined = membership;
    return std::shared_ptr<Membership>(std::move(membership));
  };
  options.want_newer_map = [joined](uint64_t epoch) {
    if (const auto membership = joined->lock()) membership->WantNewer(epoch);
  };
  return options;
}

}  // namespace attic
