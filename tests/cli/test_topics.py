from __future__ import annotations

import uuid

from branchy.core import topics


def test_topics_are_created_once_and_then_fit(run, toy_bundle, apache_kafka):
    cascade = f"t{uuid.uuid4().hex[:8]}"
    arguments = ("topics", "create", "--bundle", toy_bundle.path, "--back", apache_kafka.brokers, "--cascade", cascade)
    names = topics.all_topics(toy_bundle.spec, cascade)
    assert run(*arguments, "--partitions", 2) == (0, "".join(f"created  {name}\n" for name in names), "")
    assert run(*arguments, "--partitions", 2) == (0, "".join(f"fits     {name}\n" for name in names), "")
    code, _, said = run(*arguments, "--partitions", 3)
    assert (code, said.count("it has 2 partitions, expected at least 3")) == (1, len(names))


def test_without_a_bundle_it_is_wrong_use(run):
    code, _, said = run("topics", "create", "--back", "127.0.0.1:1")
    assert code == 2
    assert "bundle" in said
