#include "nn/import/weight_names.hpp"

#include <algorithm>
#include <string_view>
#include <vector>

#include "engine/error.hpp"
#include "nn/model_file.hpp"
#include "nn/safetensors_header.hpp"

namespace nibble {

namespace {

bool is_number(std::string_view text) {
  return !text.empty() && text.find_first_not_of("0123456789") == text.npos;
}

/// "model.layer1.0.": of a block, which has a conv1 and bn1 of its own.
bool is_of_block(std::string_view prefix) {
  const auto take_last = [&] {  // word of the prefix
    prefix.remove_suffix(prefix.empty() ? 0 : 1);
    const size_t dot = prefix.rfind('.'), begin = dot == prefix.npos ? 0 : dot + 1;
    const std::string_view word = prefix.substr(begin);
    prefix = prefix.substr(0, begin);
    return word;
  };
  const std::string_view block = take_last(), stage = take_last();
  return is_number(block) && stage.starts_with("layer") && is_number(stage.substr(5));
}

/// What stands before the names of the networks in the file.
std::vector<std::string> prefixes_of(const SafetensorsFile& file) {
  constexpr std::string_view kStem = "conv1.weight";
  std::vector<std::string> all;
  for (const TensorEntry& e : file.entries()) {
    if (!e.name.ends_with(kStem)) continue;
    const std::string prefix = e.name.substr(0, e.name.size() - kStem.size());
    const bool whole_words = prefix.empty() || prefix.ends_with('.');
    if (whole_words && !is_of_block(prefix) && file.find(prefix + "bn1.weight") != nullptr) all.push_back(prefix);
  }
  std::sort(all.begin(), all.end());
  return all;
}

SafetensorsFile without_prefix(const SafetensorsFile& file, const std::string& prefix) {
  return file.renamed(
      [&](const std::string& name) { return name.starts_with(prefix) ? name.substr(prefix.size()) : std::string(); });
}

/// The prefix that all tensors have; empty: none.
std::string common_prefix(const SafetensorsFile& file) {
  const std::vector<std::string> found = prefixes_of(file);
  if (found.empty() || found.front().empty()) return "";
  if (found.size() > 1)
    throw ModelError("{} has several networks, whose names begin with {}; choose one with --weights-prefix",
                     file.source(), quote_names(found));
  const auto other = std::find_if(file.entries().begin(), file.entries().end(),
                                  [&](const TensorEntry& e) { return !e.name.starts_with(found.front()); });
  if (other != file.entries().end())
    throw ModelError(
        "{}: names of the network begin with {}, but there is also {}; --weights-prefix {} leaves out what "
        "does not begin so",
        file.source(), quote_name(found.front()), quote_name(other->name), found.front());
  return found.front();
}

/// "fc.1" where that is all of the head; empty: it is fc, or more than one layer.
std::string head_in_a_sequence(const SafetensorsFile& file) {
  if (file.find("fc.weight") != nullptr) return "";
  std::string head;
  for (const TensorEntry& e : file.entries()) {
    if (!e.name.starts_with("fc.")) continue;
    const std::string layer = e.name.substr(0, e.name.rfind('.'));
    if (layer.size() < 3 || !is_number(std::string_view(layer).substr(3)) || (!head.empty() && layer != head))
      return "";
    head = layer;
  }
  return head;
}

}  // namespace

NamedWeights with_torchvision_names(const SafetensorsFile& file, const std::string& prefix) {
  if (kind_of(file) != ModelFileKind::kForeign) {
    if (!prefix.empty()) throw ModelError("{} was written by nibble, whose names have no prefix", file.source());
    return {file, ""};
  }
  NamedWeights result{file, ""};
  const auto note = [&](const std::string& what) { result.note += (result.note.empty() ? "" : ", ") + what; };
  const auto strip = [&](const std::string& of) {
    result.file = without_prefix(result.file, of);
    note("names without " + quote_name(of));
  };
  if (!prefix.empty()) {
    strip(prefix);
    if (result.file.entries().empty())
      throw ModelError("{} has no tensor whose name begins with {}; it has {}, for one", file.source(),
                       quote_name(prefix), file.entries().empty() ? "none" : quote_name(file.entries().front().name));
  }
  if (const std::string common = common_prefix(result.file); !common.empty()) strip(common);
  if (const std::string head = head_in_a_sequence(result.file); !head.empty()) {
    result.file = result.file.renamed(
        [&](const std::string& name) { return name.starts_with(head + ".") ? "fc" + name.substr(head.size()) : name; });
    note(quote_name(head) + " as fc");
  }
  return result;
}

}  // namespace nibble
