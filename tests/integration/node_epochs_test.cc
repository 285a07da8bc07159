// No change reaches a node from who knows an old map: every method there is, by its descriptor.
#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>

#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "tests/integration/node_service_fixture.h"

namespace attic {
namespace {

using google::protobuf::FieldDescriptor;

// They change no session, or, as what an operator asks for, no session here.
const std::set<std::string>& ReadingMethods() {
  static const auto* const methods = new std::set<std::string>{
      "SessionService.Describe",  "SessionService.Plan",       "SessionService.List",
      "SessionService.Export",    "AttentionService.Attend",   "AttentionService.AttendStream",
      "AttentionService.Search",  "AdminService.GetStatus",    "ShardService.Inventory",
      "ShardService.Digest",      "ShardService.ReadRows",     "ClusterService.GetMap",
      "ClusterService.GetRepair", "ClusterService.ChangeNode", "ClusterService.Rebalance"};
  return *methods;
}

class NodeEpochsTest : public NodeServiceTest {
 protected:
  void SetUp() override {
    NodeServiceTest::SetUp();
    MakeShard("book");
    const auto acks = Append({ShardRows("book", 0, 300)});
    ASSERT_EQ(acks[0].error().code(), 0) << acks[0].error().message();
    EXPECT_EQ(acks[0].watermark(), 300);
    EXPECT_EQ(acks[0].epoch(), kEpoch);
    EXPECT_EQ(acks[0].boot_id(), server_->boot_id());
  }

  using Unary = std::function<grpc::Status()>;
  template <typename Request, typename Response>
  Unary Session(grpc::Status (v1::SessionService::Stub::*method)(grpc::ClientContext*,
                                                                 const Request&, Response*),
                Request request) {
    return [this, method, request] {
      Response response;
      return (*sessions_.*method)(Context().get(), request, &response);
    };
  }

  // Those that say no epoch: a node refuses them.
  std::map<std::string, Unary> RefusedMethods() {
    using Stub = v1::SessionService::Stub;
    const std::string id = ShardOf("book");
    v1::ForkRequest fork;
    fork.set_session_id(id);
    fork.set_new_session_id(ShardOf("copy"));
    v1::TruncateRequest truncate;
    truncate.set_session_id(id);
    v1::FlushRequest flush;
    flush.set_session_id(id);
    v1::ExtendPrefixRequest extend;
    extend.set_session_id(id);
    v1::RenewLeaseRequest renew;
    renew.set_session_id(id);
    v1::PinRequest pin;
    pin.set_session_id(id);
    v1::CloseRequest close;
    close.set_session_id(id);
    return {{"SessionService.Open", Session(&Stub::Open, OpenShard("book", 1))},
            {"SessionService.Fork", Session(&Stub::Fork, fork)},
            {"SessionService.Truncate", Session(&Stub::Truncate, truncate)},
            {"SessionService.Flush", Session(&Stub::Flush, flush)},
            {"SessionService.ExtendPrefix", Session(&Stub::ExtendPrefix, extend)},
            {"SessionService.RenewLease", Session(&Stub::RenewLease, renew)},
            {"SessionService.Pin", Session(&Stub::Pin, pin)},
            {"SessionService.Close", Session(&Stub::Close, close)}};
  }

  // Those that say an epoch, called with one.
  using WithEpoch = std::function<v1::Error(uint64_t epoch)>;
  std::map<std::string, WithEpoch> CheckedMethods() {
    return {
        {"AttentionService.Append",
         [this](uint64_t epoch) { return Append({ShardRows("book", 300, 1, epoch)})[0].error(); }},
        {"SessionService.Import", [this](uint64_t epoch) { return ImportCopy(epoch); }},
        {"ShardService.Call", [this](uint64_t epoch) {
           v1::ShardCall call;
           *call.mutable_open() = OpenShard("another");
           return CallOne(call, epoch).error();
         }}};
  }

  // Imports the shard under another session's id.
  v1::Error ImportCopy(uint64_t epoch) {
    v1::ExportRequest request;
    request.set_session_id(ShardOf("book"));
    const auto export_context = Context(), import_context = Context();
    const auto reader = sessions_->Export(export_context.get(), request);
    v1::SessionDescription response;
    const auto writer = sessions_->Import(import_context.get(), &response);
    v1::SnapshotChunk chunk;
    for (bool first = true; reader->Read(&chunk); first = false) {
      if (first) chunk.set_session_id(ShardOf(Twin()));
      if (first) chunk.set_epoch(epoch);
      if (!writer->Write(chunk)) break;
    }
    writer->WritesDone();
    v1::Error error;
    const grpc::Status status = writer->Finish();
    error.set_code(status.error_code());
    error.set_message(status.error_message());
    export_context->TryCancel();
    reader->Finish();
    return error;
  }
  // Another session's id: imported under it, the shard stays in its slot, for its key is the same.
  static std::string Twin() { return "book-copy"; }

