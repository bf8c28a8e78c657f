// The pictures of a pair with their boxes: side by side, blinking, or one behind a slider; and boxes to correct.
// Given by gradio: element, props (pictures: two data URLs; value: {id, truth, answers}), watch, trigger.
const COLORS = { true: "#22c55e", predicted: "#ef4444", drawn: "#f59e0b" };
const BLINK_MS = 600;
const LINE = 2.5; // pixels of the screen
const LEAST_SIDE = 640; // pixels of a canvas: small pictures are enlarged by whole numbers, and stay sharp

const root = element.querySelector(".dig-viewer");
const stage = root.querySelector(".stage");
const share = root.querySelector(".share");
const report = root.querySelector(".report");
const hint = root.querySelector(".hint");
const state = { mode: "both", answer: 0, second: false, shown: { predicted: true, true: true },
  drawn: null, begun: null, pictures: [], id: null };

const value = () => props.value || {};
const answers = () => value().answers || [];
const predicted = () => (answers()[state.answer] || {}).boxes || [];
const truth = () => value().truth || null;

async function load() {
  const urls = [...(props.pictures || [])];
  const images = urls.map((url) => Object.assign(new Image(), { src: url }));
  await Promise.all(images.map((image) => image.decode()));
  if (urls.join() !== (props.pictures || []).join()) return; // others have come meanwhile
  state.pictures = images;
  build();
}

// The canvases of the mode.
function build() {
  const several = state.mode === "both";
  stage.classList.toggle("one", !several);
  share.hidden = state.mode !== "slider" || !state.pictures.length;
  report.hidden = !state.pictures.length;
  if (!state.pictures.length) return draw();
  const names = several ? ["before", "after"] : [state.mode];
  stage.replaceChildren(...names.map((name) => {
    const figure = document.createElement("figure"), canvas = document.createElement("canvas");
    const { naturalWidth: width, naturalHeight: height } = state.pictures[0];
    const scale = Math.max(1, Math.ceil(LEAST_SIDE / Math.max(width, height)));
    Object.assign(canvas, { width: width * scale, height: height * scale });
    canvas.dataset.shows = name;
    canvas.setAttribute("role", "img");
    canvas.addEventListener("pointerdown", (event) => begin(event, canvas));
    canvas.addEventListener("pointermove", (event) => move(event, canvas));
    canvas.addEventListener("pointerup", (event) => end(event, canvas));
    figure.append(canvas, document.createElement("figcaption"));
    return figure;
  }));
  draw();
}

function draw() {
  for (const button of root.querySelectorAll("[data-mode]"))
    button.setAttribute("aria-pressed", button.dataset.mode === state.mode);
  const buttons = answers().length > 1 ? answers().map((_, number) => {
    const button = document.createElement("button");
    Object.assign(button, { type: "button", textContent: `Answer ${number + 1}` });
    button.setAttribute("aria-pressed", number === state.answer);
    button.addEventListener("click", () => { state.answer = number; state.drawn = null; draw(); });
    return button;
  }) : [];
  root.querySelector(".answers").replaceChildren(...buttons);
  root.querySelector("label.truth").hidden = !truth();
  const editing = state.drawn !== null;
  root.querySelector('[data-do="edit"]').setAttribute("aria-pressed", editing);
  hint.textContent = editing
    ? "Drag to draw a box, click into one to remove it. Every difference needs one, no more."
    : truth() ? "Saves the pair with its true boxes." : "Saves the pair with the model's boxes: correct them first.";
  for (const canvas of stage.querySelectorAll("canvas")) paint(canvas);
}

