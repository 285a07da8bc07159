// The first bytes of a session's file, which say what kind of file it is.
#ifndef ATTIC_API_SNAPSHOT_MAGIC_H_
#define ATTIC_API_SNAPSHOT_MAGIC_H_

#include <string_view>

namespace attic {

// Of one store: server/storage/SNAPSHOT.md.
inline constexpr std::string_view kStoreSnapshotMagic = "ATTICSNP";
// Of a cluster: client/cpp/cluster/SNAPSHOT.md.
inline constexpr std::string_view kClusterSnapshotMagic = "ATTICCLS";

}  // namespace attic

#endif  // ATTIC_API_SNAPSHOT_MAGIC_H_
