# SPDX-License-Identifier: Apache-2.0
"""Eight float32 numbers at once inside compiled kernels, as vector units hold them.

Compilers find vectors in simple loops alone; here a kernel says itself what lies side by side. LLVM makes of each operation
what the processor has: one instruction with AVX, two with NEON.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

try:
    from llvmlite import ir  # type: ignore[import-untyped]
    from numba.core import cgutils, types
    from numba.extending import intrinsic, models, register_model
except ImportError:  # the torch versions of all kernels take over
    intrinsic = None

LANES = 8

load: Any = None
"""Of a flat array at an index: the numbers from there on."""
store: Any = None
"""Into a flat array at an index: these numbers from there on."""
spread: Any = None
"""One number in all lanes."""
times: Any = None
"""Products lane by lane."""
plus: Any = None
"""Sums lane by lane."""
minus: Any = None
"""Differences lane by lane."""
times_plus: Any = None
"""a * b + c lane by lane, rounded once where the processor can."""
larger: Any = None
"""The larger number in each lane."""
halves_added: Any = None
"""Each lane's number and that of the lane four further on, around the end."""
total: Any = None
"""The sum of all lanes."""

if intrinsic is not None:
    VECTOR, INDEX = ir.VectorType(ir.FloatType(), LANES), ir.IntType(32)
    NOTHING = ir.Constant(VECTOR, ir.Undefined)
    Build = Callable[[Any, list[Any]], Any]

    class LanesType(types.Type):
        """The type of eight numbers in kernels."""

        def __init__(self) -> None:
            super().__init__(name=f"float32x{LANES}")

    @register_model(LanesType)
    class LanesModel(models.PrimitiveModel):  # type: ignore[misc]
        """How they are passed."""

        def __init__(self, manager: Any, kind: LanesType) -> None:
            super().__init__(manager, kind, VECTOR)

    lanes = LanesType()

    def _shuffled(builder: Any, vector: Any, order: list[int]) -> Any:
        return builder.shuffle_vector(vector, NOTHING, ir.Constant(ir.VectorType(INDEX, LANES), order))

    def _rotated(builder: Any, vector: Any, by: int) -> Any:
        return _shuffled(builder, vector, [(lane + by) % LANES for lane in range(LANES)])

    def _place(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
        start = context.make_array(kind)(context, builder, array).data
        return builder.bitcast(builder.gep(start, [index]), VECTOR.as_pointer())

    def _of_lanes(count: int, build: Build, result: Any = None) -> Any:
        """An operation on so many vectors."""
        takes = [lanes] * count
        says = result or lanes

        def generate(context: Any, builder: Any, signature: Any, values: list[Any]) -> Any:
            return build(builder, values)

        def one(typing: Any, a: Any) -> Any:
            return says(*takes), generate

        def two(typing: Any, a: Any, b: Any) -> Any:
            return says(*takes), generate

        def three(typing: Any, a: Any, b: Any, c: Any) -> Any:
            return says(*takes), generate

        return intrinsic((one, two, three)[count - 1])

    def _fused(builder: Any, values: list[Any]) -> Any:
        kind = ir.FunctionType(VECTOR, [VECTOR] * 3)
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.v{LANES}f32"), values)

    def _total(builder: Any, values: list[Any]) -> Any:
        (vector,) = values
        for by in (4, 2, 1):
            vector = builder.fadd(vector, _rotated(builder, vector, by))
        return builder.extract_element(vector, ir.Constant(INDEX, 0))

    times = _of_lanes(2, lambda builder, values: builder.fmul(*values))
    plus = _of_lanes(2, lambda builder, values: builder.fadd(*values))
    minus = _of_lanes(2, lambda builder, values: builder.fsub(*values))
    times_plus = _of_lanes(3, _fused)
    larger = _of_lanes(2, lambda builder, values: builder.select(builder.fcmp_ordered(">", *values), *values))
    halves_added = _of_lanes(
        1, lambda builder, values: builder.fadd(values[0], _rotated(builder, values[0], LANES // 2))
    )
    total = _of_lanes(1, _total, types.float32)

    def _load(typing: Any, array: Any, index: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: list[Any]) -> Any:
            read = builder.load(_place(context, builder, signature.args[0], *values))
            read.align = 4
            return read

        return lanes(array, index), generate

    def _store(typing: Any, array: Any, index: Any, vector: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: list[Any]) -> Any:
            array, index, vector = values
            builder.store(vector, _place(context, builder, signature.args[0], array, index)).align = 4
            return context.get_dummy_value()

        return types.void(array, index, vector), generate

    def _spread(typing: Any, number: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: list[Any]) -> Any:
            first = builder.insert_element(NOTHING, values[0], ir.Constant(INDEX, 0))
            return _shuffled(builder, first, [0] * LANES)

        return lanes(types.float32), generate

    load, store, spread = intrinsic(_load), intrinsic(_store), intrinsic(_spread)
