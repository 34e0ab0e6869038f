// What follows a sum while it is in registers: bias, residual and activation cost no pass over memory of their own.

namespace nnlite {
namespace {

// What an activation keeps a sum within: anything where there is none.
struct Bounds {
    vec low, high;

    NNLITE_INLINE explicit Bounds(const Activation& act)
        : low(splat(act.kind == no_activation ? -__builtin_inff() : act.low)),
          high(splat(act.kind == no_activation ? __builtin_inff() : act.high)) {}

    // `v < low ? low : v` and not max(v, low): a NaN must stay one, whichever operand an instruction prefers.
    NNLITE_INLINE vec within(vec v) const {
        v = v < low ? low : v;
        return v > high ? high : v;
    }
};

}  // namespace
}  // namespace nnlite
