// The stack machine that a pickle is a program of, without the instructions that call anything.
//
// Instructions push values, collect those above a mark into containers, and keep copies in a memo.
// Two look like calls: BINPERSID stands for a storage of the archive and REDUCE for one of four
// constructors, which are written out here. Every instruction adds at most one value to the stack,
// so memory is bounded by the pickle's bytes, and by limits of its own.
#include <algorithm>
#include <bit>

#include "c2r/core/error.h"
#include "c2r/core/shown.h"
#include "c2r/import/torch/pickle_globals_internal.h"
#include "c2r/import/torch/pickle_internal.h"

namespace c2r::torch {
namespace {

constexpr std::size_t kMaxValues = std::size_t{1} << 26, kMaxObjects = std::size_t{1} << 24,
                      kMaxTensors = std::size_t{1} << 20, kMaxMarks = 1000;

class PickleMachine {
 public:
  PickleMachine(std::span<const std::byte> pickle, std::string_view place)
      : pickle_(pickle), place_(place) {}

  Objects run() {
    while (!is_done_) {
      instruction_at_ = at_;
      step(static_cast<unsigned char>(number(1)));
      C2R_REQUIRE(stack_.size() <= kMaxValues && num_values_ <= kMaxValues, kInvalidFile,
                  "{}: has more than {} values", here(), kMaxValues);
    }
    return std::move(objects_);
  }

 private:
  std::string here() const { return fmt::format("{} at byte {}", place_, instruction_at_); }

  // The next `num_bytes` as a number without sign.
  std::uint64_t number(std::size_t num_bytes) {
    const std::string_view bytes = text(num_bytes);
    std::uint64_t value = 0;
    for (std::size_t i = num_bytes; i > 0; --i) {
      value = value << 8 | static_cast<unsigned char>(bytes[i - 1]);
    }
    return value;
  }

  std::string_view text(std::size_t num_bytes) {
    C2R_REQUIRE(num_bytes <= pickle_.size() - at_, kInvalidFile,
                "{}: is cut off: {} bytes are to be read, but {} are left", here(), num_bytes,
                pickle_.size() - at_);
    const auto* const begin = reinterpret_cast<const char*>(pickle_.data()) + at_;
    at_ += num_bytes;
    return {begin, num_bytes};
  }

  std::string_view line() {
    const auto rest = pickle_.subspan(at_);
    const auto end = std::ranges::find(rest, std::byte{'\n'});
    C2R_REQUIRE(end != rest.end(), kInvalidFile, "{}: a name is cut off", here());
    const std::string_view word = text(static_cast<std::size_t>(end - rest.begin()));
    ++at_;
    return word;
  }

  void step(unsigned char opcode) {
    if (push_constant(opcode) || push_number(opcode) || build_container(opcode) ||
        fill_container(opcode) || use_memo(opcode)) {
      return;
    }
    switch (opcode) {
      case 0x80:  // PROTO
        (void)number(1);
        break;
      case '(':  // MARK
        C2R_REQUIRE(marks_.size() < kMaxMarks, kInvalidFile, "{}: is nested deeper than {}", here(),
                    kMaxMarks);
        marks_.push_back(stack_.size());
        break;
      case 'c':  // GLOBAL
        push_global();
        break;
      case 'Q':  // BINPERSID
        push_storage();
        break;
      case 'R':  // REDUCE
        construct();
        break;
      case 'b':  // BUILD: attributes of a dict, such as _metadata of a state_dict, which are not
                 // used
        (void)pop();
        (void)container(top(), Kind::kDict);
        break;
      case '.':  // STOP
        objects_.root = pop();
        is_done_ = true;
        break;
      default:
        C2R_THROW(
            kInvalidFile,
            "{}: the instruction {:#04x} is none that torch.save() writes for tensors and plain "
            "containers",
            here(), opcode);
    }
  }

  bool push_constant(unsigned char opcode) {
    switch (opcode) {
      case 'N':
        return push({Kind::kNone});
      case 0x88:
        return push({Kind::kBool, 1});
      case 0x89:
        return push({Kind::kBool, 0});
      case ')':
        return push(new_container(Kind::kTuple));
      case ']':
        return push(new_container(Kind::kList));
      case '}':
        return push(new_container(Kind::kDict));
      default:
        return false;
    }
  }

  bool push_number(unsigned char opcode) {
    switch (opcode) {
      case 'K':  // BININT1
        return push({Kind::kInteger, static_cast<std::int64_t>(number(1))});
      case 'M':  // BININT2
        return push({Kind::kInteger, static_cast<std::int64_t>(number(2))});
      case 'J':  // BININT
        return push({Kind::kInteger, static_cast<std::int32_t>(number(4))});
      case 0x8a:  // LONG1
        return push(long_integer(number(1)));
      case 'G':  // BINFLOAT: big-endian
        return push({Kind::kFloat, static_cast<std::int64_t>(__builtin_bswap64(number(8)))});
      case 'X': {  // BINUNICODE
        const std::string_view string = text(number(4));
        return push({Kind::kString, add(objects_.strings, string, kMaxObjects, "strings")});
      }
      default:
        return false;
    }
  }

