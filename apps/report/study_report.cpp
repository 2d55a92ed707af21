#include "apps/report/study_report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "apps/console.hpp"
#include "apps/report/layer_figures.hpp"
#include "apps/report/mean_difference.hpp"
#include "apps/report/page.hpp"
#include "apps/report/statistics.hpp"
#include "apps/report/study_charts.hpp"
#include "apps/report/study_data.hpp"
#include "apps/report/study_findings.hpp"
#include "apps/report/svg.hpp"
#include "apps/study/recipe.hpp"
#include "nn/study/published_points.hpp"

namespace nibble::apps {

namespace {

constexpr double kBudgets[] = {0.05, 0.1, 0.15, 0.25, 0.5, 1};

using Groups = std::vector<StudyGroup>;

std::string in_percent(double value) {
  return decimal(value, 1) + " %";
}

/// The value, a plus-minus sign and its standard error.
std::string with_error(const Estimate& e, int digits = 1) {
  return fmt::format("{} \u00b1 {}", decimal(e.value, digits), decimal(e.error, digits));
}

/// "a", "a and b", "a, b and c".
std::string listed(const std::vector<std::string>& words) {
  std::string text;
  for (size_t i = 0; i < words.size(); ++i) text += (i == 0 ? "" : i + 1 == words.size() ? " and " : ", ") + words[i];
  return text;
}

std::string meaning_of(const std::string& precision) {
  if (precision == "bf16") return "weights and activations as 16-bit floats, not quantized";
  if (precision == "w8a8") return "8-bit weights and activations";
  if (precision == "w4a4") return "4-bit weights and activations in every layer";
  if (precision == "w4a4-fl8") return "4 bits, but 8 in the first and the last layer";
  return precision.ends_with("-fl8") ? "bits of weights (w) and activations (a), 8 in the first and the last layer"
                                     : "bits of weights (w) and activations (a)";
}

/// What `[layers]` changed in the points of one precision.
std::string exception_of(const std::string& precision, const Groups& groups) {
  std::vector<const PointResult*> its;
  for (const StudyGroup& g : groups)
    if (g.precision == precision) its.insert(its.end(), g.points.begin(), g.points.end());
  const std::string layers = own_layers_text(its);
  if (layers.empty()) return "";
  const bool all =
      std::all_of(its.begin(), its.end(), [](const PointResult* p) { return !own_layers_text({p}).empty(); });
  return fmt::format("; except, in {} models, {}", all ? "all its" : "some of its", layers);
}

/// The sentence on layers whose precision is not their model's; empty: there are none.
std::string own_layers_sentence(const std::vector<PointResult>& points) {
  std::vector<const PointResult*> all, bf16;
  for (const PointResult& p : points) {
    all.push_back(&p);
    if (p.precision == "bf16") bf16.push_back(&p);
  }
  const std::string layers = own_layers_text(all);
  if (layers.empty()) return "";
  return fmt::format(
      " Layers that the recipe gives a precision of their own, whatever that of the model: {}{}.", layers,
      own_layers_text(bf16).empty()
          ? ""
          : "; what is called a bf16 model here has them too, so it is not all bf16, and the findings compare with it");
}

/// Which models have several seeds; empty: none has.
std::string seeds_sentence(const std::vector<PointResult>& points, const Groups& groups) {
  constexpr size_t kNamed = 8;
  std::vector<std::string> several;
  bool same = true;
  for (const StudyGroup& g : groups) {
    same = same && g.points.size() == groups.front().points.size();
    if (g.points.size() > 1) several.push_back(fmt::format("{} with {}", g.name(), g.points.size()));
  }
  if (several.empty()) return "";
  const std::string trainings = fmt::format(" There were {} trainings", points.size());
  if (same)
    return trainings + fmt::format(", {} seeds{}, whose mean counts.", groups.front().points.size(),
                                   groups.size() > 1 ? " of each" : "");
  return trainings +
         fmt::format(": {} seeds, whose mean counts{}.",
                     several.size() > kNamed ? fmt::format("{} models with several", several.size()) : listed(several),
                     several.size() < groups.size() ? ", the others with one" : "");
}

/// What an unfinished study still lacks; empty: nothing, as far as is known.
std::string missing_sentence(const std::vector<std::string>& missing) {
  constexpr size_t kNamed = 8;
  if (missing.empty()) return "";
  return fmt::format(" The study is not finished: {} still to come{}; what follows may change with {}.",
                     missing.size() == 1 ? "one training is" : fmt::format("{} trainings are", missing.size()),
                     missing.size() > kNamed ? "" : fmt::format(" ({})", listed(missing)),
                     missing.size() == 1 ? "it" : "them");
}

/// The sentence on the findings: which hold, which do not.
std::string verdict_sentence(const std::vector<Finding>& findings) {
  std::string text;
  const std::pair<Verdict, const char*> kinds[] = {
      {Verdict::kHolds, "Confirmed of the published findings"},
      {Verdict::kContradicted, "Contradicted"},
      {Verdict::kUndecided, "Not decided (within two standard errors, or a few more where few seeds tell them)"},
      {Verdict::kNotTested, "Not tested, for lack of models to compare"}};
  for (const auto& [verdict, intro] : kinds) {
    std::vector<std::string> claims;
    for (const Finding& f : findings)
      if (f.verdict == verdict) claims.push_back(f.claim);
    if (!claims.empty()) text += fmt::format(" {}: {}.", intro, listed(claims));
  }
  return text;
}

/// "by one recipe", or the first difference between two.
std::string recipe_text(const std::vector<PointResult>& points) {
  const std::string unlike = unlike_recipes(points);
  return unlike.empty() ? "by one recipe" : fmt::format("by different recipes, which do not compare ({}),", unlike);
}

std::string answer(const std::vector<PointResult>& points, const Groups& groups,
                   const std::vector<std::string>& missing) {
  const PointResult& p = points.front();
  const std::string uneven = uneven_images(points);
  std::string text = fmt::format("{} of {} at {} px with {} classes, trained {} and judged on {} validation images{}.",
                                 groups.size() == 1 ? "One model" : fmt::format("{} models", groups.size()), p.arch,
                                 p.image_size, grouped(p.classes), recipe_text(points),
                                 grouped(validation_images(points)), uneven.empty() ? "" : " (" + uneven + ")");
  text += seeds_sentence(points, groups) + own_layers_sentence(points) + missing_sentence(missing);
  const StudyGroup* best = best_of(groups, [](const StudyGroup&) { return true; });
  text += fmt::format(" The most accurate is {} ({}, standard error {}).", best->name(), in_percent(best->top1.value),
                      decimal(best->top1.error, 1));
  for (const auto& [budget, words] :
       {std::pair{1.0, "at most the cost of bf16 at width 1"}, {0.25, "at most a quarter of that cost"}})
    if (const StudyGroup* g = best_under(groups, budget))
      text += fmt::format(" Of those of {}, the best is {} ({}).", words, g->name(), in_percent(g->top1.value));
  return text + verdict_sentence(findings_of(groups));
}

void add_key(Page& page, const Groups& groups) {
  page.paragraph(
      "The models differ in precision and in width, the factor on the number of filters of every convolution but "
      "the first: x0.5 has half as many as the usual network. A point is one training of a model, with one seed: "
      "x0.5-s0 has seed 0. "
      "Each precision has one colour and one mark on this page:");
  std::set<std::string> seen;
  std::vector<Cell> items;
  for (const StudyGroup& g : groups)
    if (seen.insert(g.precision).second)
      items.push_back(markup_cell(
          legend_mark(look_of(g.precision)) + " " +
          escaped(fmt::format("{}: {}{}", g.precision, meaning_of(g.precision), exception_of(g.precision, groups)))));
  page.list(items);
}

std::string seeds_error_text(const Groups& groups) {
  const bool known = std::any_of(groups.begin(), groups.end(), [](const StudyGroup& g) { return g.points.size() > 1; });
  return known ? fmt::format(
                     "Between seeds a model's accuracy varies by {} points (standard deviation, pooled over "
                     "the models with several seeds, {} of freedom), which is taken for all models.",
                     decimal(seed_spread(groups), 2), counted(seed_freedom(groups), "degree"))
               : "No model has several seeds, so the second part is not known and left out: the errors are too small.";
}

std::string pairing_text(const Groups& groups) {
  std::vector<const StudyGroup*> all;
  for (const StudyGroup& g : groups) all.push_back(&g);
  std::string text = meaning_of(pairing_of(all)) + ".";
  text[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(text[0])));
  return " " + text;
}

/// How the study's quantized models multiply; nothing when it has none.
void add_arithmetic(Page& page, const Groups& groups) {
  const auto first = [&](const char* part) {
    return std::find_if(groups.begin(), groups.end(),
                        [&](const StudyGroup& g) { return g.precision.find(part) != std::string::npos; });
  };
  auto quantized = first("a4");  // these have every form of scale
  if (quantized == groups.end()) quantized = first("a8");
  if (quantized == groups.end()) return;
  const std::string sentence = arithmetic_sentence(quantized->first().provenance.config);
  if (!sentence.empty()) page.paragraph(sentence);
}

void add_findings(Page& page, const Groups& groups) {
  page.heading("The published findings, put to the test");
  std::vector<Cell> items;
  for (const Finding& f : findings_of(groups)) {
    std::string verdict = name_of(f.verdict);
    verdict[0] = static_cast<char>(verdict[0] - 'a' + 'A');
    items.push_back({fmt::format("{}: {}. {}", verdict, f.claim, f.evidence)});
  }
  page.list(items);
  page.paragraph(
      "A finding holds when the mean difference is above two standard errors, or, as far as few seeds tell the errors, "
      "above what Student's t at 95 % asks for. An accuracy's standard error has two "
      "parts: the validation images are a sample (binomial), and so are the seeds. " +
      seeds_error_text(groups) + pairing_text(groups));
  add_arithmetic(page, groups);
}

void add_budgets(Page& page, const Groups& groups) {
  page.heading("The best model for a budget");
  Table table;
  table.header = {"linear cost at most", "best model", "top-1 %",           "its cost",
                  "best bf16 model",     "top-1 %",    "difference, points"};
  table.text_columns = 2;
  for (const double budget : kBudgets) {
    const StudyGroup* best = best_under(groups, budget);
    if (best == nullptr) continue;
    const StudyGroup* bf16 =
        best_of(groups, [&](const StudyGroup& g) { return g.precision == "bf16" && g.first().ratio.linear <= budget; });
    std::vector<Cell> row = {{fmt::format("{:g}", budget)},
                             {best->name()},
                             {with_error(best->top1)},
                             {decimal(best->first().ratio.linear, 3)}};
    if (bf16 == nullptr)
      row.insert(row.end(), {{"none"}, {"-"}, {"-"}});
    else
      row.insert(
          row.end(),
          {{bf16->name()}, {with_error(bf16->top1)}, {fmt::format("{:+.1f}", best->top1.value - bf16->top1.value)}});
    table.rows.push_back(std::move(row));
  }
  if (table.rows.empty()) {
    page.paragraph("No finished model costs at most as much as bf16 at width 1.");
    return;
  }
  page.table(table,
             "Linear cost counts each multiplication by the wider of its two operands, as machines do whose 8-bit "
             "products take half and whose 4-bit products take a quarter of the time of 16-bit ones; bf16 at "
             "width 1 is 1. Accuracies are the best epoch of a curve smoothed over five epochs, with their "
             "standard errors.");
}

/// Empty when nothing was timed.
std::string times_text(const std::vector<PointResult>& points) {
  const TimesOf times = times_of(points);
  if (times.machines.empty()) return "";
  std::string text = "Times were measured on " + listed(times.machines);
  if (times.compare()) return text + ", all models in turn, from " + times.sittings.front() + " on.";
  if (times.machines.size() > 1)
    text += "; only those of one machine compare.";
  else if (times.sittings.empty())
    text += ", each when its training ended, whatever else the machine did then.";
  else if (times.some_alone)
    text += ", some in turn, others when their training ended, whatever else the machine did then.";
  else
    text += fmt::format(", in {} sittings, which do not compare.", times.sittings.size());
  return text + " nibble study measure times all models in turn.";
}

std::string cost_caption(const std::string& key, const std::vector<PointResult>& points) {
  const std::string front =
      " The broad line is the Pareto front: the best accuracy that a cost buys. Hollow marks are dominated: another "
      "model "
      "is at least as good for no more. Bars are one standard error.";
  const std::string inset = " Grey: the same for the published ImageNet results.";
  if (key == "linear")
    return "Further left is cheaper, further up is better. Cost: multiplications by the wider of their operands." +
           front + inset;
  if (key == "quadratic")
    return "Cost: multiplications by the product of the bits of their operands, as the area of a multiplier grows." +
           inset;
  if (key == "memory") return "Cost: the bits that the weights take." + inset;
  if (key == "latency") return "Measured, not modelled: one image at a time. " + times_text(points);
  return "The exported file, with scales, batch norm and class names, which the models leave out.";
}

void add_costs(Page& page, const Groups& groups, const std::vector<PointResult>& points) {
  page.heading("Accuracy and cost");
  std::vector<Figure> figures;
  for (const CostKind& cost : cost_kinds()) {
    if (std::none_of(groups.begin(), groups.end(), [&](const StudyGroup& g) { return cost.of(g) > 0; })) continue;
    std::string title = cost.title;
    title[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(title[0])));
    figures.push_back(
        {title.substr(0, title.find(',')), draw(cost_chart(groups, cost)), cost_caption(cost.key, points)});
  }
  figures.push_back({"Width", draw(width_chart(groups)),
                     "The same accuracies by width: what quantization costs when the network keeps its size."});
  page.figures(figures);
}

