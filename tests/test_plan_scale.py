"""What many devices lose to telling each other, worked out by hand on a program that was made up."""

from __future__ import annotations

from dataclasses import replace

import pytest
from helpers import tiny_config

from jaxppo.cli import Request
from jaxppo.errors import ConfigError
from jaxppo.plan.collectives import Collective, collectives
from jaxppo.plan.counts import Kernel, Region
from jaxppo.plan.gpus import find_gpu
from jaxppo.plan.model import residuals
from jaxppo.plan.options import PlanOptions
from jaxppo.plan.roofline import kernel_seconds
from jaxppo.plan.run import gpu_devices, plan_run
from jaxppo.plan.scale import Link, links, predict, scale_lines, scaled_config, wire_bytes

A100 = find_gpu("a100-40gb")
H100 = find_gpu("h100-80gb")


def kernel(opcode: str, size: float) -> Kernel:
    return Kernel(opcode, opcode, {}, 0.0, size, size, frozenset(), (), False)


# Of an update: 4 minibatches of one fusion and one all-reduce of 1,000 bytes, and one all-reduce of 40; of a segment,
# an all-gather of 800.
LEARN = Region("learn", 4, (kernel("fusion", 3e9), kernel("all-reduce-start", 1000)), ())
UPDATE = Region("update", 40, (kernel("all-reduce", 40),), (LEARN,), over_updates=True)
PROGRAM = Region("program", 1, (kernel("all-gather", 800), kernel("fusion", 1.0)), (UPDATE,))


def test_collectives_are_found_with_how_often_they_run():
    assert collectives(PROGRAM) == [
        Collective("all-gather", 800, ()),
        Collective("all-reduce", 40, (None,)),
        Collective("all-reduce", 1000, (None, 4)),
    ]
    assert [c.per_update for c in collectives(PROGRAM)] == [0, 1, 4]


def test_a_ring_sends_an_all_reduce_twice_but_for_its_own_part():
    assert wire_bytes(Collective("all-reduce", 1000, ()), 8) == 2 * 7 / 8 * 1000
    assert wire_bytes(Collective("all-gather", 800, ()), 4) == 3 / 4 * 800
    link = Link("a wire", 1000.0, 0.5, "made up")  # of which 80 % is reached: 800 bytes a second
    assert link.seconds(Collective("all-reduce", 800, ()), 2) == pytest.approx(0.5 + 800 / 800)


def test_efficiency_is_the_time_of_one_device_over_that_of_all():
    """Each fusion moves 2 x 3 GB, 2 ms on an H100, and takes 0.75 us besides; 5 all-reduces take 30 us each."""
    config = scaled_config(tiny_config(n_envs=64), 8)
    scale = predict(config, H100, 1, 8, PROGRAM)
    assert config.budget.n_envs == scale.n_envs == 512
    assert kernel_seconds(LEARN.kernels[0], H100) == pytest.approx(2e-3)
    low, high = residuals()
    assert scale.work_seconds == pytest.approx((low * 8.003e-3, high * 8.003e-3))
    sent = 1.75 * (4 * 1000 + 40)
    assert scale.update_seconds == pytest.approx(5 * 30e-6 + sent / (0.8 * 450e9))
    assert scale.update_collectives == 5
    assert scale.update_wire_bytes == sent
    assert scale.efficiency[0] == pytest.approx(low * 8.003e-3 / (low * 8.003e-3 + scale.update_seconds))
    assert (scale.minibatch_bytes, scale.minibatch_wire_bytes) == (1000, 1750)
    assert scale.segment_wire_bytes == 7 / 8 * 800
    assert "98.1% to 98.4% of linear, if nothing is hidden behind work" in "\n".join(scale_lines(scale))


def test_two_hosts_are_joined_by_their_network():
    near, far = links(A100)
    assert (near.title, far.title) == ("NVLink", "network")
    assert near.bytes_per_second > far.bytes_per_second
    assert near.latency < far.latency
    config = scaled_config(tiny_config(n_envs=64), 8)
    assert predict(config, A100, 2, 8, PROGRAM).link == far
    assert predict(config, A100, 2, 8, PROGRAM).efficiency < predict(config, A100, 1, 8, PROGRAM).efficiency
    assert links(A100, 8)[1].latency == 3 * far.latency  # a tree over eight hosts is three deep
    assert links(find_gpu("l4-24gb"))[0].title == "PCIe"


def test_members_alone_have_no_minibatches_to_tell():
    quiet = replace(UPDATE, kernels=(), loops=(replace(LEARN, kernels=LEARN.kernels[:1]),))
    scale = predict(tiny_config(seeds=8), A100, 1, 8, replace(PROGRAM, loops=(quiet,)))
    assert scale.efficiency == (1.0, 1.0)
    assert scale.minibatch_bytes == scale.update_collectives == 0


def test_numbers_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="hosts: 8 devices are not so many on each of 3 hosts; give a divisor"):
        gpu_devices(A100, 8, 3)
    with pytest.raises(ConfigError, match="devices: are planned for by the name of a GPU"):
        plan_run(Request(PlanOptions(gpu="local", devices=2)))
