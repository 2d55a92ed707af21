#include "apps/config_file.hpp"

#define TOML_EXCEPTIONS 1
#include <toml++/toml.h>

#include <map>
#include <sstream>

#include "engine/utf8.hpp"
#include "nn/atomic_file.hpp"
#include "nn/network_json.hpp"

namespace nibble::apps {

namespace {

std::string where(const std::string& source, const toml::node& node) {
  return fmt::format("{}:{}", source, node.source().begin.line);
}

/// "Error while parsing string: saw '\u0001'" as part of a sentence: "string: saw '\x01'".
std::string reason_of(const toml::parse_error& e) {
  std::string reason(e.description());
  constexpr std::string_view kPreface = "Error while parsing ";
  if (reason.starts_with(kPreface)) reason.erase(0, kPreface.size());
  if (reason.starts_with("Encountered")) reason[0] = 'e';
  constexpr std::string_view kEscape = "'\\u00";  // the parser's way to show a control character
  for (size_t at = 0; (at = reason.find(kEscape, at)) != std::string::npos; ++at) reason.replace(at, 5, "'\\x");
  return reason;
}

/// Stores a TOML value in a field (unless `keep`), or says what type the field has.
struct Storing {
  const std::string& source;
  const toml::node& node;
  const std::string& name;
  bool keep = false;

  [[noreturn]] void refuse(const char* wanted) const {
    throw UsageError("{}: {} needs {}", where(source, node), name, wanted);
  }

  template <typename T>
  void assign(T* to, T value) const {
    if (!keep) *to = std::move(value);
  }

  void operator()(std::string* to) const {
    const auto v = node.value_exact<std::string>();
    if (!v) refuse("a string in quotes");
    assign(to, *v);
  }
  void operator()(double* to) const {
    const auto v = node.value<double>();
    if (!v || node.is_boolean()) refuse("a number");
    assign(to, *v);
  }
  void operator()(bool* to) const {
    const auto v = node.value_exact<bool>();
    if (!v) refuse("true or false");
    assign(to, *v);
  }
  void operator()(int64_t* to) const {
    const auto v = node.value_exact<int64_t>();
    if (!v) refuse("a whole number");
    assign(to, *v);
  }
  void operator()(uint64_t* to) const {
    const auto v = node.value_exact<int64_t>();
    if (!v || *v < 0) refuse("a whole number of at least 0");
    assign(to, static_cast<uint64_t>(*v));
  }
};

Precision layer_precision(const std::string& source, const toml::node& node, const std::string& text) {
  try {
    return parse_precision(text).body;
  } catch (const UsageError& e) {
    throw UsageError("{}: {}", where(source, node), e.what());
  }
}

void read_layers(const std::string& source, const toml::node& node, std::vector<PrecisionOverride>& overrides,
                 std::map<std::string, std::string>& found) {
  const toml::table* layers = node.as_table();
  if (layers == nullptr)
    throw UsageError("{}: layers needs tables like [layers.\"layer3.0.conv2\"]", where(source, node));
  for (const auto& [name, entry] : *layers) {
    const toml::table* table = entry.as_table();
    const toml::node* precision = table != nullptr ? table->get("precision") : nullptr;
    const auto text = precision != nullptr ? precision->value_exact<std::string>() : std::nullopt;
    if (table != nullptr)
      for (const auto& [key, value] : *table)
        if (key.str() != "precision")
          throw UsageError("{}: the layer '{}' needs exactly one key, precision = \"w8a8\", and no '{}'",
                           where(source, value), std::string(name.str()), std::string(key.str()));
    if (!text)
      throw UsageError("{}: the layer '{}' needs exactly one key, precision = \"w8a8\"", where(source, entry),
                       std::string(name.str()));
    if (text->ends_with("-fl8"))
      throw UsageError("{}: '{}' is the precision of a network; a layer takes bf16, w4a4, w4a8, w8a4 or w8a8",
                       where(source, *precision), *text);
    overrides.push_back({std::string(name.str()), layer_precision(source, *precision, *text)});
    found.insert_or_assign(layer_key(overrides.back().layer), where(source, entry));
  }
}

}  // namespace

std::string layer_key(const std::string& layer) {
  return "layers." + layer;
}

std::map<std::string, std::string> read_config(const std::filesystem::path& file,
                                               const std::vector<OptionField>& fields,
                                               const std::set<std::string>& given,
                                               std::vector<PrecisionOverride>& overrides) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(file, error))
    throw UsageError("{} is not a file; --config needs a TOML file with the options' names as keys", file.string());
  if (std::filesystem::file_size(file, error) > kLongestConfig)
    throw UsageError("{} is larger than the {} bytes that a config file may have; name another", file.string(),
                     kLongestConfig);
  return parse_config(read_text_file(file, kLongestConfig), file.string(), fields, given, overrides);
}

