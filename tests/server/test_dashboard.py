"""The dashboard for Grafana asks for nothing that the gateway does not tell."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from aligner_integrations.cli.app import app as command
from aligner_integrations.errors import CorrectionError
from tests.server.conftest import Served

SCRAPED = {"job", "instance"}  # labels that Prometheus adds itself
WORDS = {"sum", "by", "rate", "histogram_quantile", "or", "vector"}
SELECTOR = re.compile(r"([a-z_]+)\{([^}]*)\}")
MATCHER = re.compile(r'([a-z_]+)(=~|!~|!=|=)"([^"]*)"')


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    result = CliRunner().invoke(command, ["serve", "--dashboard"])
    assert result.exit_code == 0
    printed: dict[str, Any] = json.loads(result.output)
    return printed


@pytest.fixture
def told(serve: Callable[..., Served]) -> dict[str, set[str]]:
    """The names in a real answer of ``/metrics``, with their labels."""
    served = serve()
    assert served.post().status_code == 200
    served.engine.error = CorrectionError("no")
    assert served.post().status_code == 500
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(httpx.get(f"{served.url}/metrics").text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def find_expressions(dashboard: dict[str, Any]) -> list[str]:
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def test_names_and_labels_exist(dashboard: dict[str, Any], told: dict[str, set[str]]) -> None:
    for expression in find_expressions(dashboard):
        selectors = SELECTOR.findall(expression)
        assert selectors, expression
        for name, inner in selectors:
            assert name in told, name
            matchers = MATCHER.findall(inner)
            assert ",".join(f'{a}{b}"{c}"' for a, b, c in matchers) == inner
            labels = {label for label, _, _ in matchers}
            assert labels <= told[name] | SCRAPED, expression
            assert labels >= SCRAPED, expression
        grouped = {
            label.strip()
            for group in re.findall(r"by \(([^)]*)\)", expression)
            for label in group.split(",")
        }
        assert grouped <= set.union(*(told[name] for name, _ in selectors)), expression
        rest = re.sub(r"\[\$__rate_interval\]|by \([^)]*\)", "", SELECTOR.sub("", expression))
        assert set(re.findall(r"[a-z_]+", rest)) <= WORDS, expression


def test_variables_exist(dashboard: dict[str, Any], told: dict[str, set[str]]) -> None:
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    for name in ("job", "instance"):
        found = re.match(r"label_values\((\w+)", variables[name]["query"]["query"])
        assert found is not None
        assert found[1] in told
    used = {name for text in find_expressions(dashboard) for name in re.findall(r"\$(\w+)", text)}
    assert used - {"__rate_interval"} <= set(variables)


def test_all_that_is_told_is_shown(dashboard: dict[str, Any], told: dict[str, set[str]]) -> None:
    shown = " ".join(find_expressions(dashboard))
    for name in told:
        if not name.endswith("_created"):
            assert re.sub(r"_(bucket|sum|count|total)$", "", name) in shown, name


def test_panels(dashboard: dict[str, Any]) -> None:
    assert dashboard["schemaVersion"] >= 36
    assert dashboard["uid"]
    assert "id" not in dashboard  # Grafana gives it
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({panel["title"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["type"] in ("stat", "timeseries")
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        places = [panel, *panel["targets"]]
        assert all(p["datasource"]["uid"] == "${datasource}" for p in places)
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        at = panel["gridPos"]
        assert all(at[key] >= 0 for key in "xy")
        assert all(at[key] > 0 for key in "wh")
        assert at["x"] + at["w"] <= 24
    for one, other in itertools.combinations([panel["gridPos"] for panel in panels], 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below
