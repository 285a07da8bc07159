#include "tests/unit/cluster/etcd/test_certificates.h"

#include <stdlib.h>

#include <cstdlib>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace attic {

TestCertificates::TestCertificates() {
  std::string folder = (std::filesystem::temp_directory_path() / "attic-certs-XXXXXX").string();
  ATTIC_CHECK(mkdtemp(folder.data()) != nullptr);
  folder_ = folder;
  // Without a file of its own openssl adds extensions of the system's configuration.
  std::ofstream(folder_ / "config") << "[req]\ndistinguished_name=name\n[name]\n";
}

TestCertificates::~TestCertificates() {
  std::error_code ignored;
  std::filesystem::remove_all(folder_, ignored);
}

absl::StatusOr<CertificateFiles> TestCertificates::MakeAuthority(const std::string& name) {
  return Make(name, "-addext basicConstraints=critical,CA:TRUE -addext keyUsage=keyCertSign");
}

absl::StatusOr<CertificateFiles> TestCertificates::Issue(const CertificateFiles& authority,
                                                         const std::string& name) {
  return Make(name, absl::StrCat("-CA ", authority.certificate, " -CAkey ", authority.key,
                                 " -addext basicConstraints=critical,CA:FALSE"
                                 " -addext subjectAltName=IP:127.0.0.1,DNS:localhost"
                                 " -addext extendedKeyUsage=serverAuth,clientAuth"));
}

absl::StatusOr<CertificateFiles> TestCertificates::Make(const std::string& name,
                                                        const std::string& arguments) {
  const CertificateFiles files = {.certificate = (folder_ / absl::StrCat(name, ".crt")).string(),
                                  .key = (folder_ / absl::StrCat(name, ".key")).string()};
  const std::string log = (folder_ / "log").string();
  const std::string command = absl::StrCat(
      "openssl req -x509 -config ", (folder_ / "config").string(),
      " -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=", name,
      " -keyout ", files.key, " -out ", files.certificate, " ", arguments, " >", log, " 2>&1");
  if (std::system(command.c_str()) != 0) return absl::InternalError(absl::StrCat("see ", log));
  return files;
}

}  // namespace attic
