"""What of a foreign checkpoint's weights is taken."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from corpus.foreign import dummy_config, dummy_model, save_lerobot
from safetensors.torch import load_file, save_file

from rlinf_isaac.checkpoint.foreign.load_base import load_base
from rlinf_isaac.checkpoint.foreign.make import BundleContent, make_bundle, plan_conversion
from rlinf_isaac.checkpoint.foreign.sources import find_source
from rlinf_isaac.checkpoint.weights import load_weights
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.ground.errors import WeightsError
from rlinf_isaac.pi0.layout import TIED
from rlinf_isaac.pi0.model import Pi0


class TestAHeadThatIsTiedToNothing:
    """From 0.5 on lerobot's model reads the embedding, and saves a head that stays behind while it trains."""

    EMBEDDING, HEAD = (f"model.{name}" for name in TIED[0])

    @pytest.fixture(params=[False, True], ids=["pi0", "pi05"])
    def config(self, request) -> JobConfig:
        return dummy_config(request.param)

    @pytest.fixture
    def path(self, tmp_path, config) -> Path:
        kind = "pi05" if config.model.pi05 else "pi0"
        path = save_lerobot(tmp_path / "030000", dummy_model(config), kind)
        tensors = load_file(path / "model.safetensors")
        head = tensors[self.HEAD]
        save_file(tensors | {self.EMBEDDING: head.clone(), self.HEAD: head + 1}, path / "model.safetensors")
        return path

    def check(self, loaded: Pi0, config: JobConfig) -> None:
        """It is the model whose embedding was stored, in every tensor."""
        wanted = dummy_model(config).state_dict()
        assert all(torch.equal(tensor, wanted[name]) for name, tensor in loaded.state_dict().items())

    def test_a_base_has_the_embedding(self, path, config):
        loaded = Pi0(config.model)
        load_base(path, loaded, config.model)
        self.check(loaded, config)

    def test_a_bundle_has_it_and_names_what_was_left_out(self, path, config, tmp_path):
        source = find_source(path)
        conversion = plan_conversion(source, config.model)
        assert conversion.excluded == (self.HEAD,)
        stats = {"norm_stats": source.norm_stats.read(), "norm_stats_record": {}}
        content = BundleContent(config=config, asset_id="cube", step=30000, **stats)
        made = make_bundle(conversion, content, tmp_path / "out")
        assert made.config["source"]["excluded"] == [self.HEAD]
        loaded = Pi0(config.model)
        load_weights(made, loaded)
        self.check(loaded, config)

    def test_without_lerobots_config_nobody_knows_which_is_read(self, path, config):
        (path / "config.json").unlink()
        with pytest.raises(WeightsError) as error:
            load_base(path, Pi0(config.model), config.model)
        (problem,) = error.value.problems
        assert problem.code == "tied-weights-differ"
        assert "config.json" in problem.cure
