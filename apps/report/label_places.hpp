// Where a picture's labels go: on nothing that must be seen, across as few lines as can be, nearest to their own mark.
#pragma once
#include <optional>
#include <vector>

namespace nibble::apps {

struct Box {
  double x0 = 0, y0 = 0, x1 = 0, y1 = 0;
  bool meets(const Box& b) const { return x0 < b.x1 && b.x0 < x1 && y0 < b.y1 && b.y0 < y1; }
  bool inside(const Box& b) const { return x0 >= b.x0 && x1 <= b.x1 && y0 >= b.y0 && y1 <= b.y1; }
};

struct Segment {
  double x0 = 0, y0 = 0, x1 = 0, y1 = 0;
  bool meets(const Box& b) const;
};

/// A mark that wants a label. Units are those of the picture.
struct LabelledMark {
  double x = 0, y = 0;
  double reach = 0;  // of its error bar, up and down
  double width = 0;  // of the label
  int owner = 0;     // the series it belongs to
};

struct LabelPlace {
  Box box;
  std::optional<Segment> leader = std::nullopt;  // from the mark to a label that stands apart
};

class LabelPlaces {
 public:
  explicit LabelPlaces(const Box& area) : area_(area) {}

  /// Nothing may cover it.
  void take(const Box& box) { taken_.push_back(box); }
  /// A mark and its error bar: taken, though another's leader may cross the bar, and no other mark's label shall look
  /// like its own.
  void take_mark(double x, double y, double reach);
  /// A line of this owner: a label crosses it where it must, another owner's label less gladly.
  void avoid(const Segment& line, int owner) { lines_.push_back({line, owner}); }

  bool free(const Box& box) const;

  /// A place for each mark's label, in their order; none where there is no room. Those with the fewest places choose
  /// first. Time: marks x places (8, then 112) x what is taken.
  std::vector<std::optional<LabelPlace>> place(const std::vector<LabelledMark>& marks);

 private:
  struct Line {
    Segment segment;
    int owner = 0;
  };
  std::vector<LabelPlace> beside(const LabelledMark& mark) const;
  std::vector<LabelPlace> apart(const LabelledMark& mark) const;
  bool possible(const LabelledMark& mark, const LabelPlace& place) const;
  double cost(const LabelledMark& mark, const LabelPlace& place) const;
  std::optional<LabelPlace> best(const LabelledMark& mark, const std::vector<LabelPlace>& places) const;

  Box area_;
  std::vector<Box> taken_;
  std::vector<Box> bars_;
  std::vector<Box> marks_;
  std::vector<Line> lines_;
};

}  // namespace nibble::apps
