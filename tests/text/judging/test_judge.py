from internvl_lab.errors import InternVLLabError, JudgeError
from internvl_lab.text.judging.judge import TransientError


def test_a_transient_error_says_when_to_come_back_and_whether_it_may_be_paid():
    error = TransientError("HTTP 429", retry_after_s=3.0)
    assert (str(error), error.retry_after_s, error.may_be_paid) == ("HTTP 429", 3.0, False)
    assert isinstance(error, JudgeError)
    assert isinstance(error, InternVLLabError)
