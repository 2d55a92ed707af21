#include "apps/config_file.hpp"

#define TOML_EXCEPTIONS 1
#include <toml++/toml.h>

#include <sstream>

#include "nn/network_json.hpp"

namespace nibble::apps {

namespace {

std::string where(const std::filesystem::path& file, const toml::node& node) {
  return fmt::format("{}:{}", file.string(), node.source().begin.line);
}

/// Stores a TOML value in a field, or says what type the field has.
void store(const std::filesystem::path& file, const OptionField& field, const toml::node& node) {
  const auto refuse = [&](const char* wanted) {
    throw UsageError("{}: {} needs {}", where(file, node), field.name, wanted);
  };
  if (auto* const* text = std::get_if<std::string*>(&field.value)) {
    const auto v = node.value_exact<std::string>();
    if (!v) refuse("a string in quotes");
    **text = *v;
  } else if (auto* const* number = std::get_if<double*>(&field.value)) {
    const auto v = node.value<double>();
    if (!v || node.is_boolean()) refuse("a number");
    **number = *v;
  } else if (auto* const* flag = std::get_if<bool*>(&field.value)) {
    const auto v = node.value_exact<bool>();
    if (!v) refuse("true or false");
    **flag = *v;
  } else {
    const auto v = node.value_exact<int64_t>();
    if (!v) refuse("a whole number");
    if (auto* const* whole = std::get_if<int64_t*>(&field.value)) {
      **whole = *v;
    } else {
      if (*v < 0) refuse("a whole number of at least 0");
      **std::get_if<uint64_t*>(&field.value) = static_cast<uint64_t>(*v);
    }
  }
}

void read_layers(const std::filesystem::path& file, const toml::node& node, std::vector<PrecisionOverride>& overrides) {
  const toml::table* layers = node.as_table();
  if (layers == nullptr)
    throw UsageError("{}: layers needs tables like [layers.\"layer3.0.conv2\"]", where(file, node));
  for (const auto& [name, entry] : *layers) {
    const toml::table* table = entry.as_table();
    const toml::node* precision = table != nullptr ? table->get("precision") : nullptr;
    const auto text = precision != nullptr ? precision->value_exact<std::string>() : std::nullopt;
    if (!text || table->size() != 1)
      throw UsageError("{}: the layer '{}' needs exactly one key, precision = \"w8a8\"", where(file, entry),
                       std::string(name.str()));
    overrides.push_back({std::string(name.str()), parse_precision(*text).body});
  }
}

}  // namespace

void read_config(const std::filesystem::path& file, const std::vector<OptionField>& fields,
                 std::vector<PrecisionOverride>& overrides) {
  toml::table table;
  try {
    table = toml::parse_file(file.string());
  } catch (const toml::parse_error& e) {
    throw UsageError("{}:{}: {}", file.string(), e.source().begin.line, e.description());
  }
  std::vector<std::string> known = {"layers"};
  for (const OptionField& f : fields) known.push_back(f.name);
  for (const auto& [key, node] : table) {
    const std::string name(key.str());
    if (name == "layers") {
      read_layers(file, node, overrides);
      continue;
    }
    const auto field = std::find_if(fields.begin(), fields.end(), [&](const OptionField& f) { return f.name == name; });
    if (field == fields.end()) {
      const std::string near = nearest_name(name, known);
      throw UsageError("{}: unknown option '{}'{}", where(file, node), name,
                       near.empty() ? "" : fmt::format("; did you mean '{}'?", near));
    }
    store(file, *field, node);
  }
}

std::string write_config(const std::vector<OptionField>& fields, const std::vector<PrecisionOverride>& overrides) {
  std::ostringstream out;
  for (const OptionField& field : fields) {
    toml::table one;
    std::visit(
        [&](auto* value) {
          if constexpr (std::is_same_v<decltype(value), uint64_t*>)
            one.insert(field.name, static_cast<int64_t>(*value));
          else
            one.insert(field.name, *value);
        },
        field.value);
    out << one << "\n";
  }
  for (const PrecisionOverride& o : overrides)
    out << fmt::format("\n[layers.\"{}\"]\nprecision = \"{}\"\n", o.layer, precision_text(o.precision));
  return out.str();
}

}  // namespace nibble::apps
