#include "client/cli/bench/npy_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <random>

#include "tests/support/temporary_folder.h"
#include "tests/unit/client/npy_test_file.h"

namespace attic::cli {
namespace {

using testing::HasSubstr;

const std::vector<float> kSix = {1.0f, -2.0f, 0.5f, 4.0f, 8.0f, -0.25f};

absl::Status ReadStatus(const std::string& contents) {
  const TestFile file("matrix.npy", contents);
  return ReadNpyMatrix(file.path()).status();
}

TEST(NpyFileTest, ReadsBothTypesAndVersions) {
  for (const ElementType type : {ElementType::kFloat32, ElementType::kFloat16}) {
    for (const int version : {1, 2}) {
      const TestFile file("matrix.npy", NpyBytes(kSix, 3, type, version));
      const auto matrix = ReadNpyMatrix(file.path());
      ASSERT_TRUE(matrix.ok()) << matrix.status();
      EXPECT_EQ(matrix->header.rows, 2u);
      EXPECT_EQ(matrix->header.columns, 3u);
      std::vector<float> values(6);
      ToFloat32(matrix->data.data(), matrix->header.type, values);
      EXPECT_EQ(values, kSix);
    }
  }
}

TEST(NpyFileTest, ReadsKeysInAnyOrderAndQuotes) {
  const std::string data(24, '\0');
  EXPECT_TRUE(
      ReadStatus(NpyHeaderBytes("{\"shape\":(2,3),\"descr\":\"<f4\",\"fortran_order\":False}") +
                 data)
          .ok());
}

TEST(NpyFileTest, ErrorsNameTheFileAndTheField) {
  const auto with = [](const std::string& dictionary) {
    return NpyHeaderBytes(dictionary) + std::string(24, '\0');
  };
  const std::string good = NpyBytes(kSix, 3, ElementType::kFloat32);
  std::string version3 = good;
  version3[6] = 3;
  std::string long_header = good;
  long_header[9] = '\x7f';
  struct Case {
    std::string contents;
    const char* field;
  };
  const Case cases[] = {
      {"", "magic"},
      {"PK\x03\x04 not an array", "magic"},
      {good.substr(0, 6), "version"},
      {version3, "version"},
      {good.substr(0, 9), "header length"},
      {good.substr(0, 40), "header"},
      {long_header, "header"},
      {with("{'descr': '<f8', 'fortran_order': False, 'shape': (1, 3)}"), "descr"},
      {with("{'descr': '>f4', 'fortran_order': False, 'shape': (2, 3)}"), "descr"},
      {with("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2, 3)}"), "descr"},
      {with("{'fortran_order': False, 'shape': (2, 3)}"), "descr"},
      {with("{'descr': '<f4', 'descr': '<f4'}"), "descr"},
      {with("{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3)}"), "fortran_order"},
      {with("{'descr': '<f4', 'fortran_order': 0, 'shape': (2, 3)}"), "fortran_order"},
      {with("{'descr': '<f4', 'shape': (2, 3)}"), "fortran_order"},
      {with("{'descr': '<f4', 'fortran_order': False}"), "shape"},
      {with("{'descr': '<f4', 'fortran_order': False, 'shape': (6,)}"), "shape"},
      {with("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2, 3)}"), "shape"},
      {with("{'descr': '<f4', 'fortran_order': False, 'shape': (0, 3)}"), "shape"},
      {with("{'descr': '<f4', 'fortran_order': False, 'shape': (-2, 3)}"), "shape"},
      {with("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999, 3)}"),
       "shape"},
      {with("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), 'more': 1}"), "header"},
      {with("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)} x"), "header"},
      {good.substr(0, good.size() - 1), "data"},
      {good + "x", "data"},
  };
  for (const Case& c : cases) {
    const absl::Status status = ReadStatus(c.contents);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.contents;
    EXPECT_THAT(std::string(status.message()), HasSubstr(std::string("matrix.npy: ") + c.field));
  }
}

TEST(NpyFileTest, RefusesMoreThanTheLimitBeforeReading) {
  const absl::Status status = ReadStatus(NpyHeaderBytes(
      "{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296)}"));
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
}

TEST(NpyFileTest, RefusesNumbersThatAreNotFinite) {
  std::vector<float> values = kSix;
  for (const float bad :
       {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    values[4] = bad;
    for (const ElementType type : {ElementType::kFloat32, ElementType::kFloat16}) {
      const absl::Status status = ReadStatus(NpyBytes(values, 3, type));
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
      EXPECT_THAT(std::string(status.message()), HasSubstr("data"));
    }
  }
}

TEST(NpyFileTest, MissingFilesAndFoldersAreErrors) {
  const TemporaryFolder folder;
  EXPECT_EQ(ReadNpyMatrix(folder.file("absent.npy")).status().code(), absl::StatusCode::kNotFound);
  EXPECT_FALSE(ReadNpyMatrix(folder.path()).ok());
}

// Truncated and corrupted headers: never a crash, and what is accepted fits its limits.
TEST(NpyFileTest, DamagedHeadersAreErrorsOrValid) {
  const uint64_t seed = 20261123;
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  std::mt19937_64 random(seed);
  const std::string interesting = "{}()',: \"<f420189TFalse\n\x93\xff";
  size_t accepted = 0, refused = 0;
  for (int i = 0; i < 200000; ++i) {
    std::string bytes =
        NpyHeaderBytes("{'descr': '<f4', 'fortran_order': False, 'shape': (12, 34), }",
                       1 + static_cast<int>(random() % 2));
    const size_t changes = random() % 4;
    for (size_t c = 0; c < changes; ++c) {
      const size_t at = random() % std::min<size_t>(bytes.size(), 80);
      bytes[at] = random() % 2 == 0 ? static_cast<char>(random())
                                    : interesting[random() % interesting.size()];
    }
    if (random() % 3 == 0) bytes.resize(random() % (bytes.size() + 1));
    // An exact copy, so that the address sanitizer sees reads beyond the end.
    const std::vector<std::byte> file(
        reinterpret_cast<const std::byte*>(bytes.data()),
        reinterpret_cast<const std::byte*>(bytes.data()) + bytes.size());
    const auto header = ParseNpyHeader("damaged", file);
    if (header.ok()) {
      ++accepted;
      ASSERT_LE(header->data_offset, file.size());
      ASSERT_LE(header->data_bytes(), kNpyDataBytesMax);
      ASSERT_GE(header->rows * header->columns, 1u);
    } else {
      ++refused;
      EXPECT_THAT(std::string(header.status().message()), HasSubstr("damaged: "));
    }
  }
  EXPECT_GT(accepted, 1000u);
  EXPECT_GT(refused, 1000u);
}

}  // namespace
}  // namespace attic::cli
