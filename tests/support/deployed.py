"""A deployment on the fake API server, with a clock that stands still unless somebody waits."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

from fake_kubernetes import FakeKubernetes

from branchy.cluster.api import Api
from branchy.cluster.objects import tiers
from branchy.cluster.session import connect
from branchy.runner import deployment_apply, deployment_delete, deployment_plan
from branchy.runner.deployment_apply import Time

Manifest = dict[str, Any]


@dataclass
class Deployed:
    """What to deploy, where, and what was said of it."""

    fake: FakeKubernetes
    objects: list[Manifest]
    now_s: float = 0.0
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.objects = copy.deepcopy(self.objects)
        self.api = Api(connect(None, self.sleep))
        self.fake.on_watch = lambda: self.sleep(2)

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    @property
    def clock(self) -> Time:
        return Time(lambda: self.now_s, self.sleep)

    def plan(self, **options: Any) -> deployment_plan.Plan:
        return deployment_plan.make_plan(self.api, self.objects, **options)

    def apply(self, **options: Any) -> deployment_plan.Plan:
        self.said.clear()
        self.fake.applied.clear()
        return deployment_apply.apply(self.api, self.objects, self.said.append, clock=self.clock, **options)

    def delete(self, *, data: bool = False, timeout_s: float = 600) -> None:
        removal = deployment_delete.find(self.api, self.objects, data=data)
        deployment_delete.delete(self.api, removal, self.said.append, timeout_s=timeout_s, clock=self.clock)

    def set_image(self, image: str) -> None:
        """Another image for every tier."""
        for each in tiers(self.objects):
            each["spec"]["template"]["spec"]["containers"][0]["image"] = image
