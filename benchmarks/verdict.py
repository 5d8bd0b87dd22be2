"""How often verdicts err: on retrained models, on the original, and on its mask; and what each
test would have noticed.

    make bench                       writes docs/verdict.md
    python -m benchmarks.verdict
    python -m benchmarks.verdict "class 3"      of some requests alone

Networks of the pipeline's kind are trained on the handwritten digits, for requests and with seeds
that no page of results uses. Each retrained model takes its turn as the reference, and three of the
others for retraining variability. For U-LiRA, as in the pipeline, families of narrower networks
are drawn anew for every verdict, from many that are trained once. The margins are those that ship
(``imu.verdicts.Config``); they were chosen on this page.
"""

from collections import Counter
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from imu import ensemble, metrics, selecting, splitting, training, verdicts
from imu.datasets import LabelledImages, digits
from imu.datasets.common.tensors import pixels
from imu.methods import ForgetSet, logit_mask
from imu.metrics import Family, u_lira
from imu.models import resnet_small
from imu.objectives import Samples
from imu.objectives.classification import Classification
from tasks.files import artifacts
from tasks.pages import tables
from tasks.starting import calling

CPU = torch.device("cpu")
SEED = 100  # of splits and requests
SETS = ("forget", "retain", "validation", "test")
REQUESTS = {
    **{
        f"class {name}": {"scenario": "class", "by_class": splitting.ClassRequest(classes=(name,))}
        for name in ("3", "5")
    },
    "10 %": {"scenario": "fraction", "by_fraction": splitting.FractionRequest(seed=SEED)},
}
ORIGINALS, RETRAINED = range(100, 102), range(200, 210)  # seeds
OTHERS = 3  # retrained models that a verdict is told of
DRAWS = 8  # of them, per pair of models
MEMBERS = 8  # networks in a family, as on the pages of results
FAMILIES = {"original": ("train", range(1000, 1024)), "retrained": ("retain", range(2000, 2072))}


class Setting:
    """One request: its samples, and what is measured of networks trained on them."""

    def __init__(self, request: Mapping[str, object], data: LabelledImages):
        config = splitting.Config(seed=SEED, **request)  # type: ignore[arg-type]
        listed = {"id": data.ids, "index": range(len(data.labels)), "label": data.labels}
        samples = pd.DataFrame(listed | {"sha256": data.ids})  # copies are not looked for
        sets = splitting.split(samples, config, data.classes)
        chosen = selecting.select(samples, sets, config, data.classes)
        self.data, self.classes = data, chosen.forget_classes
        self.rows = {name: table["index"].tolist() for name, table in chosen.sets.items()}
        self.task = Classification(mean=data.mean, std=data.std)
        self.samples = {}
        for name in SETS:
            images, labels = pixels(data, self.rows[name], CPU)
            self.samples[name] = Samples(images.float() / data.scale, labels)

    def _new(self, seed: int, **width: int) -> nn.Module:
        torch.manual_seed(seed)
        config = resnet_small.Config(**width)
        return resnet_small.build(config, (1, 8, 8), len(self.data.classes))

    def trained(self, name: str, seed: int) -> nn.Module:
        model, config = self._new(seed), training.Config()
        for _ in training.fit(model, self.data, self.rows[name], config, seed=seed, device=CPU):
            pass
        return model

    def masked(self, original: nn.Module) -> nn.Module:
        forget = ForgetSet.whole(self.samples["forget"], self.classes)
        mask, config = deepcopy(original), logit_mask.Config()
        list(logit_mask.unlearn(mask, self.task, config, torch.Generator(), forget=forget))
        return mask

    def margins(self) -> dict[str, np.ndarray]:
        """Kind -> margins of many narrow networks on the forget set: (networks, n)."""
        found = {}
        for kind, (name, seeds) in FAMILIES.items():
            networks = [self._new(seed, width=8) for seed in seeds]
            config, rows = training.Config(), self.rows[name]
            for _ in ensemble.fit(networks, self.data, rows, config, seeds=seeds, device=CPU):
                pass
            kinds = {kind: networks}
            if kind == "original" and self.classes:
                kinds["mask"] = [self.masked(network) for network in networks]
            for each, of in kinds.items():
                found[each] = ensemble.margins(of, self.task, self.samples["forget"]).numpy()
        return found

    def measured(self, model: nn.Module, original_accuracy: float = 100.0) -> metrics.Measured:
        outputs = metrics.outputs_of(
            model, self.task, self.samples, forget_classes=self.classes, seed=SEED
        )
        return metrics.measure(
            metrics.Subject(
                model=model,
                objective=self.task,
                samples=self.samples,
                outputs=outputs,
                original_accuracy=original_accuracy,
            )
        )


