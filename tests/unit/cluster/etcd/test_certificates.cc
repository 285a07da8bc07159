#include "tests/unit/cluster/etcd/test_certificates.h"

#include <stdlib.h>

#include <cstdlib>
#include <fstream>

#include "absl/strings/str_cat.h"

namespace attic {

TestCertificates::TestCertificates() {
  // Without a file of its own openssl adds extensions of the system's configuration.
  std::ofstream(folder_.file("config")) << "[req]\ndistinguished_name=name\n[name]\n";
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
  const CertificateFiles files = {.certificate = folder_.file(name + ".crt"),
                                  .key = folder_.file(name + ".key")};
  const std::string log = folder_.file("log");
  const std::string command = absl::StrCat(
      "openssl req -x509 -config ", folder_.file("config"),
      " -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=", name,
      " -keyout ", files.key, " -out ", files.certificate, " ", arguments, " >", log, " 2>&1");
  if (std::system(command.c_str()) != 0) return absl::InternalError(absl::StrCat("see ", log));
  return files;
}

}  // namespace attic
