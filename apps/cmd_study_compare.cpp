// nibble study compare
#include <algorithm>
#include <nlohmann/json.hpp>

#include "apps/command.hpp"
#include "apps/command_line.hpp"
#include "apps/console.hpp"
#include "apps/report/svg.hpp"
#include "apps/study/compare.hpp"
#include "apps/study/plan.hpp"
#include "apps/study/recipe.hpp"
#include "engine/error.hpp"
#include "nn/study/study_folder.hpp"

namespace nibble::apps {

namespace {

namespace fs = std::filesystem;

class StudyCompareCommand : public Command {
 public:
  const char* name() const override { return "compare"; }
  const char* summary() const override { return "what two recipes differ by: the models that two studies both have"; }
  const char* examples() const override {
    return "  nibble study compare studies/baseline studies/my-idea\n"
           "  nibble study compare studies/a/report/study.json studies/b --json";
  }
  const char* notes() const override {
    return R"(

Differences are those of B less A, of the published metric (the best epoch of the smoothed curve), in points.
A standard error counts the validation images and the spread over seeds. Where all models were judged on the same
images, their results say what became of each after the last step, and some model has several seeds, errors count in
which images models differ. Otherwise models count as independent: that makes the error of one difference rather too
large, and may make that of a mean over many models too small. A difference is beyond chance where it is larger than
two standard errors or, where few seeds tell the spread, than Student's t at 95 % of them. Of twenty models that do
not differ one may look as if it did: the mean over all of them is the test of a change. Models that an option does
not touch (a quantizer's, in bf16) have the same accuracies and losses, to the last digit, in every seed that both
studies have: they are named "the same" and are in no mean.

--json: recipe (option, a, b), models (precision, width, seeds_a, seeds_b, same and of top1, last_top1, train_top1 and
gap: a, b, difference, standard_error, beyond_chance), mean (of the same four: difference, standard_error,
beyond_chance), only_a and only_b (models that the other study lacks), seed_spread (false: no model has several seeds,
so that the errors are of the images alone), paired (true: errors count in which images models differ), versions (a, b:
lists of the versions of nibble that trained the points).)";
  }

  void declare(CLI::App& app) override {
    add_option(app, "A", a_, "study folder, or a study.json: the baseline").required();
    add_option(app, "B", b_, "the study to compare with it").required();
    add_flag(app, "--json", json_, "print one JSON object");
  }

  int run() override {
    const std::vector<PointResult> a = read_study(a_), b = read_study(b_);
    const StudyComparison comparison(a, b);
    versions_a_ = versions_of(a);
    versions_b_ = versions_of(b);
    for (const auto& [study, points] : {std::pair(&a_, &a), std::pair(&b_, &b)}) {
      if (const std::string uneven = uneven_images(*points); !uneven.empty())
        warn(fmt::format("of {}, {}", *study, uneven));
      if (const std::string unlike = unlike_recipes(*points); !unlike.empty())
        warn(fmt::format("the models of {} were not made by one recipe: {}", *study, unlike));
      if (const std::string changed = changed_builds(*points); !changed.empty())
        warn(fmt::format("of {}, {}: nobody can build that again from its commit", *study, changed));
    }
    if (const std::string in_a = network_of(a), in_b = network_of(b); in_a != in_b)
      warn(fmt::format("A is of {}, B of {}: models of one width are not of one cost", in_a, in_b));
    if (const std::string in_a = validation_digest(a_, a), in_b = validation_digest(b_, b);
        !in_a.empty() && !in_b.empty() && in_a != in_b)
      warn("A and B were judged on other validation images; differences contain that");
    if (json_)
      print_json(comparison);
    else
      print_text(comparison);
    return 0;
  }

 private:
  static constexpr std::pair<const char*, Estimate StudyGroup::*> kFigures[] = {{"top1", &StudyGroup::top1},
                                                                                {"last_top1", &StudyGroup::last_top1},
                                                                                {"train_top1", &StudyGroup::train_top1},
                                                                                {"gap", &StudyGroup::gap}};

  /// "3 of 12 models were trained by sources with changes since their commit"; empty: none was.
  static std::string changed_builds(const std::vector<PointResult>& points) {
    const int64_t changed = std::count_if(points.begin(), points.end(), [](const PointResult& p) {
      return p.provenance.version.find("-dirty") != std::string::npos;
    });
    return changed == 0 ? ""
                        : fmt::format("{} of {} {} trained by sources with changes since their commit", changed,
                                      counted(std::ssize(points), "point"), changed == 1 ? "was" : "were");
  }

  static std::string network_of(const std::vector<PointResult>& points) {
    return fmt::format("{} at {} px", points.front().arch, points.front().image_size);
  }

  /// The digest of the validation images, where a result or the plan beside the study has one.
  static std::string validation_digest(const fs::path& study, const std::vector<PointResult>& points) {
    for (const PointResult& p : points)
      if (!p.outcomes.images.empty()) return p.outcomes.images;
    std::error_code none;
    const fs::path folder = fs::is_directory(study, none) ? study : study.parent_path();
    if (!fs::is_regular_file(plan_path(folder), none)) return "";
    try {
      const std::string images = read_plan(folder).data.images;
      return images.substr(images.find(' ') + 1);
    } catch (const Error&) {
      return "";  // a plan that cannot be read is no reason to compare nothing
    }
  }

