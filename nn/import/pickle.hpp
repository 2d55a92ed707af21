// Python's pickles read as data: what a pickle would call is noted, not called, so that no code of a file ever runs.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace nibble {

/// Which value of a Pickle.
using PickleRef = uint32_t;

struct PickleValue {
  enum class Kind {
    kNone,
    kBool,       // number: 0 or 1
    kInt,        // number
    kText,       // text; bytes, too
    kTuple,      // items
    kList,       // items; sets, too
    kDict,       // items: key, value, key, value, ...
    kGlobal,     // text: "module.name" of a class or function
    kReference,  // items: one, the id of something outside of the pickle (persistent_id)
    kCall,       // items: what is called, the tuple of its arguments, then key, value, ... put into its result
    kOther,      // a float, or an int of more than 64 bits
  };
  Kind kind = Kind::kNone;
  int64_t number = 0;
  std::string text = {};
  std::vector<PickleRef> items = {};
};

/// One pickle, of protocols 0 to 5 as far as torch.save uses them (opcodes: CPython's Lib/pickletools.py). Values may
/// refer to each other in circles: walk them to a known depth only.
class Pickle {
 public:
  /// Reads from the first byte up to STOP. ModelError naming `source`: a cut pickle, an opcode that is not known, a
  /// value that is not there, more than a million values.
  Pickle(std::span<const std::byte> bytes, std::string source);

  const PickleValue& root() const { return values_[root_]; }
  const PickleValue& operator[](PickleRef ref) const { return values_[ref]; }
  /// All values that are references.
  const std::vector<PickleRef>& references() const { return references_; }
  /// Bytes up to and with STOP.
  size_t bytes() const { return at_; }

 private:
  friend class PickleReader;
  std::vector<PickleValue> values_;
  std::vector<PickleRef> references_;
  PickleRef root_ = 0;
  size_t at_ = 0;
};

}  // namespace nibble
