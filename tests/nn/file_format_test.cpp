// FORMAT.md is true: the Python that it shows reads files of every activation form, and a second program, which knows
// the page's formulas and not the library, finds each number in them that follows from the checkpoint.
#include <doctest/doctest.h>

#include <cstdlib>
#include <string>

#include "nn/atomic_file.hpp"
#include "nn/checkpoint.hpp"
#include "nn/runtime/served_file.hpp"
#include "tests/nn/small_model.hpp"
#include "tests/temp_dir.hpp"

namespace nibble {
namespace {

using testing::calibrated_model;
using testing::small_options;
using testing::TempDir;

const std::string kPage = std::string(NIBBLE_SOURCE_ROOT) + "/nn/FORMAT.md";

/// Arguments: CHECKPOINT SERVED FORMAT.md. `reader` is the page's program.
constexpr const char* kCheck = R"(import hashlib, json, math, struct, sys
from reader import codes, f32, load, quantizer, weights

EPS = 2.0 ** -23
TABLE = [0] * 256
for i in range(256):
    crc = i
    for _ in range(8): crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    TABLE[i] = crc

def crc32c(data):
    crc = 0xFFFFFFFF
    for b in data: crc = TABLE[(crc ^ b) & 255] ^ crc >> 8
    return '%08x' % (crc ^ 0xFFFFFFFF)

def as_f32(bits): return struct.unpack('<f', struct.pack('<I', bits))[0]

def bf16(x):  # to nearest, ties to even
    bits, = struct.unpack('<I', struct.pack('<f', x))
    return as_f32((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000)

def container(path):
    with open(path, 'rb') as f: data = f.read()
    start = 8 + struct.unpack_from('<Q', data)[0]
    header = json.loads(data[8:start])
    metadata, at = header.pop('__metadata__'), 0
    assert start % 8 == 0 and metadata['nibble.integrity'] == '1'
    widths = {'F32': 4, 'I32': 4, 'BF16': 2, 'I8': 1, 'U8': 1}
    names = sorted(header, key=lambda name: header[name]['data_offsets'])
    for name in names:
        (begin, end), width = header[name]['data_offsets'], widths[header[name]['dtype']]
        assert begin == at and end - begin == width * math.prod(header[name]['shape']), name
        at = end
        if name != names[-1]:
            assert metadata['nibble.crc32c.' + name] == crc32c(data[start + begin:start + end]), 'CRC of ' + name
    assert start + at == len(data), 'bytes after the last tensor'
    ordered = sorted(names[:-1], key=lambda name: (-widths[header[name]['dtype']], name))
    assert names == ordered + ['nibble.header_checksum'], 'order of the tensors'
    assert data[-32:] == hashlib.sha256(data[:start]).digest(), 'SHA-256 of the header'
    return header, metadata

def documented(page, header, metadata):
    """Every kind of name in the file stands on the page."""
    for key in metadata:
        if not key.startswith('nibble.crc32c.'):
            layer = key.startswith('nibble.') and key.endswith('.weight')
            assert ('`nibble.<layer>.weight`' if layer else '`%s`' % key) in page, key
    for key in json.loads(metadata['nibble.network']): assert '`%s`' % key in page, key
    for name in header:
        assert name in page or '.%s`' % name.rsplit('.', 1)[1] in page or '<layer>.' + name.rsplit('.', 1)[1] in page, name

served_header, note = container(sys.argv[2])
checkpoint_header, run = container(sys.argv[1])
with open(sys.argv[3], encoding='ascii') as f: page = f.read()
documented(page, served_header, note)
documented(page, checkpoint_header, run)
(served, note), (checkpoint, run) = load(sys.argv[2]), load(sys.argv[1])
assert note['nibble.format'] == 'served' and run['nibble.format'] == 'checkpoint'
net, layers, bits_seen, folds = json.loads(note['nibble.network']), 0, set(), 0

for name in sorted(served):
    if not name.endswith('.weight'): continue
    layer, layers = name[:-len('.weight')], layers + 1
    outputs, inputs, h, w = (checkpoint_header[name]['shape'] + [1, 1])[:4]
    masters, k = checkpoint[name], inputs * h * w
    if net.get('bf16_weights'): masters = [bf16(master) for master in masters]
    ohwi = [[masters[(o * inputs + j % inputs) * h * w + j // inputs] for j in range(k)] for o in range(outputs)]
    norm = layer.replace('conv', 'bn').replace('downsample.0', 'downsample.1')
    if layer == 'fc':
        slope, offset = [1] * outputs, list(checkpoint['fc.bias'])
    else:
        gamma, beta, mean, var = [checkpoint[norm + '.' + n] for n in ('weight', 'bias', 'running_mean', 'running_var')]
        slope = [f32(g / f32(math.sqrt(f32(v + f32(1e-5))))) for g, v in zip(gamma, var)]
        offset = [f32(b - f32(m * t)) for b, m, t in zip(beta, mean, slope)]
    assert list(served[layer + '.a']) == offset, layer + '.a'
    if served_header[name]['dtype'] == 'BF16':
        bits_seen.add(16)
        assert list(served[layer + '.m']) == slope, layer + '.m'
        assert [as_f32(got << 16) for got in served[name]] == [bf16(master) for row in ohwi for master in row], name
        assert weights(served, note, layer) == [[bf16(master) for master in row] for row in ohwi], name
        continue
    packing = json.loads(note['nibble.' + name])
    bits = int(packing['q'][1])
    bits_seen.add(bits)
    assert packing['order'] == 'OHWI' and packing['shape'] == [outputs, h, w, inputs], name
    scale, factor, fold, common = quantizer(served, note, layer)
    folds += any(x != 1 for x in fold)
    for c in range(inputs):  # what makes every form exact
        assert abs(scale[c] * fold[c] * factor[c] / common - 1) < 1e-6, layer
    top, step = 2 ** (bits - 1) - 1, served[layer + '.weight_scale']
    whole = codes(served, note, layer)
    assert len(whole) == outputs and all(len(row) == k and max(map(abs, row)) == top for row in whole), name
    for o, row in enumerate(weights(served, note, layer)):
        assert len(row) == k, name
        folded = [f32(master * fold[j % inputs]) for j, master in enumerate(ohwi[o])]
        assert step[o] == f32(top / f32(max(map(abs, folded)) + EPS)), layer + '.weight_scale'
        assert served[layer + '.m'][o] == f32(slope[o] * f32(1 / f32(common * step[o]))), layer + '.m'
        for j, value in enumerate(row):
            size = 1 / step[o] / fold[j % inputs]
            assert abs(value - ohwi[o][j]) <= 0.500001 * size, '%s: %g is %g, step %g' % (name, ohwi[o][j], value, size)
            code = math.floor(f32(min(max(f32(folded[j] * step[o]), -top), top) + 0.5))
            assert value == code / step[o] / fold[j % inputs], '%s: code %d, weight %g' % (name, code, value)
print(layers, sorted(bits_seen), folds)
)";

/// Exit status and output of the check.
struct Checked {
  int status = -1;
  std::string said;
};

Checked check(const TempDir& dir, const std::string& served) {
  const auto quoted = [](const std::string& path) { return " '" + path + "'"; };
  const std::string out = dir / "out";
  Checked c;
  c.status = std::system(("python3 -B" + quoted(dir / "check.py") + quoted(dir / "c.safetensors") +
                          quoted(dir / served) + quoted(kPage) + " >" + quoted(out) + " 2>&1")
                             .c_str());
  c.said = read_text_file(out, 1 << 20);
  return c;
}

/// The indented block after the page's last heading, flush left.
std::string reader_of_page() {
  const std::string page = read_text_file(kPage, 1 << 20), heading = "\n## A reader\n";
  std::string program;
  size_t at = page.find(heading);
  REQUIRE(at != std::string::npos);
  for (at += heading.size(); at < page.size();) {
    const size_t end = page.find('\n', at);
    const std::string line = page.substr(at, end - at);
    CHECK_MESSAGE((line.empty() || line.starts_with("    ")), line);
    program += line.substr(line.empty() ? 0 : 4) + "\n";
    at = end + 1;
  }
  return program;
}

void write_programs(const TempDir& dir) {
  write_file_atomically(dir / "reader.py", reader_of_page());
  write_file_atomically(dir / "check.py", kCheck);
}

void check_form(const NetworkOptions& options, const std::string& expected) {
  const TempDir dir;
  write_programs(dir);
  const Model model = calibrated_model(options);
  save_checkpoint(dir / "c.safetensors", model, make_gradients(model), 12, "{}", {});
  ServedModel served = make_served(model);
  served.notes = {{"steps", "12"}};
  save_served(dir / "m.safetensors", served);
  const Checked c = check(dir, "m.safetensors");
  CAPTURE(c.said);
  CHECK(c.status == 0);
  CHECK(c.said == expected + "\n");
}

bool no_python() {
  if (std::system("python3 -c 'import json, math; math.prod([2])' >/dev/null 2>&1") == 0) return false;
  MESSAGE("skipped: there is no python3");
  return true;
}

}  // namespace

TEST_CASE(
    "FORMAT.md's program dequantizes every layer of every form to half a step of its master, codes and all exact") {
  if (no_python()) return;
  struct Form {
    const char* name;
    Granularity granularity;
    PerChannelBy by;
    const char *in_w4a4_fl8, *in_w8a4;  // layers, the bits of their weights, how many have folded weights
  };
  const Form forms[] = {
      {"fold", Granularity::kPerChannel, PerChannelBy::kFold, "30 [4, 8, 16] 29", "30 [8, 16] 29"},
      {"shift", Granularity::kPerChannel, PerChannelBy::kShift, "30 [4, 8, 16] 3", "30 [8, 16] 2"},
      {"shift+fold", Granularity::kPerChannel, PerChannelBy::kShiftFold, "30 [4, 8, 16] 29", "30 [8, 16] 29"},
      {"per_tensor", Granularity::kPerTensor, PerChannelBy::kFold, "30 [4, 8, 16] 0", "30 [8, 16] 0"},
  };
  for (const Form& form : forms)
    for (const std::string precision : {"w4a4-fl8", "w8a4"}) {
      CAPTURE(form.name);
      CAPTURE(precision);
      NetworkOptions o = small_options(precision, 0.07);  // odd channels: odd rows of nibbles
      o.granularity = form.granularity;
      o.per_channel_by = form.by;
      // Next to a projection with bits of its own conv1 has a quantizer of its own; a layer in bf16 has none.
      o.overrides = {{"layer3.0.downsample.0", {8, 8}}, {"layer2.1.conv2", {16, 16}}};
      check_form(o, precision == "w8a4" ? form.in_w8a4 : form.in_w4a4_fl8);
    }
}

TEST_CASE("FORMAT.md's program reads a network whose projection blocks have signed inputs") {
  if (no_python()) return;
  NetworkOptions o = small_options("w4a8-fl8", 0.07);
  o.signed_block_input = true;
  check_form(o, "30 [4, 8] 30");
  o.precision = "w4a4";
  o.per_channel_by = PerChannelBy::kShift;
  check_form(o, "30 [4] 5");
}

TEST_CASE("FORMAT.md's program reads codes rounded to nearest and weights that went through bf16") {
  if (no_python()) return;
  for (const PerChannelBy by : {PerChannelBy::kFold, PerChannelBy::kShift, PerChannelBy::kShiftFold}) {
    NetworkOptions o = small_options("w4a4-fl8", 0.07);
    o.scheme = QuantScheme::kNearest;
    o.bf16_weights = true;
    o.per_channel_by = by;
    o.overrides = {{"layer2.1.conv2", {16, 16}}};
    check_form(o, by == PerChannelBy::kShift ? "30 [4, 8, 16] 2" : "30 [4, 8, 16] 29");
  }
}

TEST_CASE("the check of FORMAT.md sees that a served file is another model's") {
  if (no_python()) return;
  const TempDir dir;
  write_programs(dir);
  const Model model = calibrated_model(small_options("w4a4-fl8", 0.07));
  Model other = model;
  other.units[3].weights = Tensor::zeros(DType::f32, model.units[3].weights.shape());
  save_checkpoint(dir / "c.safetensors", model, make_gradients(model), 12, "{}", {});
  save_served(dir / "m.safetensors", make_served(other));
  const Checked c = check(dir, "m.safetensors");
  CHECK(c.status != 0);
  CHECK_MESSAGE(c.said.find(model.network.units[3].name + ".weight") != std::string::npos, c.said);
}

}  // namespace nibble
