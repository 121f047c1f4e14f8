"""Which processes a cascade takes, and how they are started."""

from dataclasses import replace

from branchy.runner.processes import Interrupts, Processes
from branchy.runner.stand import Stand, tier_stages


def test_each_stage_with_an_exit_ends_a_tier(toy_bundle):
    spec = toy_bundle.spec
    all_with_exits = replace(spec, stages=tuple(replace(s, logits=spec.full.logits) for s in spec.stages))
    assert tier_stages(all_with_exits) == {"edge": ("edge",), "hall": ("hall",), "cloud": ("cloud",)}


def test_a_stage_without_an_exit_shares_a_tier_with_the_one_after_it(toy_bundle):
    assert tier_stages(toy_bundle.spec) == {"edge": ("edge",), "hall": ("hall", "cloud")}


def test_tiers_are_ready_killed_started_again_and_asked(toy_bundle, embedded_broker, tmp_path):
    sample = toy_bundle.golden(toy_bundle.spec.stages[0].name)[0][0]
    with Interrupts() as interrupts, Processes(interrupts, tmp_path) as processes:
        stand = Stand(toy_bundle, embedded_broker.brokers, processes, tmp_path)
        last, ready = stand.tiers[-1], []
        stand.start(*stand.tiers)
        stand.wait_ready(*stand.tiers, on_ready=lambda: ready.append("one"))
        assert len(ready) == len(stand.tiers)
        stand.kill(last)
        stand.start(last)
        stand.wait_ready(last)
        with stand.device(stand.tiers[0]) as device:
            assert device.ask(sample).status == "ok"
