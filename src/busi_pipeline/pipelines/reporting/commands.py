"""Commands as a reader can run them: with the environment and the parameters of the run."""

import shlex
from collections.abc import Iterable, Mapping
from typing import Any


def write_command(
    pipeline: str, run: Mapping[str, Any] | None = None, params: Iterable[str] = ()
) -> str:
    """Return `kedro run --env=... --pipeline=... --params=...`.

    Args:
        pipeline: its name.
        run: `environment` and `params` of the command that the page comes from; None for none.
        params: more parameters, as `external.site=elsewhere`; they win over those of the run.
    """
    run = run or {}
    values = {pair.partition("=")[0]: pair for pair in (*run.get("params", ()), *params)}
    parts = ["kedro run"]
    if run.get("environment"):
        parts.append(f"--env={run['environment']}")
    parts.append(f"--pipeline={pipeline}")
    if values:
        joined = ",".join(values.values())
        # `<folder>` is for the reader to replace, not for a shell.
        parts.append(f"--params {joined if '<' in joined else shlex.quote(joined)}")
    return " ".join(parts)


def list_commands(
    results: Mapping[str, Mapping[str, Any]],
    found: Mapping[str, Any],
    run: Mapping[str, Any] | None,
) -> list[str]:
    """Return the commands that make what is on the page, in an order in which they work.

    Args:
        results: items of each experiment.
        found: items of all.
        run: of the report. A training has parameters of its own, which its card names.
    """
    commands = []
    for name, items in results.items():
        if items.get("metrics"):
            trained = (items.get("training_card") or {}).get("run", run)
            commands.append(write_command(f"train_{name}", trained))
    if found.get("comparison_table") is not None:
        commands.append(write_command("model_comparison", run))
    if found.get("cross_validation_comparisons") is not None:
        commands.append(write_command("cross_validation", run))
    else:
        commands += [
            write_command(f"cross_validate_{name}", run)
            for name, items in results.items()
            if items.get("cross_validation_metrics")
        ]
    for name, items in results.items():
        commands += [
            write_command(f"validate_external_{name}", run, [f"external.site={site}"])
            for site in items.get("external_results") or {}
        ]
        if items.get("bias_audit") is not None:
            commands.append(write_command(f"bias_audit_{name}", run))
    if found.get("leakage_table") is not None:
        commands.append(write_command("leakage", run))
    if found.get("leave_one_site_out_table") is not None:
        commands.append(write_command("leave_one_site_out", run))
    else:
        commands += [
            write_command(f"leave_one_site_out_{name}", run)
            for name, items in results.items()
            if items.get("leave_one_site_out") is not None
        ]
    return [*commands, write_command("reporting", run)]
