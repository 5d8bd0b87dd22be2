"""What a Prefect server needs besides the deployments: work pools, and automations.

    python -m flows.deploy      creates what is missing and changes what differs

IMU_WEBHOOK: an address that is told of runs that fail and of verdicts that were not wanted.
"""

import json
import os
import sys
from datetime import timedelta
from uuid import UUID

import httpx
from prefect import get_client
from prefect.blocks.webhook import Webhook
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import StateType
from prefect.events import AutomationCore
from prefect.events.actions import CallWebhook, ChangeFlowRunState
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings
from pydantic import SecretStr

from flows import pages

POOLS = {
    "cpu": "Hosts without an accelerator: they run the flows, and stages that ask for none.",
    "gpu": "Hosts with a GPU: training, influence, unlearning and retraining.",
}
WEBHOOK = "IMU_WEBHOOK"  # address that is told of failures and of unwanted verdicts
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
        name="imu: tell of failures",
        description="Calls the webhook imu when a run fails or crashes.",
        trigger=EventTrigger(
            expect={"prefect.flow-run.Failed", "prefect.flow-run.Crashed"},
            match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related={
                "prefect.resource.role": "flow",
                # Their stages elsewhere and their cells fail with them.
                "prefect.resource.name": [
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
                payload=_text("{{ flow_run.name }}: {{ flow_run.state.name }}"),
            )
        ],
    )


def unwanted(webhook: UUID) -> AutomationCore:
    """Tell the webhook of verdicts other than the one that a run was to have."""
    return AutomationCore(
        name="imu: tell of unwanted verdicts",
        description="Calls the webhook imu when a method gets another verdict than was wanted.",
        trigger=EventTrigger(
            expect={pages.UNWANTED},
            posture=Posture.Reactive,
            threshold=1,
        ),
        actions=[CallWebhook(block_document_id=webhook, payload=_text("{{ event.payload.said }}"))],
    )


def _text(template: str) -> str:
    """The body that chats take."""
    return json.dumps({"text": template})


def prepare(webhook: str) -> list[str]:
    """Create or update everything; returns what was done. webhook: "" for none."""
    done = []
    with get_client(sync_client=True) as client:
        for name, description in POOLS.items():
            try:
                client.read_work_pool(name)
            except ObjectNotFound:
                client.create_work_pool(
                    WorkPoolCreate(name=name, type="process", description=description)
                )
                done.append(f"work pool {name} created")
        wanted = [crashed()]
        if webhook:
            block = Webhook(url=SecretStr(webhook)).save("imu", overwrite=True)
            assert isinstance(block, UUID)  # outside of coroutines
            wanted += [failed(block), unwanted(block)]
        for automation in wanted:
            for known in client.read_automations_by_name(automation.name):
                client.delete_automation(known.id)
            client.create_automation(automation)
            done.append(f"automation “{automation.name}” set")
    return done


def main() -> None:
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