  // A little-endian integer in two's complement.
  Value long_integer(std::size_t num_bytes) {
    if (num_bytes > 8) {
      (void)text(num_bytes);
      return {Kind::kBigInteger};
    }
    if (num_bytes == 0) return {Kind::kInteger, 0};
    const auto unused_bits = static_cast<int>(64 - 8 * num_bytes);
    return {Kind::kInteger,
            static_cast<std::int64_t>(number(num_bytes) << unused_bits) >> unused_bits};
  }

  bool build_container(unsigned char opcode) {
    switch (opcode) {
      case 0x85:  // TUPLE1 to TUPLE3
      case 0x86:
      case 0x87: {
        const auto size = std::size_t{opcode} - 0x84;
        C2R_REQUIRE(stack_.size() - floor() >= size, kInvalidFile,
                    "{}: takes {} values from a stack of {}", here(), size,
                    stack_.size() - floor());
        return push_tuple(stack_.size() - size);
      }
      case 't':  // TUPLE
        return push_tuple(pop_mark());
      default:
        return false;
    }
  }

  bool push_tuple(std::size_t begin) {
    const Value tuple = new_container(Kind::kTuple);
    move_values(begin, container(tuple, Kind::kTuple));
    return push(tuple);
  }

  bool fill_container(unsigned char opcode) {
    const bool is_list = opcode == 'a' || opcode == 'e', is_dict = opcode == 's' || opcode == 'u';
    if (!is_list && !is_dict) return false;
    std::size_t begin = 0;
    if (opcode == 'e' || opcode == 'u') {  // APPENDS, SETITEMS
      begin = pop_mark();
    } else {  // APPEND, SETITEM
      const std::size_t size = is_list ? 1 : 2;
      C2R_REQUIRE(stack_.size() - floor() > size, kInvalidFile,
                  "{}: takes {} values from a stack of {}", here(), size, stack_.size() - floor());
      begin = stack_.size() - size;
    }
    C2R_REQUIRE(begin > floor(), kInvalidFile, "{}: there is no container to fill", here());
    C2R_REQUIRE(is_list || (stack_.size() - begin) % 2 == 0, kInvalidFile,
                "{}: a dict is given a key without a value", here());
    move_values(begin, container(stack_[begin - 1], is_list ? Kind::kList : Kind::kDict));
    return true;
  }

  bool use_memo(unsigned char opcode) {
    switch (opcode) {
      case 'h':  // BINGET
        return push(memo(number(1)));
      case 'j':  // LONG_BINGET
        return push(memo(number(4)));
      case 'q':  // BINPUT
        return keep(number(1));
      case 'r':  // LONG_BINPUT
        return keep(number(4));
      default:
        return false;
    }
  }

  Value memo(std::uint64_t key) {
    C2R_REQUIRE(key < memo_.size(), kInvalidFile, "{}: takes the value {} from a memo of {}",
                here(), key, memo_.size());
    return memo_[key];
  }

  // Python numbers what it keeps without gaps.
  bool keep(std::uint64_t key) {
    C2R_REQUIRE(key <= memo_.size(), kInvalidFile, "{}: keeps the value {} in a memo of {}", here(),
                key, memo_.size());
    if (key == memo_.size()) memo_.emplace_back();
    memo_[key] = top();
    return true;
  }

  void push_global() {
    const std::string_view module = line(), name = line();
    const auto* const row = std::ranges::find_if(
        kGlobals, [&](const GlobalRow& r) { return r.module == module && r.name == name; });
    const auto* const refused = std::ranges::find_if(
        kRefusedNames, [&](const RefusedName& r) { return r.module == module && r.name == name; });
    C2R_REQUIRE(refused == std::end(kRefusedNames), kUnsupported, "{}: holds {}", here(),
                refused->what);
    C2R_REQUIRE(row != std::end(kGlobals), kInvalidFile,
                "{}: names {}.{}, but only tensors, numbers, strings, lists, tuples and dicts are "
                "read; nothing was executed",
                here(), shown(module), shown(name));
    push({Kind::kGlobal, row - std::begin(kGlobals)});
  }

  const GlobalRow& global(const Value& value) const {
    require_kind(value, Kind::kGlobal);
    return kGlobals[value.number];
  }

  // ("storage", its class, key, device, number of elements)
  void push_storage() {
    const auto id = container(pop(), Kind::kTuple);
    C2R_REQUIRE(
        id.size() == 5 && string(id[0]) == "storage" && global(id[1]).global == Global::kStorage,
        kInvalidFile, "{}: refers to something that is no storage of a tensor", here());
    const Storage storage{global(id[1]).dtype, string(id[2]), integer(id[4])};
    push({Kind::kStorage, add(storages_, storage, kMaxTensors, "storages")});
  }

