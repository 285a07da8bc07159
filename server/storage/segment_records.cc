#include "server/storage/segment_records.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "server/storage/record_codec.h"

namespace attic {
namespace {

constexpr char kFileCounter[] = "file";

// A source that keeps its file.
struct HeldSource {
  std::shared_ptr<SegmentRegistry::Hold> hold;
  std::shared_ptr<const VectorSource> source;  // destroyed first
};

std::shared_ptr<const VectorSource> WithHold(std::shared_ptr<SegmentRegistry::Hold> hold,
                                             std::shared_ptr<const VectorSource> source) {
  const VectorSource* const pointer = source.get();
  auto held = std::make_shared<HeldSource>();
  held->hold = std::move(hold);
  held->source = std::move(source);
  return {std::move(held), pointer};
}

}  // namespace

SegmentRecords::SegmentRecords(RecordsDb& db, std::shared_ptr<SegmentRegistry> registry,
                               std::shared_ptr<rocksdb::FileSystem> file_system,
                               std::shared_ptr<ClusterCache> cache, const SegmentFileOptions& files)
    : db_(db),
      registry_(std::move(registry)),
      file_system_(std::move(file_system)),
      cache_(std::move(cache)),
      files_(files) {}

absl::StatusOr<std::vector<uint64_t>> SegmentRecords::Load(bool delete_orphans) {
  std::map<uint64_t, SegmentRegistry::File> files;
  ATTIC_RETURN_IF_ERROR(
      db_.Scan(RecordSpace::kSegments, {}, {}, [&](std::string_view key, std::string_view value) {
        ATTIC_ASSIGN_OR_RETURN(const SegmentEntry entry, DecodeSegment(key, value));
        SegmentRegistry::File& file = files[entry.reference.file];
        ++file.references;
        file.identity = entry.identity;
        return absl::OkStatus();
      }));
  uint64_t number_max = 0;
  const absl::StatusOr<std::string> counter = db_.Get(RecordSpace::kCounters, kFileCounter);
  if (counter.ok()) {
    ATTIC_ASSIGN_OR_RETURN(number_max, DecodeCounter(kFileCounter, *counter));
  } else if (!absl::IsNotFound(counter.status())) {
    return counter.status();
  }
  return registry_->Load(files, number_max, delete_orphans);
}

absl::Status SegmentRecords::Check(const LayerState& layer) {
  for (const std::vector<SegmentReference>& head : layer.segments) {
    std::optional<int64_t> end;
    for (const SegmentReference& reference : head) {
      if (reference.begin_position < 0 || reference.tokens <= 0 ||
          reference.tokens > std::numeric_limits<int64_t>::max() - reference.begin_position) {
        return absl::InvalidArgumentError("segments: their positions are no range");
      }
      if (end && reference.begin_position != *end) {
        return absl::InvalidArgumentError("segments: they do not follow each other");
      }
      end = reference.begin_position + reference.tokens;
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<SegmentRecords::NewFile> SegmentRecords::WriteFile(const Segment& segment,
                                                                  const VectorArrays& vectors) {
  NewFile file;
  file.hold = registry_->Add();
  const uint64_t number = file.hold->number();
  const std::string path = registry_->Path(number);
  ATTIC_RETURN_IF_ERROR(WriteSegmentFile(*file_system_, path, segment, vectors).status());
  ATTIC_ASSIGN_OR_RETURN(SegmentFile opened, OpenSegmentFile(file_system_, path, cache_, files_));
  registry_->Written(number, opened.file_bytes, opened.identity);
  file.reference = {number, segment.begin_position, static_cast<int64_t>(segment.tokens)};
  file.identity = opened.identity;
  file.source = WithHold(file.hold, std::move(opened.vectors));
  return file;
}

absl::Status SegmentRecords::CheckNext(const HeadName& head, const Segment& segment) {
  if (segment.begin_position < 0 || segment.tokens == 0) {
    return absl::InvalidArgumentError("segment: its positions are no range");
  }
  const std::string begin = HeadKey(head);
  std::optional<int64_t> end;
  ATTIC_RETURN_IF_ERROR(db_.Last(RecordSpace::kSegments, begin, EndOfPrefix(begin),
                                 [&](std::string_view key, std::string_view value) {
                                   ATTIC_ASSIGN_OR_RETURN(const SegmentEntry last,
                                                          DecodeSegment(key, value));
                                   end = last.reference.begin_position + last.reference.tokens;
                                   return absl::OkStatus();
                                 }));
  if (end && segment.begin_position != *end) {
    return absl::OutOfRangeError(absl::StrCat("segment: it begins at ", segment.begin_position,
                                              ", but the last one ends at ", *end));
  }
  return absl::OkStatus();
}

absl::StatusOr<SegmentReference> SegmentRecords::Add(const HeadName& head, const Segment& segment,
                                                     const VectorArrays& vectors,
                                                     std::shared_ptr<const VectorSource>* source) {
  ATTIC_RETURN_IF_ERROR(CheckNext(head, segment));
  ATTIC_ASSIGN_OR_RETURN(NewFile file, WriteFile(segment, vectors));
  const std::string key = SegmentKey(head, segment.begin_position);
  RecordBatch batch;
  batch.Put(RecordSpace::kSegments, key,
            EncodeSegment(key, {.reference = file.reference, .identity = file.identity}));
  batch.Put(RecordSpace::kCounters, kFileCounter,
            EncodeCounter(kFileCounter, registry_->number_max()));
  const Change change{.added = {file.reference.file}};
  registry_->AddReference(file.reference.file);
  const absl::StatusOr<uint64_t> written = db_.Write(batch);
  if (!written.ok()) {
    Abandon(change);
    return written.status();
  }
  Commit(change, *written);
  if (source != nullptr) *source = std::move(file.source);
  return file.reference;
}

absl::StatusOr<std::shared_ptr<const VectorSource>> SegmentRecords::Spill(
    const Segment& segment, const VectorArrays& vectors, SegmentReference* reference) {
  ATTIC_ASSIGN_OR_RETURN(NewFile file, WriteFile(segment, vectors));
  if (reference != nullptr) *reference = file.reference;
  return std::move(file.source);
}

absl::StatusOr<std::vector<SegmentReference>> SegmentRecords::List(const HeadName& head) {
  std::vector<SegmentReference> references;
  const std::string begin = HeadKey(head);
  ATTIC_RETURN_IF_ERROR(db_.Scan(
      RecordSpace::kSegments, begin, EndOfPrefix(begin),
      [&](std::string_view key, std::string_view value) {
        ATTIC_ASSIGN_OR_RETURN(const SegmentEntry entry, DecodeSegment(key, value));
        const SegmentReference& reference = entry.reference;
        if (!references.empty() && references.back().begin_position + references.back().tokens !=
                                       reference.begin_position) {
          return absl::DataLossError("records/: segments do not follow each other");
        }
        references.push_back(reference);
        return absl::OkStatus();
      }));
  return references;
}

absl::StatusOr<SegmentFile> SegmentRecords::Open(const SegmentReference& reference) {
  std::shared_ptr<SegmentRegistry::Hold> hold = registry_->Find(reference.file);
  const std::string path = registry_->Path(reference.file);
  if (hold == nullptr) return absl::NotFoundError(absl::StrCat(path, ": no record refers to it"));
  absl::StatusOr<SegmentFile> file = OpenSegmentFile(file_system_, path, cache_, files_);
  if (absl::IsNotFound(file.status())) {
    return absl::DataLossError(absl::StrCat(path, ": it is missing"));
  }
  ATTIC_RETURN_IF_ERROR(file.status());
  if (file->segment->begin_position != reference.begin_position ||
      static_cast<int64_t>(file->segment->tokens) != reference.tokens ||
      file->identity != registry_->Identity(reference.file)) {
    return absl::DataLossError(absl::StrCat(path, ": it is not the file that was recorded"));
  }
  file->vectors = WithHold(std::move(hold), std::move(file->vectors));
  return file;
}

absl::Status SegmentRecords::Remove(const std::string& begin, RecordBatch& batch, Change& change) {
  return db_.Scan(RecordSpace::kSegments, begin, EndOfPrefix(begin),
                  [&](std::string_view key, std::string_view value) {
                    ATTIC_ASSIGN_OR_RETURN(const SegmentEntry entry, DecodeSegment(key, value));
                    change.dropped.push_back(entry.reference.file);
                    batch.Delete(RecordSpace::kSegments, key);
                    return absl::OkStatus();
                  });
}

absl::Status SegmentRecords::Replace(uint64_t session_key, const LayerState& layer,
                                     RecordBatch& batch, Change& change) {
  ATTIC_RETURN_IF_ERROR(Remove(LayerKey(session_key, layer.layer), batch, change));
  for (uint32_t kv_head = 0; kv_head < layer.segments.size(); ++kv_head) {
    for (const SegmentReference& reference : layer.segments[kv_head]) {
      if (!registry_->AddReference(reference.file)) {
        return absl::NotFoundError(
            absl::StrCat(registry_->Path(reference.file), ": there is no such segment"));
      }
      change.added.push_back(reference.file);
      const std::string key =
          SegmentKey({session_key, layer.layer, kv_head}, reference.begin_position);
      const SegmentEntry entry{.reference = reference,
                               .identity = registry_->Identity(reference.file)};
      batch.Put(RecordSpace::kSegments, key, EncodeSegment(key, entry));
    }
  }
  return absl::OkStatus();
}

absl::Status SegmentRecords::Truncate(uint64_t session_key, const LayerCut& cut, RecordBatch& batch,
                                      Change& change) {
  for (uint32_t kv_head = 0; kv_head < cut.kept_segments.size(); ++kv_head) {
    const std::string begin = HeadKey({session_key, cut.layer, kv_head});
    size_t index = 0;
    ATTIC_RETURN_IF_ERROR(db_.Scan(RecordSpace::kSegments, begin, EndOfPrefix(begin),
                                   [&](std::string_view key, std::string_view value) {
                                     if (index++ < cut.kept_segments[kv_head])
                                       return absl::OkStatus();
                                     ATTIC_ASSIGN_OR_RETURN(const SegmentEntry entry,
                                                            DecodeSegment(key, value));
                                     change.dropped.push_back(entry.reference.file);
                                     batch.Delete(RecordSpace::kSegments, key);
                                     return absl::OkStatus();
                                   }));
  }
  return absl::OkStatus();
}

absl::Status SegmentRecords::RemoveSession(uint64_t session_key, RecordBatch& batch,
                                           Change& change) {
  return Remove(SessionKey(session_key), batch, change);
}

void SegmentRecords::Commit(const Change& change, uint64_t write) {
  for (uint64_t file : change.dropped) registry_->DropReference(file, write);
}

void SegmentRecords::Abandon(const Change& change) {
  // A write that failed may be found again by the next process, unless another one succeeds first.
  const uint64_t next_write = db_.last_tried() + 1;
  for (uint64_t file : change.added) registry_->DropReference(file, next_write);
}

}  // namespace attic
