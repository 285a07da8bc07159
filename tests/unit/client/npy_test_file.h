// Writes .npy files for tests.
#ifndef ATTIC_TESTS_UNIT_CLIENT_NPY_TEST_FILE_H_
#define ATTIC_TESTS_UNIT_CLIENT_NPY_TEST_FILE_H_

#include <fstream>
#include <span>
#include <string>
#include <vector>

#include "attention/element_type.h"
#include "tests/support/temporary_folder.h"

namespace attic::cli {

// A file that lives as long as the object.
class TestFile {
 public:
  TestFile(const std::string& name, const std::string& contents) : path_(folder_.file(name)) {
    std::ofstream(path_, std::ios::binary) << contents;
  }

  const std::string& path() const { return path_; }

 private:
  const TemporaryFolder folder_;
  const std::string path_;
};

// A header with NumPy's padding to 64 bytes.
inline std::string NpyHeaderBytes(const std::string& dictionary, int version = 1) {
  const size_t length_bytes = version == 1 ? 2 : 4;
  std::string text = dictionary;
  while ((8 + length_bytes + text.size() + 1) % 64 != 0) text += ' ';
  text += '\n';
  std::string header = std::string("\x93NUMPY", 6) + static_cast<char>(version) + '\0';
  for (size_t i = 0; i < length_bytes; ++i) {
    header += static_cast<char>((text.size() >> (8 * i)) & 0xFF);
  }
  return header + text;
}

inline std::string NpyBytes(std::span<const float> values, size_t columns, ElementType type,
                            int version = 1) {
  const std::string descr = type == ElementType::kFloat32 ? "<f4" : "<f2";
  std::string data(values.size() * ElementBytes(type), '\0');
  FromFloat32(values, type, reinterpret_cast<std::byte*>(data.data()));
  return NpyHeaderBytes("{'descr': '" + descr + "', 'fortran_order': False, 'shape': (" +
                            std::to_string(values.size() / columns) + ", " +
                            std::to_string(columns) + "), }",
                        version) +
         data;
}

}  // namespace attic::cli

#endif  // ATTIC_TESTS_UNIT_CLIENT_NPY_TEST_FILE_H_
