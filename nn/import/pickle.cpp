#include "nn/import/pickle.hpp"

#include <algorithm>
#include <string_view>
#include <unordered_map>

#include "engine/error.hpp"

namespace nibble {

namespace {

constexpr size_t kMostValues = size_t{1} << 20;  // the weights of a ResNet-152 take 40 thousand
constexpr size_t kHighestStack = size_t{1} << 22;

using Kind = PickleValue::Kind;

}  // namespace

/// The machine that a pickle is a program for: a stack of values, marks in it, and a memo.
class PickleReader {
 public:
  PickleReader(Pickle& pickle, std::span<const std::byte> bytes, const std::string& source)
      : pickle_(pickle), bytes_(bytes), source_(source) {}

  void run() {
    while (step(next())) {
    }
    pickle_.root_ = pop();
    pickle_.at_ = at_;
  }

 private:
  [[noreturn]] void refuse(const std::string& what) const {
    throw ModelError(
        "'{}' holds a pickle that cannot be read: {} at byte {}; save the model's state_dict() with "
        "torch.save",
        source_, what, at_);
  }

  uint8_t next() {
    if (at_ >= bytes_.size()) refuse("it is cut");
    return static_cast<uint8_t>(bytes_[at_++]);
  }
  /// Little-endian.
  uint64_t number(int bytes) {
    uint64_t value = 0;
    for (int i = 0; i < bytes; ++i) value |= static_cast<uint64_t>(next()) << (8 * i);
    return value;
  }
  std::string text(uint64_t length) {
    if (length > bytes_.size() - at_) refuse("a text is longer than what is left");
    std::string result(reinterpret_cast<const char*>(bytes_.data() + at_), length);
    at_ += length;
    return result;
  }
  /// Up to the next newline, which is not part of it.
  std::string line() {
    const auto* begin = reinterpret_cast<const char*>(bytes_.data());
    const std::string_view rest(begin + at_, bytes_.size() - at_);
    const size_t length = rest.find('\n');
    if (length == rest.npos) refuse("a line does not end");
    at_ += length + 1;
    return std::string(rest.substr(0, length));
  }

  void push(PickleRef ref) {
    if (stack_.size() >= kHighestStack) refuse("its stack is too high");
    stack_.push_back(ref);
  }
  PickleRef add(PickleValue value) {
    if (pickle_.values_.size() >= kMostValues) refuse("it has more than a million values");
    pickle_.values_.push_back(std::move(value));
    return static_cast<PickleRef>(pickle_.values_.size() - 1);
  }
  void push_new(Kind kind, std::vector<PickleRef> items = {}) { push(add({.kind = kind, .items = std::move(items)})); }
  void push_text(std::string t, Kind kind = Kind::kText) { push(add({.kind = kind, .text = std::move(t)})); }
  void push_number(int64_t n, Kind kind = Kind::kInt) { push(add({.kind = kind, .number = n})); }

  size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }
  PickleRef top() const {
    if (stack_.size() <= floor()) refuse("a value is missing");
    return stack_.back();
  }
  PickleRef pop() {
    const PickleRef ref = top();
    stack_.pop_back();
    return ref;
  }
  std::vector<PickleRef> pop(size_t n) {
    if (stack_.size() - floor() < n) refuse("a value is missing");
    std::vector<PickleRef> items(stack_.end() - static_cast<std::ptrdiff_t>(n), stack_.end());
    stack_.resize(stack_.size() - n);
    return items;
  }
  std::vector<PickleRef> pop_to_mark() {
    if (marks_.empty()) refuse("a mark is missing");
    std::vector<PickleRef> items = pop(stack_.size() - marks_.back());
    marks_.pop_back();
    return items;
  }

  void remember(uint64_t index) {
    if (memo_.size() >= kMostValues) refuse("it remembers more than a million values");
    memo_[index] = top();
  }
  void recall(uint64_t index) {
    const auto found = memo_.find(index);
    if (found == memo_.end()) refuse("it recalls a value that it never had");
    push(found->second);
  }

  /// Onto the value on top: into a list, or pairs into a dictionary or the result of a call.
  void put(const std::vector<PickleRef>& items, bool pairs) {
    PickleValue& value = pickle_.values_[top()];
    const bool takes = value.kind == Kind::kCall || value.kind == (pairs ? Kind::kDict : Kind::kList);
    if (!takes || (pairs && items.size() % 2 != 0)) refuse("items are put into what does not take them");
    value.items.insert(value.items.end(), items.begin(), items.end());
  }

  void call(PickleRef callable, PickleRef arguments) { push_new(Kind::kCall, {callable, arguments}); }
  void call_top(size_t surplus) {  // NEWOBJ_EX has keyword arguments on top, which no tensor has
    if (surplus > 0) pop();
    const PickleRef arguments = pop(), callable = pop();
    call(callable, arguments);
  }

  void push_long(uint64_t length) {
    const std::string raw = text(length);
    if (raw.size() > 8) return push_text(raw, Kind::kOther);
    uint64_t value = !raw.empty() && (static_cast<uint8_t>(raw.back()) & 0x80) != 0 ? ~uint64_t{0} : 0;
    for (size_t i = raw.size(); i-- > 0;) value = value << 8 | static_cast<uint8_t>(raw[i]);
    push_number(static_cast<int64_t>(value));
  }

  void push_reference(PickleRef id) {
    push_new(Kind::kReference, {id});
    pickle_.references_.push_back(stack_.back());
  }

