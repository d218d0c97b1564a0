"""Bad records are counted once, named, and stop a run only above the accepted share."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from effnetv2_tf.data.sources import BadRecords, TooManyBadRecords


def test_counts_a_record_once_and_keeps_its_first_reason():
    bad = BadRecords(total_examples=1000)
    bad.add("a.jpg", "truncated")
    bad.add("a.jpg", "something else")
    bad.add("b.jpg", "empty file")
    assert bad.count == 2
    assert bad.names() == ("a.jpg", "b.jpg")
    assert bad.reports() == ("a.jpg (truncated)", "b.jpg (empty file)")


def test_names_the_first_twenty():
    bad = BadRecords()
    for i in range(30):
        bad.add(str(i), "broken")
    assert bad.count == 30
    assert bad.names() == tuple(str(i) for i in range(20))


def test_share_up_to_the_limit_passes_and_above_it_stops():
    bad = BadRecords(max_share=0.02, total_examples=100)
    bad.check()
    bad.add("a", "broken")
    bad.add("b", "broken")
    bad.check()
    bad.add("c", "broken")
    bad.add("d", "broken")
    with pytest.raises(TooManyBadRecords) as caught:
        bad.check()
    assert str(caught.value) == (
        "4 of 100 records are bad, expected at most 2.00%: a (broken), b (broken), c (broken) "
        "and 1 more; repair or remove them, or raise max_bad_share"
    )


def test_total_may_be_set_later():
    bad = BadRecords(max_share=0.5)
    bad.add("a", "broken")
    with pytest.raises(TooManyBadRecords):
        bad.check()
    bad.total_examples = 2
    bad.check()


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_impossible_share(share):
    with pytest.raises(ValueError, match=r"max_share: expected a share in \[0, 1\]"):
        BadRecords(share)


def test_threads_lose_nothing():
    bad = BadRecords()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: bad.add(str(i % 500), "broken"), range(4000)))
    assert bad.count == 500
