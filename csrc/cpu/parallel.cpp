#include "parallel.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <system_error>
#include <thread>

#include "dispatch.h"

namespace nnlite {
namespace {

std::atomic<int> wanted_threads{1};
thread_local bool inside_pool = false;

inline void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Layers follow each other within microseconds: look for the next job a little before going to sleep.
constexpr auto spin_time = std::chrono::microseconds(50);

template <class Condition>
bool spin_until(const Condition& condition) {
    const auto end = std::chrono::steady_clock::now() + spin_time;
    do {
        for (int i = 0; i < 64; ++i) {
            if (condition()) return true;
            pause();
        }
    } while (std::chrono::steady_clock::now() < end);
    return false;
}

// Which core the calling thread runs on, or -1.
int this_core() {
#ifdef __linux__
    return sched_getcpu();
#else
    return -1;
#endif
}

// Where a worker may run. The kernel of Linux likes to wake a thread on the core of the one that wakes it, which is
// about to be busy: a worker would wait there, next to an idle core, for milliseconds (measured: a second thread of
// no use for the first five layers after every pause). So it is sent to any other core, and may then run anywhere.
class Placement {
   public:
    bool moved() const { return moved_.load(std::memory_order_relaxed); }
#ifdef __linux__
    void away_from(int core, pthread_t thread) {
        if (core < 0 || core >= CPU_SETSIZE) return;
        // Sent away before and not run since, it is not yet back to where it may be.
        if (!moved() && pthread_getaffinity_np(thread, sizeof all_, &all_)) return;
        cpu_set_t others = all_;
        CPU_CLR(core, &others);
        if (CPU_COUNT(&others) > 0 && !pthread_setaffinity_np(thread, sizeof others, &others)) moved_.store(true);
    }
    void anywhere() {
        pthread_setaffinity_np(pthread_self(), sizeof all_, &all_);
        moved_.store(false);
    }

   private:
    cpu_set_t all_;
#else
    void away_from(int, pthread_t) {}
    void anywhere() {}

   private:
#endif
    std::atomic<bool> moved_{false};
};

class Pool {
    struct Worker {
        std::thread thread;
        Placement placement;
        std::atomic<bool> asleep{false};
        std::atomic<int> core{-1};  // where it was last seen awake
    };

   public:
    // Runs all chunks and returns true, or returns false where another thread has the pool.
    bool run(int64_t items, int64_t grain, ChunkFunction call, const void* body) {
        std::unique_lock<std::mutex> mine(user_, std::try_to_lock);
        if (!mine.owns_lock()) return false;
        resize(static_cast<size_t>(wanted_threads.load()) - 1);
        if (workers_.empty()) return false;

        items_ = items, grain_ = grain, call_ = call, body_ = body;
        next_.store(0, std::memory_order_relaxed);
        state_.fetch_add(one_job | open);
        wake_workers();
        work();
        // A worker that has not joined by now is not waited for: on a busy machine it may wake late.
        state_.fetch_and(~open);
        const auto all_left = [this] { return joined(state_.load()) == 0; };
        if (!spin_until(all_left)) {
            std::unique_lock<std::mutex> lock(mutex_);
            waiting_.store(true);
            done_.wait(lock, all_left);
            waiting_.store(false);
        }
        return true;
    }

   private:
    // What threads agree on, in one word: the number of the job, how many workers have joined it, and whether they
    // still may. While all are awake a job needs no lock.
    static constexpr uint64_t open = 1, one_worker = 2, one_job = uint64_t{1} << 32;
    static uint64_t job(uint64_t state) { return state / one_job; }
    static uint64_t joined(uint64_t state) { return state % one_job / one_worker; }

    void work() {
        inside_pool = true;
        for (;;) {
            const int64_t begin = next_.fetch_add(grain_, std::memory_order_relaxed);
            if (begin >= items_) break;
            call_(body_, begin, begin + grain_ < items_ ? begin + grain_ : items_);
        }
        inside_pool = false;
    }

    // The state was changed before it looks who sleeps; who goes to sleep says so before it looks at the state.
    void wake_workers() {
        const int here = this_core();
        bool any_asleep = false;
        for (Worker& worker : workers_) {
            const bool asleep = worker.asleep.load();
            if (!asleep && (worker.core.load(std::memory_order_relaxed) != here || here < 0)) continue;
            std::lock_guard<std::mutex> lock(mutex_);
            worker.placement.away_from(here, worker.thread.native_handle());
            any_asleep |= asleep;
        }
        if (any_asleep) wake_.notify_all();
    }

