from __future__ import annotations

import pytest

from branchy.errors import UsageError
from branchy.runner.deployment import HOME, DeployOptions, rendered

TO_DO = r"run branchy from a checkout \(pip install --editable '\.\[k8s\]' in it\), or "


def test_an_overlay_by_name_without_a_checkout_says_where_it_was_looked_for(tmp_path):
    away = tmp_path / "deploy"
    words = (
        rf"^--overlay tls: expected branchy's overlays in {away}, which is not there: {TO_DO}give --overlay DIRECTORY"
    )
    with pytest.raises(UsageError, match=words):
        rendered(DeployOptions(overlay="tls", home=away))


def test_an_overlay_by_its_path_needs_no_checkout(tmp_path, kustomize):
    found = rendered(DeployOptions(overlay=str(HOME / "overlays" / "local"), home=tmp_path / "deploy"))
    assert len(found) == 24


def test_a_claim_without_a_checkout_says_which_component_it_needs(tmp_path):
    own, away = tmp_path / "own", tmp_path / "deploy"
    own.mkdir()
    (own / "kustomization.yaml").touch()
    words = (
        rf"^--claim models: expected the component {away}/components/bundle-volume, which is not there: {TO_DO}leave"
    )
    with pytest.raises(UsageError, match=words):
        rendered(DeployOptions(overlay=str(own), bundle=tmp_path, claim="models", home=away))
