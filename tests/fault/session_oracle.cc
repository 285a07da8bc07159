#include "tests/fault/session_oracle.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace attic {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(60);
constexpr size_t kHistoryShown = 40;
constexpr double kExactTolerance = 2e-4;
constexpr double kIndexedTolerance = 0.2;  // of log-sum-exp; keys at random are hard to estimate
constexpr int64_t kScannedTokens = 512;    // what is asked through the index is scanned up to here

}  // namespace

SessionOracle::Held SessionOracle::Cut(const Held& held, int64_t position) {
  Held cut = held;
  for (auto& [number, layer] : cut.layers) {
    if (held.model.watermark(number) <= position) continue;
    // A truncation is durable when it returns, and so is what it leaves.
    layer.durable = position;
    std::erase_if(layer.sent, [position](const Sent& sent) { return sent.end > position; });
  }
  cut.model.Truncate(position);
  return cut;
}

SessionOracle::Held SessionOracle::Forked(const Held& held, const Operation& fork) {
  Held forked;
  forked.model = held.model;
  forked.model.Truncate(fork.position);
  forked.durable = fork.durable;
  for (const uint32_t layer : WorkloadLayers()) {
    forked.layers[layer].durable = fork.durable ? fork.position : 0;
  }
  return forked;
}

std::string SessionOracle::History(const std::string& id) const {
  std::string about = "\nhistory:";
  const size_t first = history_.size() - std::min(history_.size(), kHistoryShown);
  for (size_t i = first; i < history_.size(); ++i) {
    const std::string& line = history_[i];
    const bool its = (line + " ").find(" " + id + " ") != std::string::npos;
    absl::StrAppend(&about, "\n", its ? "* " : "  ", line);
  }
  return about;
}

void SessionOracle::Begin(const Operation& operation) {
  history_.push_back(operation.Encode());
  in_flight_ = operation;
  if (operation.kind != Operation::Kind::kAppend) return;
  Held& held = sessions_.at(operation.id);
  if (held.model.watermark(operation.layer) != operation.position) {
    wrong_ =
        absl::StrCat(operation.id, " layer ", operation.layer, ": watermark ", operation.position,
                     ", but it holds ", held.model.watermark(operation.layer));
    return;
  }
  held.model.Append(operation.layer, ContentOf(operation.content, operation.count));
  held.layers[operation.layer].sent.push_back({held.model.watermark(operation.layer), ++sent_});
}

void SessionOracle::Done(const Outcome& outcome) {
  const Operation done = *std::exchange(in_flight_, std::nullopt);
  history_.back() += " -> " + outcome.Encode();
  switch (done.kind) {
    case Operation::Kind::kOpen: {
      Held& held = sessions_[done.id];
      held.durable = done.durable;
      for (const uint32_t layer : WorkloadLayers()) held.layers[layer] = {};
      break;
    }
    case Operation::Kind::kFork:
      sessions_.emplace(done.new_id, Forked(sessions_.at(done.id), done));
      return Note(done.new_id, outcome, /*all_durable=*/true);
    case Operation::Kind::kTruncate:
      sessions_.at(done.id) = Cut(sessions_.at(done.id), done.position);
      break;
    case Operation::Kind::kClose:
      sessions_.erase(done.id);
      return;
    default:
      break;
  }
  Note(done.id, outcome, done.kind == Operation::Kind::kFlush);
}

void SessionOracle::Refused() {
  const Operation refused = *std::exchange(in_flight_, std::nullopt);
  history_.back() += " refused";
  if (refused.kind != Operation::Kind::kAppend) return;
  Held& held = sessions_.at(refused.id);
  held.model.TruncateLayer(refused.layer, refused.position);
  held.layers.at(refused.layer).sent.pop_back();
}

void SessionOracle::Note(const std::string& id, const Outcome& outcome, bool all_durable) {
  Held& held = sessions_.at(id);
  for (const Outcome::Layer& said : outcome.layers) {
    Layer& layer = held.layers[said.layer];
    const int64_t watermark = held.model.watermark(said.layer);
    const int64_t least = !held.durable ? 0 : all_durable ? watermark : layer.durable;
    const int64_t most = held.durable ? watermark : 0;
    if (said.watermark != watermark || said.durable_watermark < least ||
        said.durable_watermark > most) {
      wrong_ = absl::StrCat(id, " layer ", said.layer, ": said to hold ", said.watermark,
                            ", durable ", said.durable_watermark, "; expected ", watermark,
                            ", durable from ", least, " to ", most);
    }
    layer.durable = std::max(layer.durable, said.durable_watermark);
  }
}

