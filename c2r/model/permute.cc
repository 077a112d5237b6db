// Rewrites the tensors and the config of a checkpoint for another order of the experts.
#include "c2r/model/permute.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <string>
#include <system_error>
#include <vector>

#include "c2r/core/error.h"
#include "c2r/io/file.h"
#include "c2r/io/json.h"
#include "c2r/io/matrix_json.h"
#include "c2r/io/safetensors.h"
#include "c2r/io/temporaries.h"

namespace c2r {
namespace {

using Order = std::vector<std::size_t>;  // new expert -> old expert

// The tensors of a checkpoint that change.
struct Changes {
  std::map<std::string, std::string, std::less<>> sources;  // new name -> old name
  std::map<std::string, Order, std::less<>> row_orders;     // tensors with a row for each expert
};

Order order_of(const PlanLayer& layer, std::int32_t num_experts, std::string_view place) {
  Order order;
  std::vector<int> copies(static_cast<std::size_t>(num_experts));
  const Matrix<ExpertId> slots = with_wasted_slots(layer.placement, layer.wasted_slots);
  for (const ExpertId e : slots.all()) {
    order.push_back(index(e));
    ++copies[index(e)];
  }
  for (std::size_t e = 0; e < copies.size(); ++e) {
    C2R_REQUIRE(copies[e] == 1, kInvalidFile,
                "{}, layer {}: expert {} has {} slots, but a checkpoint has each expert once",
                place, layer.layer_index, e, copies[e]);
  }
  return order;
}

void add_layer(const ModelConfig& config, std::int32_t layer, const Order& order,
               Changes& changes) {
  const MoeTensorNames& names = config.family->tensors;
  const std::string prefix = fmt::format("model.layers.{}.", layer);
  for (const auto pattern : {names.expert_gate, names.expert_up, names.expert_down}) {
    for (std::size_t e = 0; e < order.size(); ++e) {
      changes.sources[prefix + fmt::format(fmt::runtime(pattern), e)] =
          prefix + fmt::format(fmt::runtime(pattern), order[e]);
    }
  }
  // The last matrix of the gate has one row for each expert.
  const bool has_second = config.family->gate == GateKind::kTanhMlp;
  changes.row_orders[prefix + std::string(has_second ? names.second_gate : names.gate)] = order;
  if (!config.family->gate_noise.empty()) {
    changes.row_orders[prefix + std::string(config.family->gate_noise)] = order;
  }
}

// Replaces the collaborator lists of config.json by those of the plan.
void use_lists_of(const Plan& plan, Json& json) {
  if (!plan.top_t) return;
  json["top_t"] = *plan.top_t;
  Json& layers = json["collaborative_list"] = Json::array();
  for (const PlanLayer& layer : plan.layers) {
    layers.push_back(matrix_to_json(layer.collaborators));
  }
}

// Reorders sizes and collaborator lists as their experts, and gives collaborators their new ids.
void permute_config(const ModelConfig& config, std::span<const Order> orders, Json& json) {
  for (std::size_t l = 0; l < orders.size(); ++l) {
    const Order& order = orders[l];
    const auto permute = [&](Json& row) {
      const Json old = row;
      for (std::size_t e = 0; e < order.size(); ++e) row[e] = old[order[e]];
    };
    const auto layer = static_cast<std::size_t>(config.moe_layers[l]);
    const auto has = [&](const char* key) { return json.contains(key) && !json[key].is_null(); };
    if (config.family->is_sliced && has("size_experts")) {
      permute(json["size_experts"][layer]);
    }
    if (!has("collaborative_list")) continue;
    Json& lists = json["collaborative_list"][l];
    permute(lists);
    std::vector<std::size_t> new_id(order.size());
    for (std::size_t e = 0; e < order.size(); ++e) new_id[order[e]] = e;
    for (Json& list : lists) {
      for (Json& e : list) e = new_id.at(e.get<std::size_t>());
    }
  }
}

void write_rows(const TensorView& view, const Order& order, AtomicFile& file) {
  const std::size_t row_bytes = view.bytes.size() / order.size();
  for (const std::size_t row : order) file.write(view.bytes.subspan(row * row_bytes, row_bytes));
}

// The bytes of tensors written so far, and in all.
struct BytesDone {
  Progress& progress;
  std::int64_t done = 0, total = 0;

