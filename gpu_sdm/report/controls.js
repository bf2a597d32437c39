// What the reader's hand does: pointer, keyboard, fields.
"use strict";
(() => {
  if (typeof Viewer === "undefined" || Viewer === null) return;
  const $ = (id) => document.getElementById(id);
  const { data, state, views, byId, AXES } = Viewer;

  function point(view, event) {
    const box = view.canvas.getBoundingClientRect(), [h, w] = AXES[view.plane];
    const from = (axis, share) => data.window[axis][0] + share * (data.window[axis][1] - data.window[axis][0]);
    const mm = Viewer.toMm(state.at);
    mm[h] = from(h, (event.clientX - box.left) / box.width);
    mm[w] = from(w, 1 - (event.clientY - box.top) / box.height);
    Viewer.go(mm);
  }

  const KEYS = { ArrowLeft: ["h", -1], ArrowRight: ["h", 1], ArrowUp: ["w", 1], ArrowDown: ["w", -1], PageUp: ["f", 1], PageDown: ["f", -1] };
  for (const view of views) {
    view.canvas.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      view.canvas.setPointerCapture(event.pointerId);
      view.dragged = true;
      point(view, event);
    });
    view.canvas.addEventListener("pointermove", (event) => { if (view.dragged) point(view, event); });
    for (const end of ["pointerup", "pointercancel"]) view.canvas.addEventListener(end, () => { view.dragged = false; });
    view.canvas.addEventListener("keydown", (event) => {
      const key = KEYS[event.key];
      if (!key || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      const [h, w] = AXES[view.plane];
      const axis = { h, w, f: { x: 0, y: 1, z: 2 }[view.plane] }[key[0]];
      Viewer.step(axis, key[1] * (event.shiftKey ? 5 : 1));
    });
  }

  for (const id of ["show", "where"]) {
    $(id).replaceChildren(...data.maps.map((m) => Object.assign(document.createElement("option"), { value: m.id, textContent: m.label, title: m.says })));
  }
  // A threshold of its own for each map: what was last chosen, else a usual one.
  const last = {};
  const usual = (entry) => (entry.kind === "p" ? 0.05 : entry.id === "z" ? 3.09 : +(entry.max / 2).toPrecision(2));
  $("show").addEventListener("change", () => Viewer.choose({ show: $("show").value }));
  $("where").addEventListener("change", () => {
    last[state.where] = state.t;
    const where = $("where").value;
    Viewer.choose({ where, t: last[where] ?? usual(byId[where]) });
  });
  $("side").addEventListener("change", () => Viewer.choose({ side: $("side").value }));
  $("threshold-slider").addEventListener("input", () => Viewer.choose({ t: Viewer.fromSlider(+$("threshold-slider").value) }));
  $("threshold").addEventListener("input", () => {
    const t = $("threshold").valueAsNumber;
    if (t >= 0) Viewer.choose({ t });
  });
  $("opacity").addEventListener("input", () => { state.opacity = $("opacity").value / 100; Viewer.resize(); });
  $("viewer-controls").addEventListener("submit", (event) => event.preventDefault());
  $("place").addEventListener("submit", (event) => {
    event.preventDefault();
    const mm = ["x", "y", "z"].map((a) => $(a).valueAsNumber);
    if (mm.every(Number.isFinite)) Viewer.go(mm);
  });
  $("strongest").addEventListener("click", Viewer.strongest);
  $("presets").replaceChildren(...data.presets.map((preset, i) => {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: preset.label });
    button.dataset.preset = i;
    button.addEventListener("click", () => Viewer.choose({ where: preset.where, side: preset.side, t: preset.t }));
    return button;
  }));

  // Coordinates elsewhere on the page lead here.
  for (const place of document.querySelectorAll("[data-mm]")) {
    const button = Object.assign(document.createElement("button"), { type: "button", className: "link", textContent: place.textContent });
    button.title = "Show in the maps";
    button.addEventListener("click", () => {
      Viewer.go(place.dataset.mm.split(",").map(Number));
      const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
      $("maps").scrollIntoView({ behavior: calm ? "auto" : "smooth" });
      views[0].canvas.focus({ preventScroll: true });
    });
    place.replaceChildren(button);
  }

  $("viewer").hidden = false;
  $("viewer-fallback").hidden = true;
  Viewer.open().then(() => {
    new ResizeObserver(Viewer.resize).observe($("viewer"));
    addEventListener("beforeprint", Viewer.resize);
    document.documentElement.dataset.viewer = "ready";
  }).catch((error) => {
    $("viewer").hidden = true;
    $("viewer-fallback").hidden = false;
    $("viewer-fallback").textContent = `The interactive maps could not be read (${error.message}). The maps themselves lie in maps/.`;
    document.documentElement.dataset.viewer = "failed";
  });
})();
