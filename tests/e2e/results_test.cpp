// What the commands say is true: the log's rates, evaluations and predictions that agree, weights that were taken,
// files that plain Python reads.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <vector>

#include "tests/apps/whole_run.hpp"

namespace {

using namespace nibble::testing;

constexpr SyntheticImages kTwoAClass = {.train = 2, .val = 2};
const std::string kQuietTrain = " --arch resnet26 --width 0.1 --image-size 32 --batch-size 8 --shard 8 --quiet";

std::string make_run(const TemporaryFolder& folder, const std::string& data, const std::string& options) {
  std::string run = folder / "run";
  train_run(data, run, kQuietTrain + options);
  return run;
}

/// Bytes of every convolution's and linear layer's kernel in a safetensors file, read with nothing but the format.
std::map<std::string, std::string> kernels_of(const std::string& path) {
  const std::string file = read_text(path);
  REQUIRE(file.size() > 8);
  uint64_t length = 0;
  for (size_t i = 8; i-- > 0;) length = length << 8 | static_cast<unsigned char>(file[i]);
  REQUIRE(length < file.size() - 8);
  std::map<std::string, std::string> kernels;
  const nlohmann::json header = nlohmann::json::parse(file.substr(8, length));
  for (const auto& item : header.items()) {
    const std::string& name = item.key();
    if (!name.ends_with(".weight") || name.starts_with("momentum.") || item.value().at("shape").size() < 2) continue;
    CHECK(item.value().at("dtype") == "F32");
    const uint64_t begin = item.value().at("data_offsets")[0], end = item.value().at("data_offsets")[1];
    kernels[name] = file.substr(8 + length + begin, end - begin);
  }
  return kernels;
}

/// Reads CHECKPOINT and SERVED (resnet26, width 0.1, 10 classes, w4a4-fl8, one scale per tensor, so that weights are
/// not folded) and compares every tensor of the network with what it must be.
constexpr const char* kReader = R"(import json, struct, sys

SIZES = {'F32': 4, 'I32': 4, 'I8': 1, 'U8': 1}

def product(shape):
    n = 1
    for d in shape: n *= d
    return n

def load(path):
    with open(path, 'rb') as f: data = f.read()
    length, = struct.unpack_from('<Q', data)
    header = json.loads(data[8:8 + length].decode())
    metadata = header.pop('__metadata__')
    assert all(isinstance(v, str) for v in metadata.values()), 'metadata is not all strings'
    area, end = data[8 + length:], 0
    for name, t in sorted(header.items(), key=lambda item: item[1]['data_offsets']):
        size, (first, last) = SIZES[t['dtype']], t['data_offsets']
        assert first == end, name + ' does not begin where the one before it ends'
        assert last - first == size * product(t['shape']), name + ' has another size than its shape'
        assert (8 + length + first) % size == 0, name + ' is not aligned'
        t['bytes'], end = area[first:last], last
    assert end == len(area), 'bytes after the last tensor'
    return header, metadata

def resnet26():
    kernels, norms, inputs = {'conv1': [64, 3, 7, 7]}, {'bn1': 64}, 64
    for layer, planes in enumerate([6, 12, 25, 51], 1):
        for block in range(2):
            at, out = 'layer%d.%d.' % (layer, block), 4 * planes
            kernels[at + 'conv1'] = [planes, inputs, 1, 1]
            kernels[at + 'conv2'] = [planes, planes, 3, 3]
            kernels[at + 'conv3'] = [out, planes, 1, 1]
            norms.update({at + 'bn1': planes, at + 'bn2': planes, at + 'bn3': out})
            if block == 0: kernels[at + 'downsample.0'], norms[at + 'downsample.1'] = [out, inputs, 1, 1], out
            inputs = out
    kernels['fc'] = [10, inputs]
    return kernels, norms

def floats(file, name, shape):
    t = file[name]
    assert t['dtype'] == 'F32' and t['shape'] == shape, '%s is %s %s' % (name, t['dtype'], t['shape'])
    return struct.unpack('<%df' % product(shape), t['bytes'])

def codes(t, rows, columns, bits):
    if bits == 8:
        assert t['dtype'] == 'I8', t['dtype']
        return struct.unpack('<%db' % (rows * columns), t['bytes'])
    stride, result = (columns + 1) // 2, []
    assert t['dtype'] == 'U8' and t['shape'] == [rows, stride], t['shape']
    for o in range(rows):
        pairs = t['bytes'][o * stride:(o + 1) * stride]
        result += [n - 16 if n > 7 else n for b in pairs for n in (b & 15, b >> 4)][:columns]
    return result

kernels, norms = resnet26()
checkpoint, metadata = load(sys.argv[1])
assert metadata['nibble.format'] == 'checkpoint'
for name, n in norms.items():
    for part in ('weight', 'bias', 'running_mean', 'running_var'): floats(checkpoint, name + '.' + part, [n])
floats(checkpoint, 'fc.bias', [10])
served, metadata = load(sys.argv[2])
assert metadata['nibble.format'] == 'served'
assert len(json.loads(metadata['nibble.classes'])) == 10
for name, shape in kernels.items():
    o, i, h, w = (shape + [1, 1])[:4]
    bits = 8 if name in ('conv1', 'fc') else 4
    described = json.loads(metadata['nibble.' + name + '.weight'])
    assert described['shape'] == [o, h, w, i] and described['order'] == 'OHWI', name
    assert described['q'] == 's%d' % bits, name
    masters = floats(checkpoint, name + '.weight', shape)
    scales = floats(served, name + '.weight_scale', [o])
    packed = iter(codes(served[name + '.weight'], o, h * w * i, bits))
    for row in range(o):
        for pixel in range(h * w):
            for channel in range(i):
                code, value = next(packed), masters[(row * i + channel) * h * w + pixel] * scales[row]
                assert abs(code) < 1 << bits - 1 and abs(value - code) < 0.501, '%s: %g is %d' % (name, value, code)
print('%d kernels' % len(kernels))
)";

}  // namespace