std::map<std::string, std::string> parse_config(const std::string& text, const std::string& source,
                                                const std::vector<OptionField>& fields,
                                                const std::set<std::string>& given,
                                                std::vector<PrecisionOverride>& overrides) {
  toml::table table;
  try {
    table = toml::parse(text, source);
  } catch (const toml::parse_error& e) {
    throw UsageError(
        "{}:{}: this line cannot be read as TOML ({}); write each option once, as lr = 0.1, strings in quotes", source,
        e.source().begin.line, reason_of(e));
  }
  std::vector<std::string> known = {"layers"};
  for (const OptionField& f : fields) known.push_back(f.name);
  std::map<std::string, std::string> found;
  for (const auto& [key, node] : table) {
    const std::string name(key.str());
    if (name == "preset")
      throw UsageError("{}: a preset is for the command line (--preset), this file goes on top of it; leave it out",
                       where(source, node));
    if (name == "layers") {
      read_layers(source, node, overrides, found);
      continue;
    }
    const auto field = std::find_if(fields.begin(), fields.end(), [&](const OptionField& f) { return f.name == name; });
    if (field == fields.end()) {
      constexpr std::string_view kOfTheLine[] = {"weights", "out",  "resume", "config",
                                                 "threads", "json", "quiet",  "dry-run"};
      if (std::find(std::begin(kOfTheLine), std::end(kOfTheLine), name) != std::end(kOfTheLine))
        throw UsageError("{}: {} is for the command line (--{}); leave it out", where(source, node), name, name);
      const std::string near = nearest_name(name, known);
      throw UsageError("{}: unknown option '{}'{}", where(source, node), name,
                       near.empty() ? "" : fmt::format("; did you mean '{}'?", near));
    }
    std::visit(Storing{source, node, field->name, given.contains(name)}, field->value);
    found.emplace(name, where(source, node));
  }
  return found;
}

namespace {

/// A path may hold any bytes, but TOML is UTF-8.
void require_utf8(const std::string& name, const std::string& value) {
  if (!is_utf8(value))
    throw UsageError("--{} is not UTF-8, which a config file cannot hold; rename it, or make a link of another name",
                     name);
}

/// The text on one line: the library would write one with control characters on several.
std::string toml_on_one_line(const std::string& value) {
  std::string text;
  for (const char c : value) {
    if (c == '"' || c == '\\')
      text += std::string("\\") + c;
    else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
      text += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
    else
      text += c;
  }
  return '"' + text + '"';
}

bool has_control_characters(const std::string& value) {
  return std::any_of(value.begin(), value.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; });
}

}  // namespace

std::string write_config(const std::vector<OptionField>& fields, const std::vector<PrecisionOverride>& overrides) {
  std::ostringstream out;
  for (const OptionField& field : fields) {
    toml::table one;
    std::visit(
        [&](auto* value) {
          if constexpr (std::is_same_v<decltype(value), uint64_t*>)
            one.insert(field.name, static_cast<int64_t>(*value));
          else if constexpr (std::is_same_v<decltype(value), double*>)
            out << fmt::format("{} = {}", field.name, *value);  // the fewest digits that read back equal
          else if constexpr (std::is_same_v<decltype(value), std::string*>) {
            require_utf8(field.name, *value);
            if (has_control_characters(*value))
              out << field.name << " = " << toml_on_one_line(*value);
            else
              one.insert(field.name, *value);
          } else
            one.insert(field.name, *value);
        },
        field.value);
    out << one << "\n";
  }
  for (const PrecisionOverride& o : overrides)
    out << fmt::format("\n[layers.\"{}\"]\nprecision = \"{}\"\n", o.layer, precision_text(o.precision));
  return out.str();
}

namespace {

/// "name = value" lines by name; a table's lines have its header in front.
std::map<std::string, std::string> lines_of(const std::string& config) {
  std::map<std::string, std::string> lines;
  std::istringstream in(config);
  std::string table;
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with("[")) table = line + " ";
    const size_t equals = line.find(" = ");
    if (equals != std::string::npos) lines[table + line.substr(0, equals)] = line.substr(equals + 3);
  }
  return lines;
}

}  // namespace

std::string without_options(const std::string& config, const std::set<std::string>& names) {
  std::istringstream in(config);
  std::string kept;
  for (std::string line; std::getline(in, line);)
    if (!names.contains(line.substr(0, line.find(" = ")))) kept += line + "\n";
  return kept;
}

std::string with_missing_options(const std::string& config, const std::string& defaults) {
  const std::map<std::string, std::string> has = lines_of(config);
  std::string missing;
  for (const auto& [name, value] : lines_of(defaults))
    if (!name.starts_with("[") && !has.contains(name)) missing += name + " = " + value + "\n";
  return missing + config;
}

ConfigDifference first_difference(const std::string& first, const std::string& second,
                                  const std::set<std::string>& ignored) {
  const std::map<std::string, std::string> a = lines_of(first), b = lines_of(second);
  const auto of_layer = [](const std::string& name) { return name.starts_with("["); };
  for (const auto& [name, value] : a) {
    if (ignored.contains(name)) continue;
    const auto other = b.find(name);
    if (other == b.end() && of_layer(name)) return {name, value, "nothing"};
    if (other != b.end() && other->second != value) return {name, value, other->second};
  }
  for (const auto& [name, value] : b)
    if (of_layer(name) && !a.contains(name) && !ignored.contains(name)) return {name, "nothing", value};
  return {};
}

}  // namespace nibble::apps
