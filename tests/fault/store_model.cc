#include "tests/fault/store_model.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "tests/fault/store_content.h"

namespace attic {
namespace {

std::string DescribeRecord(const SessionRecord& record) {
  const Fingerprint& fingerprint = record.fingerprint;
  std::string text =
      absl::StrCat("session ", record.session_id, " ", fingerprint.model_id, " ",
                   fingerprint.revision, " ", fingerprint.layers, " ", fingerprint.q_heads, " ",
                   fingerprint.kv_heads, " ", fingerprint.head_dim, " ", fingerprint.value_dim, " ",
                   static_cast<int>(fingerprint.element_type), " ", fingerprint.logit_scale, " ",
                   fingerprint.position_encoding, " ", record.attributes, " layers");
  for (uint32_t layer : record.stored_layers) absl::StrAppend(&text, " ", layer);
  return text + "\n";
}

std::string DescribeRows(const RowsRecord& rows) {
  return absl::StrCat("  rows ", rows.begin_position, "+", rows.count, " ",
                      HashOf(rows.keys.data(), rows.keys.size()), " ",
                      HashOf(rows.values.data(), rows.values.size()), " ",
                      HashOf(rows.query_sample.data(), rows.query_sample.size_bytes()), "\n");
}

std::string DescribeSegment(const Segment& segment, const VectorArrays& vectors) {
  return absl::StrCat("  segment ", segment.begin_position, "+", segment.tokens, " ",
                      HashOf(vectors.keys.data(), vectors.keys.size()), " ",
                      HashOf(vectors.values.data(), vectors.values.size()), " ",
                      segment.clusters.count, " ", segment.value_scatter, "\n");
}

absl::Status DescribeHead(DurableStore& store, const HeadName& head, int64_t* segments_end,
                          std::string& text) {
  ATTIC_ASSIGN_OR_RETURN(const std::string state, store.HeadState(head));
  absl::StrAppend(&text, " head ", head.layer, ".", head.kv_head, " ", state, "\n");
  ATTIC_ASSIGN_OR_RETURN(const std::vector<SegmentReference> references, store.Segments(head));
  int64_t end = 0;
  for (const SegmentReference& reference : references) {
    ATTIC_ASSIGN_OR_RETURN(const SegmentFile file, store.OpenSegment(reference));
    ATTIC_ASSIGN_OR_RETURN(const auto vectors, file.vectors->ReadAll());
    text += DescribeSegment(*file.segment, vectors);
    end = file.segment->end_position();
  }
  *segments_end = std::min(*segments_end, end);
  return absl::OkStatus();
}

absl::Status DescribeSession(DurableStore& store, const SessionRecord& record, std::string& text) {
  text += DescribeRecord(record);
  for (uint32_t layer : record.stored_layers) {
    int64_t segments_end = std::numeric_limits<int64_t>::max();
    for (uint32_t head = 0; head < record.fingerprint.kv_heads; ++head) {
      ATTIC_RETURN_IF_ERROR(DescribeHead(store, {record.key, layer, head}, &segments_end, text));
    }
    for (int64_t begin : {segments_end, int64_t{0}}) {
      absl::StrAppend(&text, " rows from ", begin, "\n");
      ATTIC_RETURN_IF_ERROR(store.ReadRows(record.key, layer, begin, [&](const RowsRecord& rows) {
        text += DescribeRows(rows);
        return absl::OkStatus();
      }));
    }
  }
  return absl::OkStatus();
}

std::string DescribeModelRows(const ModelSession& session, const ModelLayer& layer, int64_t begin) {
  std::string text = absl::StrCat(" rows from ", begin, "\n");
  int64_t next = begin;
  for (const ModelPiece& piece : layer.rows) {
    const int64_t end = piece.begin + static_cast<int64_t>(piece.count);
    if (end <= begin) continue;
    if (piece.begin > next) break;
    const PieceContent content(session.record.fingerprint, piece.begin, piece.count, piece.seed);
    text += DescribeRows(content.From(std::max(begin, piece.begin)));
    next = end;
  }
  return text;
}

}  // namespace

absl::StatusOr<std::string> DescribeStore(DurableStore& store) {
  ATTIC_ASSIGN_OR_RETURN(std::vector<SessionRecord> records, store.Sessions());
  std::sort(records.begin(), records.end(),
            [](const auto& a, const auto& b) { return a.session_id < b.session_id; });
  std::string text;
  for (const SessionRecord& record : records) {
    ATTIC_RETURN_IF_ERROR(DescribeSession(store, record, text));
  }
  return text;
}

int64_t ModelLayer::segments_end() const {
  int64_t end = std::numeric_limits<int64_t>::max();
  for (const std::vector<ModelSegment>& head : segments) {
    end = std::min(end, head.empty() ? 0 : head.back().begin + kSegmentTokens);
  }
  return end;
}

int64_t ModelLayer::watermark() const {
  if (!rows.empty()) return rows.back().begin + static_cast<int64_t>(rows.back().count);
  return segments_end();
}

std::string Describe(const StoreModel& model) {
  std::string text;
  for (const auto& [id, session] : model) {
    text += DescribeRecord(session.record);
    for (const auto& [number, layer] : session.layers) {
      for (size_t head = 0; head < layer.segments.size(); ++head) {
        absl::StrAppend(&text, " head ", number, ".", head, " ", layer.states[head], "\n");
        for (const ModelSegment& segment : layer.segments[head]) {
          const SegmentContent content(segment.begin, segment.seed);
          text += DescribeSegment(content.segment, content.vectors);
        }
      }
      text += DescribeModelRows(session, layer, layer.segments_end());
      text += DescribeModelRows(session, layer, 0);
    }
  }
  return text;
}

StoreDriver::StoreDriver(uint32_t seed, Limits limits) : random_(seed), limits_(limits) {
  states_.push_back({.durable = true});
}

absl::Status StoreDriver::Done(StoreModel next, const absl::Status& status, bool durable,
                               uint64_t write) {
  const bool ok = status.ok();
  states_.push_back(
      {.model = next, .operation = operation_, .write = write, .durable = ok && durable});
  if (ok) {
    model_ = std::move(next);
  } else {
    // Done or not: both come next.
    failed_ = std::move(next);
    states_.push_back({.model = model_, .operation = operation_ + ", which failed"});
  }
  return status;
}

size_t StoreDriver::FirstPossible(uint64_t durable_write) const {
  size_t first = 0;
  for (size_t i = 0; i < states_.size(); ++i) {
    const State& state = states_[i];
    if (state.durable || (state.write != 0 && state.write <= durable_write)) first = i;
  }
  return first;
}

std::set<std::string> StoreDriver::AfterCrash(uint64_t durable_write) const {
  std::set<std::string> possible;
  for (size_t i = FirstPossible(durable_write); i < states_.size(); ++i) {
    possible.insert(Describe(states_[i].model));
  }
  return possible;
}

bool StoreDriver::Reconcile(const std::string& found) {
  if (found == Expected()) return true;
  if (found != Describe(failed_)) return false;
  model_ = failed_;
  states_.push_back({.model = model_});
  return true;
}

std::string StoreDriver::History(const std::string& found, uint64_t durable_write) const {
  std::string text = absl::StrCat("durable up to write ", durable_write, "\n");
  for (size_t i = 0; i < states_.size(); ++i) {
    const State& state = states_[i];
    absl::StrAppend(&text, i, " after ", state.operation, state.durable ? ", durable" : "",
                    ", write ", state.write, Describe(state.model) == found ? " <- found" : "",
                    "\n");
  }
  return text;
}

bool StoreDriver::Resume(const std::string& found, uint64_t durable_write) {
  for (size_t i = states_.size(); i-- > FirstPossible(durable_write);) {
    if (Describe(states_[i].model) != found) continue;
    model_ = states_[i].model;
    states_ = {{.model = model_, .durable = true}};
    return true;
  }
  return false;
}

ModelSession* StoreDriver::Any(StoreModel& model) {
  if (model.empty()) return nullptr;
  return &std::next(model.begin(), static_cast<long>(random_() % model.size()))->second;
}

std::pair<uint32_t, ModelLayer*> StoreDriver::AnyLayer(ModelSession& session) {
  const auto layer =
      std::next(session.layers.begin(), static_cast<long>(random_() % session.layers.size()));
  return {layer->first, &layer->second};
}

absl::Status StoreDriver::Step(DurableStore& store) {
  if (model_.empty()) return Create(store, false);
  switch (random_() % 32) {
    case 0:
      return Create(store, model_.size() >= 6);
    case 1:
    case 2:
      return Create(store, true);
    case 3:
      return Update(store);
    case 4:
      return Remove(store);
    case 5:
    case 6:
      return PutState(store);
    case 7:
    case 8:
      return Replace(store);
    case 9:
    case 10:
    case 11:
    case 12:
      return Drop(store);
    case 13:
    case 14:
    case 15:
    case 16:
    case 17:
      return Sync(store);
    case 18:
    case 19:
    case 20:
    case 21:
    case 22:
    case 23:
      return AddSegment(store);
    default:
      return Append(store);
  }
}

absl::Status StoreDriver::Update(DurableStore& store) {
  operation_ = "update";
  StoreModel next = model_;
  ModelSession& session = *Any(next);
  session.record.attributes = absl::StrCat("attributes ", next_seed_++);
  const absl::Status status = store.UpdateSession(session.record);
  return Done(std::move(next), status, true);
}

absl::Status StoreDriver::Remove(DurableStore& store) {
  operation_ = "remove";
  StoreModel next = model_;
  const SessionRecord record = Any(next)->record;
  next.erase(record.session_id);
  const absl::Status status = store.RemoveSession(record.key);
  return Done(std::move(next), status, true);
}

absl::Status StoreDriver::Append(DurableStore& store) {
  operation_ = "append";
  StoreModel next = model_;
  ModelSession& session = *Any(next);
  auto [number, layer] = AnyLayer(session);
  uint64_t count = 1 + random_() % limits_.piece_rows_max;
  if (limits_.large_pieces && random_() % 8 == 0) count *= 200;
  const ModelPiece piece{layer->watermark(), count, next_seed_++};
  layer->rows.push_back(piece);
  const PieceContent content(session.record.fingerprint, piece.begin, piece.count, piece.seed);
  const absl::StatusOr<uint64_t> write =
      store.AppendRows(session.record.key, number, content.From(piece.begin));
  return Done(std::move(next), write.status(), false, write.ok() ? *write : 0);
}

absl::Status StoreDriver::AddSegment(DurableStore& store) {
  operation_ = "add segment";
  StoreModel next = model_;
  ModelSession& session = *Any(next);
  auto [number, layer] = AnyLayer(session);
  const uint32_t head = random_() % layer->segments.size();
  std::vector<ModelSegment>& segments = layer->segments[head];
  const int64_t begin = segments.empty() ? 0 : segments.back().begin + kSegmentTokens;
  // Its rows must be there.
  if (begin + kSegmentTokens > layer->watermark()) return Append(store);
  segments.push_back({begin, next_seed_++});
  const SegmentContent content(begin, segments.back().seed);
  const absl::Status status =
      store
          .AddSegment({session.record.key, number, head}, content.segment, content.vectors, nullptr)
          .status();
  return Done(std::move(next), status, false);
}

absl::Status StoreDriver::Drop(DurableStore& store) {
  operation_ = "drop";
  StoreModel next = model_;
  ModelSession& session = *Any(next);
  auto [number, layer] = AnyLayer(session);
  const int64_t position = layer->segments_end();
  std::erase_if(layer->rows, [position](const ModelPiece& piece) {
    return piece.begin + static_cast<int64_t>(piece.count) <= position;
  });
  const absl::Status status = store.DropRows(session.record.key, number, position);
  return Done(std::move(next), status, false);
}

absl::Status StoreDriver::PutState(DurableStore& store) {
  operation_ = "put state";
  StoreModel next = model_;
  ModelSession& session = *Any(next);
  auto [number, layer] = AnyLayer(session);
  const uint32_t head = random_() % layer->states.size();
  layer->states[head] = absl::StrCat("state ", next_seed_++);
  const absl::Status status =
      store.PutHeadState({session.record.key, number, head}, layer->states[head]);
  return Done(std::move(next), status, false);
}

absl::Status StoreDriver::Sync(DurableStore& store) {
  operation_ = "sync";
  return Done(model_, store.Sync(), true);
}

namespace {

// References of a head up to `position`, of which the model has as many.
absl::Status TakeSegments(DurableStore& store, const HeadName& head, int64_t position,
                          std::vector<ModelSegment>& model,
                          std::vector<SegmentReference>& references) {
  std::erase_if(model, [position](const ModelSegment& segment) {
    return segment.begin + kSegmentTokens > position;
  });
  ATTIC_ASSIGN_OR_RETURN(references, store.Segments(head));
  ATTIC_CHECK(references.size() >= model.size());
  references.resize(model.size());
  return absl::OkStatus();
}

// A layer cut at `position`: what a store is to hold, and the content that it borrows.
absl::Status CutLayer(DurableStore& store, uint64_t session_key, uint32_t number, int64_t position,
                      const Fingerprint& fingerprint, ModelLayer& layer, LayerState& state,
                      std::vector<PieceContent>& contents) {
  state.layer = number;
  state.segments.resize(layer.segments.size());
  for (uint32_t head = 0; head < layer.segments.size(); ++head) {
    ATTIC_RETURN_IF_ERROR(TakeSegments(store, {session_key, number, head}, position,
                                       layer.segments[head], state.segments[head]));
  }
  std::vector<ModelPiece> rows;
  for (const ModelPiece& piece : layer.rows) {
    // Not cut inside a piece: what a piece holds follows from its seed and count.
    if (piece.begin + static_cast<int64_t>(piece.count) <= position) rows.push_back(piece);
  }
  layer.rows = rows;
  for (const ModelPiece& piece : rows) {
    contents.emplace_back(fingerprint, piece.begin, piece.count, piece.seed);
    state.rows.push_back(contents.back().From(piece.begin));
  }
  return absl::OkStatus();
}

// Where a layer may be cut: at the end of a piece, or at the end of all.
int64_t CutPosition(const ModelLayer& layer, uint32_t random) {
  if (layer.rows.empty()) return layer.segments_end();
  const ModelPiece& piece = layer.rows[random % layer.rows.size()];
  return piece.begin + static_cast<int64_t>(piece.count);
}

}  // namespace

absl::Status StoreDriver::Replace(DurableStore& store) {
  operation_ = "replace";
  StoreModel next = model_;
  ModelSession& session = *Any(next);
  std::vector<LayerState> states;
  std::vector<std::vector<PieceContent>> contents(session.layers.size());
  for (auto& [number, layer] : session.layers) {
    if (random_() % 4 == 0) continue;
    std::vector<PieceContent>& content = contents[states.size()];
    content.reserve(layer.rows.size());
    ATTIC_RETURN_IF_ERROR(CutLayer(store, session.record.key, number, CutPosition(layer, random_()),
                                   session.record.fingerprint, layer, states.emplace_back(),
                                   content));
  }
  const absl::Status status = store.ReplaceLayers(session.record.key, states);
  return Done(std::move(next), status, true);
}

absl::Status StoreDriver::Create(DurableStore& store, bool fork) {
  operation_ = fork ? "fork" : "create";
  StoreModel next = model_;
  ModelSession session;
  std::vector<LayerState> states;
  std::vector<std::vector<PieceContent>> contents;
  if (fork) {
    session = *Any(next);
    contents.resize(session.layers.size());
    for (auto& [number, layer] : session.layers) {
      std::vector<PieceContent>& content = contents[states.size()];
      content.reserve(layer.rows.size());
      ATTIC_RETURN_IF_ERROR(CutLayer(store, session.record.key, number,
                                     CutPosition(layer, random_()), session.record.fingerprint,
                                     layer, states.emplace_back(), content));
      layer.states.assign(layer.states.size(), "");
    }
  } else {
    session.record = RandomRecord(random_);
    for (uint32_t layer : session.record.stored_layers) {
      const uint32_t heads = session.record.fingerprint.kv_heads;
      session.layers[layer] = {.segments = std::vector<std::vector<ModelSegment>>(heads),
                               .states = std::vector<std::string>(heads)};
    }
  }
  session.record.session_id = absl::StrCat("session-", next_id_++);
  const absl::Status status = store.CreateSession(session.record, states);
  next[session.record.session_id] = session;
  return Done(std::move(next), status, true);
}

}  // namespace attic