const PublishedPoint* published(const StudyGroup& g) {
  for (const PublishedPoint& p : published_points())
    if (g.precision == p.precision && g.width == p.width && p.eval_loss > 0) return &p;
  return nullptr;
}

void add_gaps(Page& page, const Groups& groups) {
  page.heading("Training against validation");
  Table table;
  table.header = {"model",
                  "seeds",
                  "training top-1 %",
                  "validation top-1 %",
                  "gap, points",
                  "training loss",
                  "validation loss",
                  "gap of losses",
                  "the paper's gap of losses (ResNet-50)"};
  for (const StudyGroup& g : groups) {
    const PublishedPoint* paper = published(g);
    table.rows.push_back({{g.name()},
                          {std::to_string(g.points.size())},
                          {with_error(g.train_top1)},
                          {with_error(g.last_top1)},
                          {with_error(g.gap)},
                          {decimal(g.train_loss, 3)},
                          {decimal(g.loss, 3)},
                          {decimal(g.loss - g.train_loss, 3)},
                          {paper != nullptr ? decimal(paper->eval_loss - paper->train_loss, 3) : "-"}});
  }
  page.table(table,
             "How much better the model does on images it was trained on (without augmentation, after the last "
             "step): a large gap is overfitting. The paper found that fewer bits leave a smaller gap; its training "
             "figures are of augmented images, so the two columns compare in their order, not in their size.");
}

