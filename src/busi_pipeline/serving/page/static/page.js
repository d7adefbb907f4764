// Zoom, a box that is drawn or moved, an answer that follows it. Without it the forms still work.
"use strict";

const byId = (id) => document.getElementById(id);

function showProblem(line, text) {
  line.textContent = text;
  line.hidden = !text;
}

function startUpload(form) {
  const input = byId("files");
  const problem = byId("upload-problem");
  const check = () => {
    const files = [...input.files];
    const size = files.reduce((sum, file) => sum + file.size, 0);
    // The parts' headers need some room, too.
    const most = Number(form.dataset.mostBytes) - 1000 * files.length;
    const tooMany = files.length > Number(form.dataset.mostFiles);
    showProblem(problem, size > most ? form.dataset.tooLarge : tooMany ? form.dataset.tooMany : "");
    return problem.hidden;
  };
  input.addEventListener("change", check);
  form.addEventListener("submit", (event) => {
    if (!check()) event.preventDefault();
  });
  let inside = 0;
  const mark = (step) => {
    inside += step;
    form.classList.toggle("over", inside > 0);
  };
  form.addEventListener("dragenter", () => mark(1));
  form.addEventListener("dragleave", () => mark(-1));
  form.addEventListener("dragover", (event) => event.preventDefault());
  form.addEventListener("drop", (event) => {
    event.preventDefault();
    mark(-inside);
    if (!event.dataTransfer.files.length) return;
    input.files = event.dataTransfer.files;
    if (check()) form.requestSubmit();
  });
  // A file beside the form must not replace the page.
  for (const kind of ["dragover", "drop"]) {
    document.addEventListener(kind, (event) => event.preventDefault());
  }
}

