// Names of other programs' weights: prefixes of wrappers, heads in a sequence, and what is refused.
#include "nn/import/weight_names.hpp"

#include <doctest/doctest.h>

#include "engine/error.hpp"

namespace nibble {
namespace {

using NameList = std::vector<std::string>;

SafetensorsFile file_with(const NameList& names) {
  std::vector<RawTensor> foreign;
  for (const std::string& name : names) foreign.push_back({name, "F32", {1}, std::vector<std::byte>(4)});
  return SafetensorsFile::of(std::move(foreign), "w", 4 * names.size());
}

NameList names_of(const SafetensorsFile& file) {
  NameList names;
  for (const TensorEntry& e : file.entries()) names.push_back(e.name);
  return names;
}

struct Renamed {
  NameList names;
  std::string note;
};

Renamed renamed(const NameList& names, const std::string& prefix = "") {
  const NamedWeights w = with_torchvision_names(file_with(names), prefix);
  return {names_of(w.file), w.note};
}

void check_names_refused(const NameList& names, const std::string& prefix, const char* why) {
  CHECK_THROWS_WITH_AS(renamed(names, prefix), doctest::Contains(why), ModelError);
}

const NameList kPlain = {"conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "layer1.0.bn1.weight", "fc.weight"};

NameList with_prefix(const std::string& prefix, NameList names = kPlain) {
  for (std::string& name : names) name.insert(0, prefix);
  return names;
}

TEST_CASE("weight names: torchvision's stay, a wrapper's prefix goes, and what was done is noted") {
  CHECK(renamed(kPlain).names == kPlain);
  CHECK(renamed(kPlain).note.empty());
  for (const std::string prefix : {"module.", "model.net.", "layer.", "0.", "layers.0.", "module.layer2.0x."}) {
    CAPTURE(prefix);
    CHECK(renamed(with_prefix(prefix)).names == kPlain);
    CHECK(renamed(with_prefix(prefix)).note == "names without '" + prefix + "'");
    CHECK(renamed(with_prefix(prefix), prefix).names == kPlain);
  }
  // No network is in these, whatever they are.
  for (const NameList& other : {NameList{"a", "b"}, {"xconv1.weight", "xbn1.weight"}, {"m.conv1.weight"}, {}}) {
    CHECK(renamed(other).names == other);
    CHECK(renamed(other).note.empty());
  }
  // The stem is missing: that is for the reader of the network to say, not a wrapper called layer1.0.
  const NameList stages = {"layer1.0.conv1.weight", "layer1.0.bn1.weight", "layer1.1.conv1.weight",
                           "layer1.1.bn1.weight"};
  CHECK(renamed(stages).names == stages);
  CHECK(renamed(with_prefix("m.", stages)).names == with_prefix("m.", stages));
}

TEST_CASE("weight names: of several networks, or beside other tensors, one is taken by its prefix") {
  NameList lightning = with_prefix("model.");
  lightning.push_back("loss.weight");
  check_names_refused(lightning, "",
                      "w: names of the network begin with 'model.', but there is also 'loss.weight'; --weights-prefix "
                      "model. leaves out");
  CHECK(renamed(lightning, "model.").names == kPlain);
  CHECK(renamed(lightning, "model.").note == "names without 'model.'");
  NameList two = with_prefix("student.");
  for (const std::string& name : with_prefix("teacher.net.")) two.push_back(name);
  check_names_refused(two, "", "w has several networks, whose names begin with 'student.', 'teacher.net.'; choose one");
  CHECK(renamed(two, "student.").names == kPlain);
  CHECK(renamed(two, "teacher.").names == kPlain);
  CHECK(renamed(two, "teacher.").note == "names without 'teacher.', names without 'net.'");
  check_names_refused(two, "ema.", "w has no tensor whose name begins with 'ema.'; it has 'student.conv1.weight'");
  check_names_refused({}, "ema.", "it has none, for one");
}

TEST_CASE("weight names: the one linear layer of a head in a sequence is fc") {
  const auto head = [](const NameList& of) {
    NameList names = {"conv1.weight", "bn1.weight"};
    names.insert(names.end(), of.begin(), of.end());
    const Renamed r = renamed(names);
    return std::pair(NameList(r.names.begin() + 2, r.names.end()), r.note);
  };
  CHECK(head({"fc.1.weight", "fc.1.bias"}) == std::pair(NameList{"fc.weight", "fc.bias"}, std::string("'fc.1' as fc")));
  for (const NameList& as_it_is : {NameList{"fc.0.weight", "fc.0.bias", "fc.3.weight", "fc.3.bias"},
                                   {"fc.weight", "fc.1.weight"},
                                   {"fc.norm.weight", "fc.1.weight"},
                                   {"fc.a.weight"},
                                   {"fc.weight", "fc.bias"},
                                   {"fcx.1.weight"}})
    CHECK(head(as_it_is) == std::pair(as_it_is, std::string()));
}

TEST_CASE("weight names: renaming shares the tensors, and two of one name are refused") {
  const SafetensorsFile file = file_with({"a", "b", "c"});
  const SafetensorsFile fewer = file.renamed([](const std::string& n) { return n == "b" ? std::string() : n + "x"; });
  CHECK(names_of(fewer) == NameList{"ax", "cx"});
  CHECK(fewer.data("cx").data() == file.data("c").data());
  CHECK(fewer.find("b") == nullptr);
  CHECK_THROWS_WITH_AS(file.renamed([](const std::string&) { return std::string("z"); }),
                       doctest::Contains("'w': two tensors would both be 'z'"), ModelError);
}

}  // namespace
}  // namespace nibble
