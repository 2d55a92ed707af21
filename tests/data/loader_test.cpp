// Sampler and loaders: order, independence of threads, resuming, bad images, shutdown.
#include "data/loader.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <new>
#include <numeric>
#include <set>
#include <thread>

#include "data/prefetch.hpp"
#include "engine/error.hpp"
#include "tests/data/images.hpp"
#include "tests/host_float_mode.hpp"

namespace nibble {
namespace {

using testing::formula_image;
using testing::hash_of;

// n images; those in `bad` are refused, `broken` fails like a disk, `damaged` comes with a warning.
class FakeSet : public Dataset {
 public:
  explicit FakeSet(int64_t n) : n_(n) {}
  std::set<int64_t> bad, damaged;
  int64_t broken = -1;
  std::chrono::microseconds delay{0};
  mutable std::atomic<int> reads{0};
#if defined(__x86_64__)
  mutable std::atomic<bool> in_host_mode{false};  // on the thread that read last
#endif

  int64_t size() const override {
    return n_;
  }
  const std::vector<std::string>& class_names() const override {
    static const std::vector<std::string> names = {"even", "odd"};
    return names;
  }
  int label(int64_t i) const override {
    return static_cast<int>(i % 2);
  }
  std::string path(int64_t i) const override {
    return "image" + std::to_string(i);
  }
  Image read(int64_t i) const override {
    ++reads;
#if defined(__x86_64__)
    in_host_mode = testing::HostFloatMode::in_force();
#endif
    std::this_thread::sleep_for(delay);
    if (bad.contains(i)) throw DataError("cannot decode image{}: it is made to fail", i);
    if (i == broken) throw DiskError("cannot read image{}: it is made to fail", i);
    Image image = formula_image(20 + static_cast<int>(i % 7), 15 + static_cast<int>(i % 5));
    if (damaged.contains(i)) image.warning = "made to warn";
    return image;
  }

