// Images that cannot be read, are damaged or stored turned, named on stderr, each once, however often it is met.
#pragma once
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "data/batch.hpp"

namespace nibble::apps {

class BadImageNames {
 public:
  /// "FATE PATH: REASON" for an image that could not be read; `fate` is what became of it: "skipped", "replaced".
  void name_unreadable(std::string_view fate, const std::vector<ImageNote>& images);
  /// "PATH is used although damaged: REASON".
  void name_damaged(const std::vector<ImageNote>& images);
  /// The first image that EXIF says is stored turned, for all of them.
  void name_turned(const std::vector<ImageNote>& images);

 private:
  std::set<std::string> named_;
  bool turned_named_ = false;
};

}  // namespace nibble::apps
