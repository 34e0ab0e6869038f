// What the machine can do at best: fused multiply-adds on registers alone, for the roofline.

namespace nnlite {
namespace {

constexpr int probe_chains = 12;  // more than latency times throughput of any FMA unit so far
constexpr int64_t probe_flops_per_round = 2 * probe_chains * VL;

// Returns a value that depends on every operation, so that none can be left out.
float fma_rounds(int64_t rounds) {
    vec sums[probe_chains];
    // Every loop over the chains is unrolled: an array that is indexed by a variable lives in memory.
#pragma GCC unroll 12
    for (int i = 0; i < probe_chains; ++i) sums[i] = splat(1.0f + static_cast<float>(i));
    vec a = splat(0.999999f), b = splat(1e-6f);
    for (int64_t round = 0; round < rounds; ++round) {
        // Opaque to the compiler, which could otherwise work the chain out in advance.
        asm volatile("" : "+m"(a), "+m"(b) : :);
        const vec factor = a, addend = b;
#pragma GCC unroll 12
        for (int i = 0; i < probe_chains; ++i) sums[i] = fma(sums[i], factor, addend);
    }
    vec total = sums[0];
#pragma GCC unroll 12
    for (int i = 1; i < probe_chains; ++i) total += sums[i];
    return total[0];
}

}  // namespace
}  // namespace nnlite