TEST_CASE("the log's lr follows the schedule, its epoch is the step over the steps of an epoch") {
  if (no_program()) return;
  const TemporaryFolder folder("schedule");
  const std::string data = synthetic_data(folder, {.train = 10, .val = 2});
  // Six steps per epoch, 24 in all, the first nine of them warm-up. A line has the rate of the step that ends there.
  const auto half_cosine = [](double progress) {
    return 0.5 + 0.5 * std::cos(3.14159265358979323846 * std::min(progress, 1.0));
  };
  const auto expected = [&](const std::string& schedule, double t) {
    if (schedule == "paper")
      return 0.08 * std::min(1.0, t / 9) * (0.001 + 0.999 * half_cosine(std::max(0.0, t - 9) / (0.8 * 24 - 9))) *
             std::min(1.0, (24 - t) / (0.2 * 24));
    if (t < 9) return 0.08 * (t + 1) / 9;
    return schedule == "step" ? (t < 16 ? 0.008 : 0.0008) : 0.08 * half_cosine((t - 9) / 15);
  };
  for (const std::string schedule : {"paper", "cosine", "step"}) {
    if (schedule != "paper" && !thorough()) continue;
    CAPTURE(schedule);
    const std::string run = folder / schedule;
    train_run(data, run,
              kQuietTrain + " --batch-size 16 --epochs 4 --warmup-epochs 1.5 --lr 0.08 --eval-every 0 --schedule " +
                  schedule);
    std::vector<int> steps;
    for (const nlohmann::json& line : metrics_of(run)) {
      const int step = line.at("step");
      CAPTURE(step);
      CHECK(line.at("epoch") == step / 6.0);
      if (!line.contains("lr")) continue;
      steps.push_back(step);
      CHECK(line.at("lr").get<double>() == doctest::Approx(expected(schedule, step - 1)).epsilon(1e-6));
    }
    CHECK(steps == std::vector<int>{6, 10, 12, 18, 20, 24});
  }
}