  // All calls that a message may have, about the shard.
  std::vector<v1::ShardCall> AllCalls() {
    std::vector<v1::ShardCall> calls;
    const auto* const kinds = v1::ShardCall::descriptor()->FindOneofByName("call");
    for (int i = 0; i < kinds->field_count(); ++i) {
      v1::ShardCall call;
      google::protobuf::Message* const request =
          call.GetReflection()->MutableMessage(&call, kinds->field(i));
      const FieldDescriptor* const id = request->GetDescriptor()->FindFieldByName("session_id");
      request->GetReflection()->SetString(request, id, ShardOf("book"));
      if (call.has_open()) *call.mutable_open() = OpenShard("book");
      if (call.has_fork()) call.mutable_fork()->set_new_session_id(ShardOf("copy"));
      calls.push_back(std::move(call));
    }
    return calls;
  }

  void ExpectUnchanged() {
    v1::ListResponse list;
    ASSERT_TRUE(sessions_->List(Context().get(), {}, &list).ok());
    ASSERT_EQ(list.sessions_size(), 1);
    EXPECT_EQ(list.sessions(0).session_id(), ShardOf("book"));
    EXPECT_EQ(list.sessions(0).watermark(), 300);
    EXPECT_FALSE(list.sessions(0).pinned());
  }
};

void ExpectStale(const v1::Error& error, const std::string& what) {
  EXPECT_EQ(error.code(), grpc::StatusCode::ABORTED) << what << ": " << error.message();
  EXPECT_TRUE(absl::StartsWith(error.message(), "stale epoch")) << what << ": " << error.message();
}

TEST_F(NodeEpochsTest, EveryMethodIsSpokenOf) {
  const auto refused = RefusedMethods();
  const auto checked = CheckedMethods();
  size_t methods = 0;
  for (const char* service :
       {"SessionService", "AttentionService", "AdminService", "ShardService", "ClusterService"}) {
    const auto* const descriptor =
        google::protobuf::DescriptorPool::generated_pool()->FindServiceByName(
            std::string("attic.v1.") + service);
    ASSERT_NE(descriptor, nullptr) << service;
    for (int i = 0; i < descriptor->method_count(); ++i, ++methods) {
      const std::string name = std::string(service) + "." + descriptor->method(i)->name();
      EXPECT_EQ(ReadingMethods().count(name) + refused.count(name) + checked.count(name), 1u)
          << name << ": does it change sessions, and is it refused to old maps?";
    }
  }
  EXPECT_EQ(methods, ReadingMethods().size() + refused.size() + checked.size());
}

TEST_F(NodeEpochsTest, ChangesWithoutAnEpochAreRefused) {
  for (const auto& [name, call] : RefusedMethods()) {
    const grpc::Status status = call();
    EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION)
        << name << ": " << status.error_message();
    EXPECT_TRUE(absl::StrContains(status.error_message(), "use a cluster client")) << name;
  }
  ExpectUnchanged();
}

// Other nodes, which fill themselves, say no epoch; clients do.
TEST_F(NodeEpochsTest, ExportsAreReadsWhereAnEpochIsSaid) {
  const auto code = [this](uint64_t epoch, int64_t position) {
    v1::ExportRequest request;
    request.set_session_id(ShardOf("book"));
    request.set_epoch(epoch);
    request.set_position(position);
    const auto context = Context();
    const auto reader = sessions_->Export(context.get(), request);
    v1::SnapshotChunk chunk;
    while (reader->Read(&chunk)) {
    }
    return reader->Finish().error_code();
  };
  EXPECT_EQ(code(0, 300), grpc::StatusCode::OK);
  EXPECT_EQ(code(kEpoch, 0), grpc::StatusCode::OK);
  EXPECT_EQ(code(kEpoch, 300), grpc::StatusCode::OK);
  EXPECT_EQ(code(kEpoch, 301), grpc::StatusCode::OUT_OF_RANGE);
  EXPECT_EQ(code(1, 300), grpc::StatusCode::ABORTED);
  EXPECT_EQ(code(kEpoch + 1, 300), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(NodeEpochsTest, StaleEpochsAreRefused) {
  // The slots changed in epoch kEpoch - 2.
  for (const uint64_t stale : {uint64_t{0}, uint64_t{1}, kEpoch - 3}) {
    for (const auto& [name, call] : CheckedMethods()) ExpectStale(call(stale), name);
    for (const v1::ShardCall& call : AllCalls()) {
      if (stale == 0 && call.has_describe()) continue;  // a read
      ExpectStale(CallOne(call, stale).error(), call.ShortDebugString());
    }
    ExpectUnchanged();
  }
  for (const auto& [name, call] : CheckedMethods()) {
    EXPECT_EQ(call(kEpoch + 1).code(), grpc::StatusCode::UNAVAILABLE) << name;
  }
  for (const v1::ShardCall& call : AllCalls()) {
    EXPECT_EQ(CallOne(call, kEpoch + 1).error().code(), grpc::StatusCode::UNAVAILABLE);
  }
  ExpectUnchanged();
}

TEST_F(NodeEpochsTest, ReadsOfStaleEpochsAreRefused) {
  v1::AttendRequest attend;
  v1::AttendItem* const item = attend.add_items();
  item->set_session_id(ShardOf("book"));
  item->set_queries(RandomFloatBytes(kQHeads / kKvHeads * kHeadDim));
  attend.set_layer(kLayer);
  v1::SearchRequest search;
  search.set_session_id(ShardOf("book"));
  search.set_layer(kLayer);
  search.set_k(3);
  search.set_queries(item->queries());
  for (const uint64_t epoch : {uint64_t{0}, kEpoch - 3, kEpoch - 2, kEpoch}) {
    const bool stale = epoch == kEpoch - 3;
    attend.set_epoch(epoch);
    v1::AttendResponse answer;
    ASSERT_TRUE(attention_->Attend(Context().get(), attend, &answer).ok());
    EXPECT_EQ(answer.epoch(), kEpoch);
    EXPECT_EQ(answer.items(0).error().code(), stale ? grpc::StatusCode::ABORTED : 0) << epoch;
    search.set_epoch(epoch);
    v1::SearchResponse found;
    const grpc::Status searched = attention_->Search(Context().get(), search, &found);
    EXPECT_EQ(searched.error_code(), stale ? grpc::StatusCode::ABORTED : grpc::StatusCode::OK);
    EXPECT_EQ(found.epoch(), stale ? 0 : kEpoch);
  }
  const auto context = Context();
  const auto stream = attention_->AttendStream(context.get());
  attend.set_epoch(kEpoch - 3);
  v1::AttendResponse answer;
  ASSERT_TRUE(stream->Write(attend) && stream->Read(&answer));
  EXPECT_EQ(answer.items(0).error().code(), grpc::StatusCode::ABORTED);
  attend.set_epoch(kEpoch + 1);
  ASSERT_TRUE(stream->Write(attend) && stream->Read(&answer));
  EXPECT_EQ(answer.error().code(), grpc::StatusCode::UNAVAILABLE);
  stream->WritesDone();
  stream->Finish();
}

TEST_F(NodeEpochsTest, WhoKnowsTheMapIsServed) {
  for (const auto& [name, call] : CheckedMethods()) {
    if (name == "SessionService.Import") continue;
    const v1::Error error = call(kEpoch);
    EXPECT_EQ(error.code(), 0) << name << ": " << error.message();
  }
  EXPECT_EQ(ImportCopy(kEpoch).code(), 0);
  EXPECT_EQ(ImportCopy(kEpoch).code(), grpc::StatusCode::ALREADY_EXISTS);
}

TEST_F(NodeEpochsTest, ASlotThatMovesEndsWritesOfAnOpenStream) {
  const auto context = Context();
  const auto stream = attention_->Append(context.get());
  v1::AppendResponse response;
  ASSERT_TRUE(stream->Write(ShardRows("book", 300, 10)) && stream->Read(&response));
  EXPECT_EQ(response.error().code(), 0) << response.error().message();
  ClusterMap moved = Map(kEpoch + 1, kEpoch - 2);
  moved.slots[SlotOf("book")] = {.replicas = {1}, .epoch = kEpoch + 1};
  membership_->Set(moved);
  ASSERT_TRUE(stream->Write(ShardRows("book", 310, 10)) && stream->Read(&response));
  ExpectStale(response.error(), "old map");
  EXPECT_EQ(response.epoch(), kEpoch + 1);
  ASSERT_TRUE(stream->Write(ShardRows("book", 310, 10, kEpoch + 1)) && stream->Read(&response));
  EXPECT_EQ(response.error().code(), grpc::StatusCode::ABORTED);
  EXPECT_TRUE(absl::StrContains(response.error().message(), "not on this node"));
  // Filled to become a replica again, it takes writes, but answers nothing.
  moved.slots[SlotOf("book")] = {.replicas = {1}, .incoming = {0}, .epoch = kEpoch + 2};
  moved.epoch = kEpoch + 2;
  membership_->Set(moved);
  ASSERT_TRUE(stream->Write(ShardRows("book", 310, 10, kEpoch + 2)) && stream->Read(&response));
  EXPECT_EQ(response.error().code(), 0) << response.error().message();
  EXPECT_EQ(response.watermark(), 320);
  v1::ShardCall describe;
  describe.mutable_describe()->set_session_id(ShardOf("book"));
  EXPECT_EQ(CallOne(describe, kEpoch + 2).error().code(), grpc::StatusCode::ABORTED);
  stream->WritesDone();
  EXPECT_TRUE(stream->Finish().ok());
}

}  // namespace
}  // namespace attic
