// Matrices in NumPy's .npy files (format versions 1 and 2): little-endian float16 or float32, two
// dimensions, C order. Nothing else is read.
#ifndef ATTIC_CLIENT_CLI_BENCH_NPY_FILE_H_
#define ATTIC_CLIENT_CLI_BENCH_NPY_FILE_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "attention/element_type.h"

namespace attic::cli {

inline constexpr size_t kNpyHeaderBytesMax = 64 << 10;
inline constexpr uint64_t kNpyDataBytesMax = uint64_t{64} << 30;

struct NpyHeader {
  ElementType type = ElementType::kFloat32;
  uint64_t rows = 0;
  uint64_t columns = 0;
  size_t data_offset = 0;  // bytes before the elements

  uint64_t data_bytes() const { return rows * columns * ElementBytes(type); }
};

// Reads the header at the start of `file`, of which at least the whole header must be given.
// INVALID_ARGUMENT names `name` and the field at fault: magic, version, header length, descr,
// fortran_order, shape. rows and columns are at least 1 and data_bytes() at most kNpyDataBytesMax
// (RESOURCE_EXHAUSTED beyond).
absl::StatusOr<NpyHeader> ParseNpyHeader(const std::string& name, std::span<const std::byte> file);

struct NpyMatrix {
  NpyHeader header;
  std::vector<std::byte> data;

  VectorsView view() const {
    return {data.data(), header.type, static_cast<size_t>(header.rows),
            static_cast<size_t>(header.columns)};
  }
};

// The matrix in the file at `path`. Errors as ParseNpyHeader; NOT_FOUND when it cannot be opened;
// INVALID_ARGUMENT when the file holds more or fewer bytes of data than its shape says, or an
// element is infinite or not a number. The size is checked before memory is taken.
absl::StatusOr<NpyMatrix> ReadNpyMatrix(const std::string& path);

}  // namespace attic::cli

#endif  // ATTIC_CLIENT_CLI_BENCH_NPY_FILE_H_
