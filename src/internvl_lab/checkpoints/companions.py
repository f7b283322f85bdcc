"""What lies beside weights and prepares prompts for them: found at a source, written for transformers and engines.

tokenizer.json, tokenizer_config.json      tokenizer
chat_template.jinja                        ChatML with the report's system turn
generation_config.json                     generation ends at <|im_end|>
processor.json                             ours (`processor`)
processor_config.json, *preprocessor_config.json    transformers' InternVLProcessor
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from internvl_lab.checkpoints.base import base_of
from internvl_lab.checkpoints.files import read_json, write_json
from internvl_lab.checkpoints.init_from import resolve_source
from internvl_lab.checkpoints.official import is_official
from internvl_lab.checkpoints.processor import PROCESSOR_FILE, load_processor, save_processor
from internvl_lab.checkpoints.settings import WHOLE_FILES, read_run_config
from internvl_lab.checkpoints.storage import CHECKPOINT_SUFFIX
from internvl_lab.checkpoints.tensors import CONFIG_FILE
from internvl_lab.config import ModelConfig, TilingConfig
from internvl_lab.config.typed import from_mapping
from internvl_lab.constants import (
    IMAGE_CONTEXT_TOKEN,
    IMAGE_END_TOKEN,
    IMAGE_PLACEHOLDER,
    IMAGE_START_TOKEN,
    IMAGENET_MEAN,
    IMAGENET_STD,
    TURN_END_TOKEN,
    TURN_START_TOKEN,
)
from internvl_lab.errors import InternVLLabError
from internvl_lab.text import ChatTemplate, has_tokenizer, load_tokenizer

log = logging.getLogger(__name__)

TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
PUBLISHED_END_IDS = {151_674: 151_645, 92_553: 92_542}
"""Vocabulary size to the id of <|im_end|>, where the tokenizer is missing. Source: spec section 1.5."""

_VIDEO_TOKENS = ("<|video_pad|>", "<quad>")
"""transformers' processor wants a token for videos: one that the vocabulary has and prompts never hold."""
_BICUBIC = 3
"""Pillow's number of the filter."""


@dataclass(frozen=True)
class Companions:
    """Hold what was found beside the weights."""

    template: ChatTemplate | None
    """None: no tokenizer was found."""
    tiling: TilingConfig | None
    """None: nothing says how images were cut."""


def find_companions(path: Path) -> Companions:
    """Find tokenizer, system turn and tiling of a source.

    Args:
        path: folder or file of the weights; for a checkpoint of a run, the run's configuration names them.
    Raises:
        CheckpointError, ConfigError: they are there and unreadable.
    """
    if path.suffix == CHECKPOINT_SUFFIX:
        run_config = read_run_config(path)
        return Companions(None, None) if run_config is None else _of_run(run_config)
    folder = path.parent if path.name in WHOLE_FILES else base_of(path)
    if (folder / PROCESSOR_FILE).is_file():
        return Companions(*load_processor(folder))
    template = ChatTemplate(load_tokenizer(folder)) if folder.is_dir() and has_tokenizer(folder) else None
    content = read_json(folder / CONFIG_FILE) if (folder / CONFIG_FILE).is_file() else {}
    return Companions(template, _tiling_of_official(content) if is_official(content) else None)


def write_companions(folder: Path, template: ChatTemplate, tiling: TilingConfig, native: bool) -> None:
    """Write tokenizer, chat template and processor of a whole model.

    Args:
        folder: exists already.
        template: tokenizer and system turn.
        tiling: how images are cut.
        native: for transformers' own classes; else for the authors' code and the engines that load their format.
    """
    save_processor(folder, template, tiling)
    save_chat_tokenizer(folder, template, IMAGE_CONTEXT_TOKEN if native else IMAGE_PLACEHOLDER, named=native)
    if native:
        _write_native_processor(folder, tiling)
        if not tiling.use_thumbnail:
            log.warning("transformers' image processor always adds a thumbnail; this model was trained without")