void add_curves(Page& page, const Groups& groups) {
  page.heading("Training curves");
  page.paragraph("One line for each point; further seeds of one precision are thin lines of its colour.");
  for (const double width : widths_of(groups))
    page.figures({{fmt::format("Width {:g}: validation accuracy", width), draw(accuracy_curves(groups, width)), ""},
                  {fmt::format("Width {:g}: training loss", width), draw(loss_curves(groups, width)),
                   "Of augmented batches, any label smoothing included: not the training loss of the table above."}});
}

/// The width nearest to 1, on the page's scale of ratios.
double usual_width(const Groups& groups) {
  const std::vector<double> widths = widths_of(groups);
  return *std::min_element(widths.begin(), widths.end(),
                           [](double a, double b) { return std::abs(std::log(a)) < std::abs(std::log(b)); });
}

/// Linear cost of bf16 at width 1.
double reference_cost_of(const StudyGroup& g) {
  return static_cast<double>(g.first().cost.linear) / std::max(g.first().ratio.linear, 1e-12);
}

void add_layer_costs(Page& page, const Groups& groups) {
  const double width = usual_width(groups);
  page.heading(fmt::format("Where the cost is, at width {:g}", width));
  double highest = 0;
  std::vector<PointLayer> seen;
  for (const StudyGroup& g : groups) {
    if (g.width != width) continue;
    highest = std::max(highest, highest_cost(g.first().layers, reference_cost_of(g)));
    seen.insert(seen.end(), g.first().layers.begin(), g.first().layers.end());
  }
  page.markup_paragraph(bits_legend(seen));
  std::vector<Figure> figures;
  for (const StudyGroup& g : groups) {
    if (g.width != width || g.first().layers.empty()) continue;
    ColumnChart chart =
        cost_columns(g.first().layers, reference_cost_of(g), "linear cost of each layer of " + g.name());
    chart.highest = highest;
    figures.push_back({fmt::format("{}: {} %", g.name(), decimal(100 * g.first().ratio.linear, 1)), draw(chart),
                       bits_caption(g.first().layers)});
  }
  page.figures(figures);
  page.paragraph(
      "One column per layer, in the order they run, all pictures on one scale; the percentages are of bf16 at "
      "width 1, those in the titles are the sums. A column is named where the pointer rests on it; the tables of the "
      "next section name all layers in the same order.");
}

