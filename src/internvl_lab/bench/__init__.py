"""Measurements against named peers: same samples, same weights, same dtype, one run (`make bench`)."""

from internvl_lab.bench.attention import AttentionSetting, bench_attention
from internvl_lab.bench.head import HeadSetting, bench_head
from internvl_lab.bench.report import Report, write_json
from internvl_lab.bench.samples import WORKLOADS, Workload, draw_samples, pack_samples
from internvl_lab.bench.setting import StepSetting, find_setting
from internvl_lab.bench.step import bench_step
from internvl_lab.bench.timing import Reading, interleave, one_thread

__all__ = [
    "WORKLOADS",
    "AttentionSetting",
    "HeadSetting",
    "Reading",
    "Report",
    "StepSetting",
    "Workload",
    "bench_attention",
    "bench_head",
    "bench_step",
    "draw_samples",
    "find_setting",
    "interleave",
    "one_thread",
    "pack_samples",
    "write_json",
]
