"""`convert`: weights in (the authors' format, transformers', ours, parts alone), weights out (native or official)."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

BYTES_PER_GB = 1_000_000_000


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.description = (
        "Convert weights, tensor by tensor, so that any size passes in the memory of one output file. Read: folders "
        "in the authors' format (internvl_chat) or transformers', an InternViT, a Qwen2, InternLM2 or Llama language "
        "model, a projector file, a run, weights folder, asset:NAME or step_*.ckpt of ours. Every unexpected, missing "
        "or mis-shaped tensor is listed, before anything is written. A language model published alone gets the nine "
        "tokens of InternVL."
    )
    parser.add_argument(
        "--in",
        dest="sources",
        nargs="+",
        required=True,
        metavar="SOURCE",
        help="folder or file; of several, each part comes from the first that has it",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder; appears whole, replaces an older one of ours")
    parser.add_argument(
        "--format",
        choices=("native", "official", "adapter"),
        required=True,
        help="native: transformers and internvl-lab; official: what VLMEvalKit, vLLM, LMDeploy and SGLang load; "
        "adapter: the adapters alone, for peft, from one step_*.ckpt of a LoRA stage",
    )
    parser.add_argument("--adapter", type=Path, help="folder of a LoRA adapter (peft) to merge into the weights")
    parser.add_argument("--parts", help="comma-separated: vision,projector,language; default: all that are there")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="default: as stored, to the bit")
    parser.add_argument("--max-shard-gb", type=float, default=5.0, help="most GB of one output file (%(default)s)")
    parser.add_argument(
        "--allow-pickle", action="store_true", help="also read .bin, .pt and .pth, whose tensors alone are taken"
    )


def execute(args: argparse.Namespace) -> None:
    """Convert and log where to."""
    from rich.console import Console

    from internvl_lab.checkpoints import convert, export_adapter, locate

    log = logging.getLogger(__name__)
    sources = [locate(source) for source in args.sources]
    if args.format == "adapter":
        log.info("%s: adapter for peft", export_adapter(sources[0], args.out))
        return
    out = convert(
        sources,
        args.out,
        args.format,
        tuple(args.parts.split(",")) if args.parts else (),
        allow_pickle=args.allow_pickle,
        dtype=args.dtype,
        adapter=args.adapter,
        max_shard_bytes=int(args.max_shard_gb * BYTES_PER_GB),
        progress=Console().is_terminal,
    )
    size = sum(file.stat().st_size for file in out.glob("*.safetensors"))
    log.info("%s: %.3f GB in %s format", out, size / BYTES_PER_GB, args.format)
