from __future__ import annotations

import pytest

from voxmlx.checkpoints.names import NameMap, split_layer, split_leaf


@pytest.mark.parametrize(
    ("path", "template", "number"),
    [
        ("a.layers.3.b", "a.layers.{}.b", "3"),
        ("layers.12.b.0", "layers.{}.b.0", "12"),
        ("encoder.transformer_layers.0.b", "encoder.transformer_layers.{}.b", "0"),
        ("w.conv_layers.0.conv", "w.conv_layers.0.conv", ""),
        ("norm", "norm", ""),
    ],
)
def test_split_layer(path, template, number):
    assert split_layer(path) == (template, number)


def test_split_leaf():
    assert split_leaf("a.b.weight") == ("a.b", "weight")


def test_map_goes_both_ways():
    names = NameMap([("x.layers.{}.a", "layers.{}.b.0"), ("x.n", "n")])

    assert names.to_internal("layers.7.b.0") == "x.layers.7.a"
    assert names.to_external("x.layers.7.a") == "layers.7.b.0"
    assert names.to_internal("n") == "x.n"
    assert names.to_internal("other") is None
    assert names.to_external("other") is None


def test_map_refuses_a_path_twice():
    with pytest.raises(ValueError, match="occurs twice"):
        NameMap([("a", "x"), ("b", "x")])
