from __future__ import annotations

import shutil
from pathlib import Path

import manifests
import pytest
from deployment import ROOT
from documents import write_files


@pytest.fixture(scope="session")
def k8s(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of deploy/k8s with the secrets of its `tls`; its brokers' certificate is good for the loopback too."""
    return manifests.copy_with_secrets(tmp_path_factory.mktemp("k8s"), "IP:127.0.0.1")


@pytest.fixture(scope="session")
def documented(k8s: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another copy, with the overlays that the documents write out among the others, and what those need."""
    root = tmp_path_factory.mktemp("documented")
    overlays = root / "deploy" / "k8s" / "overlays"
    shutil.copytree(k8s, overlays.parent)
    for document in ("docs/brokers-elsewhere.md", "deploy/k8s/README.md"):
        assert write_files(ROOT / document, root)
    (overlays / "managed" / "password").write_text("a password")
    (overlays / "edge-alone" / "secrets").mkdir()
    for name in ("ca.pem", "edge.pem", "edge.password"):
        shutil.copy(overlays / "tls" / "secrets" / name, overlays / "edge-alone" / "secrets")
    return overlays


@pytest.fixture(scope="session")
def rendered(kustomize: Path, k8s: Path, documented: Path) -> dict[str, list[manifests.Manifest]]:
    """Every kustomization's manifests, by its path; of an overlay of the documents by its name."""
    paths = {path: k8s / path for path in manifests.KUSTOMIZATIONS}
    paths |= {folder.name: folder for folder in documented.iterdir() if not (k8s / "overlays" / folder.name).exists()}
    return {path: manifests.render(kustomize, folder) for path, folder in paths.items()}
