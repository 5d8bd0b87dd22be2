"""Where a model differs from the reference: by class, and sample by sample."""

from collections.abc import Mapping

import pandas as pd

Answers = Mapping[str, pd.DataFrame]  # by set


def predictions(
    manifests: Mapping[str, pd.DataFrame],
    judged: Answers,
    reference: Answers | None,
    original: Answers,
) -> pd.DataFrame:
    """One row per sample: set, id, label, and what three models say of it.

    Columns of the judged model bear the names that its answers have (``tasks.judging``), the others
    "reference_" and "original_" before them; those of the reference are absent where there is none.
    """
    tables = []
    for name, manifest in manifests.items():
        table = manifest[["id", "label"]].copy()
        table.insert(0, "set", name)
        for prefix, answers in (("", judged), ("reference_", reference), ("original_", original)):
            if answers is not None:
                table = table.join(answers[name].add_prefix(prefix))
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def by_class(predictions: pd.DataFrame) -> pd.DataFrame:
    """Per class and set: number of samples, accuracy in %, that of the reference and original.

    ``changed`` is the accuracy minus the reference's, in points; the original's, where there is
    no reference.
    """
    right = pd.DataFrame(
        {
            name: 100.0 * predictions[column]
            for name, column in (
                ("accuracy", "right"),
                ("reference", "reference_right"),
                ("original", "original_right"),
            )
            if column in predictions
        }
    )
    groups = right.groupby([predictions["label"], predictions["set"]], sort=True)
    table = groups.mean()
    table.insert(0, "samples", groups.size())
    table["changed"] = table["accuracy"] - table[yardstick(table)]
    return table.reset_index().rename(columns={"label": "class"})


def most_changed(changed: pd.DataFrame, most: int) -> pd.DataFrame:
    """The ``most`` rows that any column changed most, those first; all as they are, if not more.

    changed: in points, a row per class and a column per model.
    """
    if len(changed) <= most:
        return changed
    largest = changed.abs().max(axis="columns")
    return changed.loc[largest.sort_values(ascending=False, kind="stable").index[:most]]


def least_forgotten(predictions: pd.DataFrame, influence: pd.DataFrame) -> pd.DataFrame:
    """Forget samples, those first whose label the model remembers most beyond the reference.

    remembered = confidence − the reference's confidence, in [−1, 1]; the confidence itself where
    there is no reference. influence: table with id and influence. Of equals the one that the
    original knew best comes first. Raises ValueError when the two tables list other samples.
    """
    table = predictions[predictions["set"] == "forget"]
    scores = influence.astype({"id": "str"}).set_index("id")["influence"]
    if set(table["id"]) != set(scores.index):
        raise ValueError("the table of influence lists other samples than the forget set")
    table = table.assign(influence=scores[table["id"]].to_numpy())
    table["remembered"] = table["confidence"] - table.get("reference_confidence", 0.0)
    return _ordered(table, ["remembered", "original_confidence"])


def got_worse(predictions: pd.DataFrame) -> pd.DataFrame:
    """Retain samples, those first whose label lost most confidence against the original.

    lost = the original's confidence − the model's, in [−1, 1].
    """
    table = predictions[predictions["set"] == "retain"].copy()
    table["lost"] = table["original_confidence"] - table["confidence"]
    return _ordered(table, ["lost"])


def yardstick(table: pd.DataFrame) -> str:
    """What the models of ``by_class`` are held against: "reference", else "original"."""
    return "reference" if "reference" in table else "original"


def _ordered(table: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    ordered = table.sort_values(columns, ascending=False, kind="stable", ignore_index=True)
    return ordered.drop(columns="set")
