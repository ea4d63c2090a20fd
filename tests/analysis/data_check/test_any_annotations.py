"""Whatever an annotation file holds, it is checked and read, or refused in our words."""

from __future__ import annotations

import json
import os
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmdet.registry import DATASETS

from mixdet.analysis.data_check import quick_check
from mixdet.analysis.data_check.report import DataReport
from mixdet.engine.launch import load_config
from mixdet.errors import MixDetError
from tests.tiny import write_config, write_pictures

EXAMPLES = int(os.environ.get("MIXDET_FUZZ_EXAMPLES", 300))

plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 70),
    st.integers(),
    st.just(10**400),
    st.floats(),
    st.text(max_size=6),
    st.sampled_from(["/etc/passwd", "../x", "a/b", "1.png", "\ud800", "x" * 5000, "a\0b", "."]),
)
values = st.recursive(
    plain,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    data = write_pictures(folder / "data")
    file = data / "annotations" / "instances_train2017.json"
    return load_config(write_config(folder, data)), file, json.loads(file.read_text())


def spots(node, path=()):
    """Every place in a nested structure."""
    yield path
    children = node.items() if isinstance(node, dict) else enumerate(node)
    for key, child in children if isinstance(node, (dict, list)) else ():
        if isinstance(child, (dict, list)):
            yield from spots(child, (*path, key))
        else:
            yield (*path, key)


def put(content, path, value):
    """A copy of the content with another value in a place."""
    if not path:
        return value
    copied = json.loads(json.dumps(content))
    node = copied
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return copied


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_any_value_in_any_place(tiny, data):
    cfg, file, content = tiny
    for _ in range(data.draw(st.integers(1, 3), label="changes")):
        path = data.draw(st.sampled_from(list(spots(content))), label="place")
        value = data.draw(values, label="value")
        content = put(content, path, value)
        if not isinstance(content, (dict, list)):
            break
    file.write_text(json.dumps(content))
    with suppress(MixDetError):
        problems = quick_check(cfg)
        assert all(problem.count >= len(problem.examples) for problem in problems)
        report = DataReport([], problems, None)
        json.dumps(report.as_dict())
        assert len(report.text().splitlines()) < 300
    with suppress(MixDetError):
        DATASETS.build({**cfg.train_dataloader.dataset, "type": "SafeCocoDataset"})
