import pickle

import pytest

from internvl_lab import errors


def test_one_family_catches_all():
    raised = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert len(raised) > 5
    assert all(issubclass(value, errors.InternVLLabError) for value in raised)


def test_a_sample_error_survives_the_way_from_a_worker():
    error = pickle.loads(pickle.dumps(errors.SampleError("key-7", "corrupt_image", "cut")))
    assert (error.key, error.reason, error.detail) == ("key-7", "corrupt_image", "cut")
    assert str(error) == "sample key-7: corrupt_image (cut)"


def test_a_sample_error_without_detail_has_no_brackets():
    with pytest.raises(errors.InternVLLabError, match=r"^sample k: bad_json$"):
        raise errors.SampleError("k", "bad_json")
