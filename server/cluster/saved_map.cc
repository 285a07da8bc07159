#include "server/cluster/saved_map.h"

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "attic/v1/cluster.pb.h"
#include "base/status_macros.h"
#include "server/storage/checked_file.h"
#include "wire/convert_cluster.h"

namespace attic {

absl::Status SaveMap(const std::string& folder, const ClusterMap& map) {
  return SaveCheckedFile(folder, kClusterMapName, wire::ToWire(map).SerializeAsString());
}

absl::StatusOr<ClusterMapPtr> LoadMap(const std::string& folder, const std::string& cluster) {
  const auto content = LoadCheckedFile(folder, kClusterMapName, kClusterMapBytesMax);
  if (absl::IsNotFound(content.status())) return ClusterMapPtr();
  ATTIC_RETURN_IF_ERROR(content.status());
  v1::ClusterMap wire_map;
  absl::StatusOr<ClusterMap> map = absl::DataLossError("");
  if (wire_map.ParseFromString(*content)) map = wire::FromWire(wire_map);
  if (!map.ok() || !ValidateClusterMap(*map).ok()) {
    return absl::DataLossError(absl::StrCat(folder, "/", kClusterMapName, ": it is no map"));
  }
  if (map->cluster != cluster) {
    return absl::FailedPreconditionError(
        absl::StrCat(folder, "/", kClusterMapName, ": it is of the cluster ", map->cluster));
  }
  return std::make_shared<const ClusterMap>(*std::move(map));
}

}  // namespace attic
