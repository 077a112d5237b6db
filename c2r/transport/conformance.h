// The test suite that every transport must pass. The test file of each transport instantiates it.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <ostream>
#include <string>
#include <thread>
#include <vector>

#include "c2r/core/error.h"
#include "c2r/transport/collectives.h"
#include "c2r/transport/transport.h"

namespace c2r {

struct TransportCase {
  std::string name;             // of the test: letters, digits and underscores
  std::int32_t num_ranks_here;  // the ranks of this process: all ranks, or 1 under mpirun
  // Calls `body` once for each rank of this process, with transports of this timeout, and rethrows
  // the exception of a body.
  std::function<void(std::chrono::milliseconds timeout,
                     const std::function<void(Transport&)>& body)>
      run;

  friend void PrintTo(const TransportCase& c, std::ostream* out) { *out << c.name; }
};

class TransportConformance : public ::testing::TestWithParam<TransportCase> {
 protected:
  // For tests in which no wait times out; long, because the machine may be busy.
  static void run(const std::function<void(Transport&)>& body) {
    std::atomic<std::int32_t> num_ranks_done = 0;
    GetParam().run(std::chrono::seconds(60), [&](Transport& t) {
      body(t);
      barrier(t, "the end of the test");
      ++num_ranks_done;
    });
    EXPECT_EQ(num_ranks_done, GetParam().num_ranks_here);
  }

  // The messages with which the ranks of this process fail, if all of them do.
  static std::vector<std::string> failures(const std::function<void(Transport&)>& body) {
    std::mutex mutex;
    std::vector<std::string> messages;
    const auto remember = [&](Transport& t) {
      try {
        body(t);
      } catch (const Error& e) {
        const std::lock_guard lock(mutex);
        messages.emplace_back(e.what());
        throw;
      }
    };
    EXPECT_THROW(GetParam().run(std::chrono::milliseconds(500), remember), Error);
    EXPECT_EQ(std::ssize(messages), GetParam().num_ranks_here)
        << "a rank hung or carried on without its peer";
    return messages;
  }
};

using Bytes = std::vector<std::byte>;

// `size` bytes that encode their sender, receiver, exchange and position, so that no two parts are
// equal by coincidence.
inline Bytes marked(std::int64_t src, std::int64_t dst, std::int64_t exchange, std::int64_t size) {
  Bytes bytes(static_cast<std::size_t>(size));
  const std::size_t seed = static_cast<std::size_t>(src * 131 + dst * 31 + exchange * 17 + 1);
  constexpr std::size_t kPeriod = 65536;
  const std::size_t first = std::min(bytes.size(), kPeriod);
  for (std::size_t i = 0; i < first; ++i) bytes[i] = std::byte(seed + i * 7 + (i >> 8));
  for (std::size_t i = first; i < bytes.size(); i += kPeriod) {
    std::memcpy(&bytes[i], bytes.data(), std::min(kPeriod, bytes.size() - i));
  }
  return bytes;
}

// An exchange with its memory, in which rank s sends size(s, d) bytes to rank d.
class MarkedExchange {
 public:
  using Size = std::function<std::int64_t(std::int64_t src, std::int64_t dst)>;

  MarkedExchange(Transport& t, const Size& size, std::int64_t id = 0) : rank_(t.rank()) {
    const auto me = std::int64_t(index(t.rank()));
    for (std::int64_t peer = 0; peer < t.ep_size(); ++peer) {
      sent_.push_back(marked(me, peer, id, size(me, peer)));
      expected_.push_back(marked(peer, me, id, size(peer, me)));
      received_.emplace_back(expected_.back().size());
    }
    std::vector<Outgoing> send;
    std::vector<Incoming> recv;
    for (std::int32_t peer = t.ep_size() - 1; peer >= 0; --peer) {  // any order will do
      send.push_back({RankId{peer}, sent_[std::size_t(peer)]});
      recv.push_back({RankId{peer}, received_[std::size_t(peer)]});
    }
    exchange_ = t.start(send, recv, "exchange " + std::to_string(id));
  }

  Exchange& exchange() { return *exchange_; }
  void check() const {
    for (std::size_t peer = 0; peer < expected_.size(); ++peer) {
      const Bytes &received = received_[peer], &expected = expected_[peer];
      EXPECT_TRUE(expected.empty() ||
                  std::memcmp(received.data(), expected.data(), expected.size()) == 0)
          << "rank " << index(rank_) << ", from rank " << peer;
    }
  }

