// What follows a sum while it is in registers: bias, residual and activation cost no pass over memory of their own.

namespace nnlite {
namespace {

// `v < low ? low : v` and not max(v, low): a NaN must stay one, whichever operand an instruction prefers.
NNLITE_INLINE vec activated(vec v, const Activation& act) {
    if (act.kind == no_activation) return v;
    const vec low = splat(act.low), high = splat(act.high);
    v = v < low ? low : v;
    return v > high ? high : v;
}

}  // namespace
}  // namespace nnlite