std::vector<SessionOracle::Held> SessionOracle::Candidates(const std::string& id,
                                                           bool* may_be_missing) const {
  using Kind = Operation::Kind;
  const Kind under_way = in_flight_ ? in_flight_->kind : Kind::kDescribe;
  const auto held = sessions_.find(id);
  *may_be_missing = true;
  if (held == sessions_.end()) {
    if (under_way == Kind::kOpen && in_flight_->id == id && in_flight_->durable) {
      Held opened;
      for (const uint32_t layer : WorkloadLayers()) opened.layers[layer] = {};
      return {opened};
    }
    if (under_way == Kind::kFork && in_flight_->new_id == id && in_flight_->durable) {
      return {Forked(sessions_.at(in_flight_->id), *in_flight_)};
    }
    return {};
  }
  if (!held->second.durable) return {};
  const bool its = in_flight_ && in_flight_->id == id;
  *may_be_missing = its && under_way == Kind::kClose;
  // First: what is gone by truncation is not lost.
  std::vector<Held> candidates;
  if (its && under_way == Kind::kTruncate) {
    candidates.push_back(Cut(held->second, in_flight_->position));
  }
  candidates.push_back(held->second);
  return candidates;
}

std::string SessionOracle::Compare(const SessionDescription& found, const Held& held) {
  for (const LayerDescription& layer : found.layers) {
    const int64_t durable = held.layers.at(layer.layer).durable;
    const int64_t sent = held.model.watermark(layer.layer);
    if (layer.watermark < durable) {
      return absl::StrCat("layer ", layer.layer, " lost durable tokens: ", layer.watermark,
                          " are there, ", durable, " were durable");
    }
    if (layer.watermark > sent) {
      return absl::StrCat("layer ", layer.layer, " holds ", layer.watermark,
                          " tokens, of which only ", sent, " can be there");
    }
    if (layer.durable_watermark != layer.watermark) {
      return absl::StrCat("layer ", layer.layer, " was recovered to ", layer.watermark,
                          ", but is durable to ", layer.durable_watermark);
    }
  }
  return {};
}

void SessionOracle::Adopt(const SessionDescription& found, Held& held) {
  for (const LayerDescription& description : found.layers) {
    Layer& layer = held.layers.at(description.layer);
    for (const Sent& sent : layer.sent) {
      if (sent.end <= description.watermark) {
        last_kept_ = std::max(last_kept_, sent.number);
      } else {
        first_lost_ = std::min(first_lost_, sent.number);
      }
    }
    layer.sent.clear();
    layer.durable = description.watermark;
    held.model.TruncateLayer(description.layer, description.watermark);
  }
}

std::string SessionOracle::Check(SessionStore& store, uint64_t seed) {
  if (!wrong_.empty()) return "acknowledged: " + wrong_;
  random_.seed(seed);
  last_kept_ = 0;
  first_lost_ = UINT64_MAX;
  const absl::Status waited = store.WaitForBuilds(absl::Now() + kPatience);
  for (const DamageReport& damage : store.Status().damage) {
    return absl::StrCat("damage: ", damage.file, ": ", damage.what);
  }
  if (!waited.ok()) return "wait for builds: " + waited.ToString();
  Sessions found;
  std::set<std::string> ids;
  for (const auto& [id, held] : sessions_) ids.insert(id);
  std::map<std::string, SessionDescription> there;
  for (SessionDescription& description : store.ListSessions("", 4096)) {
    ids.insert(description.session_id);
    there.emplace(description.session_id, std::move(description));
  }
  for (const std::string& id : ids) {
    bool may_be_missing = false;
    const std::vector<Held> candidates = Candidates(id, &may_be_missing);
    const auto description = there.find(id);
    if (description == there.end()) {
      if (!may_be_missing) return absl::StrCat("session ", id, " is lost", History(id));
      continue;
    }
    std::string wrong = "it must not be there";
    for (const Held& candidate : candidates) {
      wrong = Compare(description->second, candidate);
      if (!wrong.empty()) continue;
      Adopt(description->second, found.emplace(id, candidate).first->second);
      break;
    }
    if (wrong.empty()) wrong = CheckContent(store, id, found.at(id).model);
    if (!wrong.empty()) return absl::StrCat("session ", id, ": ", wrong, History(id));
  }
  if (first_lost_ < last_kept_) {
    return absl::StrCat("the append with number ", last_kept_,
                        " is there, but not that with number ", first_lost_, History(""));
  }
  history_.push_back("checked");
  sessions_ = std::move(found);
  in_flight_.reset();
  return {};
}

