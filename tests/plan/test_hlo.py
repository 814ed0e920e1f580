"""Reading compiled programs: arithmetic, loops, groups; against figures by hand and against XLA's own."""

import jax
import jax.numpy as jnp
import pytest

from desta_jax.plan.hlo import Program, groups_of

LAYER = 2 * 256 * 1024 * 1024  # multiply-adds of [256, 1024] x [1024, 1024], two operations each


def flops(function, *shapes):
    compiled = jax.jit(function).lower(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)).compile()
    program = Program(compiled.as_text())
    return program.flops(program.entry)


def test_products_of_a_matmul():
    assert flops(lambda a, b: a @ b, (64, 48), (48, 32)) == 2 * 64 * 48 * 32
    assert flops(lambda a, b: jnp.einsum("bij,bkj->bik", a, b), (5, 8, 16), (5, 24, 16)) == 2 * 5 * 8 * 24 * 16


def test_products_of_a_convolution_leave_out_the_padding():
    def convolve(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (2,), ((1, 1),), dimension_numbers=("NWC", "WIO", "NWC"))

    # 10 inputs, stride 2, a window of 3: five outputs, the first of which sees a column of padding
    assert flops(convolve, (4, 10, 8), (3, 8, 16)) == 2 * 4 * (5 * 3 - 1) * 8 * 16


def test_the_tpu_compilers_products_and_loops_are_read(program):
    text = Program(program("gather_v5e_4"))
    (loop,) = (row for row in text.computations[text.entry].values() if row.opcode == "while")
    assert text.trips(loop, text.entry) == 3
    assert text.flops(loop.called_body) == LAYER


def test_a_peeled_loop_starts_late(program):
    text = Program(program("slices_2xv5e_4"))
    loops = [row for row in text.computations[text.entry].values() if row.opcode == "while"]
    assert [text.trips(loop, text.entry) for loop in loops] == [3, 2]  # the first turn of the second stands before it


LOOP = """
%body (p: (s32[])) -> (s32[]) {
  %p = (s32[]) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %two = s32[] constant(2)
  %next = s32[] add(%i, %two)
  ROOT %t = (s32[]) tuple(%next)
}

%cond (q: (s32[])) -> pred[] {
  %q = (s32[]) parameter(0)
  %j = s32[] get-tuple-element(%q), index=0
  %n = s32[] constant(9)
  ROOT %less = pred[] compare(%j, %n), direction=DIRECTION
}

ENTRY %main (z: s32[]) -> (s32[]) {
  %z = s32[] constant(1)
  %c = s32[] copy(%z)
  %init = (s32[]) tuple(%c)
  ROOT %w = (s32[]) while(%init), condition=%cond, body=%body
}
"""


def test_a_loop_that_counts_in_steps():
    program = Program(LOOP.replace("DIRECTION", "LT"))
    assert program.trips(program.computations["main"]["w"], "main") == 4  # 1 3 5 7


def test_a_loop_that_does_not_say_how_often_it_runs():
    program = Program(LOOP.replace("DIRECTION", "NE"))
    assert program.trips(program.computations["main"]["w"], "main") is None


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("replica_groups={{0,1},{2,3}}", [[0, 1], [2, 3]]),
        ("replica_groups=[2,2]<=[4]", [[0, 1], [2, 3]]),
        ("replica_groups=[2,2]<=[2,2]T(1,0)", [[0, 2], [1, 3]]),
        ("replica_groups=mesh['data'=2,'fsdp'=2] {'data'}", [[0, 2], [1, 3]]),
        ("source_target_pairs={{0,1},{1,0}}", [[0, 1], [1, 0]]),
        ("channel_id=1", [[0, 1, 2, 3]]),
    ],
)
def test_who_takes_part_in_a_collective(text, groups):
    assert groups_of(text, 4) == groups


def test_groups_along_two_of_three_axes():
    mesh = "replica_groups=mesh['data'=2,'fsdp'=2,'tensor'=3]"
    assert groups_of(mesh + " {'data','tensor'}", 12) == [[0, 1, 2, 6, 7, 8], [3, 4, 5, 9, 10, 11]]
    assert groups_of(mesh + " {'fsdp','tensor'}", 12) == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]


def test_bytes_are_those_of_main_memory():
    program = Program(
        "ENTRY %main (a: f32[8,128]) -> f32[8,128] {\n"
        "  %a = f32[8,128]{1,0:T(8,128)} parameter(0)\n"
        "  %b = f32[8,128]{1,0:T(8,128)S(1)} parameter(1)\n"
        "  ROOT %c = f32[8,128]{1,0:T(8,128)} add(%a, %b)\n"
        "}\n"
    )
    assert program.bytes_of(program.computations["main"]["c"], "main") == 2 * 8 * 128 * 4


def test_what_a_fusion_passes_on_does_not_move():
    program = Program(
        "%body (p: f32[8,128], q: f32[8,128]) -> (f32[8,128], f32[8,128]) {\n"
        "  %p = f32[8,128] parameter(0)\n"
        "  %q = f32[8,128] parameter(1)\n"
        "  %n = f32[8,128] negate(%q)\n"
        "  ROOT %t = (f32[8,128], f32[8,128]) tuple(%p, %n)\n"
        "}\n"
        "ENTRY %main (a: f32[8,128], b: f32[8,128]) -> (f32[8,128], f32[8,128]) {\n"
        "  %a = f32[8,128] parameter(0)\n"
        "  %b = f32[8,128] parameter(1)\n"
        "  ROOT %f = (f32[8,128], f32[8,128]) fusion(%a, %b), "
        "output_to_operand_aliasing={{0}: (0, {}), {1}: (1, {})}, calls=%body\n"
        "}\n"
    )
    moved = 2 * 8 * 128 * 4  # b is read, and its negative written in its place
    assert program.bytes_of(program.computations["main"]["f"], "main") == moved


def test_what_is_no_program_is_refused():
    with pytest.raises(ValueError, match="no ENTRY"):
        Program("hello")
