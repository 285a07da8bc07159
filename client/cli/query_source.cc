#include "client/cli/query_source.h"

#include <bit>
#include <cstring>
#include <fstream>
#include <random>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace attic::cli {
namespace {

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr size_t kHeaderBytesMax = 1 << 16;

// The text after "'key':" in the header, a Python dictionary literal that NumPy itself writes.
absl::StatusOr<std::string_view> HeaderField(std::string_view header, std::string_view key) {
  const size_t at = header.find(key);
  if (at == std::string_view::npos) return absl::InvalidArgumentError("header without a field");
  std::string_view rest = header.substr(at + key.size());
  rest.remove_prefix(std::min(rest.find_first_not_of(": "), rest.size()));
  return rest;
}

absl::StatusOr<std::vector<size_t>> ParseShape(std::string_view text) {
  if (text.empty() || text.front() != '(') return absl::InvalidArgumentError("shape is no tuple");
  std::vector<size_t> shape;
  size_t product = 1;
  for (size_t at = 1; at < text.size() && text[at] != ')';) {
    if (text[at] == ',' || text[at] == ' ') {
      ++at;
      continue;
    }
    size_t value = 0;
    const size_t first = at;
    for (; at < text.size() && text[at] >= '0' && text[at] <= '9'; ++at) {
      value = value * 10 + (text[at] - '0');
      if (value > kNpyValuesMax) return absl::InvalidArgumentError("array is too large");
    }
    if (at == first) return absl::InvalidArgumentError("shape is no tuple of numbers");
    shape.push_back(value);
    product *= value;
    if (product > kNpyValuesMax) return absl::InvalidArgumentError("array is too large");
  }
  return shape;
}

absl::StatusOr<std::string> ReadHeader(std::ifstream& file) {
  char start[8];
  if (!file.read(start, sizeof start) || std::string_view(start, 6) != kMagic) {
    return absl::InvalidArgumentError("not a .npy file");
  }
  const size_t length_bytes = start[6] == 1 ? 2 : 4;
  uint32_t length = 0;
  static_assert(std::endian::native == std::endian::little);
  if (!file.read(reinterpret_cast<char*>(&length), length_bytes) || length > kHeaderBytesMax) {
    return absl::InvalidArgumentError("broken header");
  }
  std::string header(length, '\0');
  if (!file.read(header.data(), length)) return absl::InvalidArgumentError("broken header");
  return header;
}

template <typename T>
absl::Status ReadValues(std::ifstream& file, std::vector<float>& values) {
  std::vector<T> stored(values.size());
  if (!file.read(reinterpret_cast<char*>(stored.data()), stored.size() * sizeof(T))) {
    return absl::InvalidArgumentError("file is cut short");
  }
  for (size_t i = 0; i < stored.size(); ++i) values[i] = static_cast<float>(stored[i]);
  return absl::OkStatus();
}

absl::StatusOr<NpyArray> ReadArray(std::ifstream& file) {
  ATTIC_ASSIGN_OR_RETURN(const std::string header, ReadHeader(file));
  ATTIC_ASSIGN_OR_RETURN(const std::string_view type, HeaderField(header, "'descr'"));
  ATTIC_ASSIGN_OR_RETURN(const std::string_view order, HeaderField(header, "'fortran_order'"));
  ATTIC_ASSIGN_OR_RETURN(const std::string_view shape, HeaderField(header, "'shape'"));
  if (!order.starts_with("False")) return absl::InvalidArgumentError("not in C order");
  NpyArray array;
  ATTIC_ASSIGN_OR_RETURN(array.shape, ParseShape(shape));
  size_t count = 1;
  for (const size_t dim : array.shape) count *= dim;
  array.values.resize(count);
  if (type.starts_with("'<f4'")) {
    ATTIC_RETURN_IF_ERROR(ReadValues<float>(file, array.values));
  } else if (type.starts_with("'<f8'")) {
    ATTIC_RETURN_IF_ERROR(ReadValues<double>(file, array.values));
  } else {
    return absl::InvalidArgumentError("elements are not float32 or float64");
  }
  return array;
}

}  // namespace

absl::StatusOr<NpyArray> ReadNpy(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::NotFoundError(absl::StrCat(path, ": ", std::strerror(errno)));
  absl::StatusOr<NpyArray> array = ReadArray(file);
  if (array.ok()) return array;
  return absl::Status(array.status().code(),
                      absl::StrCat(path, ": ", std::string(array.status().message())));
}

absl::StatusOr<std::vector<float>> ReadQueries(const std::string& path,
                                               const Fingerprint& fingerprint) {
  ATTIC_ASSIGN_OR_RETURN(NpyArray array, ReadNpy(path));
  const size_t rank = array.shape.size();
  const bool fits = (rank == 2 || (rank == 3 && array.shape[0] > 0)) &&
                    array.shape[rank - 2] == fingerprint.q_heads &&
                    array.shape[rank - 1] == fingerprint.head_dim;
  if (!fits) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": the session needs queries of shape (",
                                                   fingerprint.q_heads, ", ", fingerprint.head_dim,
                                                   ")"));
  }
  array.values.resize(size_t{fingerprint.q_heads} * fingerprint.head_dim);
  return std::move(array.values);
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
