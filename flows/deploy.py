"""What a Prefect server needs besides the deployments: work pools, and automations.

python -m flows.deploy      creates what is missing and changes what differs
"""

import sys
from datetime import timedelta

import httpx
from prefect import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import StateType
from prefect.events import AutomationCore
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings

POOLS = {
    "cpu": "Hosts without an accelerator: they run the flows, and stages that ask for none.",
    "gpu": "Hosts with a GPU: training, influence, unlearning and retraining.",
}
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


def prepare() -> list[str]:
    """Create or update everything; returns what was done."""
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
        wanted = crashed()
        for known in client.read_automations_by_name(wanted.name):
            client.delete_automation(known.id)
        client.create_automation(wanted)
        done.append(f"automation “{wanted.name}” set")
    return done


def main() -> None:
    url = get_current_settings().api.url
    if url is None:
        sys.exit("PREFECT_API_URL is not set: there is no server to deploy to")
    try:
        done = prepare()
    except httpx.ConnectError as error:
        sys.exit(f"no server answers at PREFECT_API_URL, {url}: {error}")
    print("\n".join([f"server {url}", *done]))


if __name__ == "__main__":
    main()