    void await_job(Worker& self, uint64_t seen) {
        const auto posted = [&] {
            return job(state_.load()) != seen;
        };
        self.core.store(this_core(), std::memory_order_relaxed);
        if (!spin_until(posted)) {
            std::unique_lock<std::mutex> lock(mutex_);
            self.asleep.store(true);
            wake_.wait(lock, posted);
            self.asleep.store(false);
        }
        if (self.placement.moved()) {
            std::lock_guard<std::mutex> lock(mutex_);
            self.placement.anywhere();
        }
    }

    void serve(Worker& self) {
        const FlushDenormals flush;
        uint64_t seen = 0;
        for (;;) {
            await_job(self, seen);
            if (stop_.load()) return;
            uint64_t state = state_.load();
            bool joins = false;
            while (state & open && !joins) joins = state_.compare_exchange_weak(state, state + one_worker);
            seen = job(state);
            if (!joins) continue;  // too late for this job, in time for the next
            work();
            state_.fetch_sub(one_worker);
            if (waiting_.load()) {
                std::lock_guard<std::mutex> lock(mutex_);
                done_.notify_one();
            }
        }
    }

    void resize(size_t count) {
        if (workers_.size() == count) return;
        {
            std::lock_guard<std::mutex> lock(mutex_);
            stop_.store(true);
            state_.fetch_add(one_job);  // ends the spinning
        }
        wake_.notify_all();
        for (Worker& worker : workers_) worker.thread.join();
        workers_.clear();
        stop_.store(false);
        // Workers take no signals: Python's handlers belong to threads that Python knows.
        sigset_t all, before;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        try {
            while (workers_.size() < count) {
                Worker& worker = workers_.emplace_back();
                worker.thread = std::thread([this, &worker] { serve(worker); });
            }
        } catch (const std::system_error&) {
            workers_.pop_back();
            // The system gives no more threads: those that are there do the work.
            wanted_threads.store(static_cast<int>(workers_.size()) + 1);
        }
        pthread_sigmask(SIG_SETMASK, &before, nullptr);
    }

    std::mutex user_;   // held by the thread whose job runs
    std::mutex mutex_;  // guards going to sleep, and placements
    std::condition_variable wake_, done_;
    alignas(64) std::atomic<uint64_t> state_{0};
    std::atomic<bool> waiting_{false};  // for workers to leave
    std::atomic<bool> stop_{false};
    std::deque<Worker> workers_;  // each stays where it is

    int64_t items_ = 0, grain_ = 1;
    ChunkFunction call_ = nullptr;
    const void* body_ = nullptr;
    alignas(64) std::atomic<int64_t> next_{0};
};

// Never destroyed: joining threads while a process exits is how libraries hang. After fork() the child
// has the pool's memory but none of its threads, and perhaps a mutex that is locked for ever: it
// forgets that pool and makes its own.
std::atomic<Pool*> current{nullptr};

void forget_pool() {
    current.store(nullptr);
    inside_pool = false;
}

Pool& pool() {
    Pool* known = current.load();
    if (known) return *known;
    static const int registered = pthread_atfork(nullptr, nullptr, forget_pool);
    (void)registered;
    Pool* fresh = new Pool;
    if (current.compare_exchange_strong(known, fresh)) return *fresh;
    delete fresh;  // another thread was first; this one has started no threads yet
    return *known;
}

}  // namespace

void set_num_threads(int threads) { wanted_threads.store(threads > 1 ? threads : 1); }
int num_threads() { return wanted_threads.load(); }

void run_chunks(int64_t items, int64_t grain, ChunkFunction call, const void* body) {
    if (items <= 0) return;
    const bool alone = inside_pool || items <= grain || wanted_threads.load() < 2;
    if (!alone && pool().run(items, grain, call, body)) return;
    // Chunk by chunk here too: a body may take its chunk's number from `begin`.
    for (int64_t begin = 0; begin < items; begin += grain)
        call(body, begin, begin + grain < items ? begin + grain : items);
}

}  // namespace nnlite
