import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.files.fingerprint import canonical_json, differing_keys, fingerprint
from preprocess.text.config import CleaningConfig

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)
ASKED = st.dictionaries(st.text(max_size=3), VALUES, max_size=4)


def test_canonical_json_sorts_keys_and_leaves_no_spaces():
    assert canonical_json({"b": (1, 2), "a": {"d": None, "c": 0.1}}) == (
        '{"a":{"c":0.1,"d":null},"b":[1,2]}'
    )


def test_canonical_json_is_ascii_for_any_script():
    assert canonical_json("语\ud800") == '"\\u8bed\\ud800"'


def test_canonical_json_dumps_models():
    assert json.loads(canonical_json([CleaningConfig()])) == [CleaningConfig().model_dump()]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": [0, {1}]}, r"a\[1\]: JSON cannot represent set"),
        ({"a": {"b": b""}}, r"a\.b: JSON cannot represent bytes"),
        ({"a": {1: 2}}, "a: the key 1 is not a string"),
        (float("nan"), "value: JSON cannot represent nan"),
        ({"a": float("-inf")}, "a: JSON cannot represent -inf"),
        (object(), "value: JSON cannot represent object"),
    ],
)
def test_canonical_json_refuses_values_that_json_cannot_represent(value, message):
    with pytest.raises(TypeError, match=message):
        canonical_json(value)


@given(ASKED)
@settings(deadline=None, max_examples=50)
def test_fingerprint_does_not_depend_on_key_order_or_a_json_round_trip(asked):
    again = json.loads(json.dumps(dict(reversed(asked.items()))))
    assert fingerprint(again) == fingerprint(asked)


def test_fingerprint_is_the_same_as_in_former_versions():
    asked = {"stage": "prepare", "prepare.input": ("a.txt", 3), "x": 1e-3, "y": "語"}
    assert fingerprint(asked) == "f4346e3bd467c3015c157af9d311a5b59c1cfca66a9d2117067eb28aae64c89a"


@given(ASKED, ASKED)
@settings(deadline=None, max_examples=50)
def test_keys_differ_exactly_when_fingerprints_differ(old, new):
    assert bool(differing_keys(old, new)) == (fingerprint(old) != fingerprint(new))


def test_differing_keys_show_old_and_new_values():
    old = {"train.steps": 600, "model": {"dim": 8, "type": "lstm"}, "gone": "x", "same": [1]}
    new = {"train.steps": 1200, "model": {"dim": 8.0, "type": "lstm"}, "come": None, "same": (1,)}
    assert differing_keys(old, new) == [
        "come: added null",
        'gone: removed (was "x")',
        "model.dim: 8 -> 8.0",
        "train.steps: 600 -> 1200",
    ]


def test_long_values_are_cut_around_their_first_difference():
    old = {"input": [[f"語{i}.txt", i] for i in range(99)], "long": "a"}
    new = {"input": [[f"語{i}.txt", i if i < 50 else -i] for i in range(99)], "long": "b" * 500}
    parting, long = differing_keys(old, new)
    before, after = parting.removeprefix("input: ").split(" -> ")
    assert '["語50.txt", 50]' in before
    assert '["語50.txt", -50]' in after
    assert before.startswith("...")
    assert before.endswith("...")
    assert len(long) < 100


def test_an_added_value_is_cut_and_printable():
    (line,) = differing_keys({}, {"k": "\ud800" + "b" * 500})
    assert line.startswith('k: added "\\ud800bbb')
    assert line.endswith("...")
    assert len(line.encode()) < 100
