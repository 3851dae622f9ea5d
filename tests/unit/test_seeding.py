import random

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from ppt.seeding import generator, torch_generator


def test_streams_are_the_same_everywhere():
    assert generator(0, "points", "a").integers(0, 1000, 3).tolist() == [41, 205, 581]
    assert torch.randint(1000, (3,), generator=torch_generator(0, "points", "a")).tolist() == [954, 852, 84]


@given(a=st.tuples(st.integers(0), st.text(), st.text()), b=st.tuples(st.integers(0), st.text(), st.text()))
def test_each_triple_has_a_stream_of_its_own(a: tuple[int, str, str], b: tuple[int, str, str]):
    same = (generator(*a).random(4) == generator(*b).random(4)).all()
    assert same == (a == b)


def test_where_the_parts_meet_matters():
    assert generator(0, "a", "bc").random() != generator(0, "ab", "c").random()


def test_the_ambient_generators_are_left_alone():
    state = random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state().tolist()
    torch.rand(3, generator=torch_generator(0, "s", "k"))
    generator(0, "s", "k").random()
    assert state == (random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state().tolist())
