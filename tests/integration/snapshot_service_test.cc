// Export and Import over a connection: callers that leave, chunks that are too large, stores that
// stop; and the client library over the network and in the process.
#include <string>

#include "absl/time/clock.h"
#include "client/cpp/client.h"
#include "tests/integration/store_service_fixture.h"
#include "tests/support/temporary_folder.h"

namespace attic {
namespace {

class SnapshotServiceTest : public StoreServiceTest {
 protected:
  void SetUp() override {
    options_.store.disk.store.directory = folder_.path();
    StartServer();
    OpenSession("book");
    for (int64_t begin = 0; begin < 3000; begin += 1000) {
      for (uint32_t layer : {0, 1}) {
        v1::AppendRequest request = AppendRequest("book", begin, 1000);
        request.set_layer(layer);
        ASSERT_FALSE(Append({request})[0].has_error());
      }
    }
    auto client = ConnectClient({.address = server_->address()});
    ASSERT_TRUE(client.ok()) << client.status();
    client_ = *std::move(client);
  }
  void TearDown() override {
    client_.reset();
    server_.reset();
  }

  static absl::Time Soon() { return absl::Now() + absl::Seconds(20); }

  std::string Export(const std::string& id) {
    std::string bytes;
    const absl::Status status =
        client_->ExportSession(id, Soon(), [&](std::string_view chunk, uint64_t total) {
          EXPECT_GT(total, 0u);
          EXPECT_LE(chunk.size(), 1u << 20);
          bytes.append(chunk);
          return absl::OkStatus();
        });
    EXPECT_TRUE(status.ok()) << status;
    return bytes;
  }

  // In pieces of 100,000 bytes; fails behind `stop_after` of them, unless that is 0.
  absl::StatusOr<SessionDescription> Import(const std::string& bytes, const ImportOptions& options,
                                            size_t stop_after = 0) {
    size_t pieces = 0, at = 0;
    return client_->ImportSession(options, Soon(), [&]() -> absl::StatusOr<std::string> {
      if (stop_after > 0 && pieces++ == stop_after) return absl::AbortedError("enough");
      std::string piece = bytes.substr(at, 100'000);
      at += piece.size();
      return piece;
    });
  }

  const TemporaryFolder folder_;
  std::unique_ptr<Client> client_;
};

TEST_F(SnapshotServiceTest, ThereAndBack) {
  const std::string bytes = Export("book");
  for (const Durability durability : {Durability::kMemory, Durability::kDurable}) {
    const auto imported =
        Import(bytes, {.session_id = DurabilityName(durability), .durability = durability});
    ASSERT_TRUE(imported.ok()) << imported.status();
    EXPECT_EQ(imported->watermark, 3000);
    EXPECT_EQ(imported->durability, durability);
    EXPECT_EQ(imported->durable_watermark, durability == Durability::kDurable ? 3000 : 0);
  }
  EXPECT_TRUE(absl::IsAlreadyExists(Import(bytes, {}).status()));
  std::string damaged = bytes;
  damaged[damaged.size() / 2] = static_cast<char>(damaged[damaged.size() / 2] ^ 4);
  EXPECT_TRUE(absl::IsDataLoss(Import(damaged, {.session_id = "new"}).status()));
  EXPECT_TRUE(
      absl::IsDataLoss(Import(bytes.substr(0, bytes.size() - 1), {.session_id = "new"}).status()));
  EXPECT_TRUE(absl::IsNotFound(client_->DescribeSession("new").status()));
  EXPECT_TRUE(absl::IsNotFound(
      client_->ExportSession("none", Soon(), [](auto, auto) { return absl::OkStatus(); })));
}

TEST_F(SnapshotServiceTest, ACallerThatLeavesLeavesNothing) {
  const std::string bytes = Export("book");
  for (int i = 0; i < 40; ++i) {
    const auto imported =
        Import(bytes, {.session_id = "new", .durability = Durability::kDurable}, 2);
    // Those before may not be quite gone.
    ASSERT_TRUE(absl::IsAborted(imported.status())) << imported.status();
    const absl::Status exported = client_->ExportSession(
        "book", Soon(), [](auto, auto) { return absl::AbortedError("enough"); });
    ASSERT_TRUE(absl::IsAborted(exported) || absl::IsResourceExhausted(exported)) << exported;
  }
  absl::StatusOr<SessionDescription> imported;
  const absl::Time patience = Soon();
  do {
    imported = Import(bytes, {.session_id = "new", .durability = Durability::kDurable});
  } while (absl::IsResourceExhausted(imported.status()) && absl::Now() < patience);
  ASSERT_TRUE(imported.ok()) << imported.status();
  EXPECT_EQ(client_->ListSessions()->size(), 2u);
}

TEST_F(SnapshotServiceTest, ChunksThatAreTooLargeAreRefused) {
  const auto context = Context();
  v1::SessionDescription response;
  const auto writer = sessions_->Import(context.get(), &response);
  v1::SnapshotChunk chunk;
  chunk.set_data(std::string((1u << 20) + 1, 'x'));
  writer->Write(chunk);
  writer->WritesDone();
  EXPECT_EQ(writer->Finish().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
}

TEST_F(SnapshotServiceTest, NoChunkIsNoSession) {
  const auto context = Context();
  v1::SessionDescription response;
  const auto writer = sessions_->Import(context.get(), &response);
  writer->WritesDone();
  EXPECT_EQ(writer->Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(SnapshotServiceTest, AStoreThatStopsEndsThem) {
  const auto export_context = Context(), import_context = Context();
  v1::ExportRequest request;
  request.set_session_id("book");
  const auto reader = sessions_->Export(export_context.get(), request);
  v1::SnapshotChunk chunk;
  ASSERT_TRUE(reader->Read(&chunk));
  v1::SessionDescription response;
  const auto writer = sessions_->Import(import_context.get(), &response);
  ASSERT_TRUE(writer->Write(chunk));
  server_->Drain(absl::Now() + absl::Milliseconds(200));
  while (reader->Read(&chunk)) {
  }
  EXPECT_FALSE(writer->Finish().ok());
  reader->Finish();  // it may have come to its end before
  server_.reset();
}

}  // namespace
}  // namespace attic