 private:
  RankId rank_;
  std::vector<Bytes> sent_, expected_, received_;  // [ep_size]
  std::unique_ptr<Exchange> exchange_;             // last: destroyed before what it borrows
};

TEST_P(TransportConformance, DeliversEveryPartToItsRank) {
  run([](Transport& t) {
    const auto size = [](std::int64_t src, std::int64_t dst) { return (src * 5 + dst * 3) % 11; };
    MarkedExchange marked(t, size);
    marked.exchange().wait();
    marked.check();
  });
}

// All ranks send to one, which sends nothing, as to the rank of an expert that every token chooses.
TEST_P(TransportConformance, LetsOneRankReceiveEverythingFromAll) {
  run([](Transport& t) {
    for (std::int64_t hot = 0; hot < t.ep_size(); ++hot) {
      std::vector<std::unique_ptr<MarkedExchange>> in_flight;
      for (std::int64_t id = 0; id < 4; ++id) {
        const auto size = [&](std::int64_t src, std::int64_t dst) -> std::int64_t {
          return dst == hot ? (id % 2 == 0 ? 1'000'000 : 100) + src : 0;
        };
        in_flight.push_back(std::make_unique<MarkedExchange>(t, size, id));
      }
      for (const auto& marked : in_flight) {
        marked->exchange().wait();
        marked->check();
      }
    }
  });
}

TEST_P(TransportConformance, FinishesWhilePolledWithoutWaiting) {
  run([](Transport& t) {
    MarkedExchange marked(t, [](std::int64_t src, std::int64_t) { return 300'000 + src; });
    while (!marked.exchange().done()) std::this_thread::yield();
    marked.check();
    EXPECT_TRUE(marked.exchange().done());
    marked.exchange().wait();  // returns at once, because the exchange is done
  });
}

TEST_P(TransportConformance, KeepsExchangesInFlightApart) {
  run([](Transport& t) {
    // Small and large parts alternate, because many libraries send them in different ways.
    std::vector<std::unique_ptr<MarkedExchange>> in_flight;
    for (std::int64_t id = 0; id < 24; ++id) {
      const auto size = [id](std::int64_t src, std::int64_t dst) {
        return id % 3 == 0 ? 70'000 + src - dst : (src + 2 * dst + id) % 5;
      };
      in_flight.push_back(std::make_unique<MarkedExchange>(t, size, id));
    }
    while (!in_flight.empty()) {
      in_flight.back()->exchange().wait();
      in_flight.back()->check();
      in_flight.pop_back();
    }
  });
}

TEST_P(TransportConformance, MatchesPartsBetweenTwoRanksInTheirOrder) {
  run([](Transport& t) {
    const RankId next{std::int32_t(index(t.rank()) + 1) % t.ep_size()};
    const RankId previous{std::int32_t(index(t.rank()) + std::size_t(t.ep_size()) - 1) %
                          t.ep_size()};
    const auto me = std::int64_t(index(t.rank()));
    const Bytes first = marked(me, 1, 0, 40), second = marked(me, 2, 0, 100'000);
    Bytes from_first(first.size()), from_second(second.size());
    const std::vector<Outgoing> send{{next, first}, {next, {}}, {next, second}};
    const std::vector<Incoming> recv{{previous, from_first}, {previous, from_second}};
    t.start(send, recv, "two parts")->wait();
    EXPECT_EQ(from_first, marked(std::int64_t(index(previous)), 1, 0, 40));
    EXPECT_EQ(from_second, marked(std::int64_t(index(previous)), 2, 0, 100'000));
  });
}

TEST_P(TransportConformance, CarriesPartsOfManyMegabytes) {
  run([](Transport& t) {
    // Larger than the limits of all transports for one message, and a multiple of none of them.
    const auto size = [&](std::int64_t src, std::int64_t dst) {
      return dst == (src + 1) % t.ep_size() ? 20'000'007 + src : 0;
    };
    MarkedExchange marked(t, size);
    marked.exchange().wait();
    marked.check();
  });
}

TEST_P(TransportConformance, LeavesARankWithNothingToSayAlone) {
  run([](Transport& t) {
    const auto idle = std::int64_t{t.ep_size() - 1};
    if (std::int64_t(index(t.rank())) == idle) return;  // does not even take part
    MarkedExchange marked(t, [idle](std::int64_t src, std::int64_t dst) {
      return src == idle || dst == idle ? 0 : 100 + src;
    });
    marked.exchange().wait();
    marked.check();
  });
}

TEST_P(TransportConformance, LetsSubGroupsExchangeOnTheirOwn) {
  run([](Transport& t) {
    // Nodes of two ranks. Each node makes another number of exchanges, then all ranks one more.
    const auto node = std::int64_t(index(t.rank())) / 2;
    for (std::int64_t id = 0; id <= node; ++id) {
      MarkedExchange inside(
          t, [](auto src, auto dst) { return src / 2 == dst / 2 ? 50 + src : 0; }, id);
      inside.exchange().wait();
      inside.check();
    }
    MarkedExchange everywhere(
        t, [](auto src, auto dst) { return 1 + src + dst; }, 100);
    everywhere.exchange().wait();
    everywhere.check();
  });
}

TEST_P(TransportConformance, CountsMessagesAndBytesToEachOtherRank) {
  run([](Transport& t) {
    const auto me = std::int64_t(index(t.rank()));
    const auto size = [](std::int64_t src, std::int64_t dst) -> std::int64_t {
      return (src + dst) % 3 * 1000;
    };
    for (std::int64_t id = 0; id < 2; ++id) MarkedExchange(t, size, id).exchange().wait();
    std::vector<std::int64_t> values(5);
    all_reduce(t, values, Reduction::kSum, "five values");
    barrier(t, "barrier");
    for (std::int64_t peer = 0; peer < t.ep_size(); ++peer) {
      const bool is_other = peer != me;
      const std::int64_t num_parts = size(me, peer) > 0 ? 2 : 0;
      EXPECT_EQ(t.sent().num_messages[std::size_t(peer)], is_other ? num_parts + 2 : 0);
      EXPECT_EQ(t.sent().num_bytes[std::size_t(peer)],
                is_other ? 2 * size(me, peer) + std::int64_t{5} * 8 + 1 : 0);
    }
  });
}

TEST_P(TransportConformance, ReducesOverAllRanks) {
  run([](Transport& t) {
    const auto me = std::int64_t(index(t.rank())), n = std::int64_t{t.ep_size()};
    std::vector<std::int64_t> values{me, 1, std::int64_t{1} << 40, -me};
    all_reduce(t, values, Reduction::kSum, "sum");
    EXPECT_EQ(values, (std::vector<std::int64_t>{n * (n - 1) / 2, n, n << 40, -n * (n - 1) / 2}));
    values = {me, 7, -1 - me};
    all_reduce(t, values, Reduction::kMax, "maximum");
    EXPECT_EQ(values, (std::vector<std::int64_t>{n - 1, 7, -1}));
    values.clear();
    all_reduce(t, values, Reduction::kMax, "nothing");
  });
}

TEST_P(TransportConformance, ScattersAndGathersPartsOfAnySize) {
  run([](Transport& t) {
    const auto me = std::int32_t(index(t.rank())), n = t.ep_size();
    const auto part_of = [](std::int32_t rank) {  // rank 2 has none
      return std::vector<std::int32_t>(std::size_t(rank == 2 ? 0 : 1 + rank * 1000), rank);
    };
    std::vector<std::vector<std::int32_t>> parts;
    for (std::int32_t rank = 0; me == 0 && rank < n; ++rank) parts.push_back(part_of(rank));
    const auto got = scatter<std::int32_t>(t, parts, "scatter");
    EXPECT_EQ(got, part_of(me));
    EXPECT_EQ(gather<std::int32_t>(t, got, "collect"), parts);
  });
}

TEST_P(TransportConformance, RefusesARankThatDoesNotExist) {
  run([](Transport& t) {
    const Bytes bytes(1);
    const std::vector<Outgoing> send{{RankId{t.ep_size()}, bytes}};
    try {
      (void)t.start(send, {}, "layer 0");
      ADD_FAILURE() << "expected an Error";
    } catch (const Error& e) {
      EXPECT_EQ(e.what(),
                fmt::format("layer 0: there is no rank {0} in a group of {0}", t.ep_size()));
    }
  });
}

// In the tests below every rank must fail.

TEST_P(TransportConformance, FailsEverywhereWhenSizesDisagree) {
  const std::size_t piece = std::size_t{8} << 20;  // the size of one message of the MPI transport
  struct Case {
    std::size_t num_sent, num_expected;
  };
  for (const Case c : {Case{2, 1}, Case{1, 2}, Case{100'000, 70'000}, Case{piece, piece + 1},
                       Case{piece + 1, piece}}) {
    SCOPED_TRACE(fmt::format("{} sent, {} expected", c.num_sent, c.num_expected));
    const auto messages = failures([&](Transport& t) {
      // Rank 0 sends to the next one, or itself, and all others wait for both.
      const RankId next{1 % t.ep_size()};
      const Bytes sent(c.num_sent);
      Bytes received(c.num_expected);
      const std::vector<Outgoing> send{{next, sent}};
      const std::vector<Incoming> recv{{RankId{0}, received}};
      const bool sends = t.rank() == RankId{0}, receives = t.rank() == next;
      t.start(sends ? send : std::vector<Outgoing>{}, receives ? recv : std::vector<Incoming>{},
              "layer 3 dispatch")
          ->wait();
      barrier(t, "layer 3 end");
    });
    for (const std::string& message : messages) {
      EXPECT_NE(message.find("layer 3"), std::string::npos) << message;
      EXPECT_NE(message.find("rank "), std::string::npos) << message;
    }
  }
}

TEST_P(TransportConformance, FailsEverywhereWhenLabelsDisagree) {
  const auto messages = failures([](Transport& t) {
    const Bytes sent(8);
    Bytes received(8);
    const RankId previous{std::int32_t(index(t.rank()) + std::size_t(t.ep_size()) - 1) %
                          t.ep_size()};
    const std::vector<Outgoing> send{
        {RankId{std::int32_t(index(t.rank()) + 1) % t.ep_size()}, sent}};
    const std::vector<Incoming> recv{{previous, received}};
    auto dispatch =
        t.start(send, {}, index(t.rank()) == 0 ? "layer 3 combine" : "layer 3 dispatch");
    t.start({}, recv, "layer 3 dispatch")->wait();
    dispatch->wait();
    barrier(t, "layer 3 end");
  });
  for (const std::string& message : messages) {
    EXPECT_NE(message.find("layer 3"), std::string::npos) << message;
  }
}

TEST_P(TransportConformance, NamesALatePeer) {
  failures([](Transport& t) {
    // No rank sends: rank 0 waits for the last rank, and the other ranks wait for rank 0.
    Bytes received(64);
    const RankId awaited{index(t.rank()) == 0 ? t.ep_size() - 1 : 0};
    const std::vector<Incoming> recv{{awaited, received}};
    try {
      t.start({}, recv, "layer 7 combine")->wait();
    } catch (const Error& e) {
      const std::string message = e.what();
      EXPECT_TRUE(message.starts_with("layer 7 combine: ")) << message;
      EXPECT_TRUE(awaited != RankId{0} || message.find("rank 0") != std::string::npos) << message;
      EXPECT_THROW((void)t.start({}, {}, "next"), Error);
      throw;
    }
  });
}

TEST_P(TransportConformance, FailsOnEveryRankWhenOnePeerFails) {
  const auto messages = failures([](Transport& t) {
    MarkedExchange in_flight(t, [](std::int64_t, std::int64_t dst) { return 100 + dst; });
    if (index(t.rank()) == 0) throw Error(ErrorCode::kInvalidFile, "the shard is lost");
    in_flight.exchange().wait();
    barrier(t, "layer 3 dispatch");
  });
  for (const std::string& message : messages) {
    EXPECT_TRUE(message == "the shard is lost" || message.find("rank 0") != std::string::npos)
        << message;
  }
}

TEST_P(TransportConformance, LeavesTheMemoryOfAnExchangeThatWasGivenUp) {
  failures([](Transport& t) {
    const Bytes sent(1000);
    std::unique_ptr<Exchange> sending;
    const std::vector<Outgoing> send{{RankId{0}, sent}};
    if (t.rank() == RankId{t.ep_size() - 1}) sending = t.start(send, {}, "given up");
    if (t.rank() == RankId{0}) {
      // The part of the last rank must not be written to freed memory when it arrives.
      Bytes received(1000);
      const std::vector<Incoming> recv{{RankId{t.ep_size() - 1}, received}};
      (void)t.start({}, recv, "given up");
    }
    barrier(t, "layer 3 dispatch");  // fails, because rank 0 cannot start it any more
  });
}

}  // namespace c2r
