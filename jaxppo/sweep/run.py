"""One sweep from the command line's values to files: which trials this process works on, and how it ends."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console

from jaxppo.cli import Request
from jaxppo.config.layers import describe
from jaxppo.device import describe_device, enable_compilation_cache, take_memory
from jaxppo.errors import Interrupted
from jaxppo.market.bars import describe_symbols
from jaxppo.market.source import SYNTHETIC
from jaxppo.page.terminal import plain_console
from jaxppo.page.text import plural
from jaxppo.store.locks import Lock
from jaxppo.sweep.batches import Batch
from jaxppo.sweep.end import finish
from jaxppo.sweep.options import SweepOptions
from jaxppo.sweep.queue import Queue, claim, require_trials
from jaxppo.sweep.setup import Setup, prepare
from jaxppo.sweep.space import in_arrays
from jaxppo.sweep.study import Study, storage_path
from jaxppo.sweep.work import Halving, Worker


def describe_sweep(setup: Setup, console: Console) -> None:
    """What is searched on what, a few lines."""
    inputs, config, options = setup.inputs, setup.config, setup.options
    market = inputs.market
    seeds = f", each an ensemble of {config.budget.seeds}" if config.budget.seeds > 1 else ""
    console.print(
        f"preset {config.preset} on {inputs.device.count} x {inputs.device.kind}, seeds from {config.seed} on{seeds}"
    )
    told = describe_device(options.gpu_memory, config.agent.kernels, inputs.device)
    for line in (*told, *describe(inputs.resolved)):
        console.print(line)
    if inputs.source == SYNTHETIC:
        console.print("no --data given: sweeping on the embedded synthetic market, which is made up")
    counts = {k: market.n_decided(k) for k in ("train", "validation", "test")}
    console.print(
        f"data: {inputs.source}; {plural(len(market.bars), 'symbol')}; decisions: {counts['train']:,} train,"
        f" {counts['validation']:,} validation, {counts['test']:,} test; purge gap {market.purge_bars} bars"
    )
    for line in [*describe_symbols(market.bars, config.data.data), *market.lines]:
        console.print(line)
    for warning in inputs.warnings:
        console.print(f"warning: {warning}")
    for name, dimension in setup.space.items():
        console.print(f"search {name}: {dimension}{'' if in_arrays(name) else ' (of another shape each)'}")
    halving = ""
    if options.halve_at:
        at = ", ".join(map(str, options.halve_at))
        halving = f", of which 1 in {options.eta} goes on after segments {at} of {len(config.segments)}"
    console.print(f"{setup.wanted} trials in batches of {options.batch}, by {options.sampler}{halving}")


def _batch_line(batch: Batch) -> str:
    numbers = [t.number for t in batch.trials]
    begun = sum(s.done for s in batch.shapes)
    what = f"trials {numbers[0]} to {numbers[-1]}" if len(numbers) > 1 else f"trial {numbers[0]}"
    return f"{what}: {'goes on from what was saved' if begun else 'begins'}"


def sweep_run(request: Request[SweepOptions]) -> Path:
    """Sweep from what is asked for to a finished folder; returns it."""
    take_memory(request.options.gpu_memory)
    enable_compilation_cache()
    console = plain_console()
    setup = prepare(request)
    describe_sweep(setup, console)
    options, out = setup.options, setup.out
    facts = {**setup.facts, "folder of the sweep": claim(out, setup.facts)}
    study = Study(storage_path(options.storage, out), options.study, setup.space, facts)
    require_trials(study, out)
    queue, halving = Queue(setup, study), Halving(options.halve_at, options.eta)
    worker = Worker(study, setup.programs, setup.config_of, halving, setup.config.budget.choose_by, console.print)
    began = time.monotonic()
    try:
        while (claimed := queue.next()) is not None:
            folder, batch = claimed
            console.print(_batch_line(batch))
            try:
                worker.run(folder, batch)
            finally:
                folder.release()
        with Lock(out / ".end.lock"):  # of processes that end together the last writes what is there
            waiting = queue.unfinished()
            if waiting:
                console.print(
                    f"no trial is left; {waiting} are still trained by other processes, the last of which ends it"
                )
                return out
            console.print(f"all trials are done, this process in {time.monotonic() - began:.1f} s")
            finish(setup, study, console)
    except KeyboardInterrupt:
        raise Interrupted(f"go on with the same command and --out {out}", 130) from None
    return out