  static nlohmann::ordered_json describe(const MeanDifference& d) {
    return {{"difference", d.value()}, {"standard_error", d.error()}, {"beyond_chance", d.decided()}};
  }

  void print_json(const StudyComparison& c) const {
    nlohmann::ordered_json j = {{"a", a_}, {"b", b_}};
    j["recipe"] = nlohmann::ordered_json::array();
    for (const ConfigDifference& d : c.recipe())
      j["recipe"].push_back({{"option", d.name}, {"a", d.first}, {"b", d.second}});
    j["models"] = nlohmann::ordered_json::array();
    for (const StudyComparison::Pair& pair : c.pairs()) {
      nlohmann::ordered_json model = {{"precision", pair.first->precision},
                                      {"width", pair.first->width},
                                      {"seeds_a", pair.first->points.size()},
                                      {"seeds_b", pair.second->points.size()},
                                      {"same", c.same(pair)}};
      for (const auto& [key, of] : kFigures) {
        nlohmann::ordered_json figure = {{"a", (pair.first->*of).value}, {"b", (pair.second->*of).value}};
        figure.update(describe(c.difference(pair, of)));
        model[key] = figure;
      }
      j["models"].push_back(model);
    }
    for (const auto& [key, of] : kFigures) j["mean"][key] = describe(c.mean_difference(of));
    j["only_a"] = c.only_a();
    j["only_b"] = c.only_b();
    j["seed_spread"] = c.knows_seeds();
    j["paired"] = c.pairing() == Pairing::kPaired;
    j["versions"] = {{"a", versions_a_}, {"b", versions_b_}};
    print_object(j);
  }

  static std::string points_text(const MeanDifference& d) {
    return fmt::format("{}{} ({})", d.value() >= 0 ? "+" : "", decimal(d.value(), 2), decimal(d.error(), 2));
  }
  static std::string beyond(const MeanDifference& d) { return d.decided() ? "beyond chance" : ""; }

  static std::string verdict_text(const MeanDifference& d) {
    if (d.empty()) return "A and B have the same models: what their recipes differ in does not touch them";
    if (d.equal() == d.pairs()) return "A and B are equally accurate in " + counted(d.pairs(), "model");
    const bool less = d.value() < 0;
    return fmt::format("B is {} in {} of {}{}; {}", less ? "less accurate" : "more accurate",
                       less ? d.pairs() - d.positive() - d.equal() : d.positive(), counted(d.pairs(), "model"),
                       d.equal() > 0 ? fmt::format(", equally in {}", d.equal()) : "",
                       d.decided() ? "the mean difference is beyond chance"
                                   : "the mean difference may be chance: more seeds, images or models would tell");
  }

  void print_text(const StudyComparison& c) const {
    std::vector<std::vector<std::string>> rows = {{"model", "A, top1", "B, top1", "B - A (standard error)", ""}};
    const auto accuracy = [](const StudyGroup& g) {
      return decimal(g.top1.value, 2) + (g.points.size() > 1 ? fmt::format(", {} seeds", g.points.size()) : "");
    };
    for (const StudyComparison::Pair& pair : c.pairs()) {
      const MeanDifference d = c.difference(pair, &StudyGroup::top1);
      rows.push_back({pair.first->name(), accuracy(*pair.first), accuracy(*pair.second),
                      c.same(pair) ? "the same" : points_text(d), beyond(d)});
    }
    const MeanDifference all = c.mean_difference(&StudyGroup::top1), gap = c.mean_difference(&StudyGroup::gap);
    if (!all.empty())
      rows.push_back(
          {all.pairs() < std::ssize(c.pairs()) ? "mean, the others" : "mean", "", "", points_text(all), beyond(all)});
    print(format_table(rows));
    print(verdict_text(all));
    if (all.empty()) return print_recipes(c);
    print(fmt::format("gap to the training images (without augmentation, last epoch): {} points{}", points_text(gap),
                      gap.decided() ? ", beyond chance" : ""));
    if (!c.knows_seeds()) print("no model has several seeds: errors are of the images alone");
    print("errors: " + meaning_of(c.pairing()));
    print_recipes(c);
  }

  void print_recipes(const StudyComparison& c) const {
    print(c.recipe().empty() ? "recipes: no difference" : "recipes differ in:");
    for (const ConfigDifference& d : c.recipe()) print(fmt::format("  {}: {}, {}", d.name, d.first, d.second));
    if (versions_a_ != versions_b_)
      print(fmt::format("versions: A {}; B {}", fmt::join(versions_a_, ", "), fmt::join(versions_b_, ", ")));
    if (!c.only_a().empty()) print(fmt::format("A alone has {}", fmt::join(c.only_a(), ", ")));
    if (!c.only_b().empty()) print(fmt::format("B alone has {}", fmt::join(c.only_b(), ", ")));
  }

  std::string a_, b_;
  std::vector<std::string> versions_a_, versions_b_;
  bool json_ = false;
};

}  // namespace

Command* study_compare_command() {
  return new StudyCompareCommand;
}

}  // namespace nibble::apps
