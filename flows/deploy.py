"""What a Prefect server needs besides the deployments: work pools, and automations.

    python -m flows.deploy      creates what is missing and changes what differs

IMU_WEBHOOK: an address that is told of runs that fail and of verdicts that were not wanted. Where
it is not set, nobody is told: what an earlier deploy set up for it is removed, address and all.
"""

import os
import sys
from contextlib import suppress
from datetime import timedelta
from uuid import UUID

import httpx
from prefect import get_client
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import StateType
from prefect.events import AutomationCore
from prefect.events.actions import CallWebhook, ChangeFlowRunState
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings
from pydantic import SecretStr

from flows.running import pages
from tasks.starting import calling

POOLS = {
    "cpu": "Hosts without an accelerator: they run the flows, and stages that ask for none.",
    "gpu": "Hosts with a GPU: training, influence, unlearning and retraining.",
}
WEBHOOK = "IMU_WEBHOOK"  # address that is told of failures and of unwanted verdicts
BLOCK = "imu"  # in which the server keeps that address
FAILURES, VERDICTS = "imu: tell of failures", "imu: tell of unwanted verdicts"
SILENCE = timedelta(seconds=90)  # three heartbeats, see prefect.toml


def crashed() -> AutomationCore:
    """A flow run that was not heard of for ``SILENCE`` has crashed: nobody else would say so."""
    ends = ("Completed", "Failed", "Cancelled", "Crashed")
    return AutomationCore(
        name="imu: crashed runs",
        description="A run whose process was killed is marked as crashed.",
        trigger=EventTrigger(
            after={"prefect.flow-run.heartbeat"},
            expect={"prefect.flow-run.heartbeat", *(f"prefect.flow-run.{end}" for end in ends)},
            match={"prefect.resource.id": "prefect.flow-run.*"},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=SILENCE,
        ),
        actions=[
            ChangeFlowRunState(
                name="Crashed",
                state=StateType.CRASHED,
                force=False,
                message=f"its process was not heard of for {SILENCE.seconds} s",
            )
        ],
    )


def failed(webhook: UUID) -> AutomationCore:
    """Tell the webhook of every run that failed or crashed."""
    return AutomationCore(
        name=FAILURES,
        description="Calls the webhook imu when a run fails or crashes.",
        trigger=EventTrigger(
            expect={"prefect.flow-run.Failed", "prefect.flow-run.Crashed"},
            match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related={
                "prefect.resource.role": "flow",
                # Their stages elsewhere and their cells fail with them.
                "prefect.resource.name": [
                    "erase",
                    "pipeline",
                    "retrain-reference",
                    "search",
                    "sweep",
                    "unlearn",
                ],
            },
            posture=Posture.Reactive,
            threshold=1,
        ),
        actions=[
            CallWebhook(
                block_document_id=webhook,
                payload=_text('flow_run.name ~ ": " ~ flow_run.state.name'),
            )
        ],
    )


def unwanted(webhook: UUID) -> AutomationCore:
    """Tell the webhook of verdicts other than the one that a run was to have."""
    return AutomationCore(
        name=VERDICTS,
        description="Calls the webhook imu when a method gets another verdict than was wanted.",
        trigger=EventTrigger(
            expect={pages.UNWANTED},
            posture=Posture.Reactive,
            threshold=1,
        ),
        actions=[CallWebhook(block_document_id=webhook, payload=_text("event.payload.said"))],
    )


def _text(expression: str) -> str:
    """The body that chats take: names in it come from requests, and are quoted."""
    return '{"text": {{ (' + expression + ") | tojson }}}"


def prepare(webhook: str) -> list[str]:
    """Create, update or remove; returns what was done. webhook: "" for none."""
    with get_client(sync_client=True) as client:
        done = _pools(client)
        wanted = [crashed()]
        if webhook:
            block = Webhook(url=SecretStr(webhook)).save(BLOCK, overwrite=True)
            assert isinstance(block, UUID)  # outside of coroutines
            wanted += [failed(block), unwanted(block)]
        for automation in wanted:
            _removed(client, automation.name)
            client.create_automation(automation)
            done.append(f"automation “{automation.name}” set")
        if not webhook:
            done += [
                f"automation “{name}” removed: {WEBHOOK} is not set"
                for name in (FAILURES, VERDICTS)
                if _removed(client, name)
            ]
            with suppress(ValueError):  # there is none
                Webhook.delete(BLOCK)
    return done


def _pools(client: SyncPrefectClient) -> list[str]:
    """Create the work pools that are missing; returns what was done."""
    done = []
    for name, description in POOLS.items():
        try:
            client.read_work_pool(name)
        except ObjectNotFound:
            client.create_work_pool(
                WorkPoolCreate(name=name, type="process", description=description)
            )
            done.append(f"work pool {name} created")
    return done


def _removed(client: SyncPrefectClient, name: str) -> bool:
    """Delete the automations of that name; returns whether there were any."""
    known = client.read_automations_by_name(name)
    for automation in known:
        client.delete_automation(automation.id)
    return bool(known)


def main() -> None:
    calling.parser("flows.deploy", __doc__).parse_args()
    url = get_current_settings().api.url
    if url is None:
        sys.exit("PREFECT_API_URL is not set: there is no server to deploy to")
    try:
        done = prepare(os.environ.get(WEBHOOK, ""))
    except httpx.ConnectError as error:
        sys.exit(f"no server answers at PREFECT_API_URL, {url}: {error}")
    print("\n".join([f"server {url}", *done]))


if __name__ == "__main__":
    main()
