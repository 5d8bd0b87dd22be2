"""The life of a request, step by step. What is done of a step may be done twice; then it is
recorded, and not done again.
"""

import platform
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from flows.erasing.office import ENDS, PERSONAL, RETRAIN, Office
from flows.erasing.telling import statement
from flows.erasing.work import Options, Work
from tasks.erasing import ErasureError, certificate, page
from tasks.erasing.matching import Asked
from tasks.erasing.residue import Place
from tasks.files import artifacts, params
from tasks.files.commit import git_tags

UNTRAINED = "none"  # where the model never saw the samples
UNDECIDED = ("received", "matched", "unlearned", "judged", "escalated")
DRIFT = ("TV", "dP_retain")  # distance to retraining, of images and of texts
UNSURE = "so much is asked for that nothing is left to judge a method by"
UNREMOVED = "it could not be removed from here"
PACKAGES = ("imu", "torch", "numpy")


def receive(office: Office, asked: Asked, options: Options, work: Work) -> int:
    """Number of the request: that of the last time where it comes again.

    It begins again where it comes with other options before a model was accepted; and it is a new
    one where there are samples by now that were not there when it was certified. Raises
    ParameterError for a method or a data set that is not there, before anything is recorded.
    """
    content = params.changed(params.read(office.root), asked.settings)
    dataset = content["split"]["dataset"]
    params.require_name("split.dataset", dataset)
    for method in options.order:
        work.skipped(method, asked, options.retain)
    pseudonym = office.pseudonym(dataset, asked)
    number = 1 + max((record["request"] for record in office.ledger.records), default=0)
    for known in reversed(office.numbers(dataset)):
        received, step = office.ledger.of(known, "received")[0], office.step(known)
        if received["asked"] == pseudonym and step != "refused":
            if step in UNDECIDED and _options(office, known) != options:
                number = known
            elif step != "certified" or not _has_new(work, asked, options):
                return known
            break
    office.write(number, "asked.json", asdict(asked))
    office.ledger.append(
        number,
        "received",
        asked=pseudonym,
        kind=asked.kind,
        names=[office.keys.pseudonym(asked.kind, name) for name in asked.names],
        dataset=dataset,
        options=options.model_dump(mode="json"),
    )
    return number


def _has_new(work: Work, asked: Asked, options: Options) -> bool:
    try:
        return len(work.match(asked, twins=options.twins).samples) > 0
    except ErasureError:
        return False  # the data have none of them any more


def serve(office: Office, number: int, work: Work, say: Callable[[str], None] = print) -> str:
    """Bring a request to its end; returns its last step, *certified* or *refused*.

    Raises what ``work`` raises: the next call goes on from there.
    """
    while (step := office.step(number)) not in ENDS:
        say(f"request {number}: {step}")
        _NEXT[step](office, number, work)
    return step


def _match(office: Office, number: int, work: Work) -> None:
    asked, options = office.asked(number), _options(office, number)
    try:
        found = work.match(asked, twins=options.twins)
    except ErasureError as error:
        words, _, _ = str(error).partition(", choose from")  # those who did not ask
        _refuse(office, number, "it names what the data do not have", words)
        return
    near = work.near(number, asked, found, options)
    file = office.keep_match(number, found)
    new = office.keys.pseudonym
    office.ledger.append(
        number,
        "matched",
        samples=sorted(new("sample", i) for i in found.samples["id"]),
        counts=found.counts,
        copies={"forgotten": int((found.samples["of"] != "").sum()), "kept": len(found.kept)},
        near=near
        if isinstance(near, str)
        else [one | {key: new("sample", one[key]) for key in ("id", "of")} for one in near],
        forgotten_before=found.before,
        data=found.digests,
        file=file,
    )


def _refuse(office: Office, number: int, why: str, words: str) -> None:
    """words: they may name people, and are kept with the request alone."""
    office.write(number, "refused.json", {"why": why, "words": words})
    office.ledger.append(number, "refused", why=why)
    for name in PERSONAL:
        office.place(number, name).unlink(missing_ok=True)


def withdraw(office: Office, number: int) -> None:
    """Refuse an open request. Raises ErasureError where a model was accepted already."""
    office.require(number)
    if office.step(number) not in UNDECIDED:
        raise ErasureError(f"request {number} is not one that is open and undecided")
    office.model(number).unlink(missing_ok=True)
    office.drop_runs(number)
    _refuse(office, number, "withdrawn", "")


def _unlearn(office: Office, number: int, work: Work) -> None:
    """The next method; those that may not be used are passed over, and that is recorded."""
    asked, options = office.asked(number), _options(office, number)
    match = office.match(number)
    if not match.counts["train"]:
        why = "no model was trained on any of the samples"
        office.ledger.append(number, "accepted", method=UNTRAINED, why=why)
        return
    tried = office.ledger.of(number, "escalated")
    method = options.order[len(tried)]
    unsure = match.reason and method != RETRAIN
    if why := UNSURE if unsure else work.skipped(method, asked, options.retain):
        _escalate(office, number, options, method, why)
        return
    found = work.unlearn(number, asked, match, method)
    office.ledger.append(
        number,
        "unlearned",
        method=method,
        access=found.access,
        parameters=found.parameters,
        parent=found.before,
        file=found.file,
        model=office.keep_model(number, found.model),
        outcome=found.outcome,
        words=found.words,
        decided=found.decided,
        idle=found.idle,
        metrics=found.metrics,
        thresholds=found.thresholds,
        evidence=found.evidence,
        made_with={name: version(name) for name in PACKAGES}
        | {"machine": platform.machine()}
        | git_tags(office.root),
    )


