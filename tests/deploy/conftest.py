from __future__ import annotations

from pathlib import Path

import manifests
import pytest


@pytest.fixture(scope="session")
def k8s(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of deploy/k8s with the secrets of its `tls`; its brokers' certificate is good for the loopback too."""
    return manifests.copy_with_secrets(tmp_path_factory.mktemp("k8s"), "IP:127.0.0.1")


@pytest.fixture(scope="session")
def rendered(kustomize: Path, k8s: Path) -> dict[str, list[manifests.Manifest]]:
    """Every kustomization's manifests, by its path."""
    return {path: manifests.render(kustomize, k8s / path) for path in manifests.KUSTOMIZATIONS}