void add_quantizers(Page& page, const std::vector<PointResult>& points) {
  const auto known = [](const PointResult& p) {
    return std::any_of(p.layers.begin(), p.layers.end(),
                       [](const PointLayer& l) { return l.bound_max > 0 || l.usage.total > 0; });
  };
  const auto quantizes = [](const PointResult& p) {
    return std::any_of(p.layers.begin(), p.layers.end(), [](const PointLayer& l) { return l.activation_bits < 16; });
  };
  page.heading("What the quantizers do");
  if (std::none_of(points.begin(), points.end(), known)) {
    page.paragraph(std::any_of(points.begin(), points.end(), quantizes)
                       ? "The use of the codes was not counted."
                       : "No finished model quantizes its activations.");
    return;
  }
  page.paragraph(layer_table_caption());
  for (const PointResult& p : points) {
    if (!known(p)) continue;
    page.open_details(p.name).table(layer_table(p.layers), "").close_details();
  }
}

/// What the caption says about points whose best evaluation stands alone; empty: there are none.
std::string unsmoothed_text(const std::vector<PointResult>& points) {
  const int64_t alone = std::count_if(points.begin(), points.end(),
                                      [](const PointResult& p) { return !is_smoothed(p.curves.evaluations, p.best); });
  if (alone == 0) return "";
  return fmt::format(" (of {}, it is the best evaluation itself: no other that counts is within two and a half epochs)",
                     alone == static_cast<int64_t>(points.size()) ? "all points" : counted(alone, "point"));
}