def save_chat_tokenizer(folder: Path, template: ChatTemplate, image: str, named: bool) -> None:
    """Write a tokenizer that any version of transformers loads, with the chat template.

    Args:
        folder: exists already.
        template: tokenizer and system turn.
        image: what stands for an image in a rendered prompt.
        named: give the image tokens the names that transformers' InternVLProcessor asks for.
    """
    tokenizer = template.tokenizer
    tokenizer.save_pretrained(str(folder))
    config = read_json(folder / TOKENIZER_CONFIG_FILE)
    for key in ("backend", "is_local", "local_files_only", "auto_map"):
        config.pop(key, None)
    config |= {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": template.bos_id is not None}
    video = None
    if named:
        known = tokenizer.get_vocab()
        video = next(token for token in _VIDEO_TOKENS if token in known)
        names = {
            "start_image_token": IMAGE_START_TOKEN,
            "end_image_token": IMAGE_END_TOKEN,
            "context_image_token": IMAGE_CONTEXT_TOKEN,
            "video_token": video,
        }
        config |= {"extra_special_tokens": names, "processor_class": "InternVLProcessor"}
    write_json(folder / TOKENIZER_CONFIG_FILE, config)
    jinja = chat_template(template.system_message, image, video)
    (folder / "chat_template.jinja").write_text(jinja, encoding="utf-8")


def chat_template(system_message: str, image: str, video: str | None = None) -> str:
    r"""Write template `internvl2_5` as Jinja: ChatML, and a system turn where the conversation has none.

    The start token <s> of InternLM2.5 is not in it, because the tokenizer puts it there.

    Args:
        system_message: empty = no system turn.
        image, video: what stands for an image or a video; a line break follows it.
    """
    items = {"image": image} | ({"video": video} if video else {})
    visual = "".join(
        f"{{% {'el' if number else ''}if item['type'] == '{kind}' %}}{{{{ {json.dumps(token)} + '\\n' }}}}"
        for number, (kind, token) in enumerate(items.items())
    )
    start, end = json.dumps(TURN_START_TOKEN), json.dumps(TURN_END_TOKEN)
    system = json.dumps(f"{TURN_START_TOKEN}system\n{system_message}{TURN_END_TOKEN}\n", ensure_ascii=False)
    default = f"{{% if messages[0]['role'] != 'system' %}}{{{{ {system} }}}}{{% endif %}}" if system_message else ""
    return (
        f"{default}{{% for message in messages %}}{{{{ {start} + message['role'] + '\\n' }}}}"
        "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
        f"{{% for item in message['content'] %}}{visual}"
        "{% elif item['type'] == 'text' %}{{ item['text'] }}{% endif %}"
        f"{{% endfor %}}{{% endif %}}{{{{ {end} + '\\n' }}}}{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{{{{ {start} + 'assistant\\n' }}}}{{% endif %}}"
    )


def token_ids(template: ChatTemplate | None, vocab_size: int) -> dict[str, int]:
    """Return `eos_token_id` (<|im_end|>), and `bos_token_id` and `pad_token_id` as far as they are known.

    Args:
        template: None = no tokenizer; then the two published vocabularies are known by their size.
        vocab_size: rows of the embeddings.
    """
    if template is None:
        end = PUBLISHED_END_IDS.get(vocab_size)
        return {} if end is None else {"eos_token_id": end, "pad_token_id": end}
    ids = {"eos_token_id": template.end_id, "pad_token_id": template.pad_id}
    return ids if template.bos_id is None else {"bos_token_id": template.bos_id, **ids}


def write_generation_config(folder: Path, ids: Mapping[str, int]) -> None:
    """Write generation_config.json: greedy, ending at <|im_end|>; without known ids nothing is written, and said so."""
    if not ids:
        log.warning("no generation_config.json: without a tokenizer the id of %s is unknown", TURN_END_TOKEN)
        return
    write_json(folder / "generation_config.json", {"do_sample": False, **ids})


def default_tiling(config: ModelConfig) -> TilingConfig:
    """Return the report's tiling for a model whose source says nothing."""
    return TilingConfig(tile_size=config.vision.image_size, num_visual_tokens=config.num_visual_tokens)


def _of_run(run_config: Mapping[str, Any]) -> Companions:
    """Find what a run's configuration names; its tokenizer may be gone."""
    tiling = from_mapping(TilingConfig, run_config["tiling"], "tiling")
    source = run_config["model"]["language"].get("tokenizer") or run_config.get("init_from", {}).get("language")
    try:
        template = ChatTemplate(
            load_tokenizer(source if str(source).startswith("asset:") else resolve_source(str(source))),
            run_config["data"]["system_message"],
        )
    except InternVLLabError as error:
        log.warning("the run's tokenizer is not here: %s", error)
        return Companions(None, tiling)
    return Companions(template, tiling)


def _tiling_of_official(content: Mapping[str, Any]) -> TilingConfig | None:
    """Read the tiling from the authors' config.json; None where a field is missing."""
    try:
        tile_size = content["vision_config"]["image_size"]  # `force_image_size` is the same where it is given
        patches = tile_size // content["vision_config"]["patch_size"]
        return TilingConfig(
            tile_size=tile_size,
            num_visual_tokens=round((patches * content["downsample_ratio"]) ** 2),
            min_tiles=content["min_dynamic_patch"],
            max_tiles=content["max_dynamic_patch"] if content.get("dynamic_image_size", True) else 1,
            use_thumbnail=content["use_thumbnail"],
        )
    except KeyError:
        return None


def _write_native_processor(folder: Path, tiling: TilingConfig) -> None:
    """Write the settings of transformers' InternVLProcessor: the authors' tiling, normalisation and video frames."""
    size = {"height": tiling.tile_size, "width": tiling.tile_size}
    shared = {
        "processor_class": "InternVLProcessor",
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": list(IMAGENET_MEAN),
        "image_std": list(IMAGENET_STD),
        "resample": _BICUBIC,
        "size": size,
    }
    crops = {
        "image_processor_type": "GotOcr2ImageProcessor",
        "crop_to_patches": True,
        "min_patches": tiling.min_tiles,
        "max_patches": tiling.max_tiles,
    }
    write_json(folder / "preprocessor_config.json", shared | crops)
    write_json(folder / "video_preprocessor_config.json", shared | {"video_processor_type": "InternVLVideoProcessor"})
    settings = {"processor_class": "InternVLProcessor", "image_seq_length": tiling.num_visual_tokens}
    write_json(folder / "processor_config.json", settings)
