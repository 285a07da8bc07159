// A small file of the data directory that is not about sessions.
#ifndef ATTIC_SERVER_STORAGE_CHECKED_FILE_H_
#define ATTIC_SERVER_STORAGE_CHECKED_FILE_H_

#include <cstddef>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace attic {

// What a node of a cluster keeps there.
inline constexpr char kClusterMapName[] = "CLUSTER_MAP";
// Several times what the largest map takes.
inline constexpr size_t kClusterMapBytesMax = size_t{8} << 20;

// Replaces folder/name by a file holding `content` and its checksum, durable when it returns; a
// crash leaves the old file or the new one. For one writer of a name at a time.
absl::Status SaveCheckedFile(const std::string& folder, const std::string& name,
                             std::string_view content);

// The content. NOT_FOUND; DATA_LOSS when it is damaged, or larger than `bytes_max`.
absl::StatusOr<std::string> LoadCheckedFile(const std::string& folder, const std::string& name,
                                            size_t bytes_max);

}  // namespace attic

#endif  // ATTIC_SERVER_STORAGE_CHECKED_FILE_H_