  void add(std::size_t num_bytes) {
    done += static_cast<std::int64_t>(num_bytes);
    progress.update(done, total);
  }
};

void write_shard(const Checkpoint& checkpoint, const SafetensorsFile& shard, const Changes& changes,
                 const std::filesystem::path& path, BytesDone& bytes) {
  std::vector<TensorToWrite> tensors;
  for (const auto& [name, unused] : shard.tensors()) {
    const auto source = changes.sources.find(name);
    const TensorView& view =
        checkpoint.tensor(source == changes.sources.end() ? name : source->second);
    const auto order = changes.row_orders.find(name);
    tensors.push_back(
        {.name = name,
         .dtype = view.dtype,
         .shape = view.shape,
         .write = [&view, &bytes, order, end = changes.row_orders.end()](AtomicFile& file) {
           if (order == end) {
             file.write(view.bytes);
           } else {
             write_rows(view, order->second, file);
           }
           bytes.add(view.bytes.size());
         }});
  }
  write_safetensors(path, std::move(tensors), {shard.metadata().begin(), shard.metadata().end()});
}

// Copies the files that hold no tensors.
void copy_other_files(const std::filesystem::path& from, const std::filesystem::path& to) {
  std::error_code error;
  for (std::filesystem::directory_iterator entry(from, error), end; !error && entry != end;
       entry.increment(error)) {
    const auto& path = entry->path();
    std::error_code ignored;  // a link without a target is skipped
    if (!entry->is_regular_file(ignored) || path.extension() == ".safetensors") continue;
    std::filesystem::copy_file(path, to / path.filename(), error);
    C2R_REQUIRE(!error, kInvalidFile, "cannot copy '{}': {}", path.string(), error.message());
  }
  C2R_REQUIRE(!error, kInvalidFile, "cannot read the folder '{}': {}", from.string(),
              error.message());
}

// A temporary folder, which is removed unless it was renamed to its final path.
class NewFolder {
 public:
  explicit NewFolder(std::filesystem::path path) : path_(std::move(path)) {
    if (path_.filename().empty()) path_ = path_.parent_path();  // "folder/"
    C2R_REQUIRE(!path_exists(path_), kInvalidArgument, "'{}' exists already", path_.string());
    remove_leftovers(path_);
    while (!make_temporary()) {
    }
  }
  NewFolder(const NewFolder&) = delete;
  NewFolder& operator=(const NewFolder&) = delete;
  ~NewFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(temporary_, ignored);
    forget_temporary(temporary_);
    ::close(lock_);
  }

  const std::filesystem::path& path() const { return temporary_; }
  void commit() {
    std::error_code error;
    std::filesystem::rename(temporary_, path_, error);
    C2R_REQUIRE(!error, kInvalidFile, "cannot make the folder '{}': {}", path_.string(),
                error.message());
  }

 private:
  // @returns false if another name has to be tried
  bool make_temporary() {
    std::error_code error;
    bool is_made = false;  // false without an error: the folder exists already
    temporary_ = temporary_file_path(path_);
    add_temporary(temporary_,
                  [&] { is_made = std::filesystem::create_directory(temporary_, error); });
    if (is_made) {
      lock_ = ::open(temporary_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
      if (lock_ < 0) {
        error.assign(errno, std::system_category());
        ::rmdir(temporary_.c_str());
      } else if (lock_temporary(lock_)) {
        return true;
      } else {
        ::close(lock_);
      }
    }
    forget_temporary(temporary_);
    C2R_REQUIRE(!error, kInvalidFile, "cannot make the folder '{}': {}", path_.string(),
                error.message());
    return false;
  }

  std::filesystem::path path_, temporary_;
  int lock_ = -1;
};

}  // namespace

void permute_checkpoint(const Model& model, const Plan& plan, std::string_view place,
                        const std::filesystem::path& output, Progress& progress) {
  const ModelConfig& config = model.config();
  check_plan_is_for(plan, place, config);
  Changes changes;
  std::vector<Order> orders;
  for (const PlanLayer& layer : plan.layers) {
    orders.push_back(order_of(layer, config.num_experts, place));
    add_layer(config, layer.layer_index, orders.back(), changes);
  }
  Json json = read_json_file(model.folder() / "config.json");
  use_lists_of(plan, json);
  permute_config(config, orders, json);

  NewFolder folder(output);
  BytesDone bytes{.progress = progress};
  for (const SafetensorsFile& shard : model.checkpoint().shards()) {
    for (const auto& [name, view] : shard.tensors()) bytes.total += std::ssize(view.bytes);
  }
  for (const SafetensorsFile& shard : model.checkpoint().shards()) {
    const auto name = std::filesystem::path(shard.path()).filename();
    write_shard(model.checkpoint(), shard, changes, folder.path() / name, bytes);
  }
  copy_other_files(model.folder(), folder.path());
  write_text_file(folder.path() / "config.json", json_text(json, 1) + "\n");
  (void)Model(folder.path());  // checks the new model; the old one was checked when it was opened
  folder.commit();
}

}  // namespace c2r
