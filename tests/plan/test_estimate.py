"""The time of a program against figures by hand."""

import pytest

from desta_jax.plan.chips import CHIPS
from desta_jax.plan.estimate import NETWORK, estimate

V5E = CHIPS["v5e"]
LAYER = 2 * 256 * 1024 * 1024
KERNEL = 2 * 1024 * 1024  # bytes of a layer's bfloat16 weights
HOP = 1e-6


def by_kind(tally):
    return {(transfer.kind, transfer.axis): moved for transfer, moved in tally.transfers.items()}


def test_a_sharded_scan(program, ring):
    text = program("gather_v5e_4")
    tally = estimate(text, V5E, ring())
    assert tally.flops == 3 * LAYER
    gathers = by_kind(tally)["all-gather", "fsdp"]
    assert (gathers.count, gathers.bytes) == (3, 3 * KERNEL)
    alone = 0.75 * KERNEL / 90e9 + 2 * HOP
    assert gathers.seconds == pytest.approx(3 * alone)
    # Nothing in this program hides the gathers; the scalar's sum at the end is two hops there and back.
    assert tally.parts["collectives"] == pytest.approx(3 * alone + 2 * HOP, rel=1e-3)
    assert not tally.endless and not tally.blind_kernels


def test_two_slices_exchange_gradients_over_the_network(program, ring):
    tally = estimate(program("slices_2xv5e_4"), V5E, ring("2xv5e-4"))
    assert tally.flops == 9 * LAYER  # forward, and the gradient of the input and of the weights
    moved = by_kind(tally)
    assert moved["reduce-scatter", "fsdp"].bytes == 3 * KERNEL
    exchanged = moved["all-reduce", NETWORK]
    assert (exchanged.count, exchanged.bytes) == (3, 3 * KERNEL / 4)  # each chip its own quarter
    assert exchanged.seconds == pytest.approx(3 * KERNEL / 4 / V5E.network_bandwidth)


@pytest.mark.parametrize("cycles", [605_511, 300_000], ids=["hidden", "waited for"])
def test_a_gather_in_flight_beside_a_product(program, ring, cycles):
    """It begins and ends in fusions of its own, which take no time but the transfer's and move nothing once more."""
    tally = estimate(program("async_gather_v5e_4").replace("605511", str(cycles)), V5E, ring())
    weights, activations = 4096 * 4096 * 2, 6 * 304 * 4096 * 2
    alone, product = 0.75 * weights / 90e9 + 2 * HOP, cycles / V5E.clock
    gather = by_kind(tally)["all-gather", "fsdp"]
    assert (gather.count, gather.bytes, gather.seconds) == (1, weights, pytest.approx(alone))
    assert tally.parts["products"] == product
    assert tally.seconds == pytest.approx(max(product, alone))
    assert tally.flops == 2 * 6 * 304 * 4096 * 4096
    assert tally.bytes == weights + 2 * activations  # the product's own
    assert not tally.unpriced


def test_a_sum_fused_with_its_scatter_takes_the_transfers_time_alone(program, ring):
    tally = estimate(program("fused_scatter_v5p_8"), CHIPS["v5p"], ring("v5p-8"))
    padded = 3072 * 1344 * 2
    scatter = by_kind(tally)["reduce-scatter", "fsdp"]
    assert (scatter.count, scatter.bytes) == (1, padded)
    assert scatter.seconds == pytest.approx(0.75 * padded / 180e9 + 2 * HOP)
    assert dict(tally.parts) == {"collectives": scatter.seconds}
    assert not tally.unpriced and not tally.bytes


HEAD = "ENTRY %main (a: bf16[4096,4096]) -> bf16[4096,4096] {\n  %a = bf16[4096,4096]{1,0} parameter(0)\n"
GATHER = (
    "  %s = (bf16[1024,4096]{1,0}, bf16[4096,4096]{1,0}) all-gather-start(%q), replica_groups={{0,1,2,3}}\n"
    "  %d = bf16[4096,4096]{1,0} all-gather-done(%s)\n"
)


def one(line, network):
    return estimate(f"{HEAD}  {line}\n}}\n", V5E, network)


def test_cycles_are_read_at_the_chips_clock(ring):
    line = 'ROOT %f = bf16[4096,4096]{1,0} fusion(%a), kind=kLoop, calls=%x, backend_config={"estimated_cycles":"3000"}'
    tally = one(line, ring())
    assert dict(tally.parts) == {"other": pytest.approx(2e-6)}


def test_what_has_no_cycles_is_priced_by_its_bytes(ring):
    tally = one("ROOT %f = bf16[4096,4096]{1,0} negate(%a)", ring())
    assert tally.seconds == pytest.approx(2 * 4096 * 4096 * 2 / V5E.hbm_bandwidth)
    assert tally.unpriced["negate"] == tally.seconds


@pytest.mark.parametrize(
    ("flops", "seconds"),
    [(197e12, 1.0), (1e3, 2 * 4096 * 4096 * 2 / 8.19e11)],
    ids=["bound by arithmetic", "bound by memory"],
)
def test_a_kernel_takes_what_it_states(ring, flops, seconds):
    stated = f'{{"custom_call_config":{{"cost_estimate":{{"flops":"{flops:.0f}","bytes_accessed":"8"}}}}}}'
    call = 'ROOT %k = bf16[4096,4096]{1,0} custom-call(%a), custom_call_target="tpu_custom_call"'
    tally = one(f"{call}, backend_config={stated}", ring())
    assert tally.parts["kernels"] == pytest.approx(seconds, rel=1e-3)
    assert not tally.blind_kernels


@pytest.mark.parametrize(("chip", "filled"), [("v5e", 2), ("v6e", 4)])  # multipliers 128 and 256 wide, heads 64
def test_narrow_heads_take_attention_as_long_as_wide_ones(program, ring, chip, filled):
    tally = estimate(program("flash_attend_v5e_16"), CHIPS[chip], ring())
    assert tally.flops == 2 * 2 * 6 * 20 * 1500 * 1500 * 64
    assert tally.parts["kernels"] == pytest.approx(filled * tally.flops / CHIPS[chip].peak_flops)
    assert not tally.blind_kernels


def test_a_kernel_that_states_nothing_is_named(ring):
    call = 'ROOT %k = bf16[4096,4096]{1,0} custom-call(%a), custom_call_target="tpu_custom_call"'
    tally = one(f'{call}, metadata={{op_name="mix"}}', ring())
    assert dict(tally.blind_kernels) == {"mix": 1}


def test_work_between_start_and_end_hides_a_transfer(ring):
    work = (
        '  %w = bf16[4096,4096]{1,0} fusion(%a), kind=kLoop, calls=%x, backend_config={"estimated_cycles":"CYCLES"}\n'
    )
    start, done = GATHER.splitlines(keepends=True)
    quarter = "  %q = bf16[1024,4096]{1,0} parameter(1)\n"
    alone = 0.75 * 4096 * 4096 * 2 / 90e9 + 2 * HOP

    def waited(cycles):
        text = HEAD + quarter + start + work.replace("CYCLES", str(cycles)) + done + "}\n"
        return estimate(text, V5E, ring()).parts["collectives"]

    assert waited(150_000) == pytest.approx(alone - 1e-4)
    assert waited(15_000_000) == 0
