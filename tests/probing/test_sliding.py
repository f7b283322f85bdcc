import pytest
import torch
import torch.nn.functional as F

from internvl_lab.probing.sliding import slide, windows


def test_windows_cover_everything_and_stay_inside():
    assert windows(504, 504, 322) == [0]
    assert windows(756, 504, 322) == [0, 252]
    assert windows(2016, 504, 322) == [0, 322, 644, 966, 1288, 1512]
    for length in range(28, 200):
        starts = windows(length, 28, 14)
        assert starts[-1] == length - 28
        covered = {p for start in starts for p in range(start, start + 28)}
        assert covered == set(range(length))


def test_pixelwise_logits_do_not_depend_on_the_windows():
    picture = torch.randint(0, 256, (3, 70, 42), dtype=torch.uint8)

    def segment(crop):
        return torch.stack([crop[:, 0].float(), crop[:, 1].float(), crop[:, 2].float()], 1)

    assert torch.equal(slide(segment, picture, 28, 14, (70, 42)), picture.float().argmax(0))


def test_overlaps_are_averaged():
    picture = torch.zeros(3, 28, 42, dtype=torch.uint8)
    answers = iter([torch.tensor([3.0, 0.0]), torch.tensor([0.0, 2.0])])

    def segment(crop):
        return next(answers).view(1, 2, 1, 1).expand(1, 2, 28, 28)

    found = slide(segment, picture, 28, 14, (28, 42))
    assert found[0].tolist() == [0] * 28 + [1] * 14  # in the overlap (3 + 0) / 2 beats (0 + 2) / 2


@pytest.mark.parametrize("size", [(10, 30), (56, 90)])
def test_the_answer_has_the_picture_s_own_size(size):
    picture = torch.randint(0, 256, (3, 28, 42), dtype=torch.uint8)
    found = slide(lambda crop: crop.float(), picture, 28, 14, size)
    assert found.shape == size
    expected = F.interpolate(picture[None].float(), size=size, mode="bilinear", align_corners=False)[0].argmax(0)
    assert torch.equal(found, expected)


def test_many_classes_are_compared_a_few_at_a_time():
    logits = torch.randn(150, 28, 42)
    logits[40] = logits[17] = logits.amax(0)  # ties go to the first, as everywhere
    found = slide(lambda crop: logits[None, :, :28, :28], torch.zeros(3, 28, 28, dtype=torch.uint8), 28, 14, (50, 30))
    resized = F.interpolate(logits[None, :, :28, :28], size=(50, 30), mode="bilinear", align_corners=False)[0]
    assert torch.equal(found, resized.argmax(0))