  std::string text_of(PickleRef ref) const {
    const PickleValue& v = pickle_.values_[ref];
    if (v.kind != Kind::kText) refuse("the name of a class is no text");
    return v.text;
  }

  /// One instruction; false: STOP.
  bool step(uint8_t opcode) {
    switch (opcode) {
      case 0x80:  // PROTO
        if (next() > 5) refuse("its protocol is above 5");
        return true;
      case 0x95:  // FRAME
        number(8);
        return true;
      case '.':  // STOP
        return false;
      case '(':  // MARK
        if (marks_.size() >= kMostValues) refuse("it has more than a million marks");
        marks_.push_back(stack_.size());
        return true;
      case '0':  // POP
        pop();
        return true;
      case '1':  // POP_MARK
        pop_to_mark();
        return true;
      case '2':  // DUP
        push(top());
        return true;
      default:
        if (!step_scalar(opcode) && !step_container(opcode) && !step_object(opcode))
          refuse(fmt::format("opcode 0x{:02x}", opcode));
        return true;
    }
  }

  bool step_scalar(uint8_t opcode) {
    switch (opcode) {
      case 'N':  // NONE
        push_new(Kind::kNone);
        return true;
      case 0x88:  // NEWTRUE
      case 0x89:  // NEWFALSE
        push_number(opcode == 0x88, Kind::kBool);
        return true;
      case 'J':  // BININT
        push_number(static_cast<int32_t>(number(4)));
        return true;
      case 'K':  // BININT1
        push_number(static_cast<int64_t>(number(1)));
        return true;
      case 'M':  // BININT2
        push_number(static_cast<int64_t>(number(2)));
        return true;
      case 0x8a:  // LONG1
        push_long(number(1));
        return true;
      case 0x8b:  // LONG4
        push_long(number(4));
        return true;
      case 'G':  // BINFLOAT
        number(8);
        push_new(Kind::kOther);
        return true;
      case 'U':   // SHORT_BINSTRING
      case 'C':   // SHORT_BINBYTES
      case 0x8c:  // SHORT_BINUNICODE
        push_text(text(number(1)));
        return true;
      case 'T':  // BINSTRING
      case 'B':  // BINBYTES
      case 'X':  // BINUNICODE
        push_text(text(number(4)));
        return true;
      case 0x8d:  // BINUNICODE8
      case 0x8e:  // BINBYTES8
        push_text(text(number(8)));
        return true;
      default:
        return false;
    }
  }

  bool step_container(uint8_t opcode) {
    switch (opcode) {
      case ')':  // EMPTY_TUPLE
        push_new(Kind::kTuple);
        return true;
      case 0x85:  // TUPLE1
      case 0x86:  // TUPLE2
      case 0x87:  // TUPLE3
        push_new(Kind::kTuple, pop(static_cast<size_t>(opcode - 0x84)));
        return true;
      case 't':  // TUPLE
        push_new(Kind::kTuple, pop_to_mark());
        return true;
      case ']':   // EMPTY_LIST
      case 0x8f:  // EMPTY_SET
        push_new(Kind::kList);
        return true;
      case 'l':   // LIST
      case 0x91:  // FROZENSET
        push_new(Kind::kList, pop_to_mark());
        return true;
      case '}':  // EMPTY_DICT
        push_new(Kind::kDict);
        return true;
      case 'd':  // DICT
        push_new(Kind::kDict, pop_to_mark());
        return true;
      case 'a':  // APPEND
        put(pop(1), /*pairs=*/false);
        return true;
      case 'e':   // APPENDS
      case 0x90:  // ADDITEMS
        put(pop_to_mark(), /*pairs=*/false);
        return true;
      case 's':  // SETITEM
        put(pop(2), /*pairs=*/true);
        return true;
      case 'u':  // SETITEMS
        put(pop_to_mark(), /*pairs=*/true);
        return true;
      case 'h':  // BINGET
        recall(number(1));
        return true;
      case 'j':  // LONG_BINGET
        recall(number(4));
        return true;
      case 'q':  // BINPUT
        remember(number(1));
        return true;
      case 'r':  // LONG_BINPUT
        remember(number(4));
        return true;
      case 0x94:  // MEMOIZE
        remember(memo_.size());
        return true;
      default:
        return false;
    }
  }

  bool step_object(uint8_t opcode) {
    switch (opcode) {
      case 'c': {  // GLOBAL
        const std::string module = line();
        push_text(module + "." + line(), Kind::kGlobal);
        return true;
      }
      case 0x93: {  // STACK_GLOBAL
        const std::string name = text_of(pop()), module = text_of(pop());
        push_text(module + "." + name, Kind::kGlobal);
        return true;
      }
      case 'R':   // REDUCE
      case 0x81:  // NEWOBJ
        call_top(0);
        return true;
      case 0x92:  // NEWOBJ_EX
        call_top(1);
        return true;
      case 'b':  // BUILD: the state of an object, which is of no use here
        pop();
        top();
        return true;
      case 'Q':  // BINPERSID
        push_reference(pop());
        return true;
      default:
        return false;
    }
  }

  Pickle& pickle_;
  std::span<const std::byte> bytes_;
  const std::string& source_;
  size_t at_ = 0;
  std::vector<PickleRef> stack_;
  std::vector<size_t> marks_;
  std::unordered_map<uint64_t, PickleRef> memo_;
};

Pickle::Pickle(std::span<const std::byte> bytes, std::string source) {
  PickleReader(*this, bytes, source).run();
}

}  // namespace nibble
