// Data directories with known content, for tests that examine or damage them.
#ifndef ATTIC_TESTS_UNIT_STORAGE_SAMPLE_DIRECTORY_H_
#define ATTIC_TESTS_UNIT_STORAGE_SAMPLE_DIRECTORY_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "server/storage/durable_store.h"

namespace attic {

constexpr int64_t kSampleSegmentTokens = 64;
constexpr int64_t kSampleSegments = 2;  // of each head
constexpr int64_t kSampleEnd = 190;     // of every layer

Fingerprint SampleFingerprint();

DurableStoreOptions SampleStoreOptions(const std::string& directory);

// Makes sessions "first", of two layers, two heads each, segments and rows behind them, and "fork",
// which shares its segments, and one that holds nothing.
void FillDirectory(DurableStore& store, uint32_t seed);

// Everything that can be read, as text; or the first error, damage included.
absl::StatusOr<std::string> ReadDirectory(const std::string& directory);

// Every file below a folder, by its path there, with its content.
std::map<std::string, std::string> FilesBelow(const std::string& folder);

}  // namespace attic

#endif  // ATTIC_TESTS_UNIT_STORAGE_SAMPLE_DIRECTORY_H_
