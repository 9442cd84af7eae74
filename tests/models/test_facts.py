import json

import numpy as np
import onnx
import onnxruntime
import pytest

from components.errors import DataError
from components.models.facts import model_facts, read_metadata, write_metadata
from tests import third_approach
from tests.evaluation.builders import linear_onnx
from tests.models.examples import make_train_data


def test_an_onnx_says_what_it_is_and_stays_what_it_was(tmp_path):
    """ONNX Runtime reads back every fact, and not a byte of the graph has changed."""
    path, before = tmp_path / "model.onnx", linear_onnx(3)
    path.write_bytes(before)
    facts = {**model_facts(third_approach, make_train_data(), {"learning_rate": 0.1, "kind": "ä"}), "seed": 7}

    write_metadata(path, facts)

    found = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
    assert json.loads(json.dumps(facts)) == read_metadata(found)
    assert onnx.load_from_string(before).graph.SerializeToString() == onnx.load(path).graph.SerializeToString()
    assert "scale to fit 10 x 12 pixels (width x height)" in found["picture_rule"]
    assert {"height": 12, "width": 10, "channels": 1, "colours": "grey", "layout": "NHWC", "type": "uint8"} == facts[
        "image"
    ]
    assert ["class 0", "class 1", "class 2"] == json.loads(found["classes"])
    assert {"weight_decay": 0.0001} == json.loads(found["fixed"])
    assert "not known" in found["data_licence"]


def test_equal_facts_give_equal_bytes(tmp_path):
    """What is written does not depend on the order of the facts, and writing them again changes nothing."""
    facts = model_facts(third_approach, make_train_data(), {"a": 1, "b": np.float64(0.5).item()})
    for name, given in (("one", facts), ("two", dict(reversed(facts.items())))):
        (tmp_path / name).write_bytes(linear_onnx(3))
        write_metadata(tmp_path / name, given)
    once = (tmp_path / "one").read_bytes()
    write_metadata(tmp_path / "one", facts)

    assert once == (tmp_path / "two").read_bytes() == (tmp_path / "one").read_bytes()


def test_other_metadata_are_no_fault_unless_ours_are_damaged():
    """A model of before has none, a foreign one has its own, and what should be JSON and is not is an error."""
    assert {} == read_metadata({})
    assert {"author": "{somebody"} == read_metadata({"author": "{somebody"})
    with pytest.raises(DataError, match="metadata must be JSON"):
        read_metadata({"classes": "[1"})