TEST_CASE(
    "a run with given weights has their kernels, one without does not, and other classes start only fc from scratch") {
  if (no_program()) return;
  const TemporaryFolder folder("weights");
  const std::string data = synthetic_data(folder, kTwoAClass),
                    run = make_run(folder, data, " --steps 2 --calibrate-at 1 --seed 9");
  const std::string last = "/checkpoints/step-000001.safetensors", given = run + "/checkpoints/step-000002.safetensors";
  const std::string options = kQuietTrain + " --lr 0 --steps 1 --calibrate-at 1 --warmup-epochs 0",
                    weights = " --weights ";
  const std::string with = folder / "with", without = folder / "without", fewer = folder / "fewer";
  train_run(data, with, options + weights + given);
  train_run(data, without, options);
  train_run(data, fewer, options + " --classes 9" + weights + given);
  const auto expected = kernels_of(given), taken = kernels_of(with + last), random = kernels_of(without + last);
  const auto other = kernels_of(fewer + last);
  CHECK(expected.size() == 30);
  CHECK(taken.size() == 30);
  CHECK(other.size() == 30);
  for (const auto& item : expected) {
    const std::string& name = item.first;
    CAPTURE(name);
    CHECK(taken.at(name) == item.second);
    CHECK(random.at(name) != item.second);
    if (name != "fc.weight") CHECK(other.at(name) == item.second);
  }
  CHECK(other.at("fc.weight").size() == expected.at("fc.weight").size() / 10 * 9);
}

TEST_CASE("eval says what the end of training and the last line of the log say, and what predictions add up to") {
  if (no_program()) return;
  const TemporaryFolder folder("agree");
  const std::string data = synthetic_data(folder, kTwoAClass), run = folder / "run";
  const nlohmann::json end = json_of(train_run(data, run, kQuietTrain + " --epochs 4 --calibrate-at 3 --json"));
  const nlohmann::json result = evaluation_of(run + "/latest", data);
  const nlohmann::json line = metrics_of(run).back();
  CHECK(line.at("step") == 8);
  CHECK(line.at("eval/images") == result.at("images"));
  for (const std::string key : {"top1", "top5", "loss"}) {
    CAPTURE(key);
    CHECK(result.at(key) == end.at(key));
    CHECK(result.at(key) == line.at("eval/" + key));
  }
  CHECK(result.at("logits_sha256") == end.at("logits_sha256"));
  // As text, too.
  const auto figures = [](const nlohmann::json& j, int digits_of_loss) {
    return fmt::format("top1 {:.2f}  top5 {:.2f}  loss {:.{}f}", j.at("top1").get<double>(), j.at("top5").get<double>(),
                       j.at("loss").get<double>(), digits_of_loss);
  };
  REQUIRE(result.at("top1") != result.at("top5"));
  CHECK(has(run_well("eval " + run + "/latest --data " + data).out, figures(result, 4)));
  const std::string again = folder / "again";
  std::string loud = kQuietTrain;
  loud.erase(loud.rfind(" --quiet"));
  const Result said = train_run(data, again, loud + " --epochs 4 --calibrate-at 3");
  CHECK(has(said.out, "done: " + figures(result, 3)));
  CHECK(has(said.err, "epoch 4  eval  " + figures(result, 3)));

  const Result predicted = run_well("predict " + run + "/latest " + data + "/val/*/*.jpg --top 10 --json");
  double images = 0, first = 0, first_five = 0, loss = 0;
  for (const nlohmann::json& j : json_lines(predicted.out)) {
    const std::string image = j.at("image"), label = std::filesystem::path(image).parent_path().filename();
    const nlohmann::json& top = j.at("top");
    const auto right =
        std::find_if(top.begin(), top.end(), [&](const auto& guess) { return guess.at("name") == label; });
    REQUIRE(right != top.end());
    ++images;
    first += right == top.begin() ? 1 : 0;
    first_five += right - top.begin() < 5 ? 1 : 0;
    loss -= std::log(right->at("p").get<double>());
  }
  CHECK(images == 20);
  CHECK(result.at("top1").get<double>() == doctest::Approx(100 * first / images));
  CHECK(result.at("top5").get<double>() == doctest::Approx(100 * first_five / images));
  const nlohmann::json top = json_lines(predicted.out).front().at("top");
  const std::string shown = run_well("predict " + run + "/latest " + data + "/val --top 10").out;
  for (const nlohmann::json& guess : top)
    CHECK(has(shown.substr(0, shown.find('\n')),
              fmt::format("  {} {:.1f} %", guess.at("name").get<std::string>(), 100 * guess.at("p").get<double>())));
  CHECK(result.at("loss").get<double>() == doctest::Approx(loss / images).epsilon(1e-5));
}

