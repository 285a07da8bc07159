#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "server/cluster/etcd/etcd_client.h"
#include "tests/unit/cluster/etcd/etcd_server.h"
#include "tests/unit/cluster/etcd/event_log.h"
#include "tests/unit/cluster/etcd/test_certificates.h"

namespace attic {
namespace {

absl::StatusOr<int64_t> PutOnce(const EtcdOptions& options, const std::string& key) {
  auto client = EtcdClient::Create(options);
  if (!client.ok()) return client.status();
  return (*client)->Put(key, "v");
}

TEST(EtcdSecurityTest, CertificatesAreCheckedOnBothSides) {
  TestCertificates certificates;
  const auto authority = certificates.MakeAuthority("authority");
  const auto stranger = certificates.MakeAuthority("stranger");
  ASSERT_TRUE(authority.ok() && stranger.ok()) << authority.status() << stranger.status();
  const auto server_files = certificates.Issue(*authority, "server");
  const auto client_files = certificates.Issue(*authority, "client");
  const auto strange_files = certificates.Issue(*stranger, "other");
  ASSERT_TRUE(server_files.ok() && client_files.ok() && strange_files.ok());
  auto server = EtcdServer::Start({.ca_file = authority->certificate,
                                   .cert_file = server_files->certificate,
                                   .key_file = server_files->key});
  ASSERT_TRUE(server.ok()) << server.status();

  EtcdOptions good = (*server)->ClientOptions();
  good.cert_file = client_files->certificate;
  good.key_file = client_files->key;
  const auto put = PutOnce(good, "k");
  EXPECT_TRUE(put.ok()) << put.status();
  EXPECT_EQ((*server)->Ctl("get k --print-value-only").value_or("failed"), "v\n");

  const auto code = [](const EtcdOptions& options) {
    return PutOnce(options, "k").status().code();
  };
  EtcdOptions wrong_authority = good;
  wrong_authority.ca_file = stranger->certificate;
  EXPECT_EQ(code(wrong_authority), absl::StatusCode::kUnavailable);
  EtcdOptions wrong_certificate = good;
  wrong_certificate.cert_file = strange_files->certificate;
  wrong_certificate.key_file = strange_files->key;
  EXPECT_EQ(code(wrong_certificate), absl::StatusCode::kUnavailable);
  EtcdOptions no_certificate = good;
  no_certificate.cert_file = no_certificate.key_file = "";
  EXPECT_EQ(code(no_certificate), absl::StatusCode::kUnavailable);
  EtcdOptions plain = no_certificate;
  plain.ca_file = "";
  plain.connect_timeout = absl::Seconds(1);
  EXPECT_EQ(code(plain), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(PutOnce(good, "k").ok());
}

class EtcdUserTest : public testing::Test {
 protected:
  void Start(const std::vector<std::string>& arguments) {
    auto server = EtcdServer::Start({.arguments = arguments});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    password_file_ = absl::StrCat(server_->folder(), "/password");
    WritePassword("secret");
    options_ = server_->ClientOptions();
    options_.user = "attic";
    options_.password_file = password_file_;
  }

  void WritePassword(const std::string& password) {
    std::ofstream(password_file_) << password << "\n";
  }

  std::unique_ptr<EtcdServer> server_;
  std::string password_file_;
  EtcdOptions options_;
};

TEST_F(EtcdUserTest, IsKeptToItsPrefix) {
  ASSERT_NO_FATAL_FAILURE(Start({}));
  ASSERT_TRUE(PutOnce(options_, "other").ok()) << "etcd does not ask for users yet";
  ASSERT_TRUE(server_->AddUser("attic", "secret", "p/").ok());
  auto client = EtcdClient::Create(options_);
  ASSERT_TRUE(client.ok());
  EXPECT_TRUE((*client)->Put("p/a", "v").ok());
  EXPECT_EQ((*client)->Put("other", "v").status().code(), absl::StatusCode::kPermissionDenied);
  EventLog log;
  const auto watch = (*client)->Watch("p/", 1, log.Handler());
  EXPECT_EQ(log.WaitForEvents(1).size(), 1);
  EventLog denied;
  const auto other = (*client)->Watch("o", 1, denied.Handler());
  EXPECT_EQ(denied.WaitForEnd().code(), absl::StatusCode::kPermissionDenied) << denied.end();

  EtcdOptions nobody = options_;
  nobody.user = nobody.password_file = "";
  EXPECT_FALSE(PutOnce(nobody, "p/a").ok());
  WritePassword("wrong");
  EXPECT_EQ(PutOnce(options_, "p/a").status().code(), absl::StatusCode::kUnauthenticated);
}

TEST_F(EtcdUserTest, IsAskedForOnlyLater) {
  ASSERT_NO_FATAL_FAILURE(Start({}));
  auto client = EtcdClient::Create(options_);
  ASSERT_TRUE((*client)->Put("p/a", "v").ok());
  ASSERT_TRUE(server_->AddUser("attic", "secret", "p/").ok());
  const auto put = (*client)->Put("p/a", "w");
  EXPECT_TRUE(put.ok()) << put.status();
}

// Etcd forgets its tokens when it restarts, and after a while when they are not used.
TEST_F(EtcdUserTest, TokensAreRenewed) {
  ASSERT_NO_FATAL_FAILURE(Start({}));
  ASSERT_TRUE(server_->AddUser("attic", "secret", "p/").ok());
  auto client = EtcdClient::Create(options_);
  ASSERT_TRUE((*client)->Put("p/a", "v").ok());
  ASSERT_TRUE(server_->Restart().ok());
  absl::StatusOr<EtcdEntry> entry = (*client)->Get("p/a");
  if (absl::IsUnavailable(entry.status())) entry = (*client)->Get("p/a");
  ASSERT_TRUE(entry.ok()) << entry.status();
  EXPECT_TRUE((*client)->Put("p/a", "w").ok());

  // Also by watches alone; the first may find the old connection.
  ASSERT_TRUE(server_->Restart().ok());
  absl::Status end;
  for (int tries = 0; tries < 3; ++tries) {
    EventLog log;
    const auto watch = (*client)->Watch("p/", 1, log.Handler());
    if (log.WaitForEvents(2).size() == 2) return;
    end = log.end();
  }
  FAIL() << end;
}

}  // namespace
}  // namespace attic
