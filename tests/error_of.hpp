// What a call says when it fails.
#pragma once
#include <string>

#include "engine/error.hpp"

namespace nibble::testing {

/// Message of the error that `call` throws; empty if it throws none.
template <typename E = Error, typename Call>
std::string error_of(const Call& call) {
  try {
    call();
  } catch (const E& error) {
    return error.what();
  }
  return {};
}

}  // namespace nibble::testing
