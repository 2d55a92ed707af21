#include "apps/report/layer_figures.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <map>
#include <set>

#include "apps/console.hpp"
#include "apps/report/looks.hpp"
#include "apps/report/svg.hpp"

namespace nibble::apps {

namespace {

int bits_of(const LayerCost& layer) {
  return std::max(layer.weight_bits, layer.activation_bits);
}

std::string bits_text(const LayerCost& layer) {
  return fmt::format("{} x {}", layer.weight_bits, layer.activation_bits);
}

double cost_percent(const LayerCost& layer, double reference) {
  return reference > 0 ? 100 * static_cast<double>(layer.linear) / reference : 0;
}

int64_t codes_used(const QuantizerUsage& usage) {
  return std::count_if(usage.codes.begin(), usage.codes.end(), [](int64_t n) { return n > 0; });
}

/// Three significant digits: bounds of one network differ by powers of ten.
std::string bound_text(double bound) {
  return bound > 0 ? fmt::format("{:.3g}", bound) : "-";
}

}  // namespace

std::string stage_of(const std::string& layer) {
  if (layer == "conv1") return "stem";
  const size_t dot = layer.find('.');
  return dot == std::string::npos ? layer : layer.substr(0, dot);
}

ColumnChart cost_columns(const std::vector<PointLayer>& layers, double reference, const std::string& name) {
  ColumnChart chart;
  chart.name = name;
  chart.y_title = "% of the cost of bf16 at width 1";
  for (const PointLayer& l : layers) {
    const double percent = cost_percent(l, reference);
    chart.columns.push_back(
        {.group = stage_of(l.name),
         .tooltip = fmt::format("{}: {} bits, {} mega-macs, {} %", l.name, bits_text(l),
                                decimal(static_cast<double>(l.macs) * 1e-6, 2), decimal(percent, 3)),
         .value = percent,
         .colour = colour_of_bits(bits_of(l))});
  }
  return chart;
}

double highest_cost(const std::vector<PointLayer>& layers, double reference) {
  double highest = 0;
  for (const PointLayer& l : layers) highest = std::max(highest, cost_percent(l, reference));
  return highest;
}

std::string bits_legend(const std::vector<PointLayer>& layers) {
  std::set<int> bits;
  for (const PointLayer& l : layers) bits.insert(bits_of(l) <= 4 ? 4 : bits_of(l) <= 8 ? 8 : 16);
  Xml html;
  for (const int b : bits) {
    html.raw(bits.size() > 1 && b != *bits.begin() ? " &#160; " : "").raw(colour_swatch(colour_of_bits(b)));
    html.text(b == 16 ? " bf16" : fmt::format(" {} bits", b));
  }
  return html.finish();
}

std::string bits_caption(const std::vector<PointLayer>& layers) {
  constexpr size_t kNamed = 8;  // longer lists are counted instead
  std::map<int, std::vector<std::string>, std::greater<>> by_bits;
  for (const PointLayer& l : layers) by_bits[bits_of(l)].push_back(l.name);
  int usual = 0;  // the bits of most layers
  size_t most = 0;
  for (const auto& [bits, names] : by_bits) {
    if (names.size() < most) continue;
    usual = bits;
    most = names.size();
  }
  std::string text;
  for (const auto& [bits, names] : by_bits) {
    text += fmt::format("{}{} bits: ", text.empty() ? "" : "; ", bits);
    if (bits == usual)
      text += by_bits.size() == 1 ? "all layers" : "all others";
    else if (names.size() > kNamed)
      text += fmt::format("{} layers", names.size());
    else
      text += fmt::format("{}", fmt::join(names, ", "));
  }
  return text.empty() ? text : text + ".";
}

Table layer_table(const std::vector<PointLayer>& layers) {
  Table table;
  table.header = {"layer",         "bits, weights x activations",
                  "mega-macs",     "weights",
                  "lowest bound",  "median bound",
                  "highest bound", "clipped",
                  "codes used",    "use of the codes, lowest to highest"};
  for (const PointLayer& l : layers) {
    const QuantizerUsage& u = l.usage;
    std::vector<Cell> row = {{l.name},
                             {bits_text(l)},
                             {decimal(static_cast<double>(l.macs) * 1e-6, 2)},
                             {grouped(l.weights)},
                             {bound_text(l.bound_min)},
                             {bound_text(l.bound_median)},
                             {bound_text(l.bound_max)}};
    if (u.total > 0) {
      const double clipped = static_cast<double>(u.clipped) / static_cast<double>(u.total);
      const std::string used = fmt::format("{} of {}", codes_used(u), u.codes.size());
      row.push_back({decimal(100 * clipped, 2) + " %"});
      row.push_back({used});
      row.push_back(markup_cell(code_strip(u.codes, used + " codes used")));
    } else {
      row.insert(row.end(), {{"-"}, {"-"}, {"-"}});
    }
    table.rows.push_back(std::move(row));
  }
  return table;
}

std::string layer_table_caption() {
  return "A quantizer maps the values from 0 to a channel's bound onto its codes, in the first layer those from the "
         "bound's negative to the bound; values beyond are clipped to the nearest code. The bounds are the lowest, the "
         "median and the highest of the layer's channels. The strip has one square for each code, from the lowest to "
         "the highest, the stronger its colour the more often it occurs in up to 64 validation images, spread over all "
         "(8 bits: one square for 16 codes). A good bound clips little and leaves few squares empty.";
}

}  // namespace nibble::apps
