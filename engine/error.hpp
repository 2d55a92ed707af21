// Errors: one exception family; what() is one sentence that says what, where, why and what to do.
#pragma once
#include <fmt/core.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace nibble {

/// The documented exit codes of the program; an Error carries the one that `main` returns.
enum class ExitCode : int {
  kDone = 0,
  kFailed = 1,
  kUsage = 2,
  kData = 3,
  kModel = 4,
  kVerification = 5,
  kDiverged = 6,
  kDisk = 7,
  kInterrupted = 75,
};

class Error : public std::runtime_error {
 public:
  Error(ExitCode code, const std::string& sentence) : std::runtime_error(sentence), code_(code) {}
  ExitCode code() const { return code_; }

 private:
  ExitCode code_;
};

/// Declares one error class whose constructor formats its sentence: `throw ShapeError("[conv2d] x has {} channels",
/// c)`.
#define NIBBLE_ERROR_CLASS(Name, exit_code)                                               \
  class Name : public Error {                                                             \
   public:                                                                                \
    template <typename... Args>                                                           \
    explicit Name(fmt::format_string<Args...> format, Args&&... args)                     \
        : Error(ExitCode::exit_code, fmt::format(format, std::forward<Args>(args)...)) {} \
  };

NIBBLE_ERROR_CLASS(ShapeError, kFailed)               // operand shapes do not fit
NIBBLE_ERROR_CLASS(DTypeError, kFailed)               // operand types do not fit
NIBBLE_ERROR_CLASS(UnsupportedError, kFailed)         // this machine or build cannot do it
NIBBLE_ERROR_CLASS(UsageError, kUsage)                // command line or config
NIBBLE_ERROR_CLASS(DataError, kData)                  // images, folders
NIBBLE_ERROR_CLASS(ModelError, kModel)                // checkpoint or served file is not valid
NIBBLE_ERROR_CLASS(VerificationError, kVerification)  // trained and served disagree
NIBBLE_ERROR_CLASS(DivergedError, kDiverged)          // non-finite values
NIBBLE_ERROR_CLASS(DiskError, kDisk)                  // reading, writing, no space
NIBBLE_ERROR_CLASS(InterruptedError, kInterrupted)    // stopped on request, state saved

}  // namespace nibble
