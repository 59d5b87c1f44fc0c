from __future__ import annotations

import json

from rlinf_isaac.data.lerobot.format import AUX_FEATURES, Feature, huggingface_metadata, image_feature, vector_feature


def test_features_as_they_stand_in_info_json():
    assert image_feature(4, 6).as_dict() == {
        "dtype": "image",
        "shape": [4, 6, 3],
        "names": ["height", "width", "channels"],
    }
    assert vector_feature(["x", "y"]).as_dict() == {"dtype": "float32", "shape": [2], "names": ["x", "y"]}
    assert Feature("int64", (1,)).as_dict() == {"dtype": "int64", "shape": [1], "names": None}
    assert image_feature(4, 6).is_visual
    assert not vector_feature(["x"]).is_visual


def test_huggingface_metadata_can_be_read_by_datasets_3():
    features = {"image": image_feature(4, 6), "state": vector_feature(["x", "y"]), **AUX_FEATURES}
    text = huggingface_metadata(features)["huggingface"]
    described = json.loads(text)["info"]["features"]
    assert described["image"] == {"_type": "Image"}
    assert described["state"] == {
        "feature": {"dtype": "float32", "_type": "Value"},
        "length": 2,
        "_type": "Sequence",
    }
    assert described["index"] == {"dtype": "int64", "_type": "Value"}
    assert '"List"' not in text
