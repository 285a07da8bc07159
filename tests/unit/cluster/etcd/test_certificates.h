// Certificates for tests, made by the program openssl.
#ifndef ATTIC_TESTS_UNIT_CLUSTER_ETCD_TEST_CERTIFICATES_H_
#define ATTIC_TESTS_UNIT_CLUSTER_ETCD_TEST_CERTIFICATES_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tests/support/temporary_folder.h"

namespace attic {

struct CertificateFiles {
  std::string certificate;
  std::string key;
};

// Authorities and certificates in a folder of its own, which goes with the object.
class TestCertificates {
 public:
  TestCertificates();

  // `name` also names the files: one word, of which there is one in the folder.
  absl::StatusOr<CertificateFiles> MakeAuthority(const std::string& name);
  // For servers at 127.0.0.1 or localhost, and for clients.
  absl::StatusOr<CertificateFiles> Issue(const CertificateFiles& authority,
                                         const std::string& name);

 private:
  absl::StatusOr<CertificateFiles> Make(const std::string& name, const std::string& arguments);

  const TemporaryFolder folder_;
};

}  // namespace attic

#endif  // ATTIC_TESTS_UNIT_CLUSTER_ETCD_TEST_CERTIFICATES_H_
