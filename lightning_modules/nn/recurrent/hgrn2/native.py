"""The recurrence of an HGRN2 layer as C++ for a CPU.

A head's state stays in the core's cache over all steps of a row. Keys are the vector lanes, so that only
the output of a value is a sum over lanes.
"""

import torch
from torch import Tensor

from lightning_modules.nn.recurrent.cell import CPP, Cell, build_kernel

_COMMON = (
    CPP
    + """
#include <vector>
static inline float sum_of(V x) {
    return at::vec::vec_reduce_all<float>([](V& a, V& b) { return a + b; }, x);
}
// The gates of some keys of a head at one step.
struct Gates {
    V raw, opened, query, squashed, key, decay;
    Gates(const float* gate, const float* bias, V bound, float keep, int64_t size, int m) {
        raw = V::loadu(gate, m);
        opened = sigmoid(raw);
        query = raw * opened;
        squashed = sigmoid(V::loadu(gate + size, m) + V::loadu(bias, m));
        const V forget = bound + (V(1) - bound) * squashed;
        key = V(1) - forget;
        decay = V(keep) * forget;
    }
};
"""
)
_SIZES = """const int64_t kept, const int64_t directions, const int64_t time, const int64_t rows,
    const int64_t size, const int64_t e)"""

_FORWARD = (
    _COMMON
    + """
extern "C" void kernel(
    const float* gates, const float* bias, const float* bound, float* state, float* outputs,
    const float* keep, """
    + _SIZES
    + """
{
    const int64_t heads = size / e;
    #pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < directions * rows * heads; ++n) {
        const int64_t head = n % heads, row = n / heads % rows, d = n / heads / rows, at = head * e;
        float* S = state + n * e * e;
        for (int64_t t = 0; t < time; ++t) {
            const int64_t place = (d * time + t) * rows + row;
            const float* gate = gates + place * 3 * size + at;
            const float* value = gate + 2 * size;
            float* y = outputs + place * size + at;
            std::fill(y, y + e, 0.f);
            for (int64_t k = 0; k < e; k += V::size()) {
                const int m = std::min<int64_t>(V::size(), e - k);
                const Gates now(gate + k, bias + d * size + at + k, V::loadu(bound + d * size + at + k, m),
                    kept ? keep[place] : 1.f, size, m);
                for (int64_t v = 0; v < e; ++v) {
                    const V s = V::loadu(S + v * e + k, m) * now.decay + V(value[v]) * now.key;
                    s.store(S + v * e + k, m);
                    y[v] += sum_of(now.query * s);
                }
            }
        }
    }
}
"""
)

