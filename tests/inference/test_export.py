from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from actograph.callbacks.activation_stats import ActivationStats
from actograph.data.loaders import Loaders, TensorLoader
from actograph.data.normalization import Normalization
from actograph.errors import UsageError
from actograph.inference.export import CONFIG, Export, load_export, load_model, write_export
from actograph.learner import Learner
from actograph.models.registry import build_model

X, Y = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 2
NORMALIZATION = Normalization((0.5,), (0.25,))


class Own(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, 2)


def learner(name: str = "simple_cnn", **options: str) -> Learner:
    data = Loaders(TensorLoader(X, Y, 3), None, 2, ("cat", "dog"), (1, 8, 8), NORMALIZATION)
    size = {"in_features": 64} if name == "mlp" else {}
    model = build_model(name, num_classes=2, **size, **options)
    stats = ActivationStats(out=":memory:")
    return Learner(model, data, nn.functional.cross_entropy, callbacks=[stats], defaults=())


@pytest.mark.parametrize(
    ("name", "options"),
    [("simple_cnn", {"act": "gelu"}), ("simple_cnn", {"norm": "batch"}), ("resnet", {}), ("mlp", {})],
)
def test_a_model_is_rebuilt_with_all_that_belongs_to_it(
    tmp_path: Path, name: str, options: dict[str, str]
) -> None:
    learn = learner(name, **options)
    learn.fit(1)  # with hooks on; running statistics moved
    path = learn.export(tmp_path / "new" / "pets")
    assert path == tmp_path / "new" / "pets.safetensors"
    export = load_export(path)
    assert not export.model.training
    assert not any(module._forward_hooks for module in export.model.modules())
    assert torch.equal(export.model(X), learn.predict(X))
    assert (export.class_names, export.input_size) == (("cat", "dog"), (1, 8, 8))
    assert export.normalization == NORMALIZATION


def test_an_export_holds_no_optimizer_and_can_be_made_in_a_fit(tmp_path: Path) -> None:
    learn = learner()
    learn.fit(1)
    weights = safetensors.torch.load_file(learn.export(tmp_path / "a.safetensors"))
    assert weights.keys() == learn.model.state_dict().keys()


def test_a_model_of_other_making_needs_an_object_of_its_class(tmp_path: Path) -> None:
    model = Own(3)
    path = write_export(Export(model), tmp_path / "own")
    with pytest.raises(
        UsageError, match=r"weights of a tests.inference.test_export:Own, which .* cannot build"
    ):
        load_model(path)
    loaded = load_model(path, Own(3))
    assert torch.equal(loaded.get_parameter("layer.weight"), model.layer.weight)
    with pytest.raises(UsageError, match=r"layer.weight \(2, 3\) instead of \(2, 4\)"):
        load_model(path, Own(4))
    assert load_export(path, Own(3)).class_names == ()


def test_a_run_folder_stands_for_its_model(tmp_path: Path) -> None:
    learner().export(tmp_path / "model.safetensors")
    assert load_export(tmp_path).class_names == ("cat", "dog")


def test_files_that_are_no_export_are_refused(tmp_path: Path) -> None:
    path = learner().export(tmp_path / "a")
    whole = path.read_bytes()
    for data, words in (
        (whole[:-9], "no whole safetensors file"),
        (b"hello", "truncated, damaged or foreign"),
    ):
        path.write_bytes(data)
        with pytest.raises(UsageError, match=words):
            load_model(path)
    safetensors.torch.save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(UsageError, match="nothing about their model"):
        load_model(path)
    safetensors.torch.save_file({"a": torch.zeros(1)}, path, {CONFIG: json.dumps({"version": 9})})
    with pytest.raises(UsageError, match="an export of version 9"):
        load_model(path)
    safetensors.torch.save_file({"a": torch.zeros(1)}, path, {CONFIG: "{"})
    with pytest.raises(UsageError, match="no whole safetensors file"):
        load_model(path)


def test_paths_that_cannot_be_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no exported model"):
        load_model(tmp_path)
    (tmp_path / "a.safetensors").mkdir()
    for path in (tmp_path / "a", tmp_path, "."):
        with pytest.raises(UsageError, match="is a folder"):
            learner().export(path)
