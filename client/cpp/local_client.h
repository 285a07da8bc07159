// The client interface over a store in this process: no network, same answers, same errors.
#ifndef ATTIC_CLIENT_CPP_LOCAL_CLIENT_H_
#define ATTIC_CLIENT_CPP_LOCAL_CLIENT_H_

#include <memory>

#include "client/cpp/client.h"
#include "server/session/session_store.h"

namespace attic {

// The client owns a new, empty store with these options.
std::unique_ptr<Client> MakeLocalClient(const SessionStoreOptions& options);

}  // namespace attic

#endif  // ATTIC_CLIENT_CPP_LOCAL_CLIENT_H_
