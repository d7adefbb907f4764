"""`kedro viz run` of this project: Kedro-Viz's own, which opens as a box a stage."""

import webbrowser
from typing import Any

import click
from kedro_viz.launchers.cli.run import run as viz_run

# In Kedro-Viz's address: what is drawn. Without its datasets, a stage is a box.
AS_BOXES = "?types=nodes"


class _Boxes(webbrowser.BaseBrowser):
    """Another browser, which opens the start page of Kedro-Viz without its datasets."""

    def __init__(self, browser: webbrowser.BaseBrowser):
        super().__init__("boxes")
        self._browser = browser

    def open(self, url: str, new: int = 0, autoraise: bool = True) -> bool:
        return self._browser.open(f"{url}{AS_BOXES}", new, autoraise)


@click.pass_context
def _run(context: click.Context, **options: Any) -> None:
    address = f"http://{options['host']}:{options['port']}/"
    click.echo(f"One box a stage or experiment: {address}{AS_BOXES}")
    if options["browser"]:
        try:
            own = _Boxes(webbrowser.get())
        except webbrowser.Error:  # there is none: Kedro-Viz opens nothing either
            pass
        else:
            webbrowser.register("boxes", None, own, preferred=True)
    context.invoke(viz_run, **options)


run = click.Command(name="run", callback=_run, params=viz_run.params, help=viz_run.help)