def advantages(margins: Mapping[str, np.ndarray], draw: np.random.Generator) -> dict[str, float]:
    """Kind -> U-LiRA of a family of it; "others": of a second retrained one, against one oracle."""
    drawn = draw.permutation(margins["retrained"])[: 3 * MEMBERS].reshape(3, MEMBERS, -1)
    families = dict(zip(("oracle", "retrained", "others"), drawn, strict=True))
    for kind in margins.keys() - {"retrained"}:
        families[kind] = draw.permutation(margins[kind])[:MEMBERS]
    oracle = Family(margins={"forget": families.pop("oracle")})
    return {
        kind: u_lira.over_models(Family(margins={"forget": family}), oracle)["U_LiRA"]
        for kind, family in families.items()
    }


def judged(
    models: Mapping[str, metrics.Measured], margins: Mapping[str, np.ndarray], class_wise: bool
) -> dict[str, list[verdicts.Verdict]]:
    """Kind -> a verdict for every reference, model and draw of the others and of families."""
    retrained = [name for name in models if name.startswith("retrained")]
    found = {
        (model, of): metrics.compare(models[model], models[of])
        for model in models
        for of in retrained
    }
    outputs = next(iter(models.values())).outputs
    labels = {name: of_set.tolist() for name, of_set in outputs.labels.items()}
    sizes = verdicts.sizes(labels, outputs.forget_classes)
    draw, kept = np.random.default_rng(SEED), [n for n in models if n.startswith("original")]
    judged: dict[str, list[verdicts.Verdict]] = {}
    for model, of in found:
        others = [name for name in retrained if name not in (model, of)]
        for _ in range(DRAWS if model != of else 0):
            told = advantages(margins, draw)
            values = {n: found[n, of] | {"U_LiRA": told[n.split()[0]]} for n in models}
            varying = [
                values[name] | {"U_LiRA": told["others"]}
                for name in draw.choice(others, OTHERS, replace=False)
            ]
            original = draw.choice(kept)
            mask = original.replace("original", "mask")
            said = verdicts.judge(
                values[model],
                found[of, of],
                varying,
                verdicts.Config(),
                sizes=sizes,
                class_wise=class_wise,
                original=values[original],
                mask=values[mask] if class_wise else None,
            )
            judged.setdefault(model.split()[0], []).append(said)
    return judged


def outcomes(judged: Mapping[str, list[verdicts.Verdict]]) -> pd.DataFrame:
    rows = []
    for kind, said in judged.items():
        counts = Counter(each.outcome for each in said)
        failed = Counter(result.test.metric for each in said for result in each.failed)
        shares = ", ".join(f"{n} {100 * c / len(said):.1f} %" for n, c in failed.most_common())
        rows.append(
            {"model": kind, "verdicts": len(said)}
            | {o: f"{100 * counts[o] / len(said):.1f} %" for o in verdicts.OUTCOMES}
            | {"tests that failed": shares or "–"}
        )
    return pd.DataFrame(rows)


def power(judged: Mapping[str, list[verdicts.Verdict]]) -> pd.DataFrame:
    """Per metric: how far it lets a model lie, and how often it notices what forgot nothing."""
    tests = {kind: _by_metric(said) for kind, said in judged.items()}
    rows = []
    for metric, retrained in tests["retrained"].items():
        original = np.mean([r.value - r.reference for r in tests["original"][metric]])
        row = {
            "metric": metric,
            "noticed from": f"{np.mean([r.allowed for r in retrained]):.3g}",
            "original lies at": f"{original:+.3g}",
        }
        for kind in ("original", "mask"):
            if kind in tests:
                row[f"{kind} noticed"] = _share([r.failed for r in tests[kind][metric]])
        sign = 1 if original > 0 else -1
        half = [abs(r.value - r.reference + sign * abs(original) / 2) for r in retrained]
        limits = [r.allowed + verdicts.ROUNDING for r in retrained]
        row["half-way noticed"] = _share([bool(h > a) for h, a in zip(half, limits, strict=True)])
        row["retrained fails"] = _share([r.failed for r in retrained])
        rows.append(row)
    return pd.DataFrame(rows)