TEST_CASE(
    "an image that cannot be read is left out of an evaluation as if it were not there, --limit takes the first") {
  if (no_program()) return;
  const TemporaryFolder folder("left-out");
  const std::string data = synthetic_data(folder, kTwoAClass),
                    run = make_run(folder, data, " --steps 4 --calibrate-at 2");
  const nlohmann::json all = evaluation_of(run, data);
  const nlohmann::json three = evaluation_of(run, data, "--limit 3");
  CHECK(all.at("images") == 20);
  CHECK(all.at("skipped") == 0);
  CHECK(three.at("images") == 3);
  CHECK(three.at("logits_sha256") != all.at("logits_sha256"));

  const std::string image = data + "/val/checked_disk/00001.jpg";  // the fourth of them
  write_text(image, "no image");
  CHECK(evaluation_of(run, data, "--limit 3").at("logits_sha256") == three.at("logits_sha256"));
  const nlohmann::json skipped = evaluation_of(run, data);
  CHECK(skipped.at("images") == 19);
  CHECK(skipped.at("skipped") == 1);
  std::filesystem::remove(image);
  const nlohmann::json removed = evaluation_of(run, data);
  CHECK(removed.at("images") == 19);
  CHECK(removed.at("skipped") == 0);
  for (const char* key : {"logits_sha256", "top1", "top5", "loss"}) CHECK(skipped.at(key) == removed.at(key));
  CHECK(skipped.at("logits_sha256") != all.at("logits_sha256"));
}

TEST_CASE(
    "predictions are probabilities in descending order under the names of the classes, and differ between images") {
  if (no_program()) return;
  const TemporaryFolder folder("probabilities");
  const std::string data = synthetic_data(folder, kTwoAClass),
                    run = make_run(folder, data, " --steps 4 --calibrate-at 2");
  std::vector<std::string> classes;
  for (const auto& entry : std::filesystem::directory_iterator(data + "/train"))
    classes.push_back(entry.path().filename());
  std::sort(classes.begin(), classes.end());
  const std::vector<std::string> images = {data + "/val/striped_disk/00000.jpg", folder.write("bad.jpg", "no image"),
                                           data + "/val/checked_cross/00001.jpg"};
  const Result r =
      run_program("predict " + run + " " + images[0] + " " + images[1] + " " + images[2] + " --top 10 --json");
  CHECK(r.code == 3);
  const std::vector<nlohmann::json> lines = json_lines(r.out);
  REQUIRE(lines.size() == 3);
  for (size_t i = 0; i < lines.size(); ++i) CHECK(lines[i].at("image") == images[i]);
  CHECK(has(lines[1].at("error").get<std::string>(), images[1]));
  CHECK_FALSE(lines[1].contains("top"));
  for (const size_t i : {0, 2}) {
    REQUIRE(lines[i].at("top").size() == 10);
    CHECK_FALSE(lines[i].contains("error"));
    double sum = 0, before = 1;
    std::vector<bool> met(classes.size());
    for (const nlohmann::json& guess : lines[i].at("top")) {
      const size_t index = guess.at("index");
      REQUIRE(index < classes.size());
      CHECK(guess.at("name") == classes[index]);
      CHECK_FALSE(met[index]);
      met[index] = true;
      const double p = guess.at("p");
      CHECK(p >= 0);
      CHECK(p <= before);
      sum += before = p;
    }
    CHECK(sum == doctest::Approx(1).epsilon(1e-5));
  }
  CHECK(lines[0].at("top") != lines[2].at("top"));
}

TEST_CASE("Python reads a checkpoint and a served file with struct and json, and finds the codes of the masters") {
  if (no_program()) return;
  if (std::system("python3 -c 'import json, struct' >/dev/null 2>&1") != 0) {
    MESSAGE("skipped: there is no python3");
    return;
  }
  const TemporaryFolder folder("python");
  const std::string data = synthetic_data(folder, kTwoAClass), served = folder / "model.safetensors",
                    out = folder / "out";
  const std::string run =
      make_run(folder, data, " --steps 4 --calibrate-at 2 --granularity per_tensor --precision w4a4-fl8");
  run_well("export " + run + "/latest --out " + served);
  const std::string script = folder.write("read.py", kReader);
  const std::string command = "python3 " + script + " " + run + "/latest " + served + " >" + out + " 2>&1";
  const int status = std::system(command.c_str());
  const std::string said = read_text(out);
  CAPTURE(said);
  CHECK(status == 0);
  CHECK(said == "30 kernels\n");
}