function paint(canvas) {
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  const { width, height } = canvas, [before, after] = state.pictures;
  pen.imageSmoothingEnabled = false;
  const shows = canvas.dataset.shows;
  const first = shows === "before" || shows === "slider" || (shows === "blink" && !state.second);
  pen.drawImage(first ? before : after, 0, 0, width, height);
  if (shows === "slider") {
    const edge = Math.round(width * share.value / 1000);
    pen.save();
    pen.beginPath();
    pen.rect(edge, 0, width - edge, height);
    pen.clip();
    pen.drawImage(after, 0, 0, width, height);
    pen.restore();
    pen.fillStyle = "#fff";
    pen.fillRect(edge - 1, 0, 2, height);
  }
  const caption = shows === "slider" ? "before | after" : first ? "before" : "after";
  canvas.setAttribute("aria-label", `${caption}, ${predicted().length} boxes of the model`);
  canvas.nextSibling.textContent = caption;
  canvas.classList.toggle("editing", state.drawn !== null);
  const line = Math.max(2, Math.round(LINE * width / (canvas.clientWidth || width)));
  if (state.drawn !== null) {
    for (const box of state.drawn) frame(pen, box, COLORS.drawn, line, 0);
    if (state.begun && state.begun.to) frame(pen, boxOf(state.begun), COLORS.drawn, line, 0);
    return;
  }
  // True boxes around their pixels, those of the model just inside: both are seen where they agree.
  if (state.shown.true) for (const box of truth() || []) frame(pen, box, COLORS.true, line, line / 2);
  if (state.shown.predicted) for (const box of predicted()) frame(pen, box, COLORS.predicted, line, -line / 2);
}

function frame(pen, [x0, y0, x1, y1], color, line, out) {
  const { width, height } = pen.canvas;
  const left = x0 * width - out, top = y0 * height - out;
  const sides = [Math.max(1, (x1 - x0) * width + 2 * out), Math.max(1, (y1 - y0) * height + 2 * out)];
  pen.lineWidth = line;
  pen.strokeStyle = color;
  pen.strokeRect(left, top, ...sides);
}

// Boxes to correct, in shares of width and height.

function at(event, canvas) {
  const { left, top, width, height } = canvas.getBoundingClientRect();
  const inside = (share) => Math.min(1, Math.max(0, share));
  return [inside((event.clientX - left) / width), inside((event.clientY - top) / height)];
}

const boxOf = ({ from, to }) => [Math.min(from[0], to[0]), Math.min(from[1], to[1]),
  Math.max(from[0], to[0]), Math.max(from[1], to[1])];

function begin(event, canvas) {
  if (state.drawn === null) return;
  canvas.setPointerCapture(event.pointerId);
  state.begun = { from: at(event, canvas), to: null };
}

function move(event, canvas) {
  if (!state.begun) return;
  state.begun.to = at(event, canvas);
  draw();
}

function end(event, canvas) {
  if (!state.begun) return;
  const box = boxOf({ from: state.begun.from, to: at(event, canvas) }), [x, y] = state.begun.from;
  state.begun = null;
  const size = ([x0, y0, x1, y1]) => (x1 - x0) * (y1 - y0);
  if (Math.min(box[2] - box[0], box[3] - box[1]) > 0.01) state.drawn.push(box);
  else {
    const hit = state.drawn.filter(([x0, y0, x1, y1]) => x0 <= x && x <= x1 && y0 <= y && y <= y1);
    const smallest = hit.sort((a, b) => size(a) - size(b))[0];
    state.drawn = state.drawn.filter((other) => other !== smallest);
  }
  draw();
}

root.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.mode) { state.mode = button.dataset.mode; build(); }
  if (button.dataset.do === "edit") {
    state.drawn = state.drawn === null ? (truth() || predicted()).map((box) => [...box]) : null;
    draw();
  }
  if (button.dataset.do === "clear") { state.drawn = []; draw(); }
  if (button.dataset.do === "save")
    trigger("submit", { id: value().id, boxes: state.drawn ?? truth() ?? predicted() });
});
root.addEventListener("change", (event) => {
  if (event.target.dataset.show) { state.shown[event.target.dataset.show] = event.target.checked; draw(); }
});
share.addEventListener("input", draw);
new ResizeObserver(draw).observe(stage); // lines are as wide on a small screen

const timer = setInterval(() => {
  if (!root.isConnected) return clearInterval(timer);
  if (state.mode !== "blink" || !state.pictures.length) return;
  state.second = !state.second;
  draw();
}, BLINK_MS);

watch("pictures", load);
watch("value", () => {
  if (value().id !== state.id) Object.assign(state, { id: value().id, answer: 0, drawn: null, begun: null });
  state.answer = Math.min(state.answer, Math.max(0, answers().length - 1));
  draw();
});
load();
