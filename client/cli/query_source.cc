#include "client/cli/query_source.h"

#include <random>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "client/cli/bench/npy_file.h"

namespace attic::cli {

absl::StatusOr<std::vector<float>> ReadQueries(const std::string& path,
                                               const Fingerprint& fingerprint) {
  ATTIC_ASSIGN_OR_RETURN(const NpyMatrix matrix, ReadNpyMatrix(path));
  const NpyHeader& header = matrix.header;
  if (header.rows != fingerprint.q_heads || header.columns != fingerprint.head_dim) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": shape (", header.rows, ", ", header.columns, "), but the session needs (",
        fingerprint.q_heads, ", ", fingerprint.head_dim, ")"));
  }
  std::vector<float> queries(size_t{fingerprint.q_heads} * fingerprint.head_dim);
  ToFloat32(matrix.data.data(), header.type, queries);
  return queries;
}

std::vector<float> RandomQueries(const Fingerprint& fingerprint, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> queries(size_t{fingerprint.q_heads} * fingerprint.head_dim);
  for (float& value : queries) value = normal(random);
  return queries;
}

absl::StatusOr<uint32_t> ChooseLayer(const SessionDescription& session, int64_t layer) {
  if (layer < 0 && !session.layers.empty()) return session.layers.front().layer;
  for (const LayerDescription& stored : session.layers) {
    if (stored.layer == layer) return stored.layer;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("layer ", layer, " of session ", session.session_id, " is not stored"));
}

}  // namespace attic::cli
