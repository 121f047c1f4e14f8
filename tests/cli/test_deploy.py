from __future__ import annotations

import os
import subprocess
import sys

import pytest

from branchy.runner.deployment import HOME


@pytest.fixture(autouse=True)
def cluster(kubernetes, kustomize):
    """The fake API server, on which all is ready at once, and what renders the manifests for it."""


def test_the_whole_life_of_a_deployment(run, kubernetes):
    code, out, err = run("deploy", "plan")
    assert (code, out.splitlines()[-1]) == (0, "24 create, 0 unchanged")
    assert err.startswith("cluster here at http://127.0.0.1:")
    assert not kubernetes.objects
    code, out, _ = run("deploy", "apply", "--replicas", "2", "--image", "branchy-edge=r/edge:2")
    assert (code, out.splitlines()[-1]) == (0, "24 create, 0 unchanged")
    assert kubernetes.get("statefulsets", "edge-tier")["spec"]["replicas"] == 2
    assert run("deploy", "apply", "--replicas", "2", "--image", "branchy-edge=r/edge:2")[1].endswith(
        "nothing changes\n"
    )
    code, out, _ = run("deploy", "status")
    assert code == 0
    assert "  edge     2 of 2 ready" in out.splitlines()
    kubernetes.logs["cloud-tier-0"] = kubernetes.logs["cloud-tier-1"] = ["hello"]
    assert run("deploy", "logs", "cloud")[1] == "cloud-tier-0: hello\ncloud-tier-1: hello\n"
    code, out, _ = run("deploy", "delete", "--yes")
    assert (code, out.splitlines()[-1]) == (0, "nothing is left but the data")
    assert run("deploy", "delete", "--yes", "--data")[1].endswith("nothing is left\n")
    assert not kubernetes.objects
    assert run("deploy", "delete", "--yes", "--data")[1] == "nothing to delete\n"
    assert run("deploy", "status")[0] == 1


def test_a_namespace_and_an_overlay_are_chosen(run, kubernetes):
    assert run("deploy", "apply", "--overlay", "edge-cloud", "--namespace", "lab")[0] == 0
    assert {name for kind, _, name in kubernetes.objects if kind == "namespaces"} == {"lab-edge", "lab-cloud"}


def test_delete_asks_first_and_without_anybody_to_ask_it_does_nothing(run, kubernetes, monkeypatch):
    run("deploy", "apply")
    before = dict(kubernetes.objects)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    code, _, err = run("deploy", "delete")
    assert code == 2
    assert "expected --yes, since there is nobody to ask" in err
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    asked: list[str] = []
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda question: asked.append(question) or "n")
    assert run("deploy", "delete")[0] == 130
    assert asked == ["Delete 23 objects in branchy of here (the data of 3 disks stays)? [y/N]: "]
    assert kubernetes.objects == before


def test_delete_asks_nobody_who_may_not(run, kubernetes, monkeypatch):
    run("deploy", "apply")
    before = dict(kubernetes.objects)
    kubernetes.denied.add(("delete", "services"))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda question: pytest.fail(question))
    code, _, err = run("deploy", "delete")
    assert (code, err.splitlines()[-1]) == (
        1,
        "branchy: you may not delete services in branchy; nothing was changed; ask who runs the cluster for a role",
    )
    assert kubernetes.objects == before


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["plan", "--overlay", "nonsense"], 2, "expected one of autoscale, edge-cloud, local, tls"),
        (["plan", "--context", "prod"], 2, "--context prod: expected one of here, nowhere"),
        (["plan", "--context", "nowhere"], 1, "context nowhere at http://127.0.0.1:1 cannot be reached"),
        (["plan", "--replicas", "13"], 2, "13 replicas and its topic 12 partitions"),
        (["plan", "--replicas", "kafka=5"], 2, "expected one of the tiers cloud, edge, fog"),
        (["plan", "--image", "nginx=nginx:1"], 2, "the overlay has no image nginx"),
        (["plan", "--namespace", "No"], 2, "expected up to 63"),
        (["plan", "--claim", "bundle"], 2, "--claim needs --bundle too"),
        (["plan", "--bundle", "nowhere"], 1, "nothing is there"),
        (["plan", "--overlay", "autoscale"], 1, "does not know the kind ScaledObject"),
        (["logs", "attic"], 2, "attic: expected one of cloud, device, edge, fog, kafka, topics"),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_applied(run, kubernetes, words, code, message):
    got, _, err = run("deploy", *words)
    assert got == code
    assert message in err.splitlines()[-1]
    assert err.splitlines()[-1].startswith("branchy: ")
    assert not kubernetes.objects


def test_a_bundle_on_a_volume_is_named_by_its_digest(run, kubernetes, toy_bundle, tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    overlay = "resources: [{}]\npatches:\n- target: {{kind: ConfigMap, name: fog-settings.*}}\n  patch: |-\n"
    overlay += "    - {{op: replace, path: /data/BRANCHY_TIER, value: 'hall,cloud'}}\n"
    relative = os.path.relpath(HOME / "overlays" / "local", folder)
    (folder / "kustomization.yaml").write_text(overlay.format(relative))
    options = ["--overlay", folder, "--bundle", toy_bundle.path, "--claim", "models"]
    code, _, err = run("deploy", "apply", *options)
    assert (code, err.count("\n")) == (0, 1)
    pod = kubernetes.get("pods", "edge-tier-0")["spec"]
    (first,) = pod["initContainers"]
    assert {"name": "BUNDLE_DIGEST", "value": toy_bundle.digest} in first["env"]
    (volume,) = [each for each in pod["volumes"] if each["name"] == "bundle"]
    assert volume["persistentVolumeClaim"]["claimName"] == "models"


@pytest.mark.parametrize("missing", ["kubernetes", "yaml"])
def test_without_its_extra_it_says_what_to_install(missing):
    code = f"import sys; sys.modules[{missing!r}] = None; from branchy.cli.main import main; main()"
    line = [sys.executable, "-c", code, "deploy", "status"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    words = "branchy: branchy deploy needs an optional part; install it with: pip install 'branchy[k8s]'\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", words)
