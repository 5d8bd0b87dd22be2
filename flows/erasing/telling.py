"""What is told of a request: its steps in a few words, and all of it in a certificate."""

from typing import Any

from flows.erasing.office import Office
from tasks.erasing import certificate


def statement(office: Office, number: int) -> dict[str, Any]:
    of = office.ledger.of(number)
    steps = {record["step"]: record for record in of}
    received, matched = steps["received"], steps["matched"]
    deployed, last = steps["deployed"], of[-1]
    tried = [record for record in of if record["step"] in ("unlearned", "judged", "escalated")]
    facts = ("n", "request", "step", "before", "hash", "sig")
    return certificate.statement(
        {f"production model of {received['dataset']}": deployed["model"]}
        if deployed["model"]
        else {f"training set of {received['dataset']}": matched["data"]["after"]},
        {
            "request": number,
            "asked": {
                "hmac": received["asked"],
                "kind": received["kind"],
                "names": received["names"],
                "received": received["time"],
            },
            "matched": {
                k: v for k, v in matched.items() if k not in (*facts, "time", "data", "file")
            }
            | {"near": counted(matched)},
            "data": {"dataset": received["dataset"], **matched["data"]},
            "model": {
                "before": steps["unlearned"]["parent"] if "unlearned" in steps else "",
                "after": deployed["model"],
                "version": deployed["version"],
                "former version": deployed["former_version"],
            },
            "options": received["options"],
            "tried": [
                {"step": r["step"], **{k: v for k, v in r.items() if k not in facts}} for r in tried
            ],
            "accepted": {name: steps["accepted"][name] for name in ("method", "why", "time")},
            "verdict": steps["unlearned"]["outcome"]
            if "unlearned" in steps
            else "never trained on",
            "removed": steps["purged"]["removed"],
            "remains": steps["purged"]["remains"],
            "ledger": {"position": last["n"], "hash": last["hash"]},
            "proves": certificate.PROVES,
            "proves not": certificate.PROVES_NOT,
        },
    )


def counted(matched: dict[str, Any]) -> int | str:
    """How many near-duplicates are listed, or why none is; of an older ledger, that."""
    near = matched.get("near", "not looked for")
    return near if isinstance(near, str) else len(near)


def said(record: dict[str, Any]) -> str:
    """A step in a few words."""
    match record["step"]:
        case "received":
            return f"{len(record['names'])} {record['kind']}, {record['dataset']}"
        case "matched":
            counts = ", ".join(f"{n} {name}" for name, n in record["counts"].items() if n)
            copies, near = record["copies"]["forgotten"], counted(record)
            said = f"{counts or 'nothing new'}; {copies} are exact copies; near-duplicates: {near}"
            if near and not isinstance(near, str):
                said += f" (python -m flows.erase near {record['request']})"
            return said
        case "unlearned":
            return f"{record['method']}: {record['outcome']}"
        case "judged":
            passed = "passed" if record["passed"] else f"not passed: {record['why']}"
            return f"{record['method']}: {passed}; {record['drift']:.3g} from retraining"
        case "escalated":
            return f"{record['method']} → {record['to']}: {record['why']}"
        case "accepted":
            return f"{record['method']}{': ' if record['why'] else ''}{record['why']}"
        case "deployed":
            return f"version {record['version'] or '(none before)'}"
        case "purged":
            return f"{len(record['removed'])} places cleaned, {len(record['remains'])} remain"
        case "refused":
            return str(record["why"])
    return ""
