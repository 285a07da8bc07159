// Reads files of the safetensors format: an 8-byte little-endian header length, a JSON header that
// gives every tensor's element type, shape and byte range, then the bytes.
#ifndef ATTIC_GPU_WORKER_MODEL_SAFETENSORS_H_
#define ATTIC_GPU_WORKER_MODEL_SAFETENSORS_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "attention/element_type.h"

namespace attic::worker {

struct SafetensorsLimits {
  uint64_t header_bytes_max = 100'000'000;  // the format's own limit
  size_t tensors_max = 1'000'000;
  size_t dimensions_max = 8;
};

struct TensorView {
  ElementType type = ElementType::kFloat32;
  std::vector<uint64_t> shape;
  std::span<const std::byte> data;  // row-major, little-endian; borrows from the file
  uint64_t elements() const { return data.size() / ElementBytes(type); }
};

// An open file, mapped read-only. Immutable and thread-safe. The file must not be truncated while
// it is open.
class SafetensorsFile {
 public:
  // Checks the whole header: lengths, bounds, overlaps, element types (F32, BF16, F16), shapes
  // against byte counts. INVALID_ARGUMENT names the file and the tensor; NOT_FOUND when the file
  // cannot be opened.
  static absl::StatusOr<std::unique_ptr<SafetensorsFile>> Open(
      const std::string& path, const SafetensorsLimits& limits = {});
  ~SafetensorsFile();
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  const std::string& path() const { return path_; }
  const std::map<std::string, TensorView>& tensors() const { return tensors_; }
  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  SafetensorsFile() = default;
  absl::Status Map();
  absl::Status ParseHeader(const SafetensorsLimits& limits);

  std::string path_;
  std::span<const std::byte> bytes_;  // the mapping
  std::map<std::string, TensorView> tensors_;
};

}  // namespace attic::worker

#endif  // ATTIC_GPU_WORKER_MODEL_SAFETENSORS_H_
