"""What the planner knows of each GPU, and where each number is from.

Core counts, clocks, bandwidths, cache and memory sizes of those marked XLA are those of XLA's own descriptions
(openxla/xla, xla/backends/gpu/target_config/specs), by which its compiler decides; the others are from NVIDIA's
datasheets. Peak rates are NVIDIA's, dense (no structured sparsity):

- A100: "NVIDIA A100 Tensor Core GPU" datasheet. H100: "NVIDIA H100 Tensor Core GPU" datasheet (its rates are with
  sparsity: halved here). H200: "NVIDIA H200 Tensor Core GPU" datasheet (halved). B200: cores x 4 x 1,024 (half that
  for TF32) x 2 x 1.835 GHz, the tensor core rates in XLA's description.
- RTX A6000: "NVIDIA RTX A6000" datasheet and the GA102 whitepaper. L4, L40S and RTX 4090: their datasheets and the Ada
  whitepaper, matmuls accumulating in float32.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxppo.config import measured
from jaxppo.config.layers import DeviceInfo
from jaxppo.errors import ConfigError, nearest

# Share of a GPU's memory that JAX takes when it starts (XLA_PYTHON_CLIENT_MEM_FRACTION).
MEMORY_SHARE = 0.75


@dataclass(frozen=True)
class Ceilings:
    """Rates that a program reaches at best."""

    bandwidth: float  # bytes a second
    matmul: dict[str, float]  # FLOP/s by type of the inputs
    vector: float  # other operations a second


@dataclass(frozen=True)
class Gpu:
    """One GPU, as the compiler and the roofline see it."""

    name: str
    title: str
    capability: tuple[int, int]  # CUDA compute capability
    cores: int  # streaming multiprocessors
    fpus_per_core: int
    clock_ghz: float
    memory_bytes: int
    bandwidth: float  # bytes a second
    l2_bytes: int
    shared_per_core: int
    shared_optin: int
    threads_per_core: int
    tera_flops: dict[str, float]  # matmul peak by type of the inputs, TFLOP/s; float32 is TF32 unless "f32_highest"
    source: str

    @property
    def device(self) -> DeviceInfo:
        """As JAX would report it: with the memory that it takes."""
        return DeviceInfo("gpu", self.title, 1, int(self.memory_bytes * MEMORY_SHARE), self.capability)

    @property
    def reached(self) -> Ceilings:
        """What is reached of the peaks: measured on one card, and taken to be the same share of them on all others."""
        card = GPUS[measured.CARD]
        share = {t: rate / card.matmul_peak[t] for t, rate in measured.MATMUL_FLOPS.items()}
        return Ceilings(
            bandwidth=self.bandwidth * measured.COPY_BANDWIDTH / card.bandwidth,
            matmul={t: rate * share[t] for t, rate in self.matmul_peak.items()},
            vector=self.vector_peak * share["f32_highest"],
        )

    @property
    def matmul_peak(self) -> dict[str, float]:
        """FLOP/s by input type; types that are not known run at the full float32 rate."""
        return {dtype: rate * 1e12 for dtype, rate in self.tera_flops.items()}

    @property
    def vector_peak(self) -> float:
        """Operations a second outside the tensor cores: NVIDIA counts a fused multiply-add as two."""
        return self.tera_flops["f32_highest"] * 1e12 / 2

    def target_config(self) -> str:
        """XLA's description of it (a GpuTargetConfigProto), which takes the place of the GPU in a compilation."""
        major, minor = self.capability
        return f"""gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
  shared_memory_per_core: {self.shared_per_core} threads_per_core_limit: {self.threads_per_core}
  core_count: {self.cores} fpus_per_core: {self.fpus_per_core}
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: {self.bandwidth:.0f} l2_cache_size: {self.l2_bytes} clock_rate_ghz: {self.clock_ghz}
  device_memory_size: {self.memory_bytes} shared_memory_per_block_optin: {self.shared_optin}
  cuda_compute_capability {{ major: {major} minor: {minor} }}
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}}
platform_name: "CUDA" dnn_version_info {{ major: 9 minor: 10 }} runtime_version {{ major: 12 minor: 9 patch: 0 }}
device_description_str: "{self.title}"
"""


