// Files of torch.save: those that PyTorch 2.13 wrote (torch_fixtures.py), and others that lie.
#include "nn/import/torch_file.hpp"

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <tuple>

#include "engine/error.hpp"
#include "nn/checkpoint.hpp"
#include "nn/import/weights_file.hpp"
#include "tests/nn/import/zip_writer.hpp"
#include "tests/temp_dir.hpp"

namespace nibble {
namespace {

using testing::little_endian;
using testing::zip_of;

std::string fixture(const std::string& name) {
  const std::filesystem::path path =
      std::filesystem::path(NIBBLE_SOURCE_ROOT) / "tests/nn/import/fixtures" / (name + ".pth");
  std::ifstream in(path, std::ios::binary);
  REQUIRE(in.good());
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

SafetensorsFile read_text(const std::string& file) {
  return read_torch_file({reinterpret_cast<const std::byte*>(file.data()), file.size()}, "a.pth").file;
}

std::string refusal_of(const std::string& file) {
  try {
    read_text(file);
  } catch (const ModelError& e) {
    return e.what();
  }
  return "accepted";
}

void check_refused(const std::string& file, const char* why) {
  const std::string answer = refusal_of(file);
  CHECK_MESSAGE(answer.find(why) != std::string::npos, answer);
}

std::vector<float> values(const SafetensorsFile& file, const std::string& name) {
  const Tensor t = file.tensor_f32(name);
  return {t.data<float>(), t.data<float>() + t.size()};
}

std::vector<float> counted(float begin, std::vector<int> places) {
  std::vector<float> all;
  for (const int i : places) all.push_back(begin + 0.25f * static_cast<float>(i));
  return all;
}

std::vector<int> up_to(int n) {
  std::vector<int> all;
  for (int i = 0; i < n; ++i) all.push_back(i);
  return all;
}

TEST_CASE("torch file: a state_dict of either kind has its tensors, in their order and bit for bit") {
  for (const char* name : {"state", "state-old"}) {
    CAPTURE(name);
    const SafetensorsFile file = read_text(fixture(name));
    REQUIRE(file.entries().size() == 3);
    CHECK(file.entries()[0].name == "conv1.weight");
    CHECK(file.entries()[0].shape == std::vector<int64_t>{2, 3, 2, 2});
    CHECK(values(file, "conv1.weight") == counted(1, up_to(24)));
    CHECK(values(file, "bn1.weight") == counted(-2, up_to(3)));
    CHECK(file.entry("bn1.num_batches_tracked").dtype == "I64");
    CHECK(file.entry("bn1.num_batches_tracked").shape.empty());
    CHECK(file.metadata().empty());
    CHECK_FALSE(file.integrity());
  }
}

TEST_CASE("torch file: every type that safetensors has") {
  for (const char* name : {"types", "types-old"}) {
    CAPTURE(name);
    const SafetensorsFile file = read_text(fixture(name));
    for (const auto& [tensor, dtype] : {std::pair{"f64", "F64"}, {"f16", "F16"}, {"bf16", "BF16"}}) {
      CHECK(file.entry(tensor).dtype == dtype);
      CHECK(values(file, tensor) == counted(1, up_to(3)));
    }
    for (const auto& [tensor, dtype] :
         {std::pair{"i32", "I32"}, {"i16", "I16"}, {"i8", "I8"}, {"u8", "U8"}, {"bool", "BOOL"}})
      CHECK(file.entry(tensor).dtype == dtype);
    CHECK(file.tensor("i32").data<int32_t>()[0] == -1);
    CHECK(file.tensor("u8").data<uint8_t>()[0] == 200);
    CHECK(file.entry("empty").shape == std::vector<int64_t>{0, 3});
  }
}

TEST_CASE("torch file: parts of a storage, turned ones and other layouts become dense") {
  for (const char* name : {"views", "views-old"}) {
    CAPTURE(name);
    const SafetensorsFile file = read_text(fixture(name));
    CHECK(values(file, "rows") == counted(1, {3, 4, 5, 6, 7, 8}));
    CHECK(values(file, "columns") == counted(1, {0, 2, 3, 5, 6, 8, 9, 11}));
    CHECK(values(file, "turned") == counted(1, {0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11}));
    CHECK(file.entry("turned").shape == std::vector<int64_t>{3, 4});
    CHECK(values(file, "scalar") == counted(1, {11}));
    CHECK(values(file, "channels_last") == counted(5, up_to(24)));
    CHECK(values(file, "parameter") == counted(1, {0, 1, 2}));
    CHECK(values(file, "tied") == counted(1, up_to(12)));
  }
}

TEST_CASE("torch file: of a checkpoint the model counts") {
  for (const char* name : {"checkpoint", "checkpoint-old"}) {
    CAPTURE(name);
    const SafetensorsFile file = read_text(fixture(name));
    CHECK(file.entries().size() == 3);
    CHECK(values(file, "module.conv1.weight") == counted(1, up_to(24)));
  }
}

TEST_CASE("torch file: of several state_dicts the usual one is taken, or the one that is asked for") {
  const auto taken = [](const std::string& file, const std::string& key) {
    const TorchWeights w =
        read_torch_file({reinterpret_cast<const std::byte*>(file.data()), file.size()}, "a.pth", key);
    return std::tuple(w.file.entries().front().name, w.key, w.others);
  };
  using Names = std::vector<std::string>;
  for (const char* name : {"several", "several-old"}) {
    CAPTURE(name);
    const std::string file = fixture(name);
    CHECK(taken(file, "") == std::tuple("conv1.weight", "state_dict", Names{"state_dict_ema"}));
    CHECK(taken(file, "state_dict_ema") == std::tuple("ema.conv1.weight", "state_dict_ema", Names{}));
    CHECK(taken(file, "nets/teacher") == std::tuple("t.conv1.weight", "nets/teacher", Names{}));
    const auto refused = [&](const char* key, const char* why) {
      CHECK_THROWS_WITH_AS(taken(file, key), doctest::Contains(why), ModelError);
    };
    refused("model", "it has no dictionary 'model', only 'state_dict_ema', 'state_dict', 'nets'; choose another");
    refused("nets/lr", "it has no dictionary 'lr' in 'nets', only 'teacher', 'lr'; choose another");
    refused("nets", "'nets' has no tensors, only 'teacher', 'lr'; choose another");
    refused("state_dict/conv1.weight", "it has no dictionary 'conv1.weight' in 'state_dict'");
    refused("/", "it has no dictionary ''");
  }
  CHECK(taken(fixture("other-key"), "") == std::tuple("conv1.weight", "net", Names{}));
  CHECK(taken(fixture("state"), "") == std::tuple("conv1.weight", "", Names{}));
  check_refused(fixture("no-known-key"), "it has tensors as 'a', 'b'; choose with --weights-key");
}

TEST_CASE("torch file: a whole model, and a file without tensors, are refused by what to do") {
  check_refused(fixture("whole"), "'a.pth': it holds a whole model or other objects of Python, which are code; save");
  for (const char* name : {"nothing", "nothing-old"})
    check_refused(fixture(name),
                  "nor a 'state_dict', 'model_state_dict' or 'model' with some (it has 'epoch', 'loss')");
  check_refused("not at all", "is no file of torch.save");
}

TEST_CASE("torch file: cut anywhere it is refused, and so is a changed byte or it changes nothing else") {
  for (const char* name : {"state", "state-old", "views-old"}) {
    CAPTURE(name);
    const std::string whole = fixture(name);
    for (size_t i = 0; i < whole.size(); i += 3) check_refused(whole.substr(0, i), "'a.pth'");
    for (size_t i = 0; i < whole.size(); ++i) {
      std::string file = whole;
      file[i] = static_cast<char>(file[i] ^ 0x41);
      CHECK_NOTHROW(refusal_of(file));
    }
  }
  // A zip archive's bytes have checksums.
  std::string file = fixture("state");
  const size_t data = file.find(little_endian(0x3f800000, 4));  // the first element, 1
  REQUIRE(data != file.npos);
  file[data] = static_cast<char>(file[data] ^ 1);
  check_refused(file, "does not match its CRC-32");
}

/// data.pkl of a state_dict with one tensor "w" of f32, whose numbers are opcodes.
std::string one_tensor(const std::string& elements, const std::string& offset, const std::string& shape,
                       const std::string& stride) {
  return "\x80\x02}U\x01wctorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\nFloatStorage\nU\x01"
         "0U\x03"
         "cpu" +
         elements + "tQ" + offset + "(" + shape + "t(" + stride +
         "t\x89"
         "NtRs.";
}

std::string archive_of(const std::string& pickle, const std::string& storage = std::string(16, '\0')) {
  return zip_of({{"a/data.pkl", pickle}, {"a/byteorder", "little"}, {"a/data/0", storage}});
}

TEST_CASE("torch file: tensors that reach beyond their storage, or hold more than it, are refused by name") {
  const std::string one = "K\x01", two = "K\x02", four = "K\x04", zero = std::string("K\0", 2);
  const std::string huge = "\x8a\x08" + little_endian(0x7fffffffffffffff, 8), negative = "J" + little_endian(~0u, 4);
  CHECK(refusal_of(archive_of(one_tensor(four, zero, four, one))) == "accepted");
  CHECK(refusal_of(archive_of(one_tensor(four, zero, two + two, one + two))) == "accepted");
  const std::pair<std::string, const char*> bad[] = {
      {one_tensor(four, one, four, one), "reaches beyond"},
      {one_tensor(four, zero, two + two, two + two), "reaches beyond"},
      {one_tensor(four, zero, four + four, zero + zero), "repeats what it stores"},
      {one_tensor(four, four, one, one), "reaches beyond"},
      {one_tensor(four, huge, one, one), "reaches beyond"},
      {one_tensor(four, zero, two, huge), "reaches beyond"},
      {one_tensor(four, zero, huge + huge, one + one), "reaches beyond"},
      {one_tensor(huge, zero, huge, one), "reaches beyond"},
      {one_tensor(huge, zero, four, one), "reaches beyond"},
      {one_tensor(four, zero, four, one + one), "reaches beyond"},
      {one_tensor(four, negative, one, one), "has no storage that can be read"},
      {one_tensor(negative, zero, one, one), "has no storage that can be read"},
      {one_tensor(four, zero, negative, one), "a shape or stride that is none"},
      {one_tensor(four, zero, "N", one), "a shape or stride that is none"}};
  for (const auto& [pickle, why] : bad) {
    const std::string answer = refusal_of(archive_of(pickle));
    CHECK_MESSAGE(answer.find("'a.pth': tensor 'w'") == 0, answer);
    CHECK_MESSAGE(answer.find(why) != std::string::npos, answer);
  }
}

TEST_CASE("torch file: types, machines and archives that cannot be read are refused by what they are") {
  const std::string good = one_tensor("K\x04", std::string("K\0", 2), "K\x04", "K\x01");
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    return text.replace(text.find(from), from.size(), to);
  };
  check_refused(archive_of(with("FloatStorage", "Float9Storage")), "'w' is of a type that cannot be used here");
  check_refused(archive_of(with("_rebuild_tensor_v2", "_rebuild_sparse_tensor")),
                "tensor 'w' is made by 'torch._utils._rebuild_sparse_tensor', which is not known here");
  check_refused(zip_of({{"a/data.pkl", good}, {"a/byteorder", "big"}, {"a/data/0", std::string(16, '\0')}}),
                "saved on a big-endian machine");
  std::string old = fixture("state-old");
  const size_t order = old.find('\x88', old.find("little_endian"));
  REQUIRE(order != old.npos);
  old[order] = '\x89';
  check_refused(old, "saved on a big-endian machine");
  check_refused(zip_of({{"a/data.pkl", good}}), "it has no entry 'a/data/0'");
  check_refused(zip_of({{"a/b", ""}}), "none of PyTorch: it has no data.pkl");
  // One storage of a megabyte as a thousand tensors: more memory than the file has bytes.
  std::string tied = "\x80\x02}(";
  const std::string many = "J" + little_endian(250000, 4);
  for (int i = 0; i < 1000; ++i)
    tied += "U\x04" + std::to_string(1000 + i) + one_tensor(many, std::string("K\0", 2), many, "K\x01").substr(6);
  for (size_t at = tied.find("tRs."); at != tied.npos; at = tied.find("tRs.", at)) tied.replace(at, 4, "tR");
  check_refused(archive_of(tied + "u.", std::string(1000000, '\0')), "its tensors share their bytes many times");
}

TEST_CASE("torch file: weights of a model from a .pth are those of the same tensors in safetensors") {
  const testing::TempDir dir;
  NetworkOptions o;
  o.arch = "resnet26";
  o.width = 0.05;
  o.classes = 3;
  const Model trained = make_model(build_resnet(o), {.seed = 1, .zero_last_gamma = false});
  save_checkpoint(dir / "c.safetensors", trained, make_gradients(trained), 1, "{}", {"a", "b", "c"});
  // As torch.save would write the same tensors.
  const SafetensorsFile saved = SafetensorsFile::open(dir / "c.safetensors");
  std::string pickle = "\x80\x02}(";
  std::vector<std::pair<std::string, std::string>> entries;
  const auto number = [](int64_t n) { return "J" + little_endian(static_cast<uint64_t>(n), 4); };
  const auto text = [](const std::string& t) { return "X" + little_endian(t.size(), 4) + t; };
  for (const TensorEntry& e : saved.entries()) {
    if (e.name.starts_with("momentum.") || e.name.find(".input.") != e.name.npos) continue;  // nibble's own
    const std::string key = std::to_string(entries.size());
    const std::span<const std::byte> data = saved.data(e.name);
    entries.emplace_back("m/data/" + key, std::string(reinterpret_cast<const char*>(data.data()), data.size()));
    std::string shape = "(", stride;
    int64_t step = 1;
    for (const int64_t d : e.shape) shape += number(d);
    for (size_t d = e.shape.size(); d-- > 0; step *= e.shape[d]) stride = number(step) + stride;
    pickle += text(e.name) + "ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") +
              (e.dtype == "F32" ? "ctorch\nFloatStorage\n" : "ctorch\nIntStorage\n") + text(key) + text("cpu") +
              number(static_cast<int64_t>(data.size() / 4)) + "tQ" + number(0) + shape + "t(" + stride + "t\x89NtR";
  }
  entries.insert(entries.begin(), {"m/data.pkl", pickle + "u."});
  std::ofstream(dir / "w.pth", std::ios::binary) << zip_of(entries);
  const auto taken_from = [&](const char* file) {
    Model model = make_model(build_resnet(o), {.seed = 2});
    const GivenWeights given = load_torchvision_weights(dir / file, model);
    CHECK(given.fresh.empty());
    save_checkpoint(dir / "again.safetensors", model, make_gradients(model), 0, "{}", {});
    std::ifstream in(dir / "again.safetensors", std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
  };
  CHECK(taken_from("w.pth") == taken_from("c.safetensors"));
  CHECK(open_weights(dir / "c.safetensors").file.integrity());
  CHECK_THROWS_WITH_AS(open_weights(dir / "none.pth"), doctest::Contains("does not exist"), ModelError);
  CHECK_THROWS_WITH_AS(SafetensorsFile::open(dir / "w.pth"), doctest::Contains("nibble quantize makes a model of it"),
                       ModelError);
}

}  // namespace
}  // namespace nibble