_BACKWARD = (
    _COMMON
    + """
extern "C" void kernel(
    const float* gates, const float* bias, const float* bound, const float* state, const float* d_outputs,
    float* d_state, float* d_gates, float* d_bound, const float* keep, """
    + _SIZES
    + """
{
    const int64_t heads = size / e, square = e * e;
    const V one(1);
    #pragma omp parallel
    {
        std::vector<float> path((time + 1) * square);  // the state before each step, and the last one
        #pragma omp for schedule(static)
        for (int64_t n = 0; n < directions * heads; ++n) {
            const int64_t head = n % heads, d = n / heads, at = head * e;
            const float* of_bias = bias + d * size + at;
            const float* of_bound = bound + d * size + at;
            float* d_of_bound = d_bound + d * size + at;
            std::fill(d_of_bound, d_of_bound + e, 0.f);
            for (int64_t row = 0; row < rows; ++row) {
                const int64_t which = ((d * rows + row) * heads + head) * square;
                auto at_step = [&](int64_t t) { return (d * time + t) * rows + row; };
                auto kept_at = [&](int64_t t) { return kept ? keep[at_step(t)] : 1.f; };
                std::copy(state + which, state + which + square, path.begin());
                for (int64_t t = 0; t < time; ++t) {
                    const float* gate = gates + at_step(t) * 3 * size + at;
                    const float* S = path.data() + t * square;
                    float* next = path.data() + (t + 1) * square;
                    for (int64_t k = 0; k < e; k += V::size()) {
                        const int m = std::min<int64_t>(V::size(), e - k);
                        const Gates now(gate + k, of_bias + k, V::loadu(of_bound + k, m), kept_at(t), size, m);
                        for (int64_t v = 0; v < e; ++v)
                            (V::loadu(S + v * e + k, m) * now.decay + V(gate[2 * size + v]) * now.key)
                                .store(next + v * e + k, m);
                    }
                }
                float* d_S = d_state + which;
                for (int64_t t = time - 1; t >= 0; --t) {
                    const float* gate = gates + at_step(t) * 3 * size + at;
                    const float* d_y = d_outputs + at_step(t) * size + at;
                    const float* S = path.data() + t * square;
                    float* d_gate = d_gates + at_step(t) * 3 * size + at;
                    float* d_value = d_gate + 2 * size;
                    std::fill(d_value, d_value + e, 0.f);
                    for (int64_t k = 0; k < e; k += V::size()) {
                        const int m = std::min<int64_t>(V::size(), e - k);
                        const V floor = V::loadu(of_bound + k, m);
                        const Gates now(gate + k, of_bias + k, floor, kept_at(t), size, m);
                        V d_query(0), d_key(0), d_decay(0);
                        for (int64_t v = 0; v < e; ++v) {
                            const int64_t place = v * e + k;
                            const V d_after = V::loadu(d_S + place, m) + now.query * V(d_y[v]);
                            d_query = d_query + V::loadu(S + square + place, m) * V(d_y[v]);
                            d_key = d_key + d_after * V(gate[2 * size + v]);
                            d_decay = d_decay + d_after * V::loadu(S + place, m);
                            d_value[v] += sum_of(now.key * d_after);
                            (d_after * now.decay).store(d_S + place, m);
                        }
                        const V d_forget = d_decay * V(kept_at(t)) - d_key;
                        (d_query * now.opened * (one + now.raw * (one - now.opened))).store(d_gate + k, m);
                        (d_forget * (one - floor) * now.squashed * (one - now.squashed))
                            .store(d_gate + size + k, m);
                        (V::loadu(d_of_bound + k, m) + d_forget * (one - now.squashed))
                            .store(d_of_bound + k, m);
                    }
                }
            }
        }
    }
}
"""
)


def build(eager: Cell) -> Cell:
    """Compile `matrix_cell` for float32; 16 bits are copied to it.

    Args:
        eager: the cell in PyTorch operations, which float64 uses.
    """
    sizes = ["const float*", *["const int64_t"] * 6]
    run_forward = build_kernel([*["const float*"] * 3, *["float*"] * 2, *sizes], _FORWARD)
    run_backward = build_kernel([*["const float*"] * 5, *["float*"] * 3, *sizes], _BACKWARD)

    def native_forward(
        gates: Tensor,
        bias: Tensor,
        bound: Tensor,
        state: Tensor,
        outputs: Tensor,
        keep: Tensor | None,
    ) -> None:
        if state.dtype == torch.float64:
            return eager.forward(gates, bias, bound, state, outputs, keep)
        run_forward(
            gates.float(), bias, bound, state, outputs, bias if keep is None else keep,
            int(keep is not None), *outputs.shape, state.shape[-1],
        )  # fmt: skip
        return None

    def native_backward(
        gates: Tensor,
        bias: Tensor,
        bound: Tensor,
        state: Tensor,
        d_outputs: Tensor,
        d_state: Tensor,
        d_gates: Tensor,
        d_bound: Tensor,
        keep: Tensor | None,
    ) -> None:
        if state.dtype == torch.float64:
            return eager.backward(
                gates, bias, bound, state, d_outputs, d_state, d_gates, d_bound, keep
            )
        wide = d_gates.float()  # itself, if it is float32
        run_backward(
            gates.float(), bias, bound, state, d_outputs, d_state, wide, d_bound,
            bias if keep is None else keep, int(keep is not None), *d_outputs.shape, state.shape[-1],
        )  # fmt: skip
        if wide is not d_gates:
            d_gates.copy_(wide)
        return None

    return Cell(native_forward, native_backward)