std::string measured(double value, int digits) {
  return value > 0 ? decimal(value, digits) : "-";
}

void add_points(Page& page, const std::vector<PointResult>& points) {
  page.heading("All points");
  double widest = 0;
  for (const PointResult& p : points) widest = std::max(widest, p.ratio.linear);
  Table table;
  table.header = {"point",
                  "top-1 %, best epoch",
                  "epoch",
                  "top-1 %, last",
                  "top-5 %, last",
                  "loss, last",
                  "linear cost",
                  "",
                  "quadratic",
                  "memory",
                  "file, MB",
                  "ms, one image",
                  "ms per image, batch 32"};
  for (const PointResult& p : points)
    table.rows.push_back({
        {p.name},
        {with_error({p.best.top1, binomial_error(p.best.top1, p.last.images)})},
        {decimal(p.best.epoch, 0)},
        {decimal(p.last.top1, 1)},
        {decimal(p.last.top5, 1)},
        {decimal(p.last.loss, 3)},
        {decimal(p.ratio.linear, 4)},
        markup_cell(share_bar(p.ratio.linear / std::max(widest, 1e-12), look_of(p.precision).colour)),
        {decimal(p.ratio.quadratic, 4)},
        {decimal(p.ratio.memory, 4)},
        {measured(static_cast<double>(p.served_bytes) * 1e-6, 2)},
        {measured(p.latency.batch1_ms, 2)},
        {measured(p.latency.batch32_ms_per_image, 2)},
    });
  std::string caption = fmt::format(
      "Costs are ratios to the same network in bf16 at width 1. The errors are those of {} images, without the seeds; "
      "the best "
      "epoch is the published metric, smoothed over five epochs{}.",
      grouped(validation_images(points)), unsmoothed_text(points));
  if (const std::string times = times_text(points); !times.empty()) caption += " " + times;
  page.table(table, caption);
}