  void construct() {
    const auto arguments = container(pop(), Kind::kTuple);
    const GlobalRow& row = global(pop());
    switch (row.global) {
      case Global::kOrderedDict:
        C2R_REQUIRE(arguments.empty(), kInvalidFile,
                    "{}: an OrderedDict with arguments is not read", here());
        push(new_container(Kind::kDict));
        return;
      case Global::kSize:
        C2R_REQUIRE(arguments.size() == 1, kInvalidFile, "{}: torch.Size has {} arguments, not 1",
                    here(), arguments.size());
        require_kind(arguments[0], Kind::kTuple);
        push(arguments[0]);
        return;
      case Global::kTensorV2:
      case Global::kTensorV3:
        push({Kind::kTensor,
              add(objects_.tensors, tensor_of(row, arguments), kMaxTensors, "tensors")});
        return;
      default:
        C2R_THROW(kInvalidFile, "{}: {}.{} cannot be called", here(), row.module, row.name);
    }
  }

  // (storage, offset, shape, strides, requires_grad, hooks[, dtype][, metadata]); v3 has the dtype.
  Tensor tensor_of(const GlobalRow& row, const std::vector<Value>& arguments) {
    const bool has_dtype = row.global == Global::kTensorV3;
    C2R_REQUIRE(arguments.size() >= (has_dtype ? 7 : 6) && arguments.size() <= 8, kInvalidFile,
                "{}: a tensor is made of {} values", here(), arguments.size());
    require_kind(arguments[0], Kind::kStorage);
    Tensor tensor{.storage = storages_[static_cast<std::size_t>(arguments[0].number)],
                  .offset = integer(arguments[1])};
    for (const Value& extent : container(arguments[2], Kind::kTuple)) {
      tensor.shape.push_back(integer(extent));
    }
    for (const Value& stride : container(arguments[3], Kind::kTuple)) {
      tensor.strides.push_back(integer(stride));
    }
    for (const Value& more : std::span(arguments).subspan(has_dtype ? 7 : 6)) {
      if (more.kind == Kind::kNone) continue;
      C2R_REQUIRE(container(more, Kind::kDict).empty(), kUnsupported,
                  "{}: holds a tensor whose elements are to be negated or conjugated when they are "
                  "read: save it with .resolve_neg() or .resolve_conj()",
                  here());
    }
    const auto dtype = has_dtype ? global(arguments[6]).dtype : tensor.storage.dtype;
    C2R_REQUIRE(dtype.has_value() && has_dtype == !tensor.storage.dtype.has_value(), kInvalidFile,
                "{}: the type of a tensor's elements is not known", here());
    tensor.dtype = *dtype;
    return tensor;
  }

  // The lowest position that may be popped.
  std::size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }

  const Value& top() const {
    C2R_REQUIRE(stack_.size() > floor(), kInvalidFile, "{}: takes a value from an empty stack",
                here());
    return stack_.back();
  }

  Value pop() {
    const Value value = top();
    stack_.pop_back();
    return value;
  }

  bool push(Value value) {
    stack_.push_back(value);
    return true;
  }

  std::size_t pop_mark() {
    C2R_REQUIRE(!marks_.empty(), kInvalidFile, "{}: there is no mark", here());
    const std::size_t begin = marks_.back();
    marks_.pop_back();
    return begin;
  }

  void move_values(std::size_t begin, std::vector<Value>& container) {
    const auto from = stack_.begin() + static_cast<std::ptrdiff_t>(begin);
    num_values_ += stack_.size() - begin;
    container.insert(container.end(), from, stack_.end());
    stack_.erase(from, stack_.end());
  }

  Value new_container(Kind kind) {
    return {kind, add(objects_.containers, {}, kMaxObjects, "containers")};
  }

  template <class Container>
  std::int64_t add(Container& all, typename Container::value_type one, std::size_t max,
                   std::string_view what) {
    C2R_REQUIRE(all.size() < max, kInvalidFile, "{}: has more than {} {}", here(), max, what);
    all.push_back(std::move(one));
    return std::ssize(all) - 1;
  }

  void require_kind(const Value& value, Kind kind) const {
    C2R_REQUIRE(value.kind == kind, kInvalidFile, "{}: expects {}, but has {}", here(),
                kind_text(kind), kind_text(value.kind));
  }

  std::vector<Value>& container(const Value& value, Kind kind) {
    require_kind(value, kind);
    return objects_.containers[static_cast<std::size_t>(value.number)];
  }

  std::string_view string(const Value& value) const {
    require_kind(value, Kind::kString);
    return objects_.strings[static_cast<std::size_t>(value.number)];
  }

  std::int64_t integer(const Value& value) const {
    require_kind(value, Kind::kInteger);
    return value.number;
  }

  std::span<const std::byte> pickle_;
  std::string_view place_;
  std::size_t at_ = 0, instruction_at_ = 0;
  bool is_done_ = false;
  std::vector<Value> stack_, memo_;
  std::vector<std::size_t> marks_;  // sizes of the stack
  std::size_t num_values_ = 0;      // in containers
  std::vector<Storage> storages_;
  Objects objects_;
};

}  // namespace

Objects read_pickle(std::span<const std::byte> pickle, std::string_view place) {
  return PickleMachine(pickle, place).run();
}

}  // namespace c2r::torch
