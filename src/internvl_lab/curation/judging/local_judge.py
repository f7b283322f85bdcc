"""Ask a causal language model in a local transformers folder: greedily, in batches, without remote code or network.

```
questions ─ chat template ─> ids ─ pad left ─> generate (greedy) ─> new tokens ─> text, cut at the end token
```
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from internvl_lab.config.curation_judge import PREFIX, JudgeConfig
from internvl_lab.errors import JudgeError
from internvl_lab.text.judging.judge import Question, Reply, Unanswered


class LocalJudge:
    """Hold a model and its tokenizer; see `Judge`.

    Args:
        config: `model` is a folder with safetensors, a config and a tokenizer that has a chat template.
    Raises:
        JudgeError: the folder holds no such model.
    """

    concurrency = 1

    def __init__(self, config: JudgeConfig) -> None:
        folder, self.batch_size = Path(config.model), config.batch_size
        self._max_new_tokens = config.max_answer_tokens
        if not (folder / "config.json").is_file():
            raise JudgeError(f"{PREFIX}.model={config.model!r} is no folder of a transformers model")
        wanted = config.device if config.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
        self._device = torch.device(wanted)
        options = {"local_files_only": True, "trust_remote_code": False}
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, padding_side="left", **options)
            model: Any = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True, dtype="auto", **options)
        except (OSError, ValueError) as error:
            raise JudgeError(f"{folder} cannot be loaded as a judge: {' '.join(str(error).split())}") from error
        if not self._tokenizer.chat_template:
            raise JudgeError(f"{folder}: the tokenizer has no chat template, so the model cannot be asked")
        self._model: Any = model.eval().to(self._device)
        self._ends = _end_tokens(self._model, self._tokenizer.eos_token_id)
        self._pad = self._tokenizer.pad_token_id if self._tokenizer.pad_token_id is not None else min(self._ends)
        # The weights' place and age tell two models of the same name apart, without reading them.
        weights = [[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in sorted(folder.glob("*.safetensors"))]
        self.identity = json.dumps([str(folder.resolve()), weights, self._max_new_tokens, str(self._model.dtype)])

    def most_tokens(self, question: Question) -> tuple[int, int]:
        """Return zeros: a local model costs no money; see `Judge`."""
        return 0, 0

    def ask(self, questions: Sequence[Question]) -> list[Reply | Unanswered]:
        """Answer a batch; a text that does not fit the model's context is left unanswered; see `Judge`."""
        prompts = [self._encode(question) for question in questions]
        room = int(getattr(self._model.config, "max_position_embeddings", 0) or 0) - self._max_new_tokens
        fitting = [i for i, ids in enumerate(prompts) if room <= 0 or len(ids) <= room]
        answers: list[Reply | Unanswered] = [
            Unanswered(f"{len(ids)} tokens are more than the model's context holds beside the answer ({room})")
            for ids in prompts
        ]
        if fitting:
            for i, reply in zip(fitting, self._generate([prompts[i] for i in fitting]), strict=True):
                answers[i] = reply
        return answers

    def _encode(self, question: Question) -> list[int]:
        """Return the token ids of a question, up to where the answer begins."""
        messages = [{"role": "system", "content": question.system}, {"role": "user", "content": question.text}]
        encoded = self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
        return list(encoded["input_ids"])

    @torch.inference_mode()
    def _generate(self, prompts: list[list[int]]) -> list[Reply]:
        """Continue prompts greedily."""
        longest = max(map(len, prompts))
        ids = torch.full((len(prompts), longest), self._pad, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt) :] = torch.tensor(prompt)
            mask[row, longest - len(prompt) :] = 1
        output: Tensor = self._model.generate(
            input_ids=ids.to(self._device),
            attention_mask=mask.to(self._device),
            do_sample=False,
            num_beams=1,
            max_new_tokens=self._max_new_tokens,
            pad_token_id=self._pad,
            eos_token_id=sorted(self._ends),
        )
        answers = output[:, longest:].tolist()
        return [self._reply(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]

    def _reply(self, prompt: list[int], answer: list[int]) -> Reply:
        """Cut an answer at its end token and decode it."""
        end = next((place for place, token in enumerate(answer) if token in self._ends), None)
        text = self._tokenizer.decode(answer[:end], skip_special_tokens=True)
        return Reply(text, len(prompt), len(answer) if end is None else end + 1, end is not None)


def _end_tokens(model: torch.nn.Module, tokenizer_end: int | None) -> set[int]:
    """Collect the ids that end an answer: the tokenizer's and the generation config's."""
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ends = {configured} if isinstance(configured, int) else set(configured or ())
    ends |= {tokenizer_end} if tokenizer_end is not None else set()
    if not ends:
        raise JudgeError("the judge's model knows no end token, so no answer of it is ever complete")
    return ends