def _judge(office: Office, number: int, work: Work) -> None:
    made, options = office.ledger.of(number, "unlearned")[-1], _options(office, number)
    drift = next((made["metrics"][name] for name in DRIFT if name in made["metrics"]), 0.0)
    why = []
    if made["method"] != RETRAIN:
        if made["outcome"] not in options.accepted:
            why.append(f"its verdict is {made['outcome']!r}")
        elif made["idle"] in options.accepted:
            why.append(
                f"doing nothing is {made['idle']!r} as well: the tests cannot tell whether these "
                "samples were forgotten"
            )
        if drift > options.drift:
            why.append(f"it lies {drift:.3g} from retraining, more than {options.drift:g}")
    office.ledger.append(
        number, "judged", method=made["method"], passed=not why, why="; ".join(why), drift=drift
    )


def _decide(office: Office, number: int, work: Work) -> None:
    judged = office.ledger.of(number, "judged")[-1]
    if judged["passed"]:
        office.ledger.append(number, "accepted", method=judged["method"], why="")
    else:
        _escalate(office, number, _options(office, number), judged["method"], judged["why"])


def _escalate(office: Office, number: int, options: Options, method: str, why: str) -> None:
    following = options.order[options.order.index(method) + 1]
    office.ledger.append(number, "escalated", method=method, to=following, why=why)


def _deploy(office: Office, number: int, work: Work) -> None:
    """From here on no set holds the samples, and no other model is served."""
    received, accepted = (office.ledger.of(number, s)[-1] for s in ("received", "accepted"))
    asked, match = office.asked(number), office.match(number)
    office.leave_out(office.root / forgotten_file(asked, office.root), number, match)
    former = office.production(received["dataset"])
    model, served = "", former.version if former else ""
    if accepted["method"] != UNTRAINED:
        made = office.ledger.of(number, "unlearned")[-1]
        if certificate.digest(office.model(number)) != made["model"]:
            raise ErasureError(f"{office.model(number)} is not the model that was judged")
        model = made["model"]
        served = work.promote(
            number,
            asked,
            office.model(number),
            {
                "parent": former.version if former else "",
                "parent.sha256": made["parent"],
                "sha256": model,
                "data": office.ledger.of(number, "matched")[-1]["data"]["after"],
                "method": made["method"],
                "verdict": made["outcome"],
            },
        )
    office.ledger.append(
        number,
        "deployed",
        model=model,
        version=served,
        former=former.sha256 if former else "",
        former_version=former.version if former else "",
    )


def purge(office: Office, number: int, work: Work) -> None:
    """Purge a request that was served without, and certify it anew.

    Raises ErasureError where it is not at its end, or was purged.
    """
    office.require(number)
    done = office.ledger.of(number, "purged")
    if office.step(number) != "certified" or done[-1]["purge"]:
        raise ErasureError(f"request {number} is not one that was certified without a purge")
    _scanned(office, number, work, purge=True)
    serve(office, number, work)


def _purge(office: Office, number: int, work: Work) -> None:
    _scanned(office, number, work, purge=_options(office, number).purge)


def _scanned(office: Office, number: int, work: Work, *, purge: bool) -> None:
    asked, found = office.asked(number), list[Place]()
    if purge:
        found, left = work.purge(number, asked)
        left = [place._replace(kept=place.kept or UNREMOVED) for place in left]
    else:
        left = work.scan(number, asked)
    left += [
        Place(place, "as it was at the time of the backup", "a backup, not touched")
        for place in _options(office, number).backups
    ]
    office.ledger.append(
        number,
        "purged",
        purge=purge,
        removed=sorted({place.where for place in found} - {place.where for place in left}),
        remains=[place._asdict() for place in left],
    )


def _certify(office: Office, number: int, work: Work) -> None:
    path = office.place(number, "certificate.json")
    content = statement(office, number)
    artifacts.write_json(path, certificate.sealed(content, office.keys))
    artifacts.write_text(path.with_suffix(".html"), page.page(content))
    if office.ledger.of(number, "purged")[-1]["purge"]:
        for name in PERSONAL:
            office.place(number, name).unlink(missing_ok=True)
    office.ledger.append(number, "certified", certificate=certificate.digest(path))


def forgotten_file(asked: Asked, root: Path) -> str:
    """The table of what was forgotten before, as the request's parameters name it."""
    content = params.changed(params.read(root), asked.settings)
    return str(content["split"]["forgotten_before"])


def _options(office: Office, number: int) -> Options:
    return Options(**office.ledger.of(number, "received")[0]["options"])


_NEXT: dict[str, Callable[[Office, int, Work], None]] = {
    "received": _match,
    "matched": _unlearn,
    "escalated": _unlearn,
    "unlearned": _judge,
    "judged": _decide,
    "accepted": _deploy,
    "deployed": _purge,
    "purged": _certify,
}
