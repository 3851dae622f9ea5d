from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppt.config import Config, ConfigError, canonical_json, fingerprint, load_config

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def written(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_nothing_given_is_the_defaults(tmp_path: Path):
    assert load_config(None) == Config()
    assert load_config(written(tmp_path, "# nothing yet\n")) == Config()


def test_values_are_read_and_overrides_win(tmp_path: Path):
    path = written(tmp_path, "seed: 3\npoints: {method: read, read_points: 9}\nrecords: {splits: [val]}\n")
    config = load_config(path, ["points.read_points=12", "device=cuda:1", "labels.min_stability=1e-1"])
    assert (config.seed, config.device, config.records.splits) == (3, "cuda:1", ("val",))
    assert (config.points.method, config.points.read_points) == ("read", 12)
    assert config.labels.min_stability == 0.1
    assert config.masks == Config().masks


def test_paths_start_at_the_file_and_overrides_at_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    path = written(tmp_path, "records: {pairs: data/p.jsonl}\nclip: {weights: w/clip.pt}\n")
    config = load_config(path, ["sam.weights=sam.pth"])
    assert config.records.pairs == tmp_path / "data/p.jsonl"
    assert config.clip.weights == str(tmp_path / "w/clip.pt")
    assert config.sam.weights == tmp_path / "here/sam.pth"


def test_a_pretrained_tag_is_no_path():
    assert load_config(None, ["clip.weights=laion2b_s34b_b88k"]).clip.weights == "laion2b_s34b_b88k"


def test_every_problem_is_reported_at_once_with_its_value(tmp_path: Path):
    path = written(
        tmp_path,
        "seed: -1\nrecrods: {}\ndevice: tpu\nsam: 3\npoints: {method: best, read_points: '30'}\n"
        "masks: {max_area: 1.5}\nlabels: {min_stability: .nan}\nrecords: {exif: 2020-01-01}\n",
    )
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(f"{path}: ") for line in lines)
    got = {line.removeprefix(f"{path}: ").split(":")[0]: line.rpartition("(got ")[2] for line in lines}
    assert got == {
        "seed": "-1)",
        "recrods": "{})",
        "device": "'tpu')",
        "sam": "3)",
        "points.method": "'best')",
        "points.read_points": "'30')",
        "masks.max_area": "1.5)",
        "labels.min_stability": "nan)",
        "records.exif": "'2020-01-01')",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 1\nseed: 2\n", "run.yaml:2: key 'seed' twice"),
        ("points:\n  method: read\n  method: peak\n", "run.yaml:3: key 'method' twice"),
        ("seed: [1\n", "run.yaml:2: "),
        ("- 1\n", "expected sections and keys, got list"),
        ("seed: !!python/object:os.system {}\n", "run.yaml:1: could not determine a constructor"),
        ("seed: !!binary aGk=\n", "not plain text, number or list"),
        ("points: &a {method: *a}\n", "not plain text, number or list"),
    ],
)
def test_broken_yaml_is_refused_where_it_breaks(tmp_path: Path, text: str, message: str):
    with pytest.raises(ConfigError, match=message):
        load_config(written(tmp_path, text))


@pytest.mark.parametrize("override", ["seed", "=3", "points..method=read"])
def test_a_malformed_override_is_quoted(override: str):
    with pytest.raises(ConfigError, match=f"got '{override}'"):
        load_config(None, [override])


def test_an_override_through_a_value_is_refused():
    with pytest.raises(ConfigError, match=r"--set: seed: .*{'deeper': 1}"):
        load_config(None, ["seed.deeper=1"])


def test_unreadable_files_are_named(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"absent\.yaml: cannot be read"):
        load_config(tmp_path / "absent.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"seed: \xff")
    with pytest.raises(ConfigError, match=r"latin\.yaml: cannot be read"):
        load_config(tmp_path / "latin.yaml")


def test_sections_leave_out_what_only_names_a_file():
    config = load_config(None, ["records.pairs=/a/p.jsonl", "clip.weights=/a/w.pt", "clip.size=64"])
    sections = config.sections("records", "clip")
    assert set(sections) == {"records", "clip"}
    assert sections["clip"] == {"model": "embedded", "size": 64, "max_long": None}
    assert not {"pairs", "truth"} & set(sections["records"])
    assert "splits" in sections["records"]


def test_a_config_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        Config().points.method = "read"  # pyright: ignore


def test_canonical_json_by_hand():
    assert canonical_json({"b": [1, 2.5, None], "a": "Ä"}) == '{"a":"Ä","b":[1,2.5,null]}'
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(float("nan"))


@given(a=json_values, b=json_values)
def test_fingerprints_are_equal_for_equal_values_alone(a: object, b: object):
    assert (fingerprint(a) == fingerprint(b)) == (canonical_json(a) == canonical_json(b))
    assert fingerprint(a, b) != fingerprint([a, b])


@given(values=st.dictionaries(st.text(), st.integers()))
def test_fingerprints_do_not_depend_on_the_order_of_keys(values: dict[str, int]):
    assert fingerprint(values) == fingerprint(dict(reversed(values.items())))