def _by_metric(said: list[verdicts.Verdict]) -> dict[str, list[verdicts.Result]]:
    """Of each verdict the test of a metric that it fails, else the first one, by metric."""
    found: dict[str, list[verdicts.Result]] = {}
    for verdict in said:
        of_verdict: dict[str, verdicts.Result] = {}
        for result in sorted(verdict.results, key=lambda result: not result.failed):
            of_verdict.setdefault(result.test.metric, result)
        for metric, result in of_verdict.items():
            found.setdefault(metric, []).append(result)
    return found


def _share(outcomes: list[bool]) -> str:
    return f"{100 * np.mean(outcomes):.1f} %"


def spreads(models: Mapping[str, metrics.Measured], class_wise: bool) -> pd.DataFrame:
    """What each kind of model has in the metrics that verdicts are made of: mean ± deviation."""
    names = dict.fromkeys(c.metric for c in verdicts.CRITERIA if c.class_wise in (None, class_wise))
    kinds: dict[str, list[metrics.Measured]] = {}
    for name, model in models.items():
        kinds.setdefault(name.split()[0], []).append(model)
    rows = []
    for kind, found in kinds.items():
        row = {"model": kind, "models": str(len(found))}
        for name in names:
            values = [model.values[name] for model in found if name in model.values]
            if values:
                row[name] = f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}"
        rows.append(row)
    return pd.DataFrame(rows)


def main() -> None:
    parser = calling.parser("benchmarks.verdict", __doc__)
    parser.add_argument("requests", nargs="*", help="titles on the page; none: all")
    chosen = parser.parse_args().requests
    if unknown := [title for title in chosen if title not in REQUESTS]:
        parser.error(f"requests must be of {', '.join(REQUESTS)}, got {unknown[0]!r}")
    torch.set_num_threads(1)
    root = Path.cwd()
    data = digits.load(root / "data" / "digits")
    allowed = ", ".join(f"{n} {v:g}" for n, v in vars(verdicts.Config()).items())
    parts = [
        "# How often verdicts err\n",
        tables.provenance(" ".join(["python -m benchmarks.verdict", *map(repr, chosen)])),
        f"Networks and recipe of the pipeline on the handwritten digits; split and requests drawn "
        f"with seed {SEED}, originals and retrained models from seeds that no page of results "
        f"uses. Every one of {len(RETRAINED)} retrained models is the reference in turn; "
        f"retraining variability is that of {OTHERS} of the others, drawn {DRAWS} times for each "
        "pair. The verdicts share their "
        "models, so their number says little about the precision of a share. "
        f"Margins: {allowed}; they were chosen by a look at such tables. For U-LiRA every verdict "
        f"draws families of {MEMBERS} networks of width 8 from many: "
        + ", ".join(f"{len(seeds)} {kind}" for kind, (_, seeds) in FAMILIES.items())
        + ". A retrained model should be *indistinguishable*, the original *not "
        "forgotten*, its mask *masked only*; where no test tells the original, *no evidence*.\n",
        "The second table of a request is the power of each test: *noticed from*, how far from the "
        "reference a model may lie in the mean (retraining variability and margin); *original lies "
        "at*, the mean of what forgot nothing, less the reference; how often original and mask "
        "are noticed; *half-way noticed*, how often a retrained model would be that is moved by "
        "half of the original's distance; and how often a retrained model fails by chance, on "
        "either side.\n",
    ]
    for title in chosen or REQUESTS:
        setting = Setting(REQUESTS[title], data)
        models = {}
        for seed in ORIGINALS:
            original = setting.trained("train", seed)
            models[f"original {seed}"] = setting.measured(original)
            if setting.classes:
                models[f"mask {seed}"] = setting.measured(setting.masked(original))
        for seed in RETRAINED:
            models[f"retrained {seed}"] = setting.measured(setting.trained("retain", seed))
        class_wise = bool(setting.classes)
        said = judged(models, setting.margins(), class_wise)
        parts += [f"## {title}\n", tables.markdown(outcomes(said)), tables.markdown(power(said))]
        parts.append(tables.markdown(spreads(models, class_wise)))
        print("\n".join(parts[-3:]), flush=True)
    artifacts.write_text(root / "docs" / "verdict.md", "\n".join(parts))
    print("\n".join(parts))


if __name__ == "__main__":
    main()
