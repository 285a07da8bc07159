#include "tests/unit/storage/sample_directory.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <random>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "tests/unit/storage/sample_segment.h"
#include "xxhash.h"

namespace attic {
namespace {

struct Piece {
  std::vector<std::byte> keys, values;
  std::vector<float> queries;
  RowsRecord rows;
};

std::unique_ptr<Piece> MakePiece(int64_t begin, size_t count, std::mt19937& random) {
  const Fingerprint f = SampleFingerprint();
  auto piece = std::make_unique<Piece>();
  piece->keys.resize(count * f.kv_heads * f.head_dim * 2);
  piece->values.resize(count * f.kv_heads * f.value_dim * 2);
  piece->queries.resize(size_t{f.q_heads} * f.head_dim);
  for (std::byte& byte : piece->keys) byte = static_cast<std::byte>(random() % 64);
  for (std::byte& byte : piece->values) byte = static_cast<std::byte>(random() % 64);
  for (float& x : piece->queries) x = static_cast<float>(random() % 100);
  piece->rows = {begin, count, piece->keys, piece->values, piece->queries};
  return piece;
}

void AddSegments(DurableStore& store, const HeadName& head, uint32_t seed) {
  for (int64_t i = 0; i < kSampleSegments; ++i) {
    const SampleSegment sample = BuiltSegment({.head_dim = 16,
                                               .value_dim = 16,
                                               .tokens = kSampleSegmentTokens,
                                               .clusters = 4,
                                               .super_clusters = 2,
                                               .begin_position = i * kSampleSegmentTokens},
                                              seed + static_cast<uint32_t>(i));
    ASSERT_TRUE(store.AddSegment(head, *sample.segment, sample.vectors, nullptr).ok());
  }
  ASSERT_TRUE(store.PutHeadState(head, absl::StrCat("learnt ", seed)).ok());
}

std::string Hash(std::span<const std::byte> bytes) {
  return absl::StrCat(absl::Hex(XXH3_64bits(bytes.data(), bytes.size())), " ");
}

absl::Status ReadLayer(DurableStore& store, const SessionRecord& record, uint32_t layer,
                       std::string& text) {
  for (uint32_t h = 0; h < record.fingerprint.kv_heads; ++h) {
    const HeadName head{record.key, layer, h};
    ATTIC_ASSIGN_OR_RETURN(const auto segments, store.Segments(head));
    for (const SegmentReference& reference : segments) {
      ATTIC_ASSIGN_OR_RETURN(const SegmentFile file, store.OpenSegment(reference));
      ATTIC_ASSIGN_OR_RETURN(const VectorArrays arrays, file.vectors->ReadAll());
      absl::StrAppend(&text, "segment ", reference.begin_position, " ", reference.tokens, " ",
                      absl::Hex(file.identity), Hash(arrays.keys), Hash(arrays.values));
    }
    ATTIC_ASSIGN_OR_RETURN(const std::string state, store.HeadState(head));
    absl::StrAppend(&text, state, "\n");
  }
  return store.ReadRows(record.key, layer, 0, [&](const RowsRecord& rows) {
    absl::StrAppend(&text, "rows ", rows.begin_position, " ", rows.count, " ", Hash(rows.keys),
                    Hash(rows.values), Hash(std::as_bytes(rows.query_sample)));
    return absl::OkStatus();
  });
}

}  // namespace

Fingerprint SampleFingerprint() {
  return {.model_id = "sample",
          .revision = "1",
          .layers = 3,
          .q_heads = 4,
          .kv_heads = 2,
          .head_dim = 16,
          .value_dim = 16,
          .element_type = ElementType::kBFloat16,
          .logit_scale = 0.25f,
          .position_encoding = "none"};
}

DurableStoreOptions SampleStoreOptions(const std::string& directory) {
  DurableStoreOptions options;
  options.directory = directory;
  options.cache = {.bytes_max = 1u << 20, .read_threads = 1};
  options.rows_buffer_bytes = 64u << 10;
  return options;
}

void FillDirectory(DurableStore& store, uint32_t seed) {
  std::mt19937 random(seed);
  SessionRecord first{.session_id = "first",
                      .fingerprint = SampleFingerprint(),
                      .stored_layers = {0, 2},
                      .attributes = "of the sessions' own"};
  ASSERT_TRUE(store.CreateSession(first, {}).ok());
  std::vector<LayerState> layers;
  std::vector<std::unique_ptr<Piece>> pieces;
  for (const uint32_t layer : first.stored_layers) {
    LayerState state{.layer = layer};
    for (uint32_t h = 0; h < first.fingerprint.kv_heads; ++h) {
      const HeadName head{first.key, layer, h};
      AddSegments(store, head, seed + 100 * layer + 10 * h);
      state.segments.push_back(*store.Segments(head));
    }
    // The first of them are in segments, too. Some records are large enough for files of their own.
    for (int64_t begin = 50; begin < kSampleEnd; begin += 35) {
      pieces.push_back(MakePiece(begin, 35, random));
      ASSERT_TRUE(store.AppendRows(first.key, layer, pieces.back()->rows).ok());
    }
    pieces.push_back(MakePiece(kSampleSegments * kSampleSegmentTokens, 3, random));
    state.rows.push_back(pieces.back()->rows);
    layers.push_back(std::move(state));
  }
  SessionRecord fork = first;
  fork.session_id = "fork";
  ASSERT_TRUE(store.CreateSession(fork, layers).ok());
  SessionRecord empty = first;
  empty.session_id = "empty";
  ASSERT_TRUE(store.CreateSession(empty, {}).ok());
  ASSERT_TRUE(store.Sync().ok());
}

absl::StatusOr<std::string> ReadDirectory(const std::string& directory) {
  ATTIC_ASSIGN_OR_RETURN(const auto store, DurableStore::Open(SampleStoreOptions(directory)));
  ATTIC_ASSIGN_OR_RETURN(const auto sessions, store->Sessions());
  std::string text;
  for (const SessionRecord& record : sessions) {
    absl::StrAppend(&text, "\n", record.session_id, " ", record.key, " ", record.attributes, " ",
                    record.fingerprint.model_id, record.fingerprint.revision,
                    record.fingerprint.position_encoding, record.fingerprint.logit_scale, "\n");
    for (const uint32_t layer : record.stored_layers) {
      absl::StrAppend(&text, "\nlayer ", layer, "\n");
      ATTIC_RETURN_IF_ERROR(ReadLayer(*store, record, layer, text));
    }
  }
  if (!store->damage().empty()) return absl::DataLossError(store->damage()[0].what);
  return text;
}

std::map<std::string, std::string> FilesBelow(const std::string& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    const std::string path = entry.path().string();
    if (entry.is_directory()) {
      files[path.substr(folder.size() + 1) + "/"] = "";
    } else {
      files[path.substr(folder.size() + 1)] = ReadBytes(path);
    }
  }
  return files;
}

}  // namespace attic
