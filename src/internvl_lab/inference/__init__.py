"""Ask a trained model questions: prompts from text and images, batched greedy decoding, chat."""

from internvl_lab.inference.chat import Assistant, answer
from internvl_lab.inference.generation import Generator, Prompt
from internvl_lab.inference.processor import Processor, place_images

__all__ = ["Assistant", "Generator", "Processor", "Prompt", "answer", "place_images"]
