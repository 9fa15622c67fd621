"""What several devices lose to telling each other: bytes from the compiled program, seconds from the links between.

Weak scaling: every device has the work of the run that is planned for one. Nothing is taken to hide behind work, so an
update takes its kernels, as long as the model says (`jaxppo.plan.roofline`), and then its all-reduces. Efficiency is
the time of one device over that of all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from jaxppo.config.layers import replace_fields
from jaxppo.config.schema import Config
from jaxppo.plan.collectives import Collective, collectives, is_collective
from jaxppo.plan.counts import Kernel, Region, update_loops
from jaxppo.plan.gpus import Gpu
from jaxppo.plan.model import residuals
from jaxppo.plan.roofline import Work, kernel_work, run_rows, sum_work
from jaxppo.ppo.layout import check_devices, default_blocks

# Of the line rate of NVLink, NCCL reaches 370 of 450 GB/s (its authors in NVIDIA/nccl-tests issue 212).
REACHED = 0.8


@dataclass(frozen=True)
class Link:
    """What joins devices."""

    title: str
    bytes_per_second: float  # of one device in one direction, line rate
    latency: float  # seconds of an all-reduce of a few bytes
    source: str

    def seconds(self, found: Collective, devices: int) -> float:
        """One collective on a ring: an all-reduce sends its bytes 2 (N - 1) / N times, an all-gather (N - 1) / N."""
        return self.latency + wire_bytes(found, devices) / (REACHED * self.bytes_per_second)


@dataclass(frozen=True)
class Scale:
    """A run on many devices."""

    devices: int
    hosts: int
    n_envs: int  # of all devices
    link: Link  # the slowest between two neighbours of the ring
    minibatch_bytes: int  # of one all-reduce; 0 where members alone are divided
    minibatch_wire_bytes: float  # that a device sends for it
    update_collectives: int
    update_wire_bytes: float
    update_seconds: float  # of these collectives
    work_seconds: tuple[float, float]  # of an update's kernels: the range of the model
    segment_wire_bytes: float  # once a validation
    efficiency: tuple[float, float]  # share of linear, at the shorter and the longer work


_NVLINK = {"a100": (300e9, "A100"), "h100": (450e9, "H100"), "h200": (450e9, "H200"), "b200": (900e9, "B200")}
_PCIE_LATENCY = _NVLINK_LATENCY = 30e-6
_NETWORK_LATENCY = 75e-6


def links(gpu: Gpu, hosts: int = 2) -> tuple[Link, Link]:
    """What joins GPUs within a host, and between so many hosts.

    A network's latency is taken to grow with the depth of a binary tree over the hosts, as NCCL's does (Sanders, Speck
    and Träff 2009).
    """
    family = gpu.name.partition("-")[0]
    if family in _NVLINK and "pcie" not in gpu.name:
        rate, title = _NVLINK[family]
        told = f"{rate / 1e9:g} GB/s a direction, NVIDIA {title} datasheet; 30 us is assumed (NCCL's own model says 26)"
        inside = Link("NVLink", rate, _NVLINK_LATENCY, told)
    else:
        inside = Link("PCIe", 32e9, _PCIE_LATENCY, "32 GB/s a direction, PCIe 4.0 x16; 30 us is assumed")
    rate = 25e9 if family == "a100" else 50e9 if family in _NVLINK else 12.5e9
    told = (
        f"{8 * rate / 1e9:g} Gb/s a GPU is assumed, as in NVIDIA's DGX of that time; 75 us as in NVIDIA/nccl issue 1453"
    )
    depth = max(1, math.ceil(math.log2(hosts)))
    if depth > 1:
        told += f" for two hosts, times {depth} for the tree over {hosts}"
    return inside, Link("network", rate, depth * _NETWORK_LATENCY, told)


def wire_bytes(found: Collective, devices: int) -> float:
    """Bytes that each device of a ring sends for one collective."""
    times = 2 if found.opcode == "all-reduce" else 1
    return times * (devices - 1) / devices * found.bytes


def scaled_config(config: Config, devices: int) -> Config:
    """The run of so many devices of which each has the work of `config`.

    Raises:
      ConfigError: the numbers do not fit.
    """
    config = replace_fields(config, {"n_envs": devices * config.budget.n_envs})
    check_devices(config, devices, devices)
    if config.ppo.blocks == 1:
        config = replace_fields(config, {"blocks": default_blocks(config, devices)})
    return config


def predict(config: Config, gpu: Gpu, hosts: int, devices: int, program: Region) -> Scale:
    """Efficiency of a counted program that was compiled for so many devices."""
    link = links(gpu, hosts)[hosts > 1]
    found = collectives(program)
    update = [c for c in found if c.per_update]
    largest = max((c for c in update if c.per_update > 1), key=lambda c: c.bytes, default=None)
    seconds = sum(c.per_update * link.seconds(c, devices) for c in update)
    inside = {id(r) for loop in update_loops(program) for r in loop.walk()}
    rows = run_rows(program, lambda k: _work(k, gpu), 1, 1)
    work = sum_work(r.total for region, r in zip(program.walk(), rows, strict=True) if id(region) in inside)
    low, high = residuals()
    short, long = low * work.model_seconds, high * work.model_seconds
    return Scale(
        devices=devices,
        hosts=hosts,
        n_envs=config.budget.n_envs,
        link=link,
        minibatch_bytes=largest.bytes if largest else 0,
        minibatch_wire_bytes=wire_bytes(largest, devices) if largest else 0.0,
        update_collectives=sum(c.per_update for c in update),
        update_wire_bytes=sum(c.per_update * wire_bytes(c, devices) for c in update),
        update_seconds=seconds,
        work_seconds=(short, long),
        segment_wire_bytes=sum(wire_bytes(c, devices) for c in found if not c.per_update),
        efficiency=(short / (short + seconds), long / (long + seconds)),
    )


def _work(kernel: Kernel, gpu: Gpu) -> Work:
    return Work() if is_collective(kernel) else kernel_work(kernel, gpu)


def scale_lines(scale: Scale) -> list[str]:
    """What a plan says of many devices."""
    hosts = "1 host" if scale.hosts == 1 else f"{scale.hosts} hosts"
    short, long = scale.work_seconds
    low, high = scale.efficiency
    return [
        f"{scale.devices} devices on {hosts}, each with the work of one: {scale.n_envs:,} envs",
        f"  a minibatch: one all-reduce of {scale.minibatch_bytes / 1e6:,.3f} MB, of which a device sends"
        f" {scale.minibatch_wire_bytes / 1e6:,.3f} MB over {scale.link.title}",
        f"  an update: {scale.update_collectives} all-reduces, {scale.update_wire_bytes / 1e6:,.2f} MB sent,"
        f" {scale.update_seconds * 1e3:,.2f} ms beside {short * 1e3:,.1f} to {long * 1e3:,.1f} ms of kernels;"
        f" a validation: {scale.segment_wire_bytes / 1e6:,.2f} MB",
        f"  {low:.1%} to {high:.1%} of linear, if nothing is hidden behind work",
        f"  {scale.link.title}: {scale.link.source}; {REACHED:.0%} of it is reached (NVIDIA/nccl-tests issue 212)",
    ]
