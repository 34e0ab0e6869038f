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

// Where a worker may wake up. The kernel of Linux likes to wake it on the core of the thread that calls it, which
// is about to be busy: it would wait there, next to an idle core, for milliseconds (measured: a second thread of
// no use for the first five layers after every pause). So it wakes anywhere else, and may then run anywhere.
class Placement {
   public:
#ifdef __linux__
    void away_from_here(pthread_t thread) {
        const int here = sched_getcpu();
        if (here < 0 || here >= CPU_SETSIZE || pthread_getaffinity_np(thread, sizeof all_, &all_)) return;
        cpu_set_t others = all_;
        CPU_CLR(here, &others);
        moved_ = CPU_COUNT(&others) > 0 && !pthread_setaffinity_np(thread, sizeof others, &others);
    }
    void anywhere() {
        if (moved_) pthread_setaffinity_np(pthread_self(), sizeof all_, &all_);
        moved_ = false;
    }

   private:
    cpu_set_t all_;
    bool moved_ = false;
#else
    void away_from_here(pthread_t) {}
    void anywhere() {}
#endif
};

class Pool {
    struct Worker {
        std::thread thread;
        Placement placement;
        bool asleep = false;
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
        {
            std::lock_guard<std::mutex> lock(mutex_);
            open_ = true;
            job_.fetch_add(1, std::memory_order_release);
            for (Worker& worker : workers_)
                if (worker.asleep) worker.placement.away_from_here(worker.thread.native_handle());
        }
        wake_.notify_all();
        work();
        // A worker that has not joined by now is not waited for: on a busy machine it may wake late.
        std::unique_lock<std::mutex> lock(mutex_);
        open_ = false;
        if (joined_.load() > 0) {
            lock.unlock();
            spin_until([this] { return joined_.load(std::memory_order_acquire) == 0; });
            lock.lock();
            done_.wait(lock, [this] { return joined_.load() == 0; });
        }
        return true;
    }

   private:
    void work() {
        inside_pool = true;
        for (;;) {
            const int64_t begin = next_.fetch_add(grain_, std::memory_order_relaxed);
            if (begin >= items_) break;
            call_(body_, begin, begin + grain_ < items_ ? begin + grain_ : items_);
        }
        inside_pool = false;
    }

    void serve(Worker& self) {
        const FlushDenormals flush;
        uint64_t seen = 0;
        for (;;) {
            spin_until([&] { return job_.load(std::memory_order_acquire) != seen; });
            {
                std::unique_lock<std::mutex> lock(mutex_);
                self.asleep = true;
                wake_.wait(lock, [&] { return stop_ || job_.load() != seen; });
                self.asleep = false;
                if (stop_) return;
                self.placement.anywhere();
                seen = job_.load();
                if (!open_) continue;  // too late for this job, in time for the next
                joined_.fetch_add(1);
            }
            work();
            std::lock_guard<std::mutex> lock(mutex_);
            if (joined_.fetch_sub(1) == 1) done_.notify_one();
        }
    }

    void resize(size_t count) {
        if (workers_.size() == count) return;
        {
            std::lock_guard<std::mutex> lock(mutex_);
            stop_ = true;
            job_.fetch_add(1);  // ends the spinning
        }
        wake_.notify_all();
        for (Worker& worker : workers_) worker.thread.join();
        workers_.clear();
        stop_ = false;
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
    std::mutex mutex_;  // guards open_, stop_ and sleeping
    std::condition_variable wake_, done_;
    std::atomic<uint64_t> job_{0};
    std::atomic<int> joined_{0};
    bool open_ = false, stop_ = false;
    std::deque<Worker> workers_;  // each stays where it is

    int64_t items_ = 0, grain_ = 1;
    ChunkFunction call_ = nullptr;
    const void* body_ = nullptr;
    std::atomic<int64_t> next_{0};
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