void add_provenance(Page& page, const std::vector<PointResult>& points) {
  page.heading("Where it comes from");
  Table table;
  table.header = {"point", "started (UTC)", "nibble", "CPU", "kernels", "threads", "steps", "epochs", "training"};
  table.text_columns = 5;
  const bool given_weights = std::any_of(points.begin(), points.end(),
                                         [](const PointResult& p) { return !p.provenance.weights_sha256.empty(); });
  if (given_weights) table.header.insert(table.header.begin() + table.text_columns++, "starts from (SHA-256)");
  for (const PointResult& p : points) {
    const Provenance& from = p.provenance;
    table.rows.push_back({{p.name},
                          {from.started},
                          {from.version},
                          {from.cpu},
                          {from.isa},
                          {std::to_string(from.threads)},
                          {grouped(p.steps)},
                          {p.epochs > 0 ? std::to_string(p.epochs) : "-"},
                          {from.seconds > 0 && from.seconds < 1e9 ? duration(from.seconds) : "-"}});
    if (given_weights)
      table.rows.back().insert(
          table.rows.back().begin() + table.text_columns - 1,
          {from.weights_sha256.empty() ? "nothing"
                                       : fmt::format("{} ({})", from.weights, from.weights_sha256.substr(0, 12))});
  }
  page.table(table, "");
  page.open_details("Commands and configurations");
  page.paragraph(
      "A command reads the configuration below it, saved as config.resolved.toml, whose data names the folder of "
      "images. "
      "nibble study run makes all points, and nibble study measure times them.");
  for (const PointResult& p : points) {
    page.paragraph(p.name);
    page.preformatted(p.provenance.command + "\n\n" + p.provenance.config);
  }
  page.close_details();
}

}  // namespace

std::string study_page(const std::vector<PointResult>& points, const std::string& name,
                       const std::vector<std::string>& missing) {
  const Groups groups = group_points(points);
  Page page("Study: " + name);
  page.paragraph(answer(points, groups, missing));
  add_key(page, groups);
  add_findings(page, groups);
  add_budgets(page, groups);
  add_costs(page, groups, points);
  add_gaps(page, groups);
  add_curves(page, groups);
  add_layer_costs(page, groups);
  add_quantizers(page, points);
  add_points(page, points);
  add_provenance(page, points);
  return page.finish();
}

}  // namespace nibble::apps
