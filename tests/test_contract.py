"""No answer that /openapi.json does not tell of: schemathesis asks what nobody thought of, for a while."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from . import serving
from .serving import add_job, wait

schemathesis = pytest.importorskip("schemathesis")
hypothesis = pytest.importorskip("hypothesis")

EXAMPLES = 8  # for each route


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    client = serving.start_on(tmp_path_factory.mktemp("contract"))
    yield client
    client.__exit__(None, None, None)


@pytest.fixture(scope="module")
def schema(standing: Any) -> Any:
    return schemathesis.openapi.from_dict(standing.app.openapi())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_no_undocumented_answer(standing: Any, schema: Any, tmp_path: Path) -> None:
    job = wait(standing, add_job(standing))
    asked = 0
    for result in schema.get_all_operations():
        operation = result.ok()

        @hypothesis.given(case=operation.as_strategy())
        @hypothesis.settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        def ask(case: Any) -> None:
            nonlocal asked
            if (case.query or {}).get("follow"):
                return  # it never ends
            for known in (None, job["id"]):
                if known is not None and "job_id" in (case.path_parameters or {}):
                    if case.method == "DELETE":
                        return
                    case.path_parameters["job_id"] = known
                sent = case.as_transport_kwargs(base_url=serving.URL)
                sent.pop("stream", None)
                sent["files"] = [
                    (name, (part[0], part[1] if isinstance(part[1], bytes) else str(part[1])))
                    for name, part in sent.get("files") or ()
                ] or None
                answer = standing.request(**{k: v for k, v in sent.items() if v is not None})
                assert answer.status_code < 500 or answer.status_code in (503, 507), (
                    case.method,
                    case.path,
                    sent,
                )
                asked += 1

        ask()
    assert asked > 100
