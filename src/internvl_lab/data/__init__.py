"""Data: from JSONL and images to packs of tensors. Plain torch; only `data.datamodule` imports Lightning.

records, video, shards, conversion, convert (users' data in) -> locations, remote, scan, index (what lies where)
-> selection, long_samples, frames, mixture, packing, plan (what comes when)
-> tiling, transforms, weights, encoding (one sample) -> loader (packs) -> datamodule (Lightning; import it by name).
What cannot be indexed takes another way to the plan: tar_stream, spool, stream, stream_loader.
"""

from internvl_lab.data.batch import Batch
from internvl_lab.data.conversion import SourceReport
from internvl_lab.data.convert import ConversionReport, convert
from internvl_lab.data.encoding import Sample, SampleEncoder
from internvl_lab.data.index import ShardIndex, build_index, load_or_build_index, read_member
from internvl_lab.data.loader import PackDataset, PackLoader
from internvl_lab.data.mixture import Mixture
from internvl_lab.data.packing import pack_block
from internvl_lab.data.plan import Cost, Pack, Plan
from internvl_lab.data.quarantine import QuarantineLog
from internvl_lab.data.records import Record, parse_record, read_jsonl
from internvl_lab.data.shards import RawSample, read_jsonl_samples, write_shards
from internvl_lab.data.tiling import choose_grid, count_tiles, tile_budget, tile_image
from internvl_lab.data.transforms import decode_image, jpeg_augment
from internvl_lab.data.weights import token_weights

__all__ = [
    "Batch",
    "ConversionReport",
    "Cost",
    "Mixture",
    "Pack",
    "PackDataset",
    "PackLoader",
    "Plan",
    "QuarantineLog",
    "RawSample",
    "Record",
    "Sample",
    "SampleEncoder",
    "ShardIndex",
    "SourceReport",
    "build_index",
    "choose_grid",
    "convert",
    "count_tiles",
    "decode_image",
    "jpeg_augment",
    "load_or_build_index",
    "pack_block",
    "parse_record",
    "read_jsonl",
    "read_jsonl_samples",
    "read_member",
    "tile_budget",
    "tile_image",
    "token_weights",
    "write_shards",
]
