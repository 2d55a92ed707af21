#include "apps/profile.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "apps/console.hpp"

namespace nibble::apps {

namespace {

constexpr const char* kUnitNames[kMacUnits] = {"f32", "bf16", "int8", "int4"};

/// Columns of the layer table, in the order of a step; zones that are not listed follow under their own names.
struct Heading {
  const char* zone;
  const char* text;
};
constexpr Heading kHeadings[] = {
    {"conv forward", "forward"},
    {"executor, convolution", "forward"},
    {"norm and activate", "norm"},
    {"conv backward, input", "back input"},
    {"conv backward, weights", "back weights"},
    {"norm backward, sums", "norm sums"},
    {"norm backward, apply", "norm apply"},
};

double giga(double per_second) {
  return per_second * 1e-9;
}

/// Rates of one row, per second of thread time; 0: nothing was counted.
struct Rates {
  double ms = 0, gmacs = 0, peak_share = 0, gbytes = 0;
};

Rates rates_of(const ZoneTotal& z, const Profile& p) {
  Rates r{.ms = 1000 * z.self_seconds / static_cast<double>(p.steps)};
  if (z.self_seconds <= 0) return r;
  double ideal = 0;  // thread seconds at the peak
  bool known = true;
  for (size_t u = 0; u < kMacUnits; ++u) {
    if (z.macs[u] == 0) continue;
    known = known && p.peaks[u] > 0;
    if (known) ideal += static_cast<double>(z.macs[u]) / (p.peaks[u] / p.threads);
  }
  r.gmacs = giga(static_cast<double>(z.all_macs()) / z.self_seconds);
  r.peak_share = known ? ideal / z.self_seconds : 0;
  r.gbytes = giga(static_cast<double>(z.bytes) / z.self_seconds);
  return r;
}

std::string number(double value, int digits) {
  return value > 0 ? fmt::format("{:.{}f}", value, digits) : "-";
}
std::string percent(double share) {
  return share > 0 ? fmt::format("{:.1f} %", 100 * share) : "-";
}

double megabytes_a_step(const ZoneTotal& z, const Profile& p) {
  return static_cast<double>(z.bytes) * 1e-6 / static_cast<double>(p.steps);
}

/// Milliseconds of the zone's best step.
double best_ms(const ZoneTotal& z, const Profile& p) {
  return 1000 * p.bests.seconds(z);
}

double outside_seconds(const Profile& p) {
  double inside = 0;
  for (const ZoneTotal& z : p.passes) inside += z.self_seconds;
  return std::max(0.0, p.threads * p.wall_seconds - inside);
}

std::string peaks_text(const Profile& p) {
  std::string text;
  for (size_t u = 0; u < kMacUnits; ++u)
    if (p.peaks[u] > 0) text += fmt::format("{} {} {:.0f}", text.empty() ? "" : ",", kUnitNames[u], giga(p.peaks[u]));
  return fmt::format(
      "probed alongside, {} threads together: peak in GMAC/s{}; memory in GB/s: read {:.1f}, read and "
      "write {:.1f}, triad {:.1f}",
      p.threads, text.empty() ? " not known" : text, giga(p.bandwidth.read), giga(p.bandwidth.read_write),
      giga(p.bandwidth.triad));
}

std::string pass_table(const Profile& p) {
  const double all = p.threads * p.wall_seconds;
  std::vector<std::vector<std::string>> rows = {
      {"pass", "calls", "ms a step", "best", "share", "GMAC/s", "of peak", "MB a step", "GB/s"}};
  for (const ZoneTotal& z : p.passes) {
    const Rates r = rates_of(z, p);
    rows.push_back({z.name, grouped(z.count), fmt::format("{:.1f}", r.ms), number(best_ms(z, p), 1),
                    percent(z.self_seconds / all), number(r.gmacs, 1), percent(r.peak_share),
                    number(megabytes_a_step(z, p), 1), number(r.gbytes, 2)});
  }
  const double outside = outside_seconds(p);
  rows.push_back({"outside of these", "", fmt::format("{:.1f}", 1000 * outside / static_cast<double>(p.steps)), "-",
                  percent(outside / all), "-", "-", "-", "-"});
  return format_table(rows);
}

/// Labelled rows as layer -> zone -> total.
std::map<std::string, std::map<std::string, const ZoneTotal*>> by_layer(const Profile& p) {
  std::map<std::string, std::map<std::string, const ZoneTotal*>> found;
  for (const ZoneTotal& z : p.layers) found[z.label][z.name] = &z;
  return found;
}

/// Columns that occur: known ones in the order of kHeadings, then the others by time.
std::vector<std::pair<std::string, std::string>> columns_of(const Profile& p) {
  std::vector<std::pair<std::string, std::string>> columns;
  const auto occurs = [&](const std::string& zone) {
    return std::any_of(p.layers.begin(), p.layers.end(), [&](const ZoneTotal& z) { return z.name == zone; });
  };
  const auto listed = [&](const std::string& zone) {
    return std::any_of(columns.begin(), columns.end(), [&](const auto& c) { return c.first == zone; });
  };
  for (const Heading& h : kHeadings)
    if (occurs(h.zone)) columns.push_back({h.zone, h.text});
  for (const ZoneTotal& z : p.layers)
    if (!listed(z.name)) columns.push_back({z.name, z.name});
  return columns;
}

std::string shape_text(const ConvShape& s) {
  return fmt::format("{}x{}{} {}>{} @{}", s.kh, s.kw, s.stride > 1 ? fmt::format("/{}", s.stride) : "", s.ic, s.oc,
                     s.oh());
}

std::string layer_times(const Profile& p, const Network& network) {
  const auto found = by_layer(p);
  const auto columns = columns_of(p);
  const auto has_macs = [&](const std::string& zone) {
    return std::any_of(p.layers.begin(), p.layers.end(),
                       [&](const ZoneTotal& z) { return z.name == zone && z.all_macs() > 0; });
  };
  std::vector<std::vector<std::string>> rows = {{"layer (ms a step)", "shape"}};
  for (const auto& [zone, text] : columns) {
    rows[0].push_back(text);
    if (has_macs(zone)) rows[0].push_back("GMAC/s");
  }
  rows[0].push_back("best");
  rows[0].push_back("MB in all");
  for (const UnitSpec& unit : network.units) {
    const auto layer = found.find(unit.name);
    if (layer == found.end()) continue;
    rows.push_back({unit.name, shape_text(unit.shape)});
    for (const auto& column : columns) {
      const auto z = layer->second.find(column.first);
      const Rates r = z == layer->second.end() ? Rates{} : rates_of(*z->second, p);
      rows.back().push_back(number(r.ms, 2));
      if (has_macs(column.first)) rows.back().push_back(number(r.gmacs, 1));
    }
    double best = 0, megabytes = 0;
    for (const auto& zone : layer->second) {
      best += best_ms(*zone.second, p);
      megabytes += megabytes_a_step(*zone.second, p);
    }
    rows.back().push_back(number(best, 2));
    rows.back().push_back(number(megabytes, 2));
  }
  return rows.size() == 1 ? std::string() : format_table(rows);
}

nlohmann::ordered_json row_json(const ZoneTotal& z, const Profile& p) {
  const Rates r = rates_of(z, p);
  nlohmann::ordered_json j;
  j["calls"] = z.count;
  j["self_ms_per_step"] = r.ms;
  if (const double best = best_ms(z, p); best > 0) j["best_self_ms_per_step"] = best;
  if (z.all_macs() > 0) {
    j["macs"] = z.all_macs() / p.steps;
    j["gmacs_per_second"] = r.gmacs;
    if (r.peak_share > 0) j["share_of_peak"] = r.peak_share;
  }
  if (z.bytes > 0) {
    j["bytes"] = z.bytes / p.steps;
    j["gb_per_second"] = r.gbytes;
  }
  return j;
}

}  // namespace

void StepBests::mark() {
  const auto mark_all = [&](const std::vector<ZoneTotal>& table) {
    for (const ZoneTotal& z : table) {
      Times& t = zones_[{z.name, z.label}];
      const double step = z.self_seconds - t.until;
      t.best = t.steps++ == 0 ? step : std::min(t.best, step);
      t.until = z.self_seconds;
    }
  };
  mark_all(zone_table());
  mark_all(labelled_zone_table());
}

double StepBests::seconds(const ZoneTotal& zone) const {
  const auto found = zones_.find({zone.name, zone.label});
  return found == zones_.end() ? 0 : found->second.best;
}

std::string profile_text(const Profile& profile, const Network& network) {
  const std::string layers = layer_times(profile, network);
  return pass_table(profile) + "\n\n" + (layers.empty() ? "" : layers + "\n\n") + peaks_text(profile) + "\n";
}

nlohmann::ordered_json profile_json(const Profile& p, const Network& network) {
  nlohmann::ordered_json j;
  j["threads"] = p.threads;
  j["steps"] = p.steps;
  j["thread_ms_per_step"] = 1000 * p.threads * p.wall_seconds / static_cast<double>(p.steps);
  j["outside_ms_per_step"] = 1000 * outside_seconds(p) / static_cast<double>(p.steps);
  for (size_t u = 0; u < kMacUnits; ++u) j["peak_gmacs_per_second"][kUnitNames[u]] = giga(p.peaks[u]);
  j["memory_gb_per_second"] = {{"read", giga(p.bandwidth.read)},
                               {"read_write", giga(p.bandwidth.read_write)},
                               {"triad", giga(p.bandwidth.triad)}};
  j["passes"] = nlohmann::ordered_json::array();
  for (const ZoneTotal& z : p.passes) {
    nlohmann::ordered_json row = {{"name", z.name}};
    row.update(row_json(z, p));
    row["share"] = z.self_seconds / (p.threads * p.wall_seconds);
    j["passes"].push_back(row);
  }
  j["layers"] = nlohmann::ordered_json::array();
  const auto found = by_layer(p);
  for (const UnitSpec& unit : network.units) {
    const auto layer = found.find(unit.name);
    if (layer == found.end()) continue;
    nlohmann::ordered_json row = {{"name", unit.name}};
    for (const auto& [zone, z] : layer->second) row["passes"][zone] = row_json(*z, p);
    j["layers"].push_back(row);
  }
  return j;
}

}  // namespace nibble::apps
