// Queries for search and benchmarks: read from a NumPy file, or random.
#ifndef ATTIC_CLIENT_CLI_QUERY_SOURCE_H_
#define ATTIC_CLIENT_CLI_QUERY_SOURCE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "api/types.h"

namespace attic::cli {

struct NpyArray {
  std::vector<size_t> shape;
  std::vector<float> values;  // row-major
};

// Reads a .npy file (format 1.0 to 3.0) of little-endian float32 or float64 in C order.
//   NOT_FOUND when there is no such file; INVALID_ARGUMENT when it is none of these, is cut short,
//   or has more than kNpyValuesMax values
absl::StatusOr<NpyArray> ReadNpy(const std::string& path);
inline constexpr size_t kNpyValuesMax = size_t{1} << 26;

// The queries (q_heads, head_dim) in the file. Accepts that shape, or (n, q_heads, head_dim), of
// which the first is taken.
absl::StatusOr<std::vector<float>> ReadQueries(const std::string& path,
                                               const Fingerprint& fingerprint);

// (q_heads, head_dim) normal deviates of variance 1.
std::vector<float> RandomQueries(const Fingerprint& fingerprint, uint64_t seed);

// `layer` when it is not negative, otherwise the session's first stored layer.
absl::StatusOr<uint32_t> ChooseLayer(const SessionDescription& session, int64_t layer);

}  // namespace attic::cli

#endif  // ATTIC_CLIENT_CLI_QUERY_SOURCE_H_