def _rates(bf16: float, tf32: float, f32: float) -> dict[str, float]:
    return {"bf16": bf16, "f16": bf16, "f32": tf32, "f32_highest": f32}


_AMPERE = {"l2_bytes": 41943040, "shared_per_core": 167936, "shared_optin": 166912, "threads_per_core": 2048}
_HOPPER = {"l2_bytes": 52428800, "shared_per_core": 233472, "shared_optin": 232448, "threads_per_core": 2048}
_ADA = {"shared_per_core": 102400, "shared_optin": 101376, "threads_per_core": 1536}
_A100_RATES = _rates(312, 156, 19.5)
_H100_RATES = _rates(989, 494, 67)

GPUS: dict[str, Gpu] = {
    gpu.name: gpu
    for gpu in (
        Gpu("a100-40gb", "NVIDIA A100-SXM4-40GB", (8, 0), 108, 64, 1.41, 42_331_013_120, 1.5552e12,
            tera_flops=_A100_RATES, source="XLA a100_sxm_40", **_AMPERE),
        Gpu("a100-80gb", "NVIDIA A100-SXM4-80GB", (8, 0), 108, 64, 1.41, 85_100_068_864, 2.03904e12,
            tera_flops=_A100_RATES, source="XLA a100_sxm_80", **_AMPERE),
        Gpu("h100-80gb", "NVIDIA H100 80GB HBM3", (9, 0), 132, 128, 1.98, 84_942_979_072, 3.35232e12,
            tera_flops=_H100_RATES, source="XLA h100_sxm", **_HOPPER),
        Gpu("h100-pcie-80gb", "NVIDIA H100 PCIe", (9, 0), 114, 128, 1.755, 84_942_979_072, 2.03904e12,
            tera_flops=_rates(756, 378, 51), source="XLA h100_pcie", **_HOPPER),
        Gpu("h200-141gb", "NVIDIA H200 141GB HBM3e", (9, 0), 132, 128, 1.98, 151_397_597_184, 4.8e12,
            tera_flops=_H100_RATES, source="XLA h200", **_HOPPER),
        Gpu("b200-180gb", "NVIDIA B200", (10, 0), 148, 128, 1.965, 191_514_411_008, 7.67232e12, 132_644_864,
            233472, 232448, 2048, tera_flops=_rates(2225, 1112, 74), source="XLA b200"),
        Gpu("a6000-48gb", "NVIDIA RTX A6000", (8, 6), 84, 128, 1.8, 51_041_271_808, 7.68096e11, 6_291_456,
            102400, 101376, 1536, tera_flops=_rates(155, 77, 38.7), source="XLA a6000"),
        Gpu("l4-24gb", "NVIDIA L4", (8, 9), 58, 128, 2.04, 24_152_899_584, 3.0e11, 50_331_648,
            tera_flops=_rates(121, 60, 30.3), source="NVIDIA L4 datasheet", **_ADA),
        Gpu("l40s-48gb", "NVIDIA L40S", (8, 9), 142, 128, 2.52, 48_305_799_168, 8.64e11, 100_663_296,
            tera_flops=_rates(362, 183, 91.6), source="NVIDIA L40S datasheet", **_ADA),
        Gpu("rtx4090-24gb", "NVIDIA GeForce RTX 4090", (8, 9), 128, 128, 2.52, 25_757_220_864, 1.008e12, 75_497_472,
            tera_flops=_rates(165, 82.6, 82.6), source="NVIDIA Ada whitepaper", **_ADA),
    )
}  # fmt: skip


def find_gpu(name: str) -> Gpu:
    """The GPU called `name`; `ConfigError` with the nearest names where there is none."""
    if name not in GPUS:
        raise ConfigError(f"gpu: unknown GPU {name!r}; {nearest(name, [*GPUS, 'local'])}")
    return GPUS[name]
