// Queries for search and benchmarks: read from a NumPy file, or random.
#ifndef ATTIC_CLIENT_CLI_QUERY_SOURCE_H_
#define ATTIC_CLIENT_CLI_QUERY_SOURCE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "api/types.h"

namespace attic::cli {

// The queries (q_heads, head_dim) in a .npy file of float16 or float32. Errors name the file: those
// of ReadNpyMatrix, and INVALID_ARGUMENT when the shape is another.
absl::StatusOr<std::vector<float>> ReadQueries(const std::string& path,
                                               const Fingerprint& fingerprint);

// (q_heads, head_dim) normal deviates of variance 1.
std::vector<float> RandomQueries(const Fingerprint& fingerprint, uint64_t seed);

// `layer` when it is not negative, otherwise the session's first stored layer.
absl::StatusOr<uint32_t> ChooseLayer(const SessionDescription& session, int64_t layer);

}  // namespace attic::cli

#endif  // ATTIC_CLIENT_CLI_QUERY_SOURCE_H_
