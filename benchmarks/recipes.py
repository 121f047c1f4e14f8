"""What options of a training do to the finished cascade, side by side over several seeds.

`python -m benchmarks.recipes DATASET [--seeds N,N] [--epochs N] [--every N] RECIPE...`, where a recipe is `plain` or
options with their values: `distill=0.5,2`, `augment=shift,erase`, `stop_on=loss`, several of them with `+` between.
Each recipe is trained with each seed. Temperatures and thresholds (for 60, 25 and 15 % of the answers) are
fitted on their own parts, and the test part is read once, through the uplink's codec.
"""

from __future__ import annotations

import argparse
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.spread import spread
from branchy.core.cascade import ExitSettings
from branchy.core.policies import is_sure, probabilities, score
from branchy.datasets import Part, load
from branchy.models.backend import keras
from branchy.models.splitting import runner
from branchy.reports.text import text_table
from branchy.runner import training
from branchy.runner.calibration import calibrate, exit_logits
from branchy.runner.fitting import fit_network
from branchy.runner.recipe import Recipe
from branchy.runner.training import TrainOptions

SHARES = (60.0, 25.0, 15.0)


def main() -> None:
    """Train every recipe with every seed and print a line each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recipes")
    parser.add_argument("dataset")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--epochs", type=int, default=TrainOptions("").epochs)
    parser.add_argument("--every", type=int, default=1, help="train on every Nth sample of the training part")
    parser.add_argument("recipes", nargs="+")
    args = parser.parse_args()
    print(machine.describe())
    rows: list[tuple[str, ...]] = []
    runs: dict[str, list[dict[str, float]]] = {text: [] for text in args.recipes}
    for seed in (int(part) for part in args.seeds.split(",")):
        for text, found in runs.items():
            found.append(_measure(TrainOptions(args.dataset, seed=seed, epochs=args.epochs), _recipe(text), args.every))
            print(seed, text, {name: round(value, 4) for name, value in found[-1].items()}, flush=True)
    for text, found in runs.items():
        rows.append((text, *(spread([run[name] for run in found]) for name in found[0])))
    print(text_table(("recipe", *runs[args.recipes[0]][0]), rows))


def _measure(options: TrainOptions, recipe: Recipe, every: int) -> dict[str, float]:
    """One training: accuracy of each exit and of the cascade on the test part in per cent, epochs run, best epoch."""
    options = replace(options, recipe=recipe, target_share=SHARES)
    keras.backend.clear_session()
    data = load(options.dataset)
    parts = training._divide(data, options)
    parts["train"] = parts["train"].take(np.arange(0, len(parts["train"]), every))
    network = training._build(data, options)
    wanted = training._thresholds(options, network, len(data.labels))
    history = fit_network(network, data, parts, options, wanted, Path("runs/recipes/bundle"))
    stages = [stage.spec for stage in network.stages]
    keras_runs = {stage.spec.name: runner(stage) for stage in network.stages}
    exits = calibrate(stages, keras_runs, parts["temperature"], parts["tune"], wanted, "exits").exits
    found = _accuracies(exit_logits(stages, keras_runs, parts["test"], "the test part"), exits, parts["test"])
    return {**found, "epochs": float(len(history["loss"]))}


def _accuracies(logits: dict[str, Any], exits: dict[str, ExitSettings], test: Part) -> dict[str, float]:
    """Per cent right: of every exit were it to answer all, and of the cascade."""
    found = {name: 100 * float((z.argmax(axis=1) == test.labels).mean()) for name, z in logits.items()}
    answers, staying = np.zeros(len(test), np.int64), np.ones(len(test), bool)
    for name, z in logits.items():
        probs = probabilities(z, exits[name].temperature)
        leaving = staying & is_sure(score(probs, exits[name].policy), exits[name])
        answers[leaving] = probs.argmax(axis=1)[leaving]
        staying &= ~leaving
    return {**found, "cascade": 100 * float((answers == test.labels).mean())}


def _recipe(text: str) -> Recipe:
    """From `NAME=VALUE+NAME=VALUE`."""
    if text == "plain":
        return Recipe()
    kinds = {field.name: type(field.default) for field in fields(Recipe)}
    values: dict[str, Any] = {}
    for option in text.split("+"):
        name, _, value = option.partition("=")
        if name == "distill":
            values[name] = tuple(float(part) for part in value.split(","))
        else:
            values[name] = tuple(value.split(",")) if name == "augment" else kinds[name](value)
    recipe = Recipe(**values)
    recipe.check()
    return recipe


if __name__ == "__main__":
    main()
