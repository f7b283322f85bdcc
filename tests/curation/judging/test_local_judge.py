import json

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from internvl_lab.config.curation_judge import JudgeConfig
from internvl_lab.curation.judging.local_judge import LocalJudge
from internvl_lab.errors import JudgeError
from internvl_lab.text import load_tokenizer
from internvl_lab.text.judging.judge import Question, Unanswered

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny random Qwen2 with the mini tokenizer and a chat template."""
    path = tmp_path_factory.mktemp("judge") / "model"
    tokenizer = load_tokenizer("asset:tokenizer")
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(path)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
        eos_token_id=tokenizer.convert_tokens_to_ids("<|im_end|>"),
    )
    Qwen2ForCausalLM(config).save_pretrained(path)
    return path


def local(folder, **changes):
    return LocalJudge(JudgeConfig(kind="local", model=str(folder), device="cpu", max_answer_tokens=12, **changes))


QUESTIONS = [Question("Judge.", text) for text in ("a", "a longer text than the others", "two words")]


def test_a_batch_says_what_each_question_alone_gets(folder):
    judge = local(folder)
    together = judge.ask(QUESTIONS)
    assert together == [judge.ask([question])[0] for question in QUESTIONS]
    assert all(1 <= reply.answer_tokens <= 12 for reply in together)
    assert together[1].prompt_tokens > together[0].prompt_tokens
    assert all(reply.is_complete == (reply.answer_tokens < 12) or reply.answer_tokens == 12 for reply in together)


def test_the_answer_ends_at_the_end_token(folder):
    judge = local(folder)
    end = min(judge._ends)
    said = judge._tokenizer.encode("red ring")
    reply = judge._reply([1, 2, 3], [*said, end, end, end])
    assert (reply.text, reply.prompt_tokens, reply.answer_tokens) == ("red ring", 3, len(said) + 1)
    assert reply.is_complete
    assert not judge._reply([1], said).is_complete


def test_a_text_beyond_the_context_is_unanswered_and_the_others_are_not(folder):
    first, second = local(folder).ask([Question("Judge.", "x y z " * 200), QUESTIONS[0]])
    assert isinstance(first, Unanswered) and "context" in first.reason
    assert second == local(folder).ask([QUESTIONS[0]])[0]


def test_other_weights_are_another_judge(folder, tmp_path):
    assert local(folder).identity == local(folder, batch_size=2).identity
    assert json.loads(local(folder).identity)[0] == str(folder)


def test_a_tokenizer_without_a_chat_template_is_refused(folder, tmp_path):
    path = tmp_path / "plain"
    Qwen2ForCausalLM.from_pretrained(folder).save_pretrained(path)
    load_tokenizer("asset:tokenizer").save_pretrained(path)
    with pytest.raises(JudgeError, match="no chat template"):
        local(path)


def test_pickled_weights_are_refused(folder, tmp_path):
    path = tmp_path / "pickled"
    path.mkdir()
    for file in folder.iterdir():
        if file.suffix != ".safetensors":
            (path / file.name).write_bytes(file.read_bytes())
    torch.save(Qwen2ForCausalLM.from_pretrained(folder).state_dict(), path / "pytorch_model.bin")
    with pytest.raises(JudgeError, match="cannot be loaded as a judge"):
        local(path)