std::string SessionOracle::CheckContent(SessionStore& store, const std::string& id,
                                        const SessionModel& model) {
  const Fingerprint fingerprint = WorkloadFingerprint();
  for (const uint32_t layer : WorkloadLayers()) {
    const int64_t watermark = model.watermark(layer);
    if (watermark == 0) continue;
    // What is held already is compared byte by byte.
    const auto ack =
        store.Append(model.Held(layer, 0, watermark).Batch(id, layer, 0), absl::Now() + kPatience);
    if (!ack.ok()) return absl::StrCat("layer ", layer, ": ", ack.status().ToString());
    tokens_checked_ += static_cast<uint64_t>(watermark);
    const std::vector<float> queries =
        RandomFloats(size_t{fingerprint.q_heads} * fingerprint.head_dim, random_);
    AttendItem item{.session_id = id, .layer = layer, .queries = queries};
    for (const AttendMode mode : {AttendMode::kExact, AttendMode::kIndexed}) {
      item.mode = mode;
      item.range = {0, watermark};
      std::string wrong = CheckAnswer(store, item, model);
      item.range.begin = static_cast<int64_t>(random_() % static_cast<uint64_t>(watermark));
      if (wrong.empty()) wrong = CheckAnswer(store, item, model);
      if (!wrong.empty()) return wrong;
    }
    const std::string wrong = CheckSearch(store,
                                          {.session_id = id,
                                           .layer = layer,
                                           .mode = AttendMode::kExact,
                                           .k = 3,
                                           .with_vectors = true,
                                           .queries = queries},
                                          model);
    if (!wrong.empty()) return wrong;
  }
  return {};
}

std::string SessionOracle::CheckAnswer(SessionStore& store, const AttendItem& item,
                                       const SessionModel& model) {
  const std::string where = absl::StrCat("layer ", item.layer, ", positions ", item.range.begin,
                                         " to ", item.range.end, ": ");
  const auto answers = store.Attend({&item, 1}, absl::InfiniteFuture());
  if (!answers.ok()) return where + answers.status().ToString();
  const AttendAnswer& answer = answers->front();
  if (!answer.status.ok()) return where + answer.status.ToString();
  if (answer.range != item.range) return where + "another range was answered";
  const SessionModel::Answer expected =
      model.Attend(item.layer, item.queries, item.range.begin, item.range.end);
  const bool exact =
      item.mode == AttendMode::kExact || item.range.end - item.range.begin <= kScannedTokens;
  for (size_t q = 0; q < expected.log_sum_exp.size(); ++q) {
    const double error = std::abs(answer.log_sum_exp[q] - expected.log_sum_exp[q]);
    if (!(error <= (exact ? kExactTolerance : kIndexedTolerance))) {
      return absl::StrCat(where, "log-sum-exp ", answer.log_sum_exp[q], ", expected ",
                          expected.log_sum_exp[q]);
    }
  }
  for (size_t i = 0; exact && i < expected.output.size(); ++i) {
    if (!(std::abs(answer.output[i] - expected.output[i]) <= kExactTolerance)) {
      return absl::StrCat(where, "output ", answer.output[i], ", expected ", expected.output[i]);
    }
  }
  ++answers_checked_;
  return {};
}

std::string SessionOracle::CheckSearch(SessionStore& store, const SearchRequest& request,
                                       const SessionModel& model) {
  const auto answer = store.Search(request, absl::InfiniteFuture());
  if (!answer.ok()) return "search: " + answer.status().ToString();
  const Fingerprint fingerprint = WorkloadFingerprint();
  const size_t key_bytes = fingerprint.head_dim * ElementBytes(fingerprint.element_type);
  for (size_t q = 0; q < answer->hits.size(); ++q) {
    for (size_t i = 0; i < answer->hits[q].size(); ++i) {
      const int64_t position = answer->hits[q][i].position;
      const Tokens token = model.Held(request.layer, position, position + 1);
      const size_t head = q / fingerprint.group();
      if (!std::equal(token.keys.begin() + head * key_bytes,
                      token.keys.begin() + (head + 1) * key_bytes,
                      answer->keys[q].begin() + i * key_bytes)) {
        return absl::StrCat("search: the key of position ", position, " is another one");
      }
    }
  }
  ++answers_checked_;
  return {};
}

}  // namespace attic
