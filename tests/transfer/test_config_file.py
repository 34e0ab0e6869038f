"""Configuration files: what is written is read, and what nobody meant is said."""

from __future__ import annotations

from dataclasses import fields

import pytest

from nnlite.errors import ConfigError
from nnlite.transfer import FinetuneConfig
from nnlite.transfer.config_file import make_config, read_options, to_toml
from nnlite.transfer.options import entries

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis makes the files up; install nnlite[test]")
st = hypothesis.strategies
quick = hypothesis.settings(
    max_examples=150, deadline=None, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
NAMES = [field.name for field in fields(FinetuneConfig)]
values = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20),
    st.sampled_from(["auto", "all", "none", "1", "probe", "off", "4GB"]), st.integers(-2, 64),
)  # fmt: skip


@quick
@hypothesis.given(st.dictionaries(st.sampled_from(NAMES), values, max_size=8))
def test_any_options_are_a_configuration_or_a_mistake(options):
    try:
        config = make_config({"model": "m.onnx", "data": "d"} | options)
    except ConfigError:
        return
    for entry in entries(FinetuneConfig):
        value = getattr(config, entry.name)
        assert type(value) is entry.kind or (value is None and entry.optional)
    assert FinetuneConfig(**config.to_dict()) == config


@quick
@hypothesis.given(st.dictionaries(st.sampled_from(NAMES), values.filter(lambda v: v == v), max_size=8))
def test_what_is_written_is_read(tmp_path, options):
    path = tmp_path / "run.toml"
    hypothesis.assume(all(not isinstance(v, int) or abs(v) < 2**63 for v in options.values()))
    hypothesis.assume(not any("\ud800" <= c <= "\udfff" for v in options.values() for c in str(v)))
    path.write_text(to_toml(options), encoding="utf-8", newline="")
    assert read_options(path) == {name: value for name, value in options.items() if value is not None}


@quick
@hypothesis.given(
    st.one_of(st.binary(max_size=200), st.text(st.characters(codec="utf-8"), max_size=200).map(str.encode))
)
def test_any_small_file_is_options_or_a_mistake(tmp_path, data):
    path = tmp_path / "run.toml"
    path.write_bytes(data)
    try:
        options = read_options(path)
    except ConfigError as error:
        said = str(error)
    else:
        assert set(options) <= set(NAMES)
        return
    assert said.startswith(f"--config {path}: ")


def test_large_files_are_not_read(tmp_path):
    path = tmp_path / "run.toml"
    path.write_bytes(b"#" * (1 << 21))
    with pytest.raises(ConfigError, match="has more than 1048576 bytes"):
        read_options(path)
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        read_options(tmp_path)