 private:
  int64_t n_;
};

struct Seen {
  int64_t epoch, position;
  std::vector<int64_t> indices;
  std::vector<int32_t> labels;
  uint64_t hash;
  bool operator==(const Seen&) const = default;
};

Seen seen(const Batch& b) {
  return {b.epoch, b.position, b.indices, b.labels, hash_of({b.images.data<uint8_t>(), b.images.bytes()})};
}

TrainLoaderArgs args_for(DatasetPtr set, int workers) {
  return {.dataset = std::move(set),
          .batch_size = 8,
          .transform = {.size = 12, .min_crop = 0.3f, .flip = true},
          .seed = 5,
          .workers = workers,
          .prefetch = 2};
}

std::vector<Seen> take(TrainLoader& loader, int count) {
  std::vector<Seen> all;
  for (int i = 0; i < count; ++i) all.push_back(seen(loader.next()));
  return all;
}

std::vector<std::string> paths(const std::vector<ImageNote>& notes) {
  std::vector<std::string> all;
  for (const ImageNote& n : notes) all.push_back(n.path);
  return all;
}

TEST_CASE("a training batch is its epoch's part of the order, each image augmented by seed, epoch and index") {
  const auto set = std::make_shared<FakeSet>(53);
  const TrainLoaderArgs args = args_for(set, 2);
  TrainLoader loader(args);
  int64_t last_epoch = 0;
  for (int i = 0; i < 15; ++i) {  // two epochs and a half
    const Batch b = loader.next();
    const std::vector<uint32_t> order = epoch_order(53, args.seed, b.epoch);
    for (size_t s = 0; s < 8; ++s) {
      const int64_t index = order[static_cast<size_t>(b.position) * 8 + s];
      CHECK(b.indices[s] == index);
      CHECK(b.labels[s] == index % 2);
      std::vector<uint8_t> expected(12 * 12 * 3);
      augment_train(set->read(index), args.transform, {.seed = args.seed, .epoch = b.epoch, .index = index},
                    expected.data());
      CHECK(std::equal(expected.begin(), expected.end(), b.images.data<uint8_t>() + s * expected.size()));
    }
    last_epoch = b.epoch;
  }
  CHECK(last_epoch == 2);
}

TEST_CASE("an epoch's order is a permutation that depends on seed and epoch") {
  const std::vector<uint32_t> order = epoch_order(1000, 1, 2);
  std::vector<uint32_t> sorted = order;
  std::sort(sorted.begin(), sorted.end());
  std::vector<uint32_t> identity(1000);
  std::iota(identity.begin(), identity.end(), 0u);
  CHECK(sorted == identity);
  CHECK(order == epoch_order(1000, 1, 2));
  CHECK(order != epoch_order(1000, 1, 3));
  CHECK(order != epoch_order(1000, 2, 2));
  CHECK(epoch_order(0, 0, 0).empty());
}

TEST_CASE("the shuffle is the same on every machine and has no bias") {
  CHECK(epoch_order(8, 0, 0) == std::vector<uint32_t>{6, 5, 1, 0, 7, 3, 4, 2});
  // Where element 0 lands in 6000 shuffles of 6: each place 1000 times, five standard deviations are 145.
  std::vector<int> place(6);
  for (int64_t e = 0; e < 6000; ++e) {
    const auto order = epoch_order(6, 9, e);
    ++place[static_cast<size_t>(std::find(order.begin(), order.end(), 0u) - order.begin())];
  }
  for (const int n : place) CHECK(std::abs(n - 1000) < 145);
}

TEST_CASE("a sampler needs one whole batch and drops the rest of an epoch") {
  CHECK(Sampler({.size = 23, .batch_size = 8, .seed = 0}).batches_per_epoch() == 2);
  CHECK_THROWS_AS(Sampler({.size = 7, .batch_size = 8, .seed = 0}), UsageError);
  CHECK_THROWS_AS(Sampler({.size = 7, .batch_size = 0, .seed = 0}), UsageError);
  const Sampler s({.size = 23, .batch_size = 8, .seed = 3});
  for (const int64_t epoch : {0, 1, 2, 1, 0, 5, 1}) CHECK(*s.order(epoch) == epoch_order(23, 3, epoch));
}

TEST_CASE("batches are the same for any number of threads and any depth") {
  const auto set = std::make_shared<FakeSet>(53);
  set->bad = {3, 4, 5, 17};
  TrainLoader one(args_for(set, 1));
  const std::vector<Seen> expected = take(one, 15);
  CHECK(expected[0].epoch == 0);
  CHECK(expected[6].epoch == 1);
  CHECK(expected[6].position == 0);
  for (const int workers : {2, 3, 5}) {
    TrainLoaderArgs args = args_for(set, workers);
    args.prefetch = workers;
    TrainLoader many(args);
    CHECK(take(many, 15) == expected);
    CHECK(paths(many.skipped()) == paths(one.skipped()));
  }
}

#if defined(__x86_64__)
TEST_CASE("batches are the same whatever the float mode of the thread that makes the loader") {
  const auto set = std::make_shared<FakeSet>(53);
  TrainLoader plain(args_for(set, 2));
  const std::vector<Seen> expected = take(plain, 6);
  const testing::HostFloatMode mode;
  TrainLoader loader(args_for(set, 2));
  CHECK(take(loader, 6) == expected);
  CHECK_FALSE(set->in_host_mode);
  CHECK(testing::HostFloatMode::in_force());
}
#endif

TEST_CASE("a loader that starts in the middle continues exactly") {
  const auto set = std::make_shared<FakeSet>(53);
  set->bad = {9};
  TrainLoader whole(args_for(set, 2));
  const std::vector<Seen> expected = take(whole, 16);
  for (const int64_t start : {0, 1, 5, 6, 11}) {
    TrainLoaderArgs args = args_for(set, 2);
    args.start_epoch = start / 6;
    args.start_batch = start % 6;
    TrainLoader resumed(args);
    const std::vector<Seen> rest = take(resumed, 4);
    CHECK(std::equal(rest.begin(), rest.end(), expected.begin() + start));
  }
  TrainLoaderArgs end = args_for(set, 1);
  end.start_batch = 6;  // the end of epoch 0 is the start of epoch 1
  TrainLoader resumed(end);
  CHECK(seen(resumed.next()) == expected[6]);
  end.start_batch = 7;
  CHECK_THROWS_AS(TrainLoader{end}, UsageError);
}

TEST_CASE("an epoch shows every good image at most once more than the bad ones it replaces") {
  for (const std::set<int64_t>& bad : {std::set<int64_t>{}, {3, 4, 17}}) {
    const auto set = std::make_shared<FakeSet>(48);
    set->bad = bad;
    TrainLoader loader(args_for(set, 2));
    std::multiset<int64_t> shown;
    for (int i = 0; i < 6; ++i)
      for (const int64_t index : loader.next().indices) shown.insert(index);
    CHECK(shown.size() == 48);
    for (int64_t i = 0; i < 48; ++i) {
      const size_t least = bad.contains(i) ? 0 : 1, most = bad.contains(i) ? 0 : 1 + bad.size();
      CHECK((shown.count(i) >= least && shown.count(i) <= most));
    }
    CHECK(loader.skipped().size() == bad.size());
  }
}

TEST_CASE("a bad image is replaced by the next good one of the permutation, named once and decoded once") {
  const auto set = std::make_shared<FakeSet>(32);
  const std::vector<uint32_t> order = epoch_order(32, 5, 0);
  set->bad = {order[0], order[1], order[31]};
  TrainLoader loader(args_for(set, 1));
  std::vector<int64_t> shown;
  for (int i = 0; i < 4; ++i)
    for (const int64_t index : loader.next().indices) shown.push_back(index);
  CHECK(shown[0] == order[2]);
  CHECK(shown[1] == order[2]);
  CHECK(shown[2] == order[2]);
  CHECK(shown[31] == order[2]);  // the permutation wraps round
  const std::vector<std::string> expected = {set->path(order[0]), set->path(order[1]), set->path(order[31])};
  CHECK(paths(loader.skipped()) == expected);
  CHECK(loader.skipped()[0].reason.find("made to fail") != std::string::npos);
}

TEST_CASE("with strict data the first bad image is an error, and stays one") {
  const auto set = std::make_shared<FakeSet>(32);
  set->bad = {epoch_order(32, 5, 0)[10]};
  for (const int workers : {1, 3}) {
    TrainLoaderArgs args = args_for(set, workers);
    args.bad_images = BadImages::error;
    TrainLoader loader(args);
    CHECK(loader.next().position == 0);
    CHECK_THROWS_AS(loader.next(), DataError);
    CHECK_THROWS_AS(loader.next(), DataError);
  }
}

TEST_CASE("a disk error stops the loader at its batch") {
  const auto set = std::make_shared<FakeSet>(32);
  set->broken = epoch_order(32, 5, 0)[20];
  TrainLoader loader(args_for(set, 2));
  loader.next();
  loader.next();
  CHECK_THROWS_AS(loader.next(), DiskError);
}

TEST_CASE("a disk error stops an evaluation at its batch, whatever becomes of bad images") {
  const auto set = std::make_shared<FakeSet>(12);
  set->broken = 6;
  for (const BadImages bad : {BadImages::skip, BadImages::error}) {
    EvalLoader loader({.dataset = set, .transform = {.size = 8}, .batch_size = 4, .bad_images = bad});
    const std::optional<Batch> first = loader.next();
    REQUIRE(first.has_value());
    CHECK(first->size() == 4);
    CHECK_THROWS_AS(loader.next(), DiskError);
    CHECK_THROWS_AS(loader.next(), DiskError);
  }
}

TEST_CASE("a set without one good image is a data error that says why") {
  const auto set = std::make_shared<FakeSet>(16);
  for (int64_t i = 0; i < 16; ++i) set->bad.insert(i);
  TrainLoader loader(args_for(set, 2));
  CHECK_THROWS_AS(loader.next(), DataError);
  EvalLoader eval({.dataset = set, .transform = {.size = 8}, .batch_size = 4});
  CHECK_THROWS_AS(eval.next(), DataError);
}

TEST_CASE("evaluation delivers every good image in order, with a last partial batch") {
  const auto set = std::make_shared<FakeSet>(21);
  set->bad = {2, 8, 9, 10, 11, 20};
  set->damaged = {5};
  for (const int workers : {1, 3}) {
    EvalLoader loader({.dataset = set, .transform = {.size = 8}, .batch_size = 4, .workers = workers});
    std::vector<int64_t> shown, sizes;
    while (const auto batch = loader.next()) {
      sizes.push_back(batch->size());
      CHECK(batch->images.shape() == Shape{batch->size(), 8, 8, 3});
      for (size_t i = 0; i < batch->indices.size(); ++i) {
        shown.push_back(batch->indices[i]);
        CHECK(batch->labels[i] == batch->indices[i] % 2);
        std::vector<uint8_t> expected(8 * 8 * 3);
        transform_eval(set->read(batch->indices[i]), {.size = 8}, expected.data());
        CHECK(std::equal(expected.begin(), expected.end(), batch->images.data<uint8_t>() + i * expected.size()));
      }
    }
    CHECK(shown == std::vector<int64_t>{0, 1, 3, 4, 5, 6, 7, 12, 13, 14, 15, 16, 17, 18, 19});
    CHECK(sizes == std::vector<int64_t>{3, 4, 4, 4});
    CHECK(paths(loader.skipped()) ==
          std::vector<std::string>{"image2", "image8", "image9", "image10", "image11", "image20"});
    CHECK(paths(loader.damaged()) == std::vector<std::string>{"image5"});
    CHECK_FALSE(loader.next().has_value());
  }
}

TEST_CASE("an evaluation limit takes the first images") {
  const auto set = std::make_shared<FakeSet>(21);
  EvalLoader loader({.dataset = set, .transform = {.size = 8}, .batch_size = 4, .limit = 6});
  CHECK(loader.images_total() == 6);
  CHECK(loader.next()->size() == 4);
  CHECK(loader.next()->size() == 2);
  CHECK_FALSE(loader.next().has_value());
}

TEST_CASE("loaders shut down cleanly at any time and decode no more than their depth ahead") {
  const auto set = std::make_shared<FakeSet>(64);
  for (int taken = 0; taken < 4; ++taken) {
    TrainLoader loader(args_for(set, 3));
    for (int i = 0; i < taken; ++i) loader.next();
  }
  set->reads = 0;
  {
    TrainLoader idle(args_for(set, 3));
    for (int i = 0; i < 10000 && set->reads == 0; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    CHECK(set->reads > 0);
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    CHECK(set->reads <= 2 * 8);
  }
}

TEST_CASE("waiting time is measured when data is slower than its consumer") {
  const auto set = std::make_shared<FakeSet>(64);
  set->delay = std::chrono::milliseconds(50);
  TrainLoader loader(args_for(set, 1));
  loader.next();
  CHECK(loader.wait_seconds() > 0.03);  // eight images of 50 ms each, some of them before this thread asks
  CHECK(loader.wait_seconds() < 60.0);
}

TEST_CASE("without memory for another batch the loader hands out those it has, and asks again after them") {
  constexpr int64_t kBatches = 5;
  std::set<int64_t> refused;  // the first time that it is asked for, when the batch before it is still in the loader
  bool never = false;
  data_detail::PrefetchArgs args{.workers = 2, .depth = 3, .image_size = 2, .batch_count = kBatches};
  args.slots = [&](int64_t batch) {
    if (never || (batch > 0 && refused.insert(batch).second)) throw std::bad_alloc();
    return int64_t{4};
  };
  args.fill = [](int64_t batch, int64_t, uint8_t* pixels) {
    std::fill_n(pixels, 12, static_cast<uint8_t>(batch));
    data_detail::Slot slot;
    slot.filled = true;
    slot.index = batch;
    return slot;
  };
  data_detail::Prefetcher prefetcher(args);
  for (int64_t batch = 0; batch < kBatches; ++batch) {
    const std::optional<Batch> got = prefetcher.next();
    REQUIRE(got);
    CHECK(got->indices == std::vector<int64_t>(4, batch));
  }
  CHECK_FALSE(prefetcher.next());
  CHECK(refused.size() == kBatches - 1);
  never = true;
  data_detail::Prefetcher without(args);
  CHECK_THROWS_AS(without.next(), std::bad_alloc);
  CHECK_THROWS_AS(without.next(), std::bad_alloc);
}

TEST_CASE("a wrong crop share is reported at construction") {
  TrainLoaderArgs args = args_for(std::make_shared<FakeSet>(64), 1);
  args.transform.min_crop = 0.0f;
  CHECK_THROWS_AS(TrainLoader{args}, UsageError);
  args = args_for(std::make_shared<FakeSet>(64), 0);
  CHECK_THROWS_AS(TrainLoader{args}, UsageError);
}

}  // namespace
}  // namespace nibble