function startViewer(viewer) {
  const size = { width: Number(viewer.dataset.width), height: Number(viewer.dataset.height) };
  const [stage, view, svg, drawn] = ["stage", "window", "boxes", "box"].map(byId);
  const fields = [...document.querySelectorAll("#box-fields input")];
  const heat = byId("heat");
  // Pixels of the screen: less is no box but a click.
  const leastDrawn = 6;
  let zoom = 1;

  const fit = () => {
    const across = view.clientWidth / size.width;
    const down = (0.74 * window.innerHeight) / size.height;
    return Math.min(across, down);
  };
  let isFitted = true;
  const resize = (wanted) => {
    isFitted = false;
    zoom = Math.min(16, Math.max(0.1, wanted));
    const middle = [view.scrollLeft + view.clientWidth / 2, view.scrollTop + view.clientHeight / 2];
    const before = stage.clientWidth || 1;
    stage.style.width = `${size.width * zoom}px`;
    const grown = stage.clientWidth / before;
    view.scrollLeft = middle[0] * grown - view.clientWidth / 2;
    view.scrollTop = middle[1] * grown - view.clientHeight / 2;
    byId("zoom").textContent = `${Math.round(100 * zoom)} %`;
    drawBox();
  };
  viewer.querySelector(".tools").hidden = false;
  byId("zoom-in").addEventListener("click", () => resize(zoom * 1.25));
  byId("zoom-out").addEventListener("click", () => resize(zoom / 1.25));
  const refit = () => {
    resize(fit());
    isFitted = true;
  };
  byId("zoom-fit").addEventListener("click", refit);
  window.addEventListener("resize", () => {
    if (isFitted) refit();
  });
  view.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "+") resize(zoom * 1.25);
    else if (event.key === "-") resize(zoom / 1.25);
    else if (event.key === "0") refit();
  });
  const opacity = byId("opacity");
  if (opacity && heat) {
    opacity.addEventListener("input", () => {
      heat.style.opacity = String(opacity.value / 100);
    });
  }

  // The fields hold the box; the rectangle shows it.
  const readBox = () => {
    const edges = fields.map((field) => field.value.trim());
    if (edges.length !== 4 || edges.some((edge) => edge === "")) return null;
    const [left, top, right, bottom] = edges.map(Number);
    return left < right && top < bottom ? { left, top, right, bottom } : null;
  };
  const corners = ["left top", "right top", "left bottom", "right bottom"];
  const handles = corners.map((name) => {
    const handle = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    handle.classList.add("handle");
    handle.dataset.edges = name;
    handle.style.cursor = name === "left top" || name === "right bottom" ? "nwse-resize" : "nesw-resize";
    svg.append(handle);
    return handle;
  });
  const place = (rectangle, left, top, width, height) => {
    for (const [name, value] of Object.entries({ x: left, y: top, width, height })) {
      rectangle.setAttribute(name, String(value));
    }
  };
  function drawBox() {
    const box = readBox();
    const clear = byId("clear-box");
    if (clear) clear.hidden = box === null;
    drawn.toggleAttribute("hidden", box === null);
    for (const handle of handles) handle.toggleAttribute("hidden", box === null || !editable);
    if (box === null) return;
    place(drawn, box.left, box.top, box.right - box.left, box.bottom - box.top);
    const side = 12 / zoom;
    for (const handle of handles) {
      const [across, down] = handle.dataset.edges.split(" ");
      place(handle, box[across] - side / 2, box[down] - side / 2, side, side);
    }
  }
  const editable = fields.length === 4;
  const writeBox = (box) => {
    const edges = box ? [box.left, box.top, box.right, box.bottom] : ["", "", "", ""];
    fields.forEach((field, number) => {
      field.value = box ? String(edges[number]) : "";
    });
    drawBox();
  };
  const locate = (event) => {
    const frame = svg.getBoundingClientRect();
    const keep = (value, most) => Math.min(most, Math.max(0, value));
    const across = ((event.clientX - frame.left) / frame.width) * size.width;
    const down = ((event.clientY - frame.top) / frame.height) * size.height;
    return [keep(Math.round(across), size.width), keep(Math.round(down), size.height)];
  };
  let drag = null;
  svg.addEventListener("pointerdown", (event) => {
    if (!editable || event.button !== 0 || drag) return;
    // A finger scrolls, unless it is to draw or holds the box.
    const draws = event.pointerType !== "touch" || svg.classList.contains("drawing");
    if (!draws && event.target === svg) return;
    event.preventDefault();
    svg.setPointerCapture(event.pointerId);
    const box = readBox();
    const start = locate(event);
    const edges = event.target.dataset.edges;
    drag = { pointer: event.pointerId, start, box, kind: "draw" };
    if (edges) Object.assign(drag, { kind: "edges", edges: edges.split(" ") });
    else if (event.target === drawn) drag.kind = "move";
  });
  svg.addEventListener("pointermove", (event) => {
    if (!drag || event.pointerId !== drag.pointer) return;
    const [x, y] = locate(event);
    if (drag.kind === "draw") {
      const [left, right] = [drag.start[0], x].sort((one, other) => one - other);
      const [top, bottom] = [drag.start[1], y].sort((one, other) => one - other);
      const least = Math.max(2, leastDrawn / zoom);
      if (right - left >= least && bottom - top >= least) writeBox({ left, top, right, bottom });
    } else if (drag.kind === "move") {
      const [width, height] = [drag.box.right - drag.box.left, drag.box.bottom - drag.box.top];
      const left = Math.min(size.width - width, Math.max(0, drag.box.left + x - drag.start[0]));
      const top = Math.min(size.height - height, Math.max(0, drag.box.top + y - drag.start[1]));
      writeBox({ left, top, right: left + width, bottom: top + height });
    } else {
      const box = { ...drag.box };
      const [across, down] = drag.edges;
      box[across] = across === "left" ? Math.min(x, box.right - 2) : Math.max(x, box.left + 2);
      box[down] = down === "top" ? Math.min(y, box.bottom - 2) : Math.max(y, box.top + 2);
      writeBox(box);
    }
  });
  const drop = (keeps) => {
    if (!drag) return;
    const { box } = drag;
    drag = null;
    if (!keeps) writeBox(box);
    else if (JSON.stringify(readBox()) !== JSON.stringify(box)) ask(0);
  };
  for (const [kind, keeps] of [["pointerup", true], ["pointercancel", false]]) {
    svg.addEventListener(kind, (event) => {
      if (drag && event.pointerId === drag.pointer) drop(keeps);
    });
  }
  const draw = byId("draw");
  if (draw) {
    draw.addEventListener("click", () => {
      const draws = svg.classList.toggle("drawing");
      draw.setAttribute("aria-pressed", String(draws));
    });
  }
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") drop(false);
  });
  for (const field of fields) {
    field.addEventListener("input", () => {
      drawBox();
      ask(600);
    });
  }
  for (const [id, choose] of [
    ["clear-box", () => null],
    ["own-box", (button) => {
      const [left, top, right, bottom] = button.dataset.box.split(",").map(Number);
      return { left, top, right, bottom };
    }],
  ]) {
    const button = byId(id);
    if (!button) continue;
    if (id === "own-box") button.hidden = false;
    button.addEventListener("click", () => {
      writeBox(choose(button));
      ask(0);
      if (button.hidden) fields[0].focus();
    });
  }

  // The answer follows the box; of several, the last one counts.
  const form = byId("ask");
  let waiting = null;
  let timer = null;
  function ask(milliseconds) {
    if (!form) return;
    clearTimeout(timer);
    if (waiting) waiting.abort();
    // What shows is of another box until the answer is there.
    byId("answer-text").classList.add("waiting");
    const isEmpty = fields.every((field) => field.value.trim() === "");
    const isBox = isEmpty || readBox() !== null;
    showProblem(byId("ask-problem"), isBox ? "" : byId("answer").dataset.invalid);
    if (isBox) timer = setTimeout(fetchAnswer, milliseconds);
  }
  async function fetchAnswer() {
    clearTimeout(timer);
    if (waiting) waiting.abort();
    const current = new AbortController();
    waiting = current;
    const [text, problem] = [byId("answer-text"), byId("ask-problem")];
    const body = new URLSearchParams(new FormData(form));
    try {
      const answer = await fetch(form.action, {
        method: "POST",
        body,
        headers: { "x-asked-by": "script" },
        redirect: "error",
        signal: current.signal,
      });
      const content = await answer.text();
      if (waiting !== current || current.signal.aborted) return;
      showProblem(problem, answer.ok ? "" : content);
      if (!answer.ok) return;
      text.innerHTML = content; // HTML of this service
      text.classList.remove("waiting");
      byId("spoken").textContent = text.querySelector(".verdict").textContent;
      if (heat) heat.src = `${form.action.replace(/answer$/, "attribution.png")}?${body}`;
      for (const field of fields) {
        const hidden = byId("prevalence").elements[field.name];
        if (hidden) hidden.value = field.value;
      }
    } catch (error) {
      if (error.name !== "AbortError") showProblem(problem, byId("answer").dataset.failed);
    }
  }
  if (form) {
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      ask(0);
    });
  }
  refit();
}

if (byId("upload")) startUpload(byId("upload"));
if (byId("viewer")) startViewer(byId("viewer"));
